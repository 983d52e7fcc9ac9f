-- purpose: feedback by its value
-- column whole: integer; 1 for all values, 0 for one
-- column score: float; value of the feedback, -10 to 10
-- column total: integer; feedback with that value

select
    cast(grouping(value) as int) as whole,
    value as score,
    coalesce(sum(feedbacks), 0) as total
from rated_once
group by grouping sets ((value), ())
order by whole, score
