-- purpose: logs with weighted feedback in a range, used in place of `logs` for a filter by such a range
-- param weighted_feedback_min: float; lowest weighted feedback, inclusive
-- param weighted_feedback_max: float; highest weighted feedback, inclusive
-- column *: every column of `logs`

-- The last join holds the few rated logs in memory and streams the logs.
with
entries as (
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
    from entries join logs
        on entries.organisation_id = logs.organisation_id
        -- A log without a trace can have feedback of its own. The join column holds the trace, or the log
        -- if there is none, and the condition decides.
        and coalesce(entries.trace_id, entries.log_id) = coalesce(logs.trace_id, logs.id)
        and (entries.workspace_slug is null or entries.workspace_slug = logs.workspace_slug)
        and case
            when entries.log_id is not null then entries.log_id = logs.id
            -- Feedback on a trace applies to the replayed calls, not to the replays.
            else entries.trace_id = logs.trace_id and logs.span_name is distinct from 'gatelog-replay'
        end
    group by logs.organisation_id, logs.id
    having round(sum(entries.weighted) / nullif(sum(entries.weight), 0), 9)
        between $weighted_feedback_min and $weighted_feedback_max
)
select logs.*
from rated right semi join logs on rated.owner = logs.organisation_id and rated.log = logs.id
