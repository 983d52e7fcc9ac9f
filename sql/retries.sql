-- purpose: retries of the gateway and their outcomes
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- column retry_success_count: integer; retry that ended the call; 0 for none, -1 if all failed, null if unknown
-- column records: integer; records with that count
-- column retries: integer; total retries of these records; null if unknown
-- column succeeded: integer; of the records, those whose last answer was a success
-- column failed: integer; of the records, those whose last answer was an error; unknown outcomes count as neither
-- column rescued: integer; of the records, those that succeeded only because of a retry
-- column avg_response_ms: float; mean response time including all tries, ms

with
-- Records of the time frame. `succeeded` is null if the outcome is unknown.
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
