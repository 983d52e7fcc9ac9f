-- purpose: weighted feedback over time, in the bucket of the first call of its trace
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column avg: float; sum of value times weight over sum of weights

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
    sum(ratings.weighted) / nullif(sum(ratings.weight), 0) as avg
from traces join ratings
    on traces.organisation_id = ratings.organisation_id and traces.trace_id = ratings.trace_id
group by grouping sets ((traces.bucket), ())
order by whole, bucket
