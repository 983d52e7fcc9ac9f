-- purpose: use of each organisation's plan in a month, costs beyond the plan, and a forecast for the month
-- param at: timestamp = null; time in the month from which the forecast is made; null means now
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- column organisation_id: text; the organisation
-- column plan: text; its plan; null for no plan, so everything is stored
-- column month: date; first day of the month, UTC
-- column used: integer; stored records of the month, including those that have expired since
-- column not_stored: integer; records that were not stored because the plan was used up
-- column included: integer; records per month that the plan includes; null for no limit
-- column left: integer; included records that are left; null for no limit
-- column over_blocks: integer; started blocks of records beyond those included that are billed
-- column dollars: float; cost of the blocks, US dollars
-- column days_left: integer; days left in the month, including the current one
-- column forecast: integer; expected records by the end of the month at the current rate, stored or not

with
frame as (
    select moment, date_trunc('month', moment) as since, date_trunc('month', moment) + interval '1 month' as until
    from (select cast(coalesce($at, now()) as timestamp) as moment)
),
-- Counts of the month. An organisation may have counts without being in the catalog, and the reverse.
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
-- Part of the month that has passed. At its start there is no rate yet.
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
