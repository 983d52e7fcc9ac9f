-- purpose: cost of each model, most expensive first
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param limit: integer = null; maximum number of rows; null returns all
-- column ai_org: text; provider
-- column model: text; canonical name of the model that answered, one for all spellings
-- column ai_model: text; its logged names, separated by commas
-- column records: integer; records, including cache hits
-- column paid_units: integer; paid tokens of requests and responses, without cache hits
-- column cost_cents: float; money spent, US cents; without cache hits, which cost nothing
-- column cost_dollars: float; the same in US dollars
-- column cents_per_1k_units: float; US cents per 1,000 tokens, over the records with known cost and tokens
-- column share: float; share of the total cost of all rows, 0 to 1
-- column saved_cents: float; cost that the cache hits saved, US cents

with
-- Records of the time frame. A hit keeps the cost that it saved; a cost in another currency is ignored, not converted.
calls as (
    select
        ai_org, canonical_model(ai_org, ai_model) as model, ai_model, total_units,
        coalesce(upper(cache_status) in ('HIT', 'SEMANTIC HIT'), false) as hit,
        case when coalesce(upper(cost_currency), 'USD') = 'USD' then cost end as cents
    from logs
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
),
-- One row per model. The price counts only records with both figures, so that a missing one does not distort it.
models as (
    select
        ai_org,
        model,
        cast(string_agg(distinct ai_model, ', ' order by ai_model) as text) as ai_model,
        count(*) as records,
        sum(total_units) filter (where not hit) as paid_units,
        sum(cents) filter (where not hit) as cost_cents,
        sum(cents) filter (where not hit and total_units is not null) as priced_cents,
        sum(total_units) filter (where not hit and cents is not null) as priced_units,
        sum(cents) filter (where hit) as saved_cents
    from calls
    group by ai_org, model
)
select
    ai_org,
    model,
    ai_model,
    records,
    paid_units,
    cost_cents,
    cost_cents / 100 as cost_dollars,
    priced_cents * 1000 / nullif(priced_units, 0) as cents_per_1k_units,
    cost_cents / nullif(sum(cost_cents) over (), 0) as share,
    saved_cents
from models
order by cost_cents desc nulls last, ai_org, model
limit $limit
