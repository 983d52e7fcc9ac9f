-- purpose: requests over time that succeeded only because of a retry or a fallback
-- column whole: integer; 1 for the whole time frame, 0 for one number of retries in one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column retry_success_count: integer; number of the retry that succeeded; null if no retry was needed
-- column count: integer; requests that a retry rescued
-- column fallback: integer; requests of the bucket that a fallback rescued, with any number of retries

with
-- Calls with a failed target. The gateway writes one record per target, all of them with the internal trace id of
-- the call.
failures as (
    select distinct organisation_id, internal_trace_id
    from calls
    where not succeeded and upper(mode) = 'FALLBACK' and internal_trace_id is not null
),
-- A fallback rescued a call if a target answered that is not the first, or if another target failed.
rescued as (
    select
        bucket,
        case when retry_success_count > 0 then retry_success_count end as retry_success_count,
        upper(mode) = 'FALLBACK' and (
            failures.internal_trace_id is not null
            or try_cast(split_part(split_part(last_used_option, 'targets[', 2), ']', 1) as int) > 0
        ) as by_fallback
    from calls left join failures
        on calls.organisation_id = failures.organisation_id and calls.internal_trace_id = failures.internal_trace_id
    where succeeded and (retry_success_count > 0 or upper(mode) = 'FALLBACK')
)
select
    cast(grouping(bucket) as int) as whole,
    bucket,
    retry_success_count,
    count(retry_success_count) as count,
    sum(count(*) filter (where by_fallback)) over (partition by bucket) as fallback
from rescued
group by grouping sets ((bucket, retry_success_count), ())
order by whole, bucket, retry_success_count
