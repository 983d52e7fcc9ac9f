//! Logs: Portkey's insert, lists with their filters, single logs, saved filters, replays and share links.

use serde_json::{Value, json};

use super::components::share_fields;
use super::operation::{JSON, Operation, commas, header, part, query};
use super::schema::{
    any, between, constant, count, day_moment_or_nothing, flag, list, listing, map, number, object, one_of, open,
    or_null, refer, text, whole, with,
};
use crate::logs::{MOST_CONDITIONS, MOST_PAGE_SIZE, MOST_VALUES, PAGE_SIZE};
use crate::replay::ENDPOINTS;

pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![insert(), page()];
    all.extend(single());
    all.extend(saved());
    all.extend(replay());
    all.extend(share());
    all
}

/// The id of a log.
fn id() -> Value {
    part("id", text("id of the log"), "0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00")
}

/// Says which log is meant where several organisations have one of that id.
fn owner() -> Value {
    query("organisation_id", text("whose log is meant, where several organisations have that id"), "acme")
}

/// Every filter of logs, but for the time.
pub(super) fn filters() -> Vec<Value> {
    let word = || json!({ "type": "string", "pattern": "^[^,]*[^,\\s][^,]*$" });
    let texts = |name: &str, doc: &str, example: &str| commas(name, &word(), MOST_VALUES, doc, json!([example]));
    let least = |name: &str, what: &str, example: u64| query(name, count(&format!("{what}, at least")), example);
    let most = |name: &str, what: &str, example: u64| query(name, count(&format!("{what}, at most")), example);
    let cents = |name: &str, doc: &str, example: f64| query(name, with(number(doc), "minimum", 0), example);
    let score = |name: &str, doc: &str, example: i8| {
        query(name, with(with(number(doc), "minimum", -10), "maximum", 10), example)
    };
    let cache = one_of(["HIT", "SEMANTIC HIT", "MISS", "SEMANTIC MISS", "REFRESH", "DISABLED"], "a status");
    let metadata = json!({
        "name": "metadata", "in": "query", "required": false,
        "description": "keys of the metadata with their values, as a JSON object; all of them must be there",
        "content": { JSON: {
            "schema": with(map(text("a value"), "keys with their values"), "maxProperties", MOST_CONDITIONS),
            "example": { "_user": "ana" },
        } },
    });
    vec![
        least("total_units_min", "tokens of request and response", 100),
        most("total_units_max", "tokens of request and response", 9_000),
        cents("cost_min", "cost, US cents, at least", 0.25),
        cents("cost_max", "cost, US cents, at most", 150.0),
        least("prompt_token_min", "tokens of the request", 10),
        most("prompt_token_max", "tokens of the request", 4_000),
        least("completion_token_min", "tokens of the response", 10),
        most("completion_token_max", "tokens of the response", 4_000),
        score("weighted_feedback_min", "weighted mean of the feedback on the trace, at least", -5),
        score("weighted_feedback_max", "weighted mean of the feedback on the trace, at most", 5),
        commas(
            "status_code",
            &json!({ "type": "integer", "format": "int32", "minimum": 100, "maximum": 599 }),
            MOST_VALUES,
            "HTTP statuses, one of which the response has",
            json!([401, 429]),
        ),
        texts("ai_model", "models, one of which answered", "gpt-4o"),
        commas(
            "ai_org_model",
            &json!({ "type": "string", "pattern": "^[^,\\s_]+__[^,\\s_]+$" }),
            MOST_CONDITIONS,
            "providers with one of their models, as PROVIDER__MODEL",
            json!(["openai__gpt-4o"]),
        ),
        texts("virtual_keys", "slugs of provider keys, one of which was used", "openai-main"),
        texts("configs", "slugs of configs, one of which was used", "pc-fallback"),
        texts("prompt_slug", "slugs of prompt templates, one of which was used", "pp-welcome"),
        texts("trace_id", "traces, one of which the call belongs to", "5b8efff798038103d269b633813fc60c"),
        texts("span_id", "spans, one of which is the call's", "eee19b7ec3c1b174"),
        texts("api_key_ids", "ids of API keys, one of which made the call", "k-7"),
        texts("workspace_slug", "workspaces, one of which the log belongs to", "search"),
        texts("organisation_id", "organisations, one of which the log belongs to", "acme"),
        texts("user_id", "end users, one of whom made the call", "ana"),
        commas("cache_status", &cache, MOST_VALUES, "what the cache did, any of these", json!(["HIT"])),
        commas(
            "status",
            &one_of(STATUS_LABELS, "a label"),
            MOST_CONDITIONS,
            "Status labels, one of which the log has of each kind that is named; also `Retry Success on N Tries`",
            json!(["Cache Hit", "Fallback Active"]),
        ),
        metadata,
    ]
}

const STATUS_LABELS: [&str; 12] = [
    "Cache Disabled",
    "Cache Miss",
    "Cache Refreshed",
    "Cache Hit",
    "Cache Semantic Hit",
    "Retry Not Triggered",
    "Retry Success",
    "Retry Failed",
    "Fallback Disabled",
    "Fallback Active",
    "Loadbalancer Disabled",
    "Loadbalancer Active",
];

/// The time frame of a filter, both ends in it.
pub(super) fn frame() -> [Value; 2] {
    let end = |name: &str, doc: &str, example: &str| query(name, day_moment_or_nothing(doc), example);
    [
        end("time_of_generation_min", "first moment, UTC; a day is its first moment", "2026-11-01"),
        end("time_of_generation_max", "last moment, UTC; a day is its first moment", "2026-11-21T17:30:00Z"),
    ]
}

fn insert() -> Operation {
    let call = open(object(
        "A call. What can be understood is kept.",
        [
            (
                "request?",
                open(object(
                    "what was sent",
                    [
                        ("url?", any("URL")),
                        ("method?", any("HTTP method")),
                        ("headers?", any("headers")),
                        ("body?", any("the body")),
                    ],
                )),
            ),
            (
                "response?",
                open(object(
                    "what came back",
                    [
                        ("status?", any("HTTP status; 200 if missing")),
                        ("headers?", any("headers")),
                        ("body?", any("the body; tokens and model are read from it")),
                        ("response_time?", any("ms")),
                    ],
                )),
            ),
            ("metadata?", any("traceId, spanId, parentSpanId, spanName, and keys of the caller's own")),
        ],
    ));
    let schema =
        json!({ "anyOf": [call.clone(), list(call, "several calls"), any("anything else is counted as rejected")] });
    let example = json!({
        "request": { "url": "https://api.openai.com/v1/chat/completions", "method": "POST", "body": { "model": "gpt-4o" } },
        "response": { "status": 200, "body": { "model": "gpt-4o", "usage": { "prompt_tokens": 3, "completion_tokens": 1 } }, "response_time": 61 },
        "metadata": { "traceId": "t-1", "_user": "ana" },
    });
    let count = |doc: &str| text(doc);
    Operation::post("/v1/logs", "insertLog", "Stores calls, as Portkey's SDKs send them")
        .says(
            "Whatever the body is, the answer is `ok`: logging must not break the caller. The headers of the answer say \
             what became of it. An export of OpenTelemetry's logs is taken too, and answered as such.",
        )
        .takes([header("x-portkey-metadata", text("metadata of all records, a JSON object of texts"), "{\"_user\":\"ana\"}")])
        .body(false, &[JSON], &schema, &example)
        .answers(
            200,
            "Taken",
            &[
                ("text/plain", constant("ok")),
                (JSON, any("an answer of OpenTelemetry, to an export of its logs")),
                ("application/x-protobuf", any("the same")),
            ],
        )
        .with_headers(
            200,
            &[
                ("x-gatelog-accepted", count("records that are stored")),
                ("x-gatelog-rejected", count("records that were not taken")),
                ("x-gatelog-over-quota", count("records that the plan does not store")),
            ],
        )
        .fails(&[429])
}

fn page() -> Operation {
    let answer = object(
        "A page.",
        [
            ("object", constant("list")),
            ("data", list(refer("ListedLog"), "the logs, newest first")),
            ("has_more", flag("whether there is a next page")),
            ("next", or_null(text("`cursor` of the next page"))),
            ("total", or_null(count("how many logs the filter finds; null unless asked for"))),
        ],
    );
    Operation::get("/v1/logs", "listLogs", "Lists logs, newest first, without bodies")
        .takes(frame())
        .takes(filters())
        .takes([
            query("page_size", with(between(1, MOST_PAGE_SIZE, "logs of a page"), "default", PAGE_SIZE), 20),
            query(
                "cursor",
                with(text("`next` of the page before"), "pattern", "^([0-9a-f]{2})*$"),
                "5b312c2261222c2261636d65225d",
            ),
            query("include_total", flag("whether to count all that the filter finds"), true),
            query("saved", text("name of a saved filter; fields beside it win over its own"), "failures"),
        ])
        .answers_json(200, "A page of logs", answer)
        .leads_to(
            200,
            &["getLog", "openLog", "getReplay", "shareLog", "listShares"]
                .map(|id| (id, "id", "$response.body#/data/0/id")),
        )
        .fails(&[400, 404, 422, 429])
}

fn single() -> [Operation; 2] {
    [
        Operation::get("/v1/logs/{id}", "getLog", "Shows one log whole")
            .takes([id(), owner()])
            .answers_json(200, "The log", refer("LogObject"))
            .fails(&[404, 422, 429]),
        Operation::get("/logs/{id}", "openLog", "Shows one log: its own URL")
            .says("JSON, or a page for people where `accept` asks for `text/html`.")
            .takes([id(), owner()])
            .answers(200, "The log", &[(JSON, refer("LogObject")), ("text/html", text("a page"))])
            .fails(&[404, 422, 429]),
    ]
}

fn saved() -> [Operation; 3] {
    let name = || {
        part(
            "name",
            with(text("name of the filter"), "pattern", "^[A-Za-z0-9 _-]*[A-Za-z0-9][A-Za-z0-9 _-]*$"),
            "failures",
        )
    };
    let whose = || query("organisation_id", text("whose filter it is; the key's own where it is bound to one"), "acme");
    let body = object("A filter.", [("query", text("what would stand behind the `?` of `GET /v1/logs`"))]);
    [
        Operation::get("/v1/logs/filters", "listSavedFilters", "Lists saved filters").answers_json(
            200,
            "The filters",
            listing(refer("SavedFilter"), "Saved filters."),
        ),
        Operation::put("/v1/logs/filters/{name}", "saveFilter", "Saves a filter of logs under a name")
            .takes([name(), whose()])
            .body(true, &[JSON], &body, &json!({ "query": "status_code=429&ai_model=gpt-4o" }))
            .answers_json(200, "The filter", refer("SavedFilter"))
            .fails(&[404, 422, 429]),
        Operation::delete("/v1/logs/filters/{name}", "deleteSavedFilter", "Deletes a saved filter")
            .takes([name(), whose()])
            .answers_json(200, "The filter that was", refer("SavedFilter"))
            .fails(&[400, 404, 429]),
    ]
}

fn replay() -> [Operation; 2] {
    let request = object(
        "the stored request, ready to be edited",
        [
            ("method", constant("POST")),
            ("endpoint", one_of(ENDPOINTS, "path at the gateway")),
            ("body", any("the body")),
        ],
    );
    let reason = object("why it cannot be sent again", [("code", text("a word")), ("message", text("a sentence"))]);
    let shown = object(
        "A replay.",
        [
            ("object", constant("replay")),
            ("log_id", text("the log")),
            ("active", flag("whether it can be sent again")),
            ("reason", or_null(reason)),
            ("request", or_null(request)),
            ("endpoints", list(text("a path"), "endpoints that it can be sent to")),
            ("gateway", flag("whether there is a gateway to send it to")),
            ("headers", list(text("a name"), "headers of yours that are passed on")),
        ],
    );
    let response = object(
        "What the gateway answered.",
        [
            ("status", whole("HTTP status")),
            ("headers", map(text("a value"), "its headers, those that matter")),
            ("body", any("its body; a text if it is no JSON")),
            ("response_time", count("ms")),
        ],
    );
    let told = object(
        "What came of it.",
        [
            ("object", constant("replay")),
            ("replay_of", text("the log that was sent again")),
            ("log_id", or_null(text("the new log; null if none was written"))),
            ("url", or_null(text("its page"))),
            ("trace_id", or_null(text("the trace of both"))),
            ("message", or_null(text("why no log was written"))),
            ("response", response),
        ],
    );
    let edited = object(
        "The edited request; what is missing is as it was.",
        [
            ("method?", or_null(constant("POST"))),
            ("endpoint?", or_null(one_of(ENDPOINTS, "path at the gateway"))),
            ("body?", any("the body")),
        ],
    );
    let example = json!({ "endpoint": "/chat/completions", "body": { "model": "gpt-4o", "messages": [] } });
    [
        Operation::get(
            "/v1/logs/{id}/replay",
            "getReplay",
            "Shows a stored request ready to edit, or why it cannot be sent again",
        )
        .takes([id(), owner()])
        .answers_json(200, "The request", shown)
        .fails(&[404, 422, 429]),
        Operation::post(
            "/v1/logs/{id}/replay",
            "sendReplay",
            "Sends an edited request to the gateway, with your own provider credentials",
        )
        .says("The headers that `getReplay` names are passed on and never stored. Needs scope `logs.read` too.")
        .takes([id(), owner()])
        .body(false, &[JSON], &edited, &example)
        .answers_json(200, "What the gateway answered", told)
        .fails(&[404, 409, 422, 429, 502, 504]),
    ]
}

fn share() -> [Operation; 3] {
    let fresh = object(
        "A link that was just made.",
        std::iter::once(("url", text("path that opens the log; told this once"))).chain(share_fields()),
    );
    let wanted = object(
        "What is shared.",
        [
            (
                "expires_in_seconds?",
                or_null(between(1, 30 * 86_400, "how long it opens; 7 days where nothing is said")),
            ),
            ("bodies?", or_null(flag("false keeps the bodies back"))),
        ],
    );
    [
        Operation::get("/v1/logs/{id}/share", "listShares", "Lists the share links to a log")
            .takes([id(), owner()])
            .answers_json(200, "The links", listing(refer("Share"), "Share links."))
            .fails(&[404, 422, 429]),
        Operation::post("/v1/logs/{id}/share", "shareLog", "Makes a link that opens a log without a key")
            .says("403 unless the operator turned links on (`share_links`).")
            .takes([id(), owner()])
            .body(false, &[JSON], &wanted, &json!({ "expires_in_seconds": 3600 }))
            .answers_json(201, "The link", fresh)
            .leads_to(201, &[("revokeShare", "id", "$response.body#/id")])
            .fails(&[404, 422, 429]),
        Operation::delete("/v1/shares/{id}", "revokeShare", "Revokes a share link")
            .takes([part("id", text("id of the link"), "0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00")])
            .answers_json(200, "The link", refer("Share"))
            .fails(&[400, 404, 429]),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::logs::FILTER_NAMES;

    #[test]
    fn every_filter_is_told() {
        let told: Vec<Value> = frame().into_iter().chain(filters()).collect();
        let told: BTreeSet<&str> = told.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(told, FILTER_NAMES.split(", ").collect());
    }
}
