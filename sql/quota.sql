-- purpose: what each organisation used of its plan in a month, what it costs beyond, and where the month is going
-- param at: timestamp = null; a moment of the month, up to which it is counted on; null = now
-- param organisation_id: text = null; one organisation; null = all that the caller may see
-- column organisation_id: text; the organisation
-- column plan: text; its plan; null = it has none, so everything is stored
-- column month: date; first day of the month, UTC
-- column used: integer; records of the month that were stored, also those that expired since
-- column not_stored: integer; records that came when the plan's were used up, and were not stored
-- column included: integer; records of a month that the plan includes; null = no limit
-- column left: integer; of those, how many are left; null = no limit
-- column over_blocks: integer; started blocks of records beyond those included that are billed
-- column dollars: float; what the blocks cost, US dollars
-- column days_left: integer; days of the month that are left, with the one that is running
-- column forecast: integer; records that will have come by the end of the month at the pace so far, stored or not

with
frame as (
    select moment, date_trunc('month', moment) as since, date_trunc('month', moment) + interval '1 month' as until
    from (select cast(coalesce($at, now()) as timestamp) as moment)
),
-- Counts of the month; an organisation may have them without being in the catalog, and the other way round.
counted as (
    select organisation_id, records, not_stored
    from usage join frame on month = cast(since as date)
    where $organisation_id is null or organisation_id = $organisation_id
),
agreed as (
    select organisation_id, plan, included, over, block_records, block_cents
    from organisations join plans using (plan)
    where $organisation_id is null or organisation_id = $organisation_id
),
used as (
    select
        coalesce(agreed.organisation_id, counted.organisation_id) as organisation_id,
        plan, included, block_records, block_cents,
        coalesce(records, 0) as used,
        coalesce(not_stored, 0) as not_stored,
        case when over = 'bill' then greatest(coalesce(records, 0) - included, 0) else 0 end as billed
    from agreed full join counted on agreed.organisation_id = counted.organisation_id
),
-- How much of the month has passed. At its first moment there is no pace yet.
pace as (
    select
        cast(since as date) as month,
        cast(date_part('day', until - interval '1 day') - date_part('day', moment) + 1 as bigint) as days_left,
        date_part('epoch', until) - date_part('epoch', since) as seconds,
        nullif(date_part('epoch', moment) - date_part('epoch', since), 0) as passed
    from frame
)
select
    organisation_id,
    plan,
    month,
    used,
    not_stored,
    included,
    case when included is not null then greatest(included - used, 0) end as left,
    coalesce((billed + block_records - 1) / block_records, 0) as over_blocks,
    coalesce((billed + block_records - 1) / block_records * block_cents, 0) / 100.0 as dollars,
    days_left,
    coalesce(cast(round((used + not_stored) * seconds / passed) as bigint), used + not_stored) as forecast
from used cross join pace
order by organisation_id
