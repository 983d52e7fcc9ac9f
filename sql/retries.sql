-- purpose: how often the gateway retried, and what came of it
-- param from: timestamp = null; start of the time frame, inclusive; null = since the first record
-- param to: timestamp = null; end of the time frame, exclusive; null = up to the last record
-- param organisation_id: text = null; one organisation; null = all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as it was said; null = all
-- column retry_success_count: integer; the retry that ended the call; 0 = none, -1 = all failed, null = not said
-- column records: integer; records with that count
-- column retries: integer; retries that these records took together; null where the number is not known
-- column succeeded: integer; of the records, those whose last answer was a success
-- column failed: integer; of the records, those whose last answer was an error; neither where it is not known
-- column rescued: integer; of the records, those that only a retry made succeed
-- column avg_response_ms: float; mean response time with all tries, ms

with
-- Records of the frame. `succeeded` is null where nothing is known.
calls as (
    select
        retry_success_count,
        response_time,
        coalesce(is_success = 1, response_status_code between 200 and 299) as succeeded
    from logs
    where ($from is null or created_at >= $from)
      and ($to is null or created_at < $to)
      and ($organisation_id is null or organisation_id = $organisation_id)
      and ($ai_model is null or ai_model = $ai_model or canonical_model(ai_org, ai_model) = $ai_model)
)
select
    retry_success_count,
    count(*) as records,
    sum(retry_success_count) filter (where retry_success_count >= 0) as retries,
    count(*) filter (where succeeded) as succeeded,
    count(*) filter (where not succeeded) as failed,
    count(*) filter (where succeeded and retry_success_count > 0) as rescued,
    avg(response_time) as avg_response_ms
from calls
group by retry_success_count
order by retry_success_count nulls last
