-- purpose: failed requests over time, each bucket by status code
-- column whole: integer; 1 for the whole time frame, 0 for one status code of one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column response_status_code: integer; HTTP status; null for a failure without one
-- column count: integer; failed requests

select
    cast(grouping(bucket) as int) as whole,
    bucket,
    response_status_code,
    count(*) as count
from calls
where not succeeded
group by grouping sets ((bucket, response_status_code), ())
order by whole, bucket, response_status_code
