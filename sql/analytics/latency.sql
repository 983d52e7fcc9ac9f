-- purpose: response time over time
-- column avg: float; mean response time, ms; for a stream the time to its first token
-- column p50: float; half of the requests answered within, ms
-- column p90: float; 90 of 100 requests answered within, ms
-- column p99: float; 99 of 100 requests answered within, ms

-- Percentiles are approximate (t-digest): sorting every response time would take unlimited memory.
select
    avg(response_time) as avg,
    approx_percentile_cont(0.5) within group (order by cast(response_time as double)) as p50,
    approx_percentile_cont(0.9) within group (order by cast(response_time as double)) as p90,
    approx_percentile_cont(0.99) within group (order by cast(response_time as double)) as p99
from calls
