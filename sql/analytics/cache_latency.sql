-- purpose: response time of cache hits over time
-- column avg: float; mean response time of cache hits, ms

select
    avg(response_time) as avg
from calls
where hit
