-- purpose: requests, cost, tokens and feedback of each value of a metadata key
-- column metadata_value: text; value of the key
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null where no cost is known
-- column avg_tokens: float; mean tokens of a request whose tokens are known
-- column avg_weighted_feedback: float; sum of value times weight over sum of weights, each feedback once
-- column requests_with_feedback: integer; requests that have feedback, or whose trace has
-- column last_seen: timestamp; newest of the requests, UTC

with
sums as (
    select organisation_id, trace_id, log_id, sum(weighted) as weighted, sum(weight) as weight
    from ratings
    group by organisation_id, trace_id, log_id
),
of_traces as (
    select organisation_id, trace_id, weighted, weight from sums where log_id is null
),
of_logs as (
    select organisation_id, log_id, sum(weighted) as weighted, sum(weight) as weight
    from sums
    where log_id is not null
    group by organisation_id, log_id
),
-- The calls are on the side of each join that streams by.
heard as (
    select
        calls.*,
        of_traces.weighted as trace_weighted, of_traces.weight as trace_weight,
        of_logs.weighted as own_weighted, of_logs.weight as own_weight
    from of_logs right join (
        of_traces right join calls
            on of_traces.organisation_id = calls.organisation_id and of_traces.trace_id = calls.trace_id
    ) on of_logs.organisation_id = calls.organisation_id and of_logs.log_id = calls.id
),
-- One row a value and trace, so that the feedback of a trace counts once however many calls the trace has.
traces as (
    select
        group_key, organisation_id, trace_id,
        count(*) as requests,
        sum(spent) as spent,
        sum(total_units) as units,
        count(total_units) as counted,
        max(created_at) as last_seen,
        count(*) filter (where trace_weight is not null or own_weight is not null) as heard,
        coalesce(max(trace_weighted), 0) + coalesce(sum(own_weighted), 0) as weighted,
        coalesce(max(trace_weight), 0) + coalesce(sum(own_weight), 0) as weight
    from heard
    where group_key is not null
    group by group_key, organisation_id, trace_id
)
select
    group_key as metadata_value,
    sum(requests) as requests,
    sum(spent) as cost,
    cast(sum(units) as double) / nullif(sum(counted), 0) as avg_tokens,
    sum(weighted) / nullif(sum(weight), 0) as avg_weighted_feedback,
    coalesce(sum(heard), 0) as requests_with_feedback,
    max(last_seen) as last_seen
from traces
group by group_key
