-- purpose: part of the requests that failed, over time
-- column rate: float; failed of 100 requests whose outcome is known

select
    100.0 * count(*) filter (where not succeeded) / nullif(count(succeeded), 0) as rate
from calls
