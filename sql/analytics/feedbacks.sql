-- purpose: feedback over time, in the bucket of the first call of its trace
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; feedback on the traces of the calls

with
-- A trace of many calls is counted once.
traces as (
    select organisation_id, trace_id, min(bucket) as bucket
    from calls
    where trace_id is not null
    group by organisation_id, trace_id
)
select
    cast(grouping(traces.bucket) as int) as whole,
    traces.bucket as bucket,
    coalesce(sum(ratings.feedbacks), 0) as total
from traces join ratings
    on traces.organisation_id = ratings.organisation_id and traces.trace_id = ratings.trace_id
group by grouping sets ((traces.bucket), ())
order by whole, bucket
