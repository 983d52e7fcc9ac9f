-- purpose: whether the cache works, in four figures
-- column hits: integer; answers from the cache
-- column avg_latency: float; mean response time of the hits, ms
-- column total_requests: integer; requests, also those without a cache
-- column cache_speedup: float; time that a hit saves, of 100 ms that other requests take

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
