-- purpose: the logs whose weighted feedback lies in a range: what stands for `logs` where a filter asks for one
-- param weighted_feedback_min: float; least weighted feedback, inclusive
-- param weighted_feedback_max: float; most weighted feedback, inclusive
-- column *: every column of `logs`

-- The logs of a trace have one mean, but for those of which something was said alone. The joins are written with the few
-- rated traces and logs on the side that is held in memory, and the logs on the one that streams by.
with
said as (
    select
        organisation_id as owner, trace_id as trace, log_id as log,
        sum(value * weight) as weighted,
        sum(weight) as weight
    from feedback
    -- What guardrails found stands in the feedback too, and has no value: its log has no sums of its own by that.
    where value is not null
    group by organisation_id, trace_id, log_id
),
traces as (
    select owner, trace, weighted, weight from said where log is null
),
own as (
    select owner, log, max(trace) as trace, sum(weighted) as weighted, sum(weight) as weight
    from said
    where log is not null
    group by owner, log
),
rated_traces as (
    select owner, trace
    from traces
    where round(weighted / nullif(weight, 0), 9) between $weighted_feedback_min and $weighted_feedback_max
),
rated_logs as (
    select own.owner, own.log
    from own left join traces on own.owner = traces.owner and own.trace = traces.trace
    where
        round(
            (own.weighted + coalesce(traces.weighted, 0)) / nullif(own.weight + coalesce(traces.weight, 0), 0), 9
        ) between $weighted_feedback_min and $weighted_feedback_max
),
by_trace as (
    select logs.*
    from rated_traces right semi join logs on rated_traces.owner = logs.organisation_id and rated_traces.trace = logs.trace_id
)
select by_trace.*
from own right anti join by_trace on own.owner = by_trace.organisation_id and own.log = by_trace.id
union all
select logs.*
from rated_logs right semi join logs on rated_logs.owner = logs.organisation_id and rated_logs.log = logs.id
