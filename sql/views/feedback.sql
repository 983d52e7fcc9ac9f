-- purpose: feedback as it holds now: of each id the state that was given last
-- column id: text; unique id of the feedback
-- column organisation_id: text; organisation that it belongs to
-- column workspace_slug: text; workspace within the organisation
-- column created_at: timestamp; when it was first given, UTC
-- column updated_at: timestamp; when this state was given, UTC
-- column trace_id: text; trace that it speaks of
-- column log_id: text; the one log of the trace that it speaks of; null = all of them
-- column value: float; from -10 to 10
-- column weight: float; from 0 to 1
-- column user_id: text; who gave it
-- column source: text; what sent it
-- column metadata: map; the caller's own keys and values
-- column retention_days: integer; days that it is kept, 0 = for ever
-- column date: date; UTC day of `created_at`

-- Few are ever changed, so only those are looked up; ranking all states takes ten times as long. The small side of the join stands
-- first, so that feedback streams by. No two states of one id have the same time: the engine keeps the first of such.
with changed as (
    select organisation_id, id, max(updated_at) as last
    from feedback_history
    where updated_at > created_at
    group by organisation_id, id
)
select
    state.id, state.organisation_id, state.workspace_slug, state.created_at, state.updated_at, state.trace_id, state.log_id,
    state.value, state.weight, state.user_id, state.source, state.metadata, state.retention_days, state.date
from changed right join feedback_history as state
    on changed.organisation_id = state.organisation_id and changed.id = state.id
where changed.id is null or changed.last = state.updated_at
