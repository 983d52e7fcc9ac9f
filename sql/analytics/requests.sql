-- purpose: requests over time
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; requests

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    count(*) as total
from calls
group by grouping sets ((bucket), ())
order by whole, bucket
