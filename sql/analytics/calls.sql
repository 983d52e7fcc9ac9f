-- purpose: calls that match an analytics request, read as `calls` by the other files of this folder
-- param time_of_generation_min: timestamp = null; start of the time frame, inclusive
-- param time_of_generation_max: timestamp = null; end of the time frame, inclusive
-- param bucket: text in minute|hour|day|week|month|year = day; width of a time bucket, UTC; weeks begin on Monday
-- column bucket: timestamp; start of the time bucket, UTC; followed by every column of `logs`
-- column succeeded: boolean; true if the call succeeded; null if the outcome is unknown
-- column hit: boolean; true if a cache answered
-- column spent: float; cost of the call, US cents; 0 for a hit; null if unknown or in another currency
-- column saved: float; cost that a cache hit saved, US cents

-- Each filter of the request adds an `and` at the end. Unused columns are not read.
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
