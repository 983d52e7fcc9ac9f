-- purpose: failed records by status code, provider and model, most frequent first, each with a sample of its message
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param status_code: integer = null; one HTTP status; null selects all
-- param limit: integer = null; maximum number of rows; null returns all
-- column response_status_code: integer; HTTP status; null for a failure without one
-- column ai_org: text; provider
-- column model: text; canonical name of the requested model, one for all spellings
-- column ai_model: text; its logged names, separated by commas
-- column records: integer; failed records
-- column first_seen: timestamp; oldest of the records, UTC
-- column last_seen: timestamp; newest of the records, UTC
-- column sample_id: text; newest of the records with a response body
-- column sample_message: text; the error message in that body; null if it has none

with
-- Failed records of the time frame. A record with an unknown outcome is not an error.
failures as (
    select
        response_status_code, ai_org, canonical_model(ai_org, ai_model) as model, ai_model, created_at, id,
        response['body'] as body
    from logs
    where (is_success <> 1 or (is_success is null and response_status_code not between 200 and 299))
      and ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
      and ($status_code is null or response_status_code = $status_code)
),
-- One row for each kind of error, with its newest body, so that only one body per row is parsed.
kinds as (
    select
        response_status_code,
        ai_org,
        model,
        cast(string_agg(distinct ai_model, ', ' order by ai_model) as text) as ai_model,
        count(*) as records,
        min(created_at) as first_seen,
        max(created_at) as last_seen,
        last_value(id order by created_at, id) filter (where body is not null) as sample_id,
        last_value(body order by created_at, id) filter (where body is not null) as body
    from failures
    group by response_status_code, ai_org, model
)
select
    response_status_code,
    ai_org,
    model,
    ai_model,
    records,
    first_seen,
    last_seen,
    sample_id,
    -- The format of OpenAI and its many copies, then of Bedrock and Cohere, of Ollama, and of FastAPI servers.
    coalesce(
        json_get_str(body, 'error', 'message'),
        json_get_str(body, 'message'),
        json_get_str(body, 'error'),
        json_get_str(body, 'detail')
    ) as sample_message
from kinds
order by records desc, response_status_code, ai_org, model
limit $limit
