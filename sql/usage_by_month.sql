-- purpose: records, tokens and cost of each organisation, month by month
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- column month: date; first day of the month, UTC
-- column organisation_id: text; organisation that owns the records
-- column records: integer; records of the month, which count for a plan's quota
-- column succeeded: integer; of the records, those that succeeded
-- column req_units: integer; tokens of the requests, including cache hits
-- column res_units: integer; tokens of the responses, including cache hits
-- column total_units: integer; tokens of both
-- column cost_cents: float; money spent, US cents; without cache hits, which cost nothing
-- column saved_cents: float; cost that the cache hits saved, US cents

with
-- Records of the time frame. A hit keeps the cost that it saved; a cost in another currency is ignored, not converted.
calls as (
    select
        cast(date_trunc('month', created_at) as date) as month,
        organisation_id, req_units, res_units, total_units,
        coalesce(is_success = 1, response_status_code between 200 and 299) as succeeded,
        coalesce(upper(cache_status) in ('HIT', 'SEMANTIC HIT'), false) as hit,
        case when coalesce(upper(cost_currency), 'USD') = 'USD' then cost end as cents
    from logs
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
)
select
    month,
    organisation_id,
    count(*) as records,
    count(*) filter (where succeeded) as succeeded,
    sum(req_units) as req_units,
    sum(res_units) as res_units,
    sum(total_units) as total_units,
    sum(cents) filter (where not hit) as cost_cents,
    sum(cents) filter (where hit) as saved_cents
from calls
group by month, organisation_id
order by month, organisation_id
