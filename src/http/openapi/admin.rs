//! `/v1/admin`: organisations, keys, erasures, plans, archived providers, upkeep.

use serde_json::{Value, json};

use super::components::{jobs, key_fields};
use super::operation::{JSON, Operation, part, query};
use super::schema::{between, count, flag, list, listing, map, moment, object, one_of, or_null, refer, text, with};
use crate::config::MOST_DAYS;

pub(super) fn operations() -> Vec<Operation> {
    let mut all = organisations();
    all.extend(keys());
    all.extend(erasures());
    all.extend(providers());
    all.push(
        Operation::get("/v1/admin/plans", "listPlans", "Lists the plans; to an organisation's key its own")
            .answers_json(200, "The plans", listing(refer("Plan"), "Plans.")),
    );
    all.extend(upkeep());
    all
}

/// Names one organisation.
fn of_one() -> Value {
    query("organisation", text("one organisation; all that the key reaches where none is named"), "acme")
}

fn id_of(what: &str, example: &str) -> Value {
    part("id", text(what), example)
}

/// How long records are kept.
fn days() -> Value {
    let doc = "days that records are kept, where the plan leaves it to agreement; 0 = for ever";
    with(between(0, u64::try_from(MOST_DAYS).unwrap_or(0), doc), "format", "int32")
}

fn organisations() -> Vec<Operation> {
    let new = object(
        "An organisation to be.",
        [
            ("id", text("its id: lower case letters, digits, `-` and `_`")),
            ("plan?", or_null(text("name of its plan"))),
            ("name?", or_null(text("what people call it"))),
            ("retention_days?", or_null(days())),
            ("workspaces?", list(text("a slug"), "its workspaces")),
        ],
    );
    let change = object(
        "What changes; at least one of them.",
        [
            ("plan?", or_null(text("name of its plan"))),
            ("retention_days?", or_null(days())),
            ("name?", or_null(text("what people call it"))),
            ("add_workspaces?", list(text("a slug"), "further workspaces")),
            ("denied_fields?", or_null(list(text("a field"), "what its keys may not export; empty = all may be"))),
            ("workspace_denied_fields?", map(list(text("a field"), "fields"), "the same beside that, by workspace")),
        ],
    );
    let id = || id_of("id of the organisation", "acme");
    const ONE: &str = "/v1/admin/organisations/{id}";
    vec![
        Operation::get("/v1/admin/organisations", "listOrganisations", "Lists organisations, also deleted ones")
            .answers_json(200, "The organisations", listing(refer("Organisation"), "Organisations.")),
        Operation::post("/v1/admin/organisations", "createOrganisation", "Creates an organisation")
            .body(true, &[JSON], &new, &json!({ "id": "acme", "plan": "production", "workspaces": ["search"] }))
            .answers_json(201, "The organisation", refer("Organisation"))
            .leads_to(
                201,
                &["getOrganisation", "changeOrganisation", "deleteOrganisation"]
                    .map(|one| (one, "id", "$response.body#/id")),
            )
            .fails(&[422, 429]),
        Operation::get(ONE, "getOrganisation", "Shows an organisation")
            .takes([id()])
            .answers_json(200, "The organisation", refer("Organisation"))
            .fails(&[400, 404]),
        Operation::new(
            "PATCH",
            ONE,
            "changeOrganisation",
            "Changes an organisation's plan, retention, name, workspaces or what may be exported",
        )
        .takes([id()])
        .body(true, &[JSON], &change, &json!({ "plan": "enterprise", "retention_days": 90 }))
        .answers_json(200, "The organisation", refer("Organisation"))
        .fails(&[404, 422, 429]),
        Operation::delete(
            ONE,
            "deleteOrganisation",
            "Deletes an organisation: its keys and records open nothing from then on",
        )
        .takes([id()])
        .answers_json(202, "The organisation, whose files are deleted later", refer("Organisation"))
        .fails(&[400, 404, 422, 429]),
    ]
}

fn keys() -> [Operation; 3] {
    let new = object(
        "A key to be. It reaches no further than the one that makes it.",
        [
            ("organisation?", or_null(text("the organisation that it is bound to"))),
            ("workspace?", or_null(text("the workspace that it is bound to"))),
            ("scopes?", list(refer("Scope"), "what it may do; at least one")),
            ("name?", or_null(text("what it is for"))),
            ("expires_at?", or_null(moment("from when on it opens nothing"))),
            (
                "expires_in_days?",
                or_null(between(1, u64::try_from(MOST_DAYS).unwrap_or(1), "the same, in days from now")),
            ),
        ],
    );
    let fresh = object(
        "A key that was just made.",
        std::iter::once(("key", text("its text; told this once"))).chain(key_fields()),
    );
    let example = json!({ "organisation": "acme", "scopes": ["logs.write"], "name": "gateway", "expires_in_days": 90 });
    [
        Operation::get("/v1/admin/keys", "listKeys", "Lists keys, without their texts")
            .takes([of_one()])
            .answers_json(200, "The keys", listing(refer("Key"), "Keys."))
            .fails(&[400, 404]),
        Operation::post("/v1/admin/keys", "createKey", "Makes a key")
            .body(true, &[JSON], &new, &example)
            .answers_json(201, "The key", fresh)
            .leads_to(201, &[("revokeKey", "id", "$response.body#/id")])
            .fails(&[404, 422, 429]),
        Operation::delete("/v1/admin/keys/{id}", "revokeKey", "Revokes a key")
            .takes([id_of("id of the key", "0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00")])
            .answers_json(200, "The key", refer("Key"))
            .fails(&[400, 404, 429]),
    ]
}

fn erasures() -> [Operation; 2] {
    let new = object(
        "Which records: one of `user`, `ids` and `all`.",
        [
            ("organisation?", or_null(text("whose records; the key's own where it is bound to one"))),
            ("user?", or_null(text("those of this end user"))),
            ("ids?", or_null(list(text("an id"), "these"))),
            ("all?", or_null(flag("all of them"))),
        ],
    );
    [
        Operation::get("/v1/admin/erasures", "listErasures", "Lists erasures")
            .takes([of_one()])
            .answers_json(200, "The erasures", listing(refer("Erasure"), "Erasures."))
            .fails(&[400, 404]),
        Operation::post("/v1/admin/erasures", "erase", "Erases records for good")
            .says("They are in no answer once this is answered; they leave the files with the next upkeep.")
            .body(true, &[JSON], &new, &json!({ "organisation": "acme", "user": "ana" }))
            .answers_json(202, "The erasure", refer("Erasure"))
            .fails(&[404, 422, 429]),
    ]
}

fn providers() -> [Operation; 3] {
    let new = object(
        "A provider.",
        [
            ("provider", text("its slug")),
            ("organisation?", or_null(text("whose; the key's own where it is bound to one"))),
        ],
    );
    let told = || refer("ArchivedProviders");
    [
        Operation::get(
            "/v1/admin/archived-providers",
            "listArchivedProviders",
            "Lists providers that were archived: their logs cannot be replayed",
        )
        .takes([of_one()])
        .answers_json(200, "The providers", told())
        .fails(&[400, 404]),
        Operation::post("/v1/admin/archived-providers", "archiveProvider", "Archives a provider")
            .body(true, &[JSON], &new, &json!({ "provider": "openai-main", "organisation": "acme" }))
            .answers_json(200, "The organisation's archived providers", told())
            .fails(&[404, 422, 429]),
        Operation::delete(
            "/v1/admin/archived-providers/{provider}",
            "takeBackProvider",
            "Takes an archived provider back",
        )
        .takes([part("provider", text("its slug"), "openai-main"), of_one()])
        .answers_json(200, "The organisation's archived providers", told())
        .fails(&[400, 404, 422, 429]),
    ]
}

fn upkeep() -> [Operation; 2] {
    let shown = object(
        "The state of upkeep.",
        [
            ("holder", or_null(text("id of the log of the node that does it"))),
            ("until", or_null(moment("until when no other node may"))),
            ("jobs", map(refer("JobRun"), "by name")),
        ],
    );
    let outcome = object(
        "What a job did, or would do.",
        [
            ("job", one_of(jobs(), "the job")),
            ("dry_run", flag("whether nothing was changed")),
            ("lines", list(text("a step"), "one line for each step")),
            ("files_before", count("live files before")),
            ("files_after", count("live files after")),
            ("bytes_before", count("bytes of live files before")),
            ("bytes_after", count("bytes of live files after")),
        ],
    );
    [
        Operation::get("/v1/admin/maintain", "getUpkeep", "Shows the upkeep jobs and what became of them")
            .answers_json(200, "The state of upkeep", shown),
        Operation::post("/v1/admin/maintain/{job}", "runJob", "Runs an upkeep job now")
            .takes([
                part("job", one_of(jobs(), "the job"), "compact"),
                query("dry_run", flag("true says what would be done, and does nothing"), true),
            ])
            .answers_json(200, "What it did", outcome)
            .fails(&[400, 404, 429]),
    ]
}
