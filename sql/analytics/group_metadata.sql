-- purpose: requests, cost, tokens and feedback of each value of a metadata key
-- column metadata_value: text; value of the key
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null where no cost is known
-- column avg_tokens: float; mean tokens of a request whose tokens are known
-- column avg_weighted_feedback: float; sum of value times weight over sum of weights, each trace once
-- column requests_with_feedback: integer; requests of traces that have feedback
-- column last_seen: timestamp; newest of the requests, UTC

with
-- One row a value and trace, so that the feedback of a trace counts once however many calls the trace has.
traces as (
    select
        group_key, organisation_id, trace_id,
        count(*) as requests,
        sum(spent) as spent,
        sum(total_units) as units,
        count(total_units) as counted,
        max(created_at) as last_seen
    from calls
    where group_key is not null
    group by group_key, organisation_id, trace_id
)
select
    traces.group_key as metadata_value,
    sum(traces.requests) as requests,
    sum(traces.spent) as cost,
    cast(sum(traces.units) as double) / nullif(sum(traces.counted), 0) as avg_tokens,
    sum(ratings.weighted) / nullif(sum(ratings.weight), 0) as avg_weighted_feedback,
    coalesce(sum(traces.requests) filter (where ratings.feedbacks > 0), 0) as requests_with_feedback,
    max(traces.last_seen) as last_seen
from traces left join ratings
    on traces.organisation_id = ratings.organisation_id and traces.trace_id = ratings.trace_id
group by traces.group_key
