-- purpose: weighted feedback over time, in the bucket of the first call that it applies to
-- column avg: float; sum of value times weight over sum of weights

select
    sum(weighted) / nullif(sum(weight), 0) as avg
from rated_once
