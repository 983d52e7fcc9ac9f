-- purpose: requests over time
-- column total: integer; requests

select
    count(*) as total
from calls
