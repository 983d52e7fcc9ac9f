//! Logs: Portkey's insert, lists with their filters, single logs, saved filters, replays and share
//! links.

use serde_json::{Value, json};

use super::operation::{JSON, Operation, PROTOBUF, told_withheld};
use super::schema::{kind, parameters, with};
use crate::logs::MAX_CONDITIONS;

pub(super) const SCHEMAS: &str = "\
LogStatus  The four Status labels; null where the columns that they tell of are denied.
  cache        text?  such as `Cache Hit`
  retry        text?  such as `Retry Success on 2 Tries`
  fallback     text?  `Fallback Active` or `Fallback Disabled`
  loadbalance  text?  `Loadbalancer Active` or `Loadbalancer Disabled`

LogPage  A page.
  object    =list
  data      [ListedLog]   the logs, newest first
  has_more  flag          whether there is a next page
  next      text?         `cursor` of the next page
  total     count?        how many logs the filter finds; null unless asked for

LogObject  A log, in Portkey's form.
  _id                text?        id of the log
  request            LogRequest
  response           LogResponse
  organisation_id    text?        organisation that it belongs to
  created_at         text?        when, as JavaScript writes a date
  metrics            LogMetrics
  object             =log
  status             LogStatus
  feedback           [Feedback]   what was said of it, newest first
  weighted_feedback  number?      weighted mean of that
  links              LogLinks
  withheld?          [text]       columns that are null because the key may not read them

LogRequest  What was sent.
  url             text?   URL of the provider
  method          text?   HTTP method
  headers         any     the headers, secrets masked; null if not kept
  body            any     the body as it came; null if not kept, or if the key lacks `logs.read`
  portkeyHeaders  {any}   the headers that were meant for the gateway

LogResponse  What came back.
  status                  whole?   HTTP status
  headers                 any      the headers; null if not kept
  body                    any      the body as it came; null if not kept, or if the key lacks `logs.read`
  responseTime            whole?   ms
  lastUsedOptionJsonPath  text?    JSON path of the target that answered

LogLinks  Where to go from here.
  own     text    the log's own page
  replay  text    its replay
  config  text?   logs of the same config
  prompt  text?   logs of the same prompt
  trace   text?   logs of the same trace

InsertedCall+  A call. What can be understood is kept.
  request?   SentRequest
  response?  SentResponse
  metadata?  any   traceId, spanId, parentSpanId, spanName, and keys of the caller's own

SentRequest+  What was sent.
  url?      any   URL
  method?   any   HTTP method
  headers?  any   headers
  body?     any   the body

SentResponse+  What came back.
  status?         any   HTTP status; 200 if missing
  headers?        any   headers
  body?           any   the body; tokens and model are read from it
  response_time?  any   ms

SavedFilter  A filter of the list of logs under a name.
  object        =saved-filter
  name          text     its name
  organisation  text     whose it is
  query         text     the fields of the filter, as a query string
  created_by    text     id of the key that saved it
  created_at    moment   when it was saved

NewFilter  A filter.
  query  text   what would stand behind the `?` of `GET /v1/logs`

Replay  A replay.
  object     =replay
  log_id     text             the log
  active     flag             whether it can be sent again
  reason     ReplayReason?
  request    ReplayRequest?
  endpoints  [text]           endpoints that it can be sent to
  gateway    flag             whether there is a gateway to send it to
  headers    [text]           headers of yours that are passed on

ReplayReason  Why it cannot be sent again.
  code     text   a word
  message  text   a sentence

ReplayRequest  The stored request, ready to be edited.
  method    =POST
  endpoint  endpoint   path at the gateway
  body      any        the body

EditedRequest  The edited request; what is missing is as it was.
  method?    =POST?
  endpoint?  endpoint?   path at the gateway
  body?      any         the body

ReplayOutcome  What came of it.
  object     =replay
  replay_of  text              the log that was sent again
  log_id     text?             the new log; null if none was written
  url        text?             its page
  trace_id   text?             the trace of both
  message    text?             why no log was written
  response   GatewayResponse

GatewayResponse  What the gateway answered.
  status         whole    HTTP status
  headers        {text}   its headers, those that matter
  body           any      its body; a text if it is no JSON
  response_time  count    ms

Share  A share link, without what opens it.
  object        =share
  id            text      names the link; opens nothing by itself
  organisation  text      the organisation that the log belongs to
  log_id        text      the log
  bodies        flag      whether bodies are shown
  created_by    text      id of the key that made it
  created_at    moment    when it was made
  expires_at    moment    from when on it opens nothing
  revoked_at    moment?   when it was revoked

FreshShare  A link that was just made.
  url  text   opens the log for whoever has it; told this once
  ..Share

NewShare  What is shared.
  expires_in_seconds?  1..2592000?   how long it opens; 7 days where nothing is said
  bodies?              flag?         false keeps the bodies back";

const FILTERS: &str = "
    total_units_min        count            100             tokens of request and response, at least
    total_units_max        count            9000            tokens of request and response, at most
    cost_min               cents            0.25            cost, US cents, at least
    cost_max               cents            150.0           cost, US cents, at most
    prompt_token_min       count            10              tokens of the request, at least
    prompt_token_max       count            4000            tokens of the request, at most
    completion_token_min   count            10              tokens of the response, at least
    completion_token_max   count            4000            tokens of the response, at most
    weighted_feedback_min  score            -5              weighted mean of the feedback on the trace, at least
    weighted_feedback_max  score            5               weighted mean of the feedback on the trace, at most
    status_code            http_statuses    401,429         HTTP statuses, one of which the response has
    ai_model               words            gpt-4o          models, one of which answered: canonical names, which stand for all spellings, or names that were said
    ai_org_model           provider_models  openai__gpt-4o  providers with one of their models, as PROVIDER__MODEL
    virtual_keys           words            openai-main     slugs of provider keys, one of which was used
    configs                words            pc-fallback     slugs of configs, one of which was used
    prompt_slug            words            pp-welcome      slugs of prompt templates, one of which was used
    trace_id               words            t-1             traces, one of which the call belongs to
    span_id                words            s-1             spans, one of which is the call's
    api_key_ids            words            k-7             ids of API keys, one of which made the call
    workspace_slug         words            search          workspaces, one of which the log belongs to
    organisation_id        words            acme            organisations, one of which the log belongs to
    user_id                words            ana             end users, one of whom made the call
    internal_trace_id      words            call-1          calls to a gateway, of one of which the log is an attempt; LiteLLM's id of a call
    cache_status           cache_statuses   HIT             what the cache did, any of these
    status                 labels           Fallback Active  Status labels, one of each kind that is named
    is_success             flag             true            whether the call succeeded";

/// The time frame, both ends in it.
const FRAME: &str = "
    time_of_generation_min  day_or_nothing  2026-11-01            first moment, UTC; a day is its first moment
    time_of_generation_max  day_or_nothing  2026-11-21T17:30:00Z  last moment, UTC; a day is its first moment";

const PAGE: &str = "
    page_size      page_size  20                            logs of a page
    cursor         cursor     5b312c2261222c2261636d65225d  `next` of the page before
    include_total  flag       true                          whether to count all that the filter finds
    saved          text       failures                      name of a saved filter; fields beside it win over its own";

const OWNER: &str = "
    organisation_id  text  acme     whose log is meant, where several organisations have that id
    workspace_slug   text  search   of which workspace it is, where several have that id; empty for a log of no workspace
    id               text  exports  the id, where the path is `-`: for ids that a path cannot hold, and words of routes";
const WHOSE: &str =
    "organisation_id  text  acme  whose filter it is; the key's own where it is bound to one";

/// The time frame of a filter.
pub(super) fn frame() -> impl Iterator<Item = Value> {
    parameters(FRAME)
}

/// Every filter of logs, but for the time.
pub(super) fn filters() -> impl Iterator<Item = Value> {
    let metadata = json!({
        "name": "metadata", "in": "query", "required": false,
        "description": "keys of the metadata with their values, as a JSON object; all of them must be there",
        "content": { JSON: {
            "schema": with(kind("{text}", ""), "maxProperties", MAX_CONDITIONS), "example": { "_user": "ana" },
        } },
    });
    parameters(FILTERS).chain([metadata])
}

/// The filters as operations refer to them.
pub(super) fn told_filters() -> impl Iterator<Item = Value> {
    filters().filter_map(|filter| {
        Some(json!({ "$ref": format!("#/components/parameters/{}", filter["name"].as_str()?) }))
    })
}

pub(super) fn operations() -> Vec<Operation> {
    let (get, post) = (Operation::get, Operation::post);
    let shown = || [(JSON, kind("LogObject", "")), ("text/html", kind("text", ""))];
    let page = "JSON, or a page for people where `accept` asks for `text/html`.";
    let filter = |method, id, summary| {
        Operation::new(method, "/v1/logs/filters/{name}", id, summary)
            .takes(WHOSE)
            .gives(200, "SavedFilter")
    };
    let replay =
        json!({ "endpoint": "/chat/completions", "body": { "model": "gpt-4o", "messages": [] } });
    vec![
        insert(),
        told_withheld(
            get("/v1/logs", "listLogs", "Lists logs, newest first, without bodies")
                .takes(FRAME)
                .takes_all(told_filters())
                .takes(PAGE)
                .gives(200, "LogPage"),
        )
        .fails(&[404]),
        told_withheld(get("/v1/logs/{id}", "getLog", "Shows one log whole").takes(OWNER).gives(200, "LogObject")),
        told_withheld(
            get("/logs/{id}", "openLog", "Shows one log: its own URL").says(page).takes(OWNER).answers(200, &shown()),
        ),
        get("/v1/logs/filters", "listSavedFilters", "Lists saved filters").gives(200, "list:SavedFilter"),
        filter("PUT", "saveFilter", "Saves a filter of logs under a name")
            .body("NewFilter", &json!({ "query": "status_code=429&ai_model=gpt-4o" })),
        filter("DELETE", "deleteSavedFilter", "Deletes a saved filter"),
        get(
            "/v1/logs/{id}/replay",
            "getReplay",
            "Shows a stored request ready to edit, or why it cannot be sent again",
        )
        .takes(OWNER)
        .gives(200, "Replay"),
        post(
            "/v1/logs/{id}/replay",
            "sendReplay",
            "Sends an edited request to the gateway, with your provider credentials",
        )
        .says("The headers that `getReplay` names are passed on and never stored. Needs scope `logs.read` too.")
        .takes(OWNER)
        .perhaps_body("EditedRequest", &replay)
        .gives(200, "ReplayOutcome")
        .fails(&[409, 502, 504]),
        get("/v1/logs/{id}/share", "listShares", "Lists the share links to a log")
            .takes(OWNER)
            .gives(200, "list:Share"),
        post("/v1/logs/{id}/share", "shareLog", "Makes a link that opens a log without a key")
            .says("403 unless the operator turned links on (`share_links`).")
            .takes(OWNER)
            .perhaps_body("NewShare", &json!({ "expires_in_seconds": 3600 }))
            .gives(201, "FreshShare"),
        get("/v1/shares", "listOwnShares", "Lists the share links that the key may revoke")
            .says("Those that it made; an admin's key is told of all that it reaches.")
            .gives(200, "list:Share"),
        Operation::new("DELETE", "/v1/shares/{id}", "revokeShare", "Revokes a share link").gives(200, "Share"),
        told_withheld(
            get("/shared/{token}", "openShared", "Shows the log that a share link opens, without a key")
                .says(page)
                .answers(200, &shown()),
        ),
    ]
}

fn insert() -> Operation {
    let example = json!({
        "request": { "url": "https://api.openai.com/v1/chat/completions", "method": "POST", "body": { "model": "gpt-4o" } },
        "response": { "status": 200, "body": { "model": "gpt-4o", "usage": { "prompt_tokens": 3 } }, "response_time": 61 },
        "metadata": { "traceId": "t-1", "_user": "ana" },
    });
    let taken =
        [("text/plain", kind("=ok", "")), (JSON, kind("any", "")), (PROTOBUF, kind("any", ""))];
    Operation::post("/v1/logs", "insertLog", "Stores calls, as Portkey's SDKs send them")
        .says(
            "Whatever the body is, the answer is `ok`: logging must not break the caller. The headers of the answer say \
             what became of it. An export of OpenTelemetry's logs is taken too, and answered as such. Anything but calls is \
             counted as rejected.",
        )
        .takes("header:x-portkey-metadata  text  {\"_user\":\"ana\"}  metadata of all records, a JSON object of texts")
        .perhaps_body("InsertedCall*", &example)
        .answers(200, &taken)
        .with_header(200, "x-gatelog-accepted", "records that are stored")
        .with_header(200, "x-gatelog-rejected", "records that were not taken")
        .with_header(200, "x-gatelog-over-quota", "records that the plan does not store")
        .with_header(200, "x-gatelog-past-retention", "records that are older than the plan keeps records")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::logs::FILTER_NAMES;

    #[test]
    fn every_filter_is_told() {
        let told: Vec<Value> = frame().chain(filters()).collect();
        let told: BTreeSet<&str> =
            told.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(told, FILTER_NAMES.split(", ").collect());
    }
}
