-- purpose: feedback that is erased with records, and feedback of the erased user or with the named ids
-- param organisation_id: text; organisation that owns all of it
-- param user: text = null; end user whose records are erased; null erases the records with the ids in table `named`
-- column id: text; id of the feedback, each once

with
versions as (
    -- Every version counts: an older one must not reappear when a later one is erased.
    select id, workspace_slug, trace_id, log_id, user_id
    from feedback_history
    where organisation_id = $organisation_id
),
calls as (
    select
        logs.id, logs.workspace_slug, logs.trace_id, logs.span_name,
        coalesce(logs.user_id = $user, false) or named.of is not null as is_erased
    from named right join logs on named.of = logs.id
    where logs.organisation_id = $organisation_id
),
gone as (
    select id from calls where is_erased
),
-- Traces without a remaining record to which their feedback applies.
erased_traces as (
    select traces.workspace_slug, traces.trace_id
    from (select distinct workspace_slug, trace_id from versions where log_id is null) as traces
    join calls
        on traces.trace_id = calls.trace_id
        and (traces.workspace_slug is null or traces.workspace_slug = calls.workspace_slug)
    where calls.span_name is distinct from 'gatelog-replay'
    group by traces.workspace_slug, traces.trace_id
    having bool_and(calls.is_erased)
)
select versions.id from versions left semi join named on versions.id = named.of
union
select id from versions where user_id = $user
union
select versions.id from versions left semi join gone on versions.log_id = gone.id
union
select versions.id
from versions left semi join erased_traces
    on versions.trace_id = erased_traces.trace_id
    and coalesce(versions.workspace_slug, '') = coalesce(erased_traces.workspace_slug, '')
where versions.log_id is null
limit $most
