-- purpose: the logs whose weighted feedback lies in a range: what stands for `logs` where a filter asks for one
-- param weighted_feedback_min: float; least weighted feedback, inclusive
-- param weighted_feedback_max: float; most weighted feedback, inclusive
-- column *: every column of `logs`

-- The last join is written with the few rated logs on the side that is held in memory, and the logs on the one that streams by.
with
said as (
    select
        organisation_id, workspace_slug, trace_id, log_id,
        sum(value * weight) as weighted,
        sum(weight) as weight
    from feedback
    -- What guardrails found stands in the feedback too, and has no value: its log has no sums of its own by that.
    where value is not null
    group by organisation_id, workspace_slug, trace_id, log_id
),
rated as (
    select logs.organisation_id as owner, logs.id as log
    from said join logs
        on said.organisation_id = logs.organisation_id
        -- A log without a trace can have feedback of its own; all of it meets in one column, and the rest decides.
        and coalesce(said.trace_id, said.log_id) = coalesce(logs.trace_id, logs.id)
        and (said.workspace_slug is null or said.workspace_slug = logs.workspace_slug)
        and case
            when said.log_id is not null then said.log_id = logs.id
            -- What is said of a trace is said of the calls that were replayed, not of the replays.
            else said.trace_id = logs.trace_id and logs.span_name is distinct from 'gatelog-replay'
        end
    group by logs.organisation_id, logs.id
    having round(sum(said.weighted) / nullif(sum(said.weight), 0), 9)
        between $weighted_feedback_min and $weighted_feedback_max
)
select logs.*
from rated right semi join logs on rated.owner = logs.organisation_id and rated.log = logs.id
