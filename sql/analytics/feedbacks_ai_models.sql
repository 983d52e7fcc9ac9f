-- purpose: feedback by the model whose answers it is about, most feedback first
-- column whole: integer; 0: there is no row for all models
-- column ai_model: text; model that answered; feedback on a trace counts for each of its models
-- column total: integer; feedback on traces of the model
-- column avg_weighted_feedback: float; sum of value times weight over sum of weights

with
traces as (
    select distinct organisation_id, trace_id, ai_model
    from calls
    where trace_id is not null and ai_model is not null
)
select
    0 as whole,
    traces.ai_model as ai_model,
    sum(ratings.feedbacks) as total,
    sum(ratings.weighted) / nullif(sum(ratings.weight), 0) as avg_weighted_feedback
from traces join ratings
    on traces.organisation_id = ratings.organisation_id and traces.trace_id = ratings.trace_id
group by traces.ai_model
order by total desc, ai_model
