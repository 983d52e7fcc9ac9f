-- purpose: current feedback: the latest version of each id within a workspace, or without one
-- column id: text; unique id of the feedback
-- column organisation_id: text; organisation that owns it
-- column workspace_slug: text; workspace within the organisation
-- column created_at: timestamp; time of the first version, UTC
-- column updated_at: timestamp; time of this version, UTC
-- column trace_id: text; trace that it applies to
-- column log_id: text; the one log of the trace that it applies to; null applies to all of them
-- column value: float; from -10 to 10
-- column weight: float; from 0 to 1
-- column user_id: text; user who gave it
-- column source: text; sender
-- column metadata: map; the caller's own keys and values
-- column retention_days: integer; days for which it is kept; 0 means for ever
-- column date: date; UTC day of `created_at`

-- A version is current unless there is a later one. Few versions are ever replaced, so those are the small
-- side of the join, which comes first: feedback streams by, ten times as fast as with a rank over all versions.
-- Of two versions of one microsecond, the one with the greater value is current, and of one value the one with
-- the greater weight: the engine keeps one of each. `feedback_history` has no alias here, because queries of a
-- key of `metadata` over an alias fail to plan.
select
    id, organisation_id, workspace_slug, created_at, updated_at, trace_id, log_id, value, weight, user_id, source,
    metadata, retention_days, date
from (
    select
        organisation_id as later_organisation, coalesce(workspace_slug, '') as later_workspace, id as later_id,
        updated_at as later, coalesce(value, -99.0) as later_value, coalesce(weight, -99.0) as later_weight
    from feedback_history
    where updated_at > created_at
)
right anti join feedback_history
    on later_organisation = feedback_history.organisation_id
   and later_workspace = coalesce(feedback_history.workspace_slug, '')
   and later_id = feedback_history.id
   and (
        later > feedback_history.updated_at
        or (later = feedback_history.updated_at and later_value > coalesce(feedback_history.value, -99.0))
        or (
            later = feedback_history.updated_at and later_value = coalesce(feedback_history.value, -99.0)
            and later_weight > coalesce(feedback_history.weight, -99.0)
        )
   )
