-- purpose: part of the requests that failed, over time
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column rate: float; failed of 100 requests whose outcome is known

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    100.0 * count(*) filter (where not succeeded) / nullif(count(succeeded), 0) as rate
from calls
group by grouping sets ((bucket), ())
order by whole, bucket
