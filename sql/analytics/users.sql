-- purpose: users over time, each counted once a bucket and once over the whole time frame
-- column whole: integer; 1 = the whole time frame, 0 = one time bucket
-- column bucket: timestamp; start of the time bucket, UTC
-- column total: integer; users, as the metadata key `_user` names them

with
-- One row a user and bucket, and one a user; counting them takes no set of names in memory.
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
