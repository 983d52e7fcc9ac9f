-- purpose: feedback by value and by its trace or log, read by the other files as `ratings`
-- column organisation_id: text; organisation that owns the feedback
-- column workspace_slug: text; workspace of the calls that it applies to; null applies to any
-- column trace_id: text; trace that it applies to
-- column log_id: text; the one log that it applies to; null applies to every log of the trace
-- column value: float; value of the feedback, -10 to 10
-- column feedbacks: integer; number of feedback entries
-- column weighted: float; sum of value times weight
-- column weight: float; sum of the weights

select
    organisation_id,
    workspace_slug,
    trace_id,
    log_id,
    value,
    count(*) as feedbacks,
    cast(sum(value * weight) as double) as weighted,
    cast(sum(weight) as double) as weight
from feedback
-- Results of guardrails are stored as feedback without a value.
where value is not null
group by organisation_id, workspace_slug, trace_id, log_id, value
