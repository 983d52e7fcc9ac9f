-- purpose: money spent over time
-- column total: float; money spent, US cents; without cache hits, which cost nothing; null if no cost is known
-- column avg: float; mean cost of a request with a known cost, US cents; a cache hit counts as 0

select
    case when count(*) = 0 then 0.0 else sum(spent) end as total,
    avg(spent) as avg
from calls
