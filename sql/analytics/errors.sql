-- purpose: failed requests over time
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; failed requests; one of which nothing is known has not failed

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    count(*) as total
from calls
where not succeeded
group by grouping sets ((bucket), ())
order by whole, bucket
