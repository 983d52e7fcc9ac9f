//! `/v1/admin`: organisations, keys, erasures, plans, archived providers, maintenance.

use serde_json::json;

use crate::http::openapi::operation::Operation;

pub(super) const SCHEMAS: &str = "\
Organisation  An organisation.
  id                       text      id of the organisation
  name                     text?     display name
  plan                     text      name of its plan
  retention_days           count     days for which its records are kept; 0 means for ever
  workspaces               [text]    slugs of its workspaces
  created_at               moment    time of creation
  deleted_at               moment?   time of deletion; its records are being erased
  records_this_month       count     records stored this calendar month (UTC)
  not_stored_this_month    count     records not stored this month because of the plan's quota
  denied_fields            [text]    fields that its keys may not export or read
  workspace_denied_fields  {[text]}  further denied fields, by workspace

NewOrganisation  An organisation to create.
  id               text    id: letters, digits and any of - _ . : @
  plan?            text?   name of its plan
  name?            text?   display name
  retention_days?  days?   days for which records are kept, if the plan leaves it to agreement; 0 \
      means for ever
  workspaces?      [text]  slugs of its workspaces

OrganisationChange  Changes to an organisation; at least one is required.
  plan?                     text?     name of its plan
  retention_days?           days?     days for which records are kept, if the plan leaves it to \
      agreement; 0 means for ever
  name?                     text?     display name
  add_workspaces?           [text]    slugs of workspaces to add
  denied_fields?            [text]?   fields that its keys may not export or read; an empty list \
      allows all
  workspace_denied_fields?  {[text]}  further denied fields, by workspace

Plan  A plan with its terms.
  name            text       name of the plan
  retention_days  count      days for which records are kept; 0 means for ever, unless an \
      organisation agreed on less
  included?       count      records included in a calendar month (UTC); absent means no limit
  over            stop|bill  `stop` does not store records above the quota, `bill` stores and bills them
  block_records   count      records in a block; overage is billed in started blocks
  block_cents     count      price of a block, US cents
  export_days?    count      days that an export may reach back; 0 means no exports, absent means \
      no limit
  export_rows?    count      maximum number of records in an export; absent means no limit

Key  An API key, without its secret.
  id            text                    id of the key; not a secret
  name          text?                   purpose of the key
  organisation  text?                   organisation that the key is bound to; null for a key of \
      the operator
  workspace     text?                   workspace that the key is bound to
  scopes        [scope]                 permissions of the key; `admin` includes all others
  state         active|expired|revoked  state of the key; only an active key is accepted
  created_at    moment                  time of creation
  expires_at    moment?                 time at which the key expires
  revoked_at    moment?                 time of revocation

FreshKey  A key that was just created.
  key  text  secret of the key; only this response contains it
  ..Key

NewKey  A key to create. It cannot have more permissions than the key of the request.
  organisation?     text?          organisation that the key is bound to
  workspace?        text?          workspace that the key is bound to
  scopes?           [scope]        permissions of the key; at least one
  name?             text?          purpose of the key
  expires_at?       moment?        time at which the key expires
  expires_in_days?  days_to_live?  days until the key expires, instead of `expires_at`

Erasure  An erasure.
  id            text          id of the erasure
  organisation  text          organisation whose records are erased
  what          all|user|ids  selection of the records
  user          text?         end user whose records are erased
  ids           [text]        ids of the records or feedback to erase
  feedback      count         feedback on these records that is erased with them; not counted for \
      `all`
  requested_at  moment        time of the request; no later response contains the records
  requested_by  text          id of the key that requested the erasure, or `cli`
  erased        count         records removed from files so far
  last_run_at   moment?       time of the last pass over the files

NewErasure  Records to erase: exactly one of `user`, `ids` and `all`.
  organisation?  text?    organisation of the records; defaults to the organisation of the key
  user?          text?    erases the records of this end user
  ids?           [text]?  erases the records or feedback with these ids
  all?           flag?    true erases all records

ArchivedProvider  An archived provider.
  organisation  text  organisation of the provider
  provider      text  slug of the provider

NewArchivedProvider  A provider to archive.
  provider       text   slug of the provider
  organisation?  text?  organisation of the provider; defaults to the organisation of the key

Maintenance  State of maintenance.
  holder  text?     id of the write-ahead log of the node that runs maintenance
  until   moment?   end of the lease; until then no other node runs maintenance
  jobs    {JobRun}  maintenance jobs by name

JobRun  The last run of a maintenance job, and the next one.
  schedule     text           interval, or cron expression in UTC
  started_at?  moment         start of the last run
  ended_at?    moment         end of the last run
  seconds      number         duration of the last run, s
  did          [text]         actions of the last run; empty if nothing had to be done
  error?       text           reason of the failure
  failures     0..4294967295  number of consecutive failures
  runs         count          number of runs
  next_at?     moment         time of the next run; absent if the job is not scheduled

Clock  State of the server's clock.
  object     text     always `clock`
  now        moment   time of the clock
  in_doubt   flag     true if the clock leapt and the time is not confirmed; until then nothing \
      expires
  expected   moment?  time that was expected when the clock leapt
  found      moment?  time that the clock showed instead

JobOutcome  Result of a job, or of its dry run.
  job           job     name of the job
  dry_run       flag    true if nothing was changed
  lines         [text]  one line for each step
  files_before  count   live files before the job
  files_after   count   live files after the job
  bytes_before  count   bytes of live files before the job
  bytes_after   count   bytes of live files after the job";

const OF_ONE: &str =
    "organisation  text  acme  organisation; defaults to all that the key can read";

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/v1/admin/organisations";
    const ONE: &str = "/v1/admin/organisations/{id}";
    const PROVIDERS: &str = "/v1/admin/archived-providers";
    let key = json!({ "organisation": "acme", "scopes": ["logs.write"], "name": "gateway", "expires_in_days": 90 });
    let organisation = json!({ "id": "acme", "plan": "production", "workspaces": ["search"] });
    let get = Operation::get;
    let post = Operation::post;
    let delete = |route, id, summary| Operation::new("DELETE", route, id, summary);
    let patch = |route, id, summary| Operation::new("PATCH", route, id, summary);
    vec![
        get(ALL, "listOrganisations", "Lists organisations, including deleted ones").gives(200, "list:Organisation"),
        post(ALL, "createOrganisation", "Creates an organisation")
            .body("NewOrganisation", &organisation)
            .gives(201, "Organisation"),
        get(ONE, "getOrganisation", "Returns an organisation").gives(200, "Organisation"),
        patch(
            ONE,
            "changeOrganisation",
            "Changes an organisation: plan, retention, name, workspaces, denied fields",
        )
        .body("OrganisationChange", &json!({ "plan": "enterprise", "retention_days": 90 }))
        .gives(200, "Organisation"),
        delete(ONE, "deleteOrganisation", "Deletes an organisation, its keys and its records")
            .gives(202, "Organisation"),
        get("/v1/admin/keys", "listKeys", "Lists keys, without their secrets")
            .takes(OF_ONE)
            .gives(200, "list:Key")
            .fails(&[404]),
        post("/v1/admin/keys", "createKey", "Creates a key").body("NewKey", &key).gives(201, "FreshKey").fails(&[404]),
        delete("/v1/admin/keys/{id}", "revokeKey", "Revokes a key").gives(200, "Key"),
        get("/v1/admin/erasures", "listErasures", "Lists erasures")
            .takes(OF_ONE)
            .gives(200, "list:Erasure")
            .fails(&[404]),
        post("/v1/admin/erasures", "erase", "Erases records permanently")
            .says("No response contains the records after this one. The next maintenance removes them from the files.")
            .body("NewErasure", &json!({ "organisation": "acme", "user": "ana" }))
            .gives(202, "Erasure")
            .fails(&[404]),
        get(PROVIDERS, "listArchivedProviders", "Lists archived providers; their logs cannot be replayed")
            .takes(OF_ONE)
            .gives(200, "list:ArchivedProvider")
            .fails(&[404]),
        post(PROVIDERS, "archiveProvider", "Archives a provider")
            .body("NewArchivedProvider", &json!({ "provider": "openai-main", "organisation": "acme" }))
            .gives(200, "list:ArchivedProvider")
            .fails(&[404]),
        delete("/v1/admin/archived-providers/{provider}", "takeBackProvider", "Restores an archived provider")
            .takes(OF_ONE)
            .gives(200, "list:ArchivedProvider")
            .fails(&[404]),
        get("/v1/admin/plans", "listPlans", "Lists the plans; for the key of an organisation, only its plan")
            .gives(200, "list:Plan"),
        get("/v1/admin/maintain", "getMaintenance", "Lists the maintenance jobs with their last runs").gives(200, "Maintenance"),
        post("/v1/admin/maintain/{job}", "runJob", "Runs a maintenance job now")
            .takes("dry_run  flag  true  true reports the planned steps without running them")
            .gives(200, "JobOutcome"),
        get("/v1/admin/clock", "getClock", "Returns the state of the server's clock")
            .gives(200, "Clock"),
        post("/v1/admin/clock", "confirmClock", "Confirms the time of the server's clock after a leap")
            .says("Until the confirmation nothing expires and no file is deleted.")
            .gives(200, "Clock"),
    ]
}
