-- purpose: calls by the fallback target that answered, and the number that it rescued
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param config: text = null; one gateway config; null selects all
-- param limit: integer = null; maximum number of rows; null returns all
-- column config: text; slug of the gateway config; null for a config inside the request
-- column last_used_option: text; JSON path of the target, such as config.targets[1]
-- column option_index: integer; index of the target in the outermost list, from 0; null if the path does not show it
-- column ai_org: text; provider of the target
-- column records: integer; calls of that target
-- column answered: integer; of the records, those that succeeded
-- column failed: integer; of the records, those that failed; unknown outcomes count as neither
-- column rescued: integer; of the records, successes after another target had failed
-- column last_seen: timestamp; newest of the records, UTC

with
-- Records of the time frame. `succeeded` is null if the outcome is unknown.
calls as (
    select
        organisation_id, created_at, config, last_used_option, ai_org, internal_trace_id,
        try_cast(split_part(split_part(last_used_option, 'targets[', 2), ']', 1) as int) as option_index,
        coalesce(is_success = 1, response_status_code between 200 and 299) as succeeded
    from logs
    where upper(mode) = 'FALLBACK'
      and ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
      and ($config is null or config = $config)
),
-- Calls with a failed target, of any model or config. The gateway writes one record per target, all of them with
-- the internal trace id of the call.
failures as (
    select distinct organisation_id, internal_trace_id
    from logs
    where upper(mode) = 'FALLBACK'
      and (is_success <> 1 or (is_success is null and response_status_code not between 200 and 299))
      and internal_trace_id is not null
      and ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
),
-- Rescued: a success of a target that is not the first, or of a call with a failed target.
judged as (
    select
        calls.*,
        succeeded and (coalesce(option_index > 0, false) or failures.internal_trace_id is not null) as rescued
    from calls left join failures
        on calls.organisation_id = failures.organisation_id and calls.internal_trace_id = failures.internal_trace_id
)
select
    config,
    last_used_option,
    option_index,
    ai_org,
    count(*) as records,
    count(*) filter (where succeeded) as answered,
    count(*) filter (where not succeeded) as failed,
    count(*) filter (where rescued) as rescued,
    max(created_at) as last_seen
from judged
group by config, last_used_option, option_index, ai_org
order by config nulls last, last_used_option nulls last, ai_org nulls last
limit $limit
