-- purpose: feedback on calls, once per trace however many calls match, read by graphs as `rated_once`
-- column bucket: timestamp; time bucket of the first of those calls, UTC
-- column value: float; value of the feedback, -10 to 10
-- column feedbacks: integer; number of feedback entries
-- column weighted: float; sum of value times weight
-- column weight: float; sum of the weights

select
    min(bucket) as bucket,
    value,
    max(feedbacks) as feedbacks,
    max(weighted) as weighted,
    max(weight) as weight
from rated
group by organisation_id, about_workspace, about_trace, about_log, value
