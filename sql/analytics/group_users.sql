-- purpose: requests and cost of each user
-- column user: text; user in the metadata key `_user`
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null if no cost is known

select
    group_key as "user",
    count(*) as requests,
    sum(spent) as cost
from calls
where group_key is not null
group by group_key
