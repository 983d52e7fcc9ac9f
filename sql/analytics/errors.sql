-- purpose: failed requests over time
-- column total: integer; failed requests; an unknown outcome does not count as a failure

select
    count(*) as total
from calls
where not succeeded
