-- purpose: the calls that a request for analytics is about: what the other files of this folder read as `calls`
-- param time_of_generation_min: timestamp = null; start of the time frame, inclusive
-- param time_of_generation_max: timestamp = null; end of the time frame, inclusive
-- param bucket: text in minute|hour|day|week|month|year = day; width of a time bucket, UTC; weeks begin on Monday
-- column bucket: timestamp; start of the time bucket, UTC; every column of `logs` stands beside it
-- column succeeded: boolean; whether the call succeeded; null where nothing is known
-- column hit: boolean; whether a cache answered
-- column spent: float; money that the call cost, US cents; 0 for a hit; null if not known or in another currency
-- column saved: float; what a cache hit would have cost, US cents

-- Each filter of the request is one more `and` at the end. Columns that nothing asks for are not read.
select
    *,
    date_trunc($bucket, created_at) as bucket,
    coalesce(is_success = 1, response_status_code between 200 and 299) as succeeded,
    coalesce(upper(cache_status) in ('HIT', 'SEMANTIC HIT'), false) as hit,
    case
        when coalesce(upper(cache_status) in ('HIT', 'SEMANTIC HIT'), false) then 0.0
        when coalesce(upper(cost_currency), 'USD') = 'USD' then cost
    end as spent,
    case
        when upper(cache_status) in ('HIT', 'SEMANTIC HIT') and coalesce(upper(cost_currency), 'USD') = 'USD' then cost
    end as saved
from logs
where created_at >= $time_of_generation_min
  and created_at <= $time_of_generation_max
