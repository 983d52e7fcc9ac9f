-- purpose: how long answers from the cache took over time
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column avg: float; mean response time of cache hits, ms

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    avg(response_time) as avg
from calls
where hit
group by grouping sets ((bucket), ())
order by whole, bucket
