-- purpose: logs with weighted feedback in a range, used in place of `logs` for a filter by such a range
-- param weighted_feedback_min: float; lowest weighted feedback, inclusive
-- param weighted_feedback_max: float; highest weighted feedback, inclusive
-- column *: every column of `logs`

-- The last join holds the few rated logs in memory and streams the logs.
with
said as (
    select
        organisation_id, workspace_slug, trace_id, log_id,
        sum(value * weight) as weighted,
        sum(weight) as weight
    from feedback
    -- Results of guardrails are stored as feedback without a value. They must not give their log sums of its own.
    where value is not null
    group by organisation_id, workspace_slug, trace_id, log_id
),
rated as (
    select logs.organisation_id as owner, logs.id as log
    from said join logs
        on said.organisation_id = logs.organisation_id
        -- A log without a trace can have feedback of its own. The join column holds the trace, or the log
        -- if there is none, and the condition decides.
        and coalesce(said.trace_id, said.log_id) = coalesce(logs.trace_id, logs.id)
        and (said.workspace_slug is null or said.workspace_slug = logs.workspace_slug)
        and case
            when said.log_id is not null then said.log_id = logs.id
            -- Feedback on a trace applies to the replayed calls, not to the replays.
            else said.trace_id = logs.trace_id and logs.span_name is distinct from 'gatelog-replay'
        end
    group by logs.organisation_id, logs.id
    having round(sum(said.weighted) / nullif(sum(said.weight), 0), 9)
        between $weighted_feedback_min and $weighted_feedback_max
)
select logs.*
from rated right semi join logs on rated.owner = logs.organisation_id and rated.log = logs.id
