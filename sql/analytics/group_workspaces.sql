-- purpose: requests and cost of each workspace
-- column workspace: text; slug of the workspace
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null if no cost is known

select
    group_key as workspace,
    count(*) as requests,
    sum(spent) as cost
from calls
where group_key is not null
group by group_key
