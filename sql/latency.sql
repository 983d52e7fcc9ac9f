-- purpose: response time of each model, and the time to the end of its streams
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param limit: integer = null; maximum number of rows, slowest first; null returns all
-- column model: text; canonical name of the model that answered, one for all spellings
-- column ai_model: text; its logged names, separated by commas
-- column records: integer; records with a known response time
-- column avg_ms: float; mean response time, ms; for a stream the time to its first token
-- column p50_ms: float; half of the records answered within, ms
-- column p90_ms: float; 90 of 100 records answered within, ms
-- column p99_ms: float; 99 of 100 records answered within, ms
-- column streams: integer; streams with a known time to the last token
-- column stream_avg_ms: float; mean time to the last token of a stream, ms
-- column stream_p50_ms: float; half of the streams ended within, ms
-- column stream_p90_ms: float; 90 of 100 streams ended within, ms
-- column stream_p99_ms: float; 99 of 100 streams ended within, ms

-- Percentiles are approximate (t-digest): sorting every response time would take unlimited memory.
with
-- Records of the time frame. The time to the last token counts only for streams.
calls as (
    select
        canonical_model(ai_org, ai_model) as model,
        ai_model,
        response_time,
        case when stream_mode then time_to_last_token end as stream_time
    from logs
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
)
select
    model,
    cast(string_agg(distinct ai_model, ', ' order by ai_model) as text) as ai_model,
    count(response_time) as records,
    avg(response_time) as avg_ms,
    approx_percentile_cont(0.5) within group (order by response_time) as p50_ms,
    approx_percentile_cont(0.9) within group (order by response_time) as p90_ms,
    approx_percentile_cont(0.99) within group (order by response_time) as p99_ms,
    count(stream_time) as streams,
    avg(stream_time) as stream_avg_ms,
    approx_percentile_cont(0.5) within group (order by stream_time) as stream_p50_ms,
    approx_percentile_cont(0.9) within group (order by stream_time) as stream_p90_ms,
    approx_percentile_cont(0.99) within group (order by stream_time) as stream_p99_ms
from calls
group by model
order by p90_ms desc nulls last, model
limit $limit
