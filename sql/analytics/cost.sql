-- purpose: money spent over time
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: float; money spent, US cents; without cache hits, which cost nothing; null where no cost is known
-- column avg: float; mean cost of a request whose cost is known, US cents; a cache hit counts as 0

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    case when count(*) = 0 then 0.0 else sum(spent) end as total,
    avg(spent) as avg
from calls
group by grouping sets ((bucket), ())
order by whole, bucket
