-- purpose: records of each retention class, their age, and the next to expire
-- param at: timestamp = null; start of the 24 hours in `expiring`; null means now
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- column retention_days: integer; the class: days for which its records were stored; 0 means for ever
-- column records: integer; visible records
-- column files: integer; files of the class, of all organisations; null if the caller shares them with others
-- column bytes: integer; their size
-- column oldest: timestamp; time of the oldest visible record, UTC
-- column next_to_expire: timestamp; time at which the next record expires, UTC; null if none does
-- column expiring: integer; records that expire within 24 hours

with
-- Records expire by the current plan of their organisation, wherever they are stored.
calls as (
    select
        logs.retention_days, logs.created_at,
        coalesce(organisations.retention_days, logs.retention_days) as days
    from logs left join organisations on logs.organisation_id = organisations.organisation_id
    where $organisation_id is null or logs.organisation_id = $organisation_id
),
-- Times in microseconds since 1970, so that retention in days can be multiplied.
ends as (
    select
        retention_days, created_at,
        case when days > 0 then cast(created_at as bigint) + days * 86400000000 end as expires_at,
        cast(arrow_cast(coalesce($at, now()), 'Timestamp(Microsecond, Some("UTC"))') as bigint) as moment
    from calls
),
kept as (
    select
        retention_days,
        count(*) as records,
        min(created_at) as oldest,
        min(expires_at) as next_to_expire,
        count(*) filter (where expires_at <= moment + 86400000000) as expiring
    from ends
    group by retention_days
),
stored as (
    select retention_days, cast(sum(files) as bigint) as files, cast(sum(bytes) as bigint) as bytes
    from partitions
    where table_name = 'logs'
    group by retention_days
)
select
    coalesce(kept.retention_days, stored.retention_days) as retention_days,
    coalesce(records, 0) as records,
    files,
    bytes,
    oldest,
    arrow_cast(next_to_expire, 'Timestamp(Microsecond, Some("UTC"))') as next_to_expire,
    coalesce(expiring, 0) as expiring
from kept full join stored on kept.retention_days = stored.retention_days
where $organisation_id is null or records > 0
order by retention_days
