-- purpose: the feedback by value and by what it is about, a trace or one log: what other files read as `ratings`
-- column organisation_id: text; organisation that the feedback belongs to
-- column workspace_slug: text; workspace whose calls it is about; null = any
-- column trace_id: text; trace that it is about
-- column log_id: text; the one log that it is about; null = every log of the trace
-- column value: float; value of the feedback, -10 to 10
-- column feedbacks: integer; how often that was said
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
-- What guardrails found stands in the feedback too, and has no value.
where value is not null
group by organisation_id, workspace_slug, trace_id, log_id, value
