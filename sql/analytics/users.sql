-- purpose: users over time, each counted once per bucket and once in the whole time frame
-- column whole: integer; 1 for the whole time frame, 0 for one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; users in the metadata key `_user`

with
-- One row per user and bucket, and one per user, so that counting needs no set of names in memory.
people as (
    select bucket, user_id
    from calls
    where user_id is not null
    group by grouping sets ((bucket, user_id), (user_id))
)
select
    cast(bucket is null as int) as whole,
    bucket,
    count(*) as total
from people
group by bucket
order by whole, bucket
