-- purpose: tokens used over time
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; tokens of requests and responses, cache hits with them; null where none are known
-- column avg: float; mean tokens of a request whose tokens are known

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    case when count(*) = 0 then 0 else sum(total_units) end as total,
    avg(total_units) as avg
from calls
group by grouping sets ((bucket), ())
order by whole, bucket
