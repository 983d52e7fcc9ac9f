-- purpose: feedback by its value
-- column whole: integer; 1 = all values, 0 = one
-- column score: float; value of the feedback, -10 to 10
-- column total: integer; feedback with that value

with
traces as (
    select distinct organisation_id, trace_id from calls where trace_id is not null
)
select
    cast(grouping(feedback.value) as int) as whole,
    cast(feedback.value as double) as score,
    count(*) as total
from traces join feedback
    on traces.organisation_id = feedback.organisation_id and traces.trace_id = feedback.trace_id
group by grouping sets ((feedback.value), ())
order by whole, score
