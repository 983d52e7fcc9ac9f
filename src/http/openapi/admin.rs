//! `/v1/admin`: organisations, keys, erasures, plans, archived providers, upkeep.

use serde_json::json;

use super::operation::Operation;

pub(super) const SCHEMAS: &str = "\
Organisation  An organisation.
  id                       text      its id
  name                     text?     what people call it
  plan                     text      name of its plan
  retention_days           count     days that its records are kept, 0 = for ever
  workspaces               [text]    slugs of its workspaces
  created_at               moment    when it was created
  deleted_at               moment?   when it was deleted; its records are being erased
  records_this_month       count     records that it had stored this month (UTC)
  not_stored_this_month    count     records that its plan did not let be stored
  denied_fields            [text]    what its keys may not export or read
  workspace_denied_fields  {[text]}  the same beside that, by workspace

NewOrganisation  An organisation to be.
  id               text    its id: lower case letters, digits, `-` and `_`
  plan?            text?   name of its plan
  name?            text?   what people call it
  retention_days?  days?   days that records are kept, where the plan leaves it to agreement; 0 = for ever
  workspaces?      [text]  slugs of its workspaces

OrganisationChange  What changes; at least one of them.
  plan?                     text?     name of its plan
  retention_days?           days?     days that records are kept, where the plan leaves it to agreement; 0 = for ever
  name?                     text?     what people call it
  add_workspaces?           [text]    further workspaces
  denied_fields?            [text]?   what its keys may not export or read; empty = all may be
  workspace_denied_fields?  {[text]}  the same beside that, by workspace

Plan  A plan with its terms.
  name            text       its name
  retention_days  count      days that records are kept; 0 = for ever, unless an organisation agreed on less
  included?       count      records a calendar month (UTC); none = no limit
  over            stop|bill  whether records beyond those are not stored, or billed
  block_records   count      overage is billed in started blocks of so many records
  block_cents     count      price of a block, US cents
  export_days?    count      days that an export may reach back; 0 = no exports, none = any time frame
  export_rows?    count      records that one export writes at most; none = all

Key  An API key, without its text.
  id            text                    names the key; says nothing about its text
  name          text?                   what it is for
  organisation  text?                   the organisation that it is bound to; null = the operator's
  workspace     text?                   the workspace that it is bound to
  scopes        [scope]                 what it may do; `admin` stands for all of them
  state         active|expired|revoked  whether it opens anything
  created_at    moment                  when it was made
  expires_at    moment?                 from when on it opens nothing
  revoked_at    moment?                 when it was revoked

FreshKey  A key that was just made.
  key  text  its text; told this once
  ..Key

NewKey  A key to be. It reaches no further than the one that makes it.
  organisation?     text?          the organisation that it is bound to
  workspace?        text?          the workspace that it is bound to
  scopes?           [scope]        what it may do; at least one
  name?             text?          what it is for
  expires_at?       moment?        from when on it opens nothing
  expires_in_days?  days_to_live?  the same, in days from now

Erasure  An erasure.
  id            text          names the erasure
  organisation  text          whose records are erased
  what          all|user|ids  which of them
  user          text?         the end user whose records are erased
  ids           [text]        the records, or feedback, that are erased
  feedback      count         how much feedback on them is erased along, but where all of an organisation is
  requested_at  moment        when it was asked for; since then they are in no answer
  requested_by  text          id of the key that asked, or `cli`
  erased        count         records that were taken out of files so far
  last_run_at   moment?       when the files were gone through for the last time

NewErasure  Which records: one of `user`, `ids` and `all`.
  organisation?  text?    whose records; the key's own where it is bound to one
  user?          text?    those of this end user
  ids?           [text]?  these
  all?           flag?    all of them

ArchivedProvider  A provider that was archived.
  organisation  text  whose it is
  provider      text  its slug

NewArchivedProvider  A provider.
  provider       text   its slug
  organisation?  text?  whose; the key's own where it is bound to one

Upkeep  The state of upkeep.
  holder  text?     id of the log of the node that does it
  until   moment?   until when no other node may
  jobs    {JobRun}  by name

JobRun  The last run of an upkeep job, and the next one.
  schedule     text           when it runs: an interval, or a cron expression in UTC
  started_at?  moment         when it began
  ended_at?    moment         when it ended
  seconds      number         how long it took, s
  did          [text]         what it did; empty if there was nothing to do
  error?       text           why it failed
  failures     0..4294967295  failures in a row
  runs         count          runs so far
  next_at?     moment         when it is due again; none = never by itself

Clock  What the server makes of its clock.
  object     text     always `clock`
  now        moment   what the clock says
  in_doubt   flag     whether it leapt and nobody confirmed the time: nothing expires until then
  expected   moment?  what the time would have been without the leap
  found      moment?  what the clock said instead

JobOutcome  What a job did, or would do.
  job           job     the job
  dry_run       flag    whether nothing was changed
  lines         [text]  one line for each step
  files_before  count   live files before
  files_after   count   live files after
  bytes_before  count   bytes of live files before
  bytes_after   count   bytes of live files after";

const OF_ONE: &str =
    "organisation  text  acme  one organisation; all that the key reaches where none is named";

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/v1/admin/organisations";
    const ONE: &str = "/v1/admin/organisations/{id}";
    const PROVIDERS: &str = "/v1/admin/archived-providers";
    let key = json!({ "organisation": "acme", "scopes": ["logs.write"], "name": "gateway", "expires_in_days": 90 });
    let organisation = json!({ "id": "acme", "plan": "production", "workspaces": ["search"] });
    let (get, post) = (Operation::get, Operation::post);
    let delete = |route, id, summary| Operation::new("DELETE", route, id, summary);
    let patch = |route, id, summary| Operation::new("PATCH", route, id, summary);
    vec![
        get(ALL, "listOrganisations", "Lists organisations, also deleted ones").gives(200, "list:Organisation"),
        post(ALL, "createOrganisation", "Creates an organisation")
            .body("NewOrganisation", &organisation)
            .gives(201, "Organisation"),
        get(ONE, "getOrganisation", "Shows an organisation").gives(200, "Organisation"),
        patch(
            ONE,
            "changeOrganisation",
            "Changes an organisation: plan, retention, name, workspaces, what may be exported",
        )
        .body("OrganisationChange", &json!({ "plan": "enterprise", "retention_days": 90 }))
        .gives(200, "Organisation"),
        delete(ONE, "deleteOrganisation", "Deletes an organisation: its keys and records open nothing from then on")
            .gives(202, "Organisation"),
        get("/v1/admin/keys", "listKeys", "Lists keys, without their texts")
            .takes(OF_ONE)
            .gives(200, "list:Key")
            .fails(&[404]),
        post("/v1/admin/keys", "createKey", "Makes a key").body("NewKey", &key).gives(201, "FreshKey").fails(&[404]),
        delete("/v1/admin/keys/{id}", "revokeKey", "Revokes a key").gives(200, "Key"),
        get("/v1/admin/erasures", "listErasures", "Lists erasures")
            .takes(OF_ONE)
            .gives(200, "list:Erasure")
            .fails(&[404]),
        post("/v1/admin/erasures", "erase", "Erases records for good")
            .says("They are in no answer once this is answered; they leave the files with the next upkeep.")
            .body("NewErasure", &json!({ "organisation": "acme", "user": "ana" }))
            .gives(202, "Erasure")
            .fails(&[404]),
        get(PROVIDERS, "listArchivedProviders", "Lists providers that were archived: their logs cannot be replayed")
            .takes(OF_ONE)
            .gives(200, "list:ArchivedProvider")
            .fails(&[404]),
        post(PROVIDERS, "archiveProvider", "Archives a provider")
            .body("NewArchivedProvider", &json!({ "provider": "openai-main", "organisation": "acme" }))
            .gives(200, "list:ArchivedProvider")
            .fails(&[404]),
        delete("/v1/admin/archived-providers/{provider}", "takeBackProvider", "Takes an archived provider back")
            .takes(OF_ONE)
            .gives(200, "list:ArchivedProvider")
            .fails(&[404]),
        get("/v1/admin/plans", "listPlans", "Lists the plans; to an organisation's key its own")
            .gives(200, "list:Plan"),
        get("/v1/admin/maintain", "getUpkeep", "Shows the upkeep jobs and what became of them").gives(200, "Upkeep"),
        post("/v1/admin/maintain/{job}", "runJob", "Runs an upkeep job now")
            .takes("dry_run  flag  true  true says what would be done, and does nothing")
            .gives(200, "JobOutcome"),
        get("/v1/admin/clock", "getClock", "Shows whether the time of the server's clock is in doubt")
            .gives(200, "Clock"),
        post("/v1/admin/clock", "confirmClock", "Confirms the time of the server's clock after a leap")
            .says("Until then nothing expires and no file is deleted.")
            .gives(200, "Clock"),
    ]
}
