-- purpose: feedback by its value
-- column whole: integer; 1 = all values, 0 = one
-- column score: float; value of the feedback, -10 to 10
-- column total: integer; feedback with that value

with
-- Feedback on a trace of many calls is counted once.
once as (
    select organisation_id, about_trace, about_log, value, max(feedbacks) as feedbacks
    from rated
    group by organisation_id, about_trace, about_log, value
)
select
    cast(grouping(value) as int) as whole,
    value as score,
    coalesce(sum(feedbacks), 0) as total
from once
group by grouping sets ((value), ())
order by whole, score
