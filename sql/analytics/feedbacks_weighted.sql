-- purpose: weighted feedback over time, in the bucket of the first of the calls that it is about
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column avg: float; sum of value times weight over sum of weights

with
-- Feedback on a trace of many calls is counted once.
once as (
    select
        organisation_id, about_trace, about_log, value,
        min(bucket) as bucket,
        max(weighted) as weighted,
        max(weight) as weight
    from rated
    group by organisation_id, about_trace, about_log, value
)
select
    cast(grouping(bucket) as int) as whole,
    bucket,
    sum(weighted) / nullif(sum(weight), 0) as avg
from once
group by grouping sets ((bucket), ())
order by whole, bucket
