-- purpose: how long each model takes to answer, and its streams to end
-- param from: timestamp = null; start of the time frame, inclusive; null = since the first record
-- param to: timestamp = null; end of the time frame, exclusive; null = up to the last record
-- param organisation_id: text = null; one organisation; null = all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as it was said; null = all
-- param limit: integer = null; most rows to return, slowest first; null = all
-- column model: text; canonical name of the model that answered, one for all spellings
-- column ai_model: text; names of it that were said, with commas between
-- column records: integer; records whose response time is known
-- column avg_ms: float; mean response time, ms; for a stream the time to its first token
-- column p50_ms: float; half of the records answered within, ms
-- column p90_ms: float; 90 of 100 records answered within, ms
-- column p99_ms: float; 99 of 100 records answered within, ms
-- column streams: integer; streams whose time to the last token is known
-- column stream_avg_ms: float; mean time to the last token of a stream, ms
-- column stream_p50_ms: float; half of the streams ended within, ms
-- column stream_p90_ms: float; 90 of 100 streams ended within, ms
-- column stream_p99_ms: float; 99 of 100 streams ended within, ms

-- Percentiles are approximate (t-digest): sorting every response time would take memory without end.
with
-- Records of the frame; the time to the last token counts for streams alone.
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
