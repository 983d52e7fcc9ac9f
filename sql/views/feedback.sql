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

-- Few are ever changed, so only states of those are ranked; ranking all takes ten times as long. What stands in `partition by`
-- never changes between the states of one id, so that filters on it are tried on rows before they are ranked. `value` and
-- `weight` decide where two changes came in the same microsecond.
with changed as (
    select
        *,
        row_number() over (
            partition by organisation_id, created_at, trace_id, log_id, id
            order by updated_at desc, value desc, weight desc
        ) as place
    from feedback_history
    where updated_at > created_at
)
select
    id, organisation_id, workspace_slug, created_at, updated_at, trace_id, log_id, value, weight, user_id, source,
    metadata, retention_days, date
from feedback_history as given
where updated_at <= created_at
  and not exists (
    select 1 from changed where changed.organisation_id = given.organisation_id and changed.id = given.id
  )
union all
select
    id, organisation_id, workspace_slug, created_at, updated_at, trace_id, log_id, value, weight, user_id, source,
    metadata, retention_days, date
from changed
where place = 1
