-- purpose: cache performance in four figures
-- column hits: integer; answers from the cache
-- column avg_latency: float; mean response time of the hits, ms
-- column total_requests: integer; requests, including those without a cache
-- column cache_speedup: float; time that a hit saves, in percent of the time of other requests

with
totals as (
    select
        count(*) filter (where hit) as hits,
        avg(response_time) filter (where hit) as avg_latency,
        count(*) as total_requests,
        avg(response_time) filter (where not hit) as avg_other
    from calls
)
select
    hits,
    avg_latency,
    total_requests,
    100.0 * (avg_other - avg_latency) / nullif(avg_other, 0) as cache_speedup
from totals
