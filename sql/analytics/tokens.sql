-- purpose: tokens used over time
-- column total: integer; tokens of requests and responses, including cache hits; null if none are known
-- column avg: float; mean tokens of a request with known tokens

select
    case when count(*) = 0 then 0 else sum(total_units) end as total,
    avg(total_units) as avg
from calls
