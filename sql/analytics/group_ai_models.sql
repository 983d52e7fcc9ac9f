-- purpose: requests of each model
-- column ai_model: text; model that answered
-- column requests: integer; requests

select
    group_key as ai_model,
    count(*) as requests
from calls
where group_key is not null
group by group_key
