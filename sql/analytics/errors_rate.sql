-- purpose: share of failed requests over time
-- column rate: float; failures per 100 requests with a known outcome

select
    100.0 * count(*) filter (where not succeeded) / nullif(count(succeeded), 0) as rate
from calls
