-- purpose: the feedback of each trace, summed up: what the files about feedback read as `ratings`
-- column organisation_id: text; organisation that the feedback belongs to
-- column trace_id: text; trace that it is about
-- column feedbacks: integer; feedback on the trace
-- column weighted: float; sum of value times weight
-- column weight: float; sum of the weights

select
    organisation_id,
    trace_id,
    count(*) as feedbacks,
    cast(sum(value * weight) as double) as weighted,
    cast(sum(weight) as double) as weight
from feedback
group by organisation_id, trace_id
