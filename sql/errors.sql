-- purpose: failed records by status code, provider and model, most frequent first, each with a sample of its message
-- param from: timestamp = null; start of the time frame, inclusive; null = since the first record
-- param to: timestamp = null; end of the time frame, exclusive; null = up to the last record
-- param organisation_id: text = null; one organisation; null = all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as it was said; null = all
-- param status_code: integer = null; one HTTP status; null = all
-- param limit: integer = null; most rows to return; null = all
-- column response_status_code: integer; HTTP status; null = failed without one
-- column ai_org: text; provider
-- column model: text; canonical name of the model that was asked, one for all spellings
-- column ai_model: text; names of it that were said, with commas between
-- column records: integer; failed records
-- column first_seen: timestamp; oldest of the records, UTC
-- column last_seen: timestamp; newest of the records, UTC
-- column sample_id: text; newest of the records that kept a response body
-- column sample_message: text; the error message in that body; null where it has none

with
-- Failed records of the frame; a record of which nothing is known is not an error.
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
-- One row a kind of error, with the newest body there is, so that one body a row is parsed and not every one.
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
    -- OpenAI's shape and its many copies, then those of Bedrock and Cohere, of Ollama, and of FastAPI servers.
    coalesce(
        json_get_str(body, 'error', 'message'),
        json_get_str(body, 'message'),
        json_get_str(body, 'error'),
        json_get_str(body, 'detail')
    ) as sample_message
from kinds
order by records desc, response_status_code, ai_org, model
limit $limit
