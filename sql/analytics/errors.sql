-- purpose: failed requests over time
-- column total: integer; failed requests; one of which nothing is known has not failed

select
    count(*) as total
from calls
where not succeeded
