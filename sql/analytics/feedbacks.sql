-- purpose: feedback over time, in the bucket of the first call that it applies to
-- column total: integer; feedback on the traces of the calls, and on single calls

select
    coalesce(sum(feedbacks), 0) as total
from rated_once
