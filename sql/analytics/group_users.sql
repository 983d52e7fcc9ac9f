-- purpose: requests and cost of each user
-- column user: text; user, as the metadata key `_user` names it
-- column requests: integer; requests
-- column cost: float; money spent, US cents; null where no cost is known

select
    group_key as "user",
    count(*) as requests,
    sum(spent) as cost
from calls
where group_key is not null
group by group_key
