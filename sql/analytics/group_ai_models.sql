-- purpose: requests of each model
-- column ai_model: text; canonical name of the model that answered, one for all spellings
-- column requests: integer; requests
-- column said_models: text; its logged names, separated by commas

select
    group_key as ai_model,
    count(*) as requests,
    cast(string_agg(distinct ai_model, ', ' order by ai_model) as text) as said_models
from calls
where group_key is not null
group by group_key
