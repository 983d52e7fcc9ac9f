-- purpose: the feedback, each part of it as often as there are calls that it is about: what graphs read as `rated`
-- column bucket: timestamp; time bucket of the call, UTC; every column of `calls` stands beside it
-- column about_workspace: text; workspace whose calls the feedback is about; null = any
-- column about_trace: text; trace that the feedback is about
-- column about_log: text; the one log that it is about; null = every log of the trace
-- column value: float; value of the feedback, -10 to 10
-- column feedbacks: integer; how often that was said
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
    -- A log without a trace can have feedback of its own; all of it meets in one column, and the rest decides.
    and coalesce(ratings.trace_id, ratings.log_id) = coalesce(calls.trace_id, calls.id)
    and (ratings.workspace_slug is null or ratings.workspace_slug = calls.workspace_slug)
    and case
        when ratings.log_id is not null then ratings.log_id = calls.id
        -- What is said of a trace is said of the calls that were replayed, not of the replays.
        else ratings.trace_id = calls.trace_id and calls.span_name is distinct from 'gatelog-replay'
    end
