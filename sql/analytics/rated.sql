-- purpose: feedback joined to each call that it applies to, read by graphs as `rated`
-- column bucket: timestamp; time bucket of the call, UTC; followed by every column of `calls`
-- column about_workspace: text; workspace of the calls that the feedback applies to; null applies to any
-- column about_trace: text; trace that the feedback applies to
-- column about_log: text; the one log that it applies to; null applies to every log of the trace
-- column value: float; value of the feedback, -10 to 10
-- column feedbacks: integer; number of feedback entries
-- column weighted: float; sum of value times weight
-- column weight: float; sum of the weights

select
    calls.*,
    ratings.workspace_slug as about_workspace,
    ratings.trace_id as about_trace,
    ratings.log_id as about_log,
    ratings.value as value,
    ratings.feedbacks as feedbacks,
    ratings.weighted as weighted,
    ratings.weight as weight
from ratings join calls
    on ratings.organisation_id = calls.organisation_id
    -- A log without a trace can have feedback of its own. The join column holds the trace, or the log
    -- if there is none, and the condition decides.
    and coalesce(ratings.trace_id, ratings.log_id) = coalesce(calls.trace_id, calls.id)
    and (ratings.workspace_slug is null or ratings.workspace_slug = calls.workspace_slug)
    and case
        when ratings.log_id is not null then ratings.log_id = calls.id
        -- Feedback on a trace applies to the replayed calls, not to the replays.
        else ratings.trace_id = calls.trace_id and calls.span_name is distinct from 'gatelog-replay'
    end
