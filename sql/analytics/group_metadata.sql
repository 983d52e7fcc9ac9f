-- purpose: requests, cost, tokens and feedback of each value of a metadata key
-- column metadata_value: text; value of the key
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null if no cost is known
-- column avg_tokens: float; mean tokens of a request with known tokens
-- column avg_weighted_feedback: float; sum of value times weight over sum of weights, each feedback once
-- column requests_with_feedback: integer; requests that have feedback themselves or through their trace
-- column last_seen: timestamp; newest of the requests, UTC

with
-- Feedback on a trace with several calls of one value counts once, with the first of them.
heard as (
    select
        group_key,
        sum(weighted) filter (where place = 1) / nullif(sum(weight) filter (where place = 1), 0) as mean,
        count(distinct organisation_id || ' ' || id) as requests
    from (
        select
            group_key, organisation_id, id, weighted, weight,
            row_number() over (
                partition by group_key, organisation_id, about_workspace, about_trace, about_log, value
            ) as place
        from rated
    )
    group by group_key
),
sums as (
    select
        group_key,
        count(*) as requests,
        sum(spent) as cost,
        avg(cast(total_units as double)) as avg_tokens,
        max(created_at) as last_seen
    from calls
    where group_key is not null
    group by group_key
)
select
    sums.group_key as metadata_value,
    sums.requests as requests,
    sums.cost as cost,
    sums.avg_tokens as avg_tokens,
    heard.mean as avg_weighted_feedback,
    coalesce(heard.requests, 0) as requests_with_feedback,
    sums.last_seen as last_seen
from sums
left join heard on sums.group_key = heard.group_key
