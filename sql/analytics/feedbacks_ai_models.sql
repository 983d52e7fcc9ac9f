-- purpose: feedback by model, most feedback first
-- column whole: integer; 0: there is no row for all models
-- column ai_model: text; canonical name of the model that answered; feedback on a trace counts for each of its models
-- column total: integer; feedback on traces of the model, and on single calls of it
-- column avg_weighted_feedback: float; sum of value times weight over sum of weights

with
-- Feedback on a trace with several calls of one model counts once.
once as (
    select
        organisation_id, about_workspace, about_trace, about_log, value, model,
        max(feedbacks) as feedbacks,
        max(weighted) as weighted,
        max(weight) as weight
    from (select *, canonical_model(ai_org, ai_model) as model from rated)
    where model is not null
    group by organisation_id, about_workspace, about_trace, about_log, value, model
)
select
    0 as whole,
    model as ai_model,
    sum(feedbacks) as total,
    sum(weighted) / nullif(sum(weight), 0) as avg_weighted_feedback
from once
group by model
order by total desc, ai_model
