-- purpose: requests of a user over time
-- column whole: integer; 1 for the whole time frame, 0 for one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; requests that name a user
-- column unique: integer; users
-- column avg: float; mean requests of a user

with
-- One row per user and bucket, and one per user.
people as (
    select bucket, user_id, count(*) as requests
    from calls
    where user_id is not null
    group by grouping sets ((bucket, user_id), (user_id))
)
select
    cast(bucket is null as int) as whole,
    bucket,
    sum(requests) as total,
    count(*) as "unique",
    cast(sum(requests) as double) / count(*) as avg
from people
group by bucket
order by whole, bucket
