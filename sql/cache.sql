-- purpose: cache performance: hits and misses, hit rate, money saved, and response times with and without a hit
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param bucket: text in hour|day|week|month|year = day; width of a time bucket, UTC; weeks begin on Monday
-- column bucket: timestamp; start of the time bucket, UTC
-- column model: text; canonical name of the model that answered, one for all spellings
-- column ai_model: text; its logged names, separated by commas
-- column records: integer; records, including those without a cache
-- column simple_hits: integer; answers from the simple cache
-- column semantic_hits: integer; answers from the semantic cache
-- column misses: integer; cache lookups that found nothing
-- column refreshes: integer; requests of the caller for a fresh answer
-- column hit_rate: float; hits divided by hits and misses, 0 to 1; null without lookups
-- column saved_cents: float; cost that the hits saved, US cents
-- column avg_hit_ms: float; mean response time of hits, ms
-- column avg_other_ms: float; mean response time of all other records, ms

with
-- Records of the time frame. A hit keeps the cost that it saved; a cost in another currency is ignored, not converted.
calls as (
    select
        date_trunc($bucket, created_at) as bucket,
        canonical_model(ai_org, ai_model) as model,
        ai_model,
        upper(cache_status) as cache,
        coalesce(upper(cache_status) in ('HIT', 'SEMANTIC HIT'), false) as hit,
        coalesce(upper(cache_status) in ('MISS', 'SEMANTIC MISS'), false) as miss,
        response_time,
        case when coalesce(upper(cost_currency), 'USD') = 'USD' then cost end as cents
    from logs
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
)
select
    bucket,
    model,
    cast(string_agg(distinct ai_model, ', ' order by ai_model) as text) as ai_model,
    count(*) as records,
    count(*) filter (where cache = 'HIT') as simple_hits,
    count(*) filter (where cache = 'SEMANTIC HIT') as semantic_hits,
    count(*) filter (where miss) as misses,
    count(*) filter (where cache = 'REFRESH') as refreshes,
    cast(count(*) filter (where hit) as double) / nullif(count(*) filter (where hit or miss), 0) as hit_rate,
    sum(cents) filter (where hit) as saved_cents,
    avg(response_time) filter (where hit) as avg_hit_ms,
    avg(response_time) filter (where not hit) as avg_other_ms
from calls
group by bucket, model
order by bucket, model
