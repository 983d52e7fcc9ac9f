-- purpose: feedback over time, in the bucket of the first of the calls that it is about
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; feedback on the traces of the calls, and on single calls

with
-- Feedback on a trace of many calls is counted once.
once as (
    select organisation_id, about_trace, about_log, value, min(bucket) as bucket, max(feedbacks) as feedbacks
    from rated
    group by organisation_id, about_trace, about_log, value
)
select
    cast(grouping(bucket) as int) as whole,
    bucket,
    coalesce(sum(feedbacks), 0) as total
from once
group by grouping sets ((bucket), ())
order by whole, bucket
