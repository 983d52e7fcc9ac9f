-- purpose: failed requests by status code, most frequent first
-- column whole: integer; 1 for all status codes, 0 for one
-- column status_code: integer; HTTP status; null for a failure without one
-- column count: integer; failed requests
-- column unique_error_codes: integer; status codes among them

select
    cast(grouping(response_status_code) as int) as whole,
    response_status_code as status_code,
    count(*) as count,
    count(distinct response_status_code) as unique_error_codes
from calls
where not succeeded
group by grouping sets ((response_status_code), ())
order by whole, count desc, status_code
