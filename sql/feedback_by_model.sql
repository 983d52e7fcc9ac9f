-- purpose: feedback on the answers of each model by day, with the weighted mean
-- param from: timestamp = null; start of the time frame, inclusive; null starts at the first record
-- param to: timestamp = null; end of the time frame, exclusive; null ends at the last record
-- param organisation_id: text = null; one organisation; null selects all that the caller may see
-- param ai_model: text = null; one model, by its canonical name or as logged; null selects all
-- param limit: integer = null; maximum number of rows; null returns all
-- column day: date; day of the model's first call that the feedback applies to, UTC
-- column ai_org: text; provider
-- column model: text; canonical name of the model that answered; feedback on a trace counts for each of its models
-- column ai_model: text; one of its logged names
-- column feedbacks: integer; feedback on traces of the model, and on single calls of it
-- column positive: integer; of that, with a value above 0
-- column negative: integer; of that, with a value below 0
-- column weighted_feedback: float; sum of value times weight over sum of weights, -10 to 10

with
-- Each feedback counts once per model, however many calls the trace has and however they spell the model.
per_model as (
    select
        feedback.organisation_id, feedback.trace_id, feedback.log_id, feedback.id, feedback.value, feedback.weight,
        logs.ai_org, canonical_model(logs.ai_org, logs.ai_model) as model,
        min(logs.ai_model) as ai_model,
        min(logs.date) as day
    from feedback join logs
        on feedback.organisation_id = logs.organisation_id
        -- A log without a trace can have feedback of its own. The join column holds the trace, or the log
        -- if there is none, and the condition decides.
        and coalesce(feedback.trace_id, feedback.log_id) = coalesce(logs.trace_id, logs.id)
        and (feedback.workspace_slug is null or feedback.workspace_slug = logs.workspace_slug)
        and case
            when feedback.log_id is not null then feedback.log_id = logs.id
            -- Feedback on a trace applies to the replayed calls, not to the replays.
            else feedback.trace_id = logs.trace_id and logs.span_name is distinct from 'gatelog-replay'
        end
    -- Results of guardrails are stored as feedback without a value.
    where feedback.value is not null
      and ($from is null or logs.created_at >= $from)
      and ($to is null or logs.created_at < $to)
      and ($organisation_id is null or logs.organisation_id = $organisation_id)
      and ($ai_model is null or logs.ai_model = $ai_model
          or canonical_model(logs.ai_org, logs.ai_model) = $ai_model)
    group by
        feedback.organisation_id, feedback.trace_id, feedback.log_id, feedback.id, feedback.value, feedback.weight,
        logs.ai_org, canonical_model(logs.ai_org, logs.ai_model)
)
select
    day,
    ai_org,
    model,
    min(ai_model) as ai_model,
    count(*) as feedbacks,
    count(*) filter (where value > 0) as positive,
    count(*) filter (where value < 0) as negative,
    sum(value * weight) / nullif(sum(weight), 0) as weighted_feedback
from per_model
group by day, ai_org, model
order by day, feedbacks desc, ai_org, model
limit $limit
