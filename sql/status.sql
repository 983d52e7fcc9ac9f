-- purpose: the four Status labels of each record: cache, retry, fallback, load balancing; newest first
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param trace_id: text = null; one trace; null selects all
-- param limit: integer = null; maximum number of rows; null returns all
-- column id: text; id of the record
-- column created_at: timestamp; time of the call, UTC
-- column organisation_id: text; organisation that owns the record
-- column model: text; canonical name of the model that answered, one for all spellings
-- column ai_model: text; model that answered, as logged
-- column trace_id: text; trace of the call
-- column cache_label: text; Cache Disabled, Cache Miss, Cache Refreshed, Cache Hit or Cache Semantic Hit
-- column retry_label: text; Retry Not Triggered, Retry Success on {n} Tries or Retry Failed
-- column fallback_label: text; Fallback Disabled or Fallback Active
-- column loadbalance_label: text; Loadbalancer Disabled or Loadbalancer Active

-- `mode` does not show a strategy nested in another one, so only the outermost one has its label.
with
-- Records of the time frame, with the gateway's words in upper case. `succeeded` is null if the outcome is unknown.
calls as (
    select
        id, created_at, organisation_id, ai_model, trace_id, retry_success_count,
        canonical_model(ai_org, ai_model) as model,
        upper(cache_status) as cache,
        upper(mode) as mode,
        coalesce(is_success = 1, response_status_code between 200 and 299) as succeeded
    from logs
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
      and ($trace_id is null or trace_id = $trace_id)
)
select
    id, created_at, organisation_id, model, ai_model, trace_id,
    case cache
        when 'HIT' then 'Cache Hit'
        when 'SEMANTIC HIT' then 'Cache Semantic Hit'
        when 'REFRESH' then 'Cache Refreshed'
        when 'MISS' then 'Cache Miss'
        when 'SEMANTIC MISS' then 'Cache Miss'
        else 'Cache Disabled'
    end as cache_label,
    -- A retry that ended in an error has failed. If the outcome is unknown, the gateway's count decides.
    case
        when coalesce(retry_success_count, 0) = 0 then 'Retry Not Triggered'
        when retry_success_count < 0 or not succeeded then 'Retry Failed'
        else concat('Retry Success on ', retry_success_count, ' Tries')
    end as retry_label,
    case mode when 'FALLBACK' then 'Fallback Active' else 'Fallback Disabled' end as fallback_label,
    case mode when 'LOADBALANCE' then 'Loadbalancer Active' else 'Loadbalancer Disabled' end as loadbalance_label
from calls
order by created_at desc, id desc
limit $limit
