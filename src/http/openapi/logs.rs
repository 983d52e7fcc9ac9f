//! Logs: Portkey's insert, lists with their filters, single logs, saved filters, replays and share
//! links.

use serde_json::{Value, json};

use crate::http::openapi::operation::{JSON, Operation, PROTOBUF, with_withheld_header};
use crate::http::openapi::schema::{kind, parameters, with};
use crate::logs::MAX_CONDITIONS;

pub(super) const SCHEMAS: &str = "\
LogStatus  The four Status labels. A label is null if the columns that it depends on are denied.
  cache        text?  such as `Cache Hit`
  retry        text?  such as `Retry Success on 2 Tries`
  fallback     text?  `Fallback Active` or `Fallback Disabled`
  loadbalance  text?  `Loadbalancer Active` or `Loadbalancer Disabled`

LogPage  A page of logs.
  object    =list
  data      [ListedLog]   logs, newest first
  has_more  flag          true if there is a next page
  next      text?         `cursor` of the next page
  total     count?        number of logs that match; null unless requested

LogObject  A log, in Portkey's form.
  _id                text?        id of the log
  request            LogRequest
  response           LogResponse
  organisation_id    text?        organisation of the log
  created_at         text?        time of the call, in JavaScript's date format
  metrics            LogMetrics
  object             =log
  status             LogStatus
  feedback           [Feedback]   feedback on the log, newest first
  weighted_feedback  number?      weighted mean of the feedback
  links              LogLinks
  withheld?          [text]       columns that are null because the key may not read them

LogRequest  The request of a call.
  url             text?   URL of the provider
  method          text?   HTTP method
  headers         any     headers with secrets masked; null if not stored
  body            any     unchanged body; null if not stored, or if the key lacks `logs.read`
  portkeyHeaders  {any}   headers for the gateway

LogResponse  The response of a call.
  status                  whole?   HTTP status
  headers                 any      headers; null if not stored
  body                    any      unchanged body; null if not stored, or if the key lacks \
      `logs.read`
  responseTime            whole?   ms
  lastUsedOptionJsonPath  text?    JSON path of the target that answered

LogLinks  Related pages.
  own     text    page of the log
  replay  text    replay of the log
  config  text?   logs of the same config
  prompt  text?   logs of the same prompt
  trace   text?   logs of the same trace

InsertedCall+  A call. Unknown fields are ignored.
  request?   SentRequest
  response?  SentResponse
  metadata?  any   traceId, spanId, parentSpanId, spanName, and keys of the caller

SentRequest+  The request of a call.
  url?      any   URL
  method?   any   HTTP method
  headers?  any   headers
  body?     any   body

SentResponse+  The response of a call.
  status?         any   HTTP status; 200 if missing
  headers?        any   headers
  body?           any   body, from which tokens and model are read
  response_time?  any   ms

SavedFilter  A named filter of the list of logs.
  object        =saved-filter
  name          text     name of the filter
  organisation  text     organisation that owns the filter
  query         text     fields of the filter, as a query string
  created_by    text     id of the key that saved it
  created_at    moment   time at which it was saved

NewFilter  A filter to save.
  query  text   query string of `GET /v1/logs`, without the `?`

Replay  State of a replay.
  object     =replay
  log_id     text             id of the log
  active     flag             true if the request can be sent again
  reason     ReplayReason?
  request    ReplayRequest?
  endpoints  [text]           endpoints that accept the request
  gateway    flag             true if a gateway is configured
  headers    [text]           headers of the caller that are passed on

ReplayReason  Reason why the request cannot be sent again.
  code     text   reason as a word
  message  text   reason as a sentence

ReplayRequest  The stored request, for editing.
  method    =POST
  endpoint  endpoint   path at the gateway
  body      any        body

EditedRequest  The edited request. Missing fields keep the stored values.
  method?    =POST?
  endpoint?  endpoint?   path at the gateway
  body?      any         body

ReplayOutcome  Result of a replay.
  object     =replay
  replay_of  text              id of the log that was sent again
  log_id     text?             id of the new log; null if none was written
  url        text?             page of the new log
  trace_id   text?             trace of both logs
  message    text?             reason why no log was written
  response   GatewayResponse

GatewayResponse  Response of the gateway.
  status         whole    HTTP status
  headers        {text}   selected headers
  body           any      body; a string if it is not JSON
  response_time  count    ms

Share  A share link, without its secret token.
  object        =share
  id            text      id of the link; not a secret
  organisation  text      organisation of the log
  log_id        text      id of the log
  bodies        flag      true if the link shows bodies
  created_by    text      id of the key that created it
  created_at    moment    time of creation
  expires_at    moment    time at which the link expires
  revoked_at    moment?   time of revocation

FreshShare  A share link that was just created.
  url  text   opens the log without a key; only this response contains it
  ..Share

NewShare  A share link to create.
  expires_in_seconds?  1..2592000?   seconds until the link expires; defaults to 7 days
  bodies?              flag?         false hides the bodies";

const FILTERS: &str = "
    total_units_min        count            100             minimum tokens of request and response
    total_units_max        count            9000            maximum tokens of request and response
    cost_min               cents            0.25            minimum cost, US cents
    cost_max               cents            150.0           maximum cost, US cents
    prompt_token_min       count            10              minimum tokens of the request
    prompt_token_max       count            4000            maximum tokens of the request
    completion_token_min   count            10              minimum tokens of the response
    completion_token_max   count            4000            maximum tokens of the response
    weighted_feedback_min  score            -5              minimum weighted mean of the feedback \
        on the trace
    weighted_feedback_max  score            5               maximum weighted mean of the feedback \
        on the trace
    status_code            http_statuses    401,429         HTTP statuses: responses with one of \
        these
    ai_model               words            gpt-4o          models: calls that one of these \
        answered; a canonical name matches all its spellings
    ai_org_model           provider_models  openai__gpt-4o  providers with one of their models, \
        as PROVIDER__MODEL
    virtual_keys           words            openai-main     slugs of provider keys: calls with \
        one of these
    configs                words            pc-fallback     slugs of configs: calls with one of \
        these
    prompt_slug            words            pp-welcome      slugs of prompt templates: calls with \
        one of these
    trace_id               words            t-1             trace ids: calls of one of these traces
    span_id                words            s-1             span ids: calls with one of these
    api_key_ids            words            k-7             ids of API keys: calls with one of these
    workspace_slug         words            search          workspaces: logs of one of these
    organisation_id        words            acme            organisations: logs of one of these
    user_id                words            ana             end users: calls of one of these
    internal_trace_id      words            call-1          ids of calls to a gateway: logs of \
        their attempts; LiteLLM's id of a call
    cache_status           cache_statuses   HIT             results of the cache lookup: calls \
        with one of these
    status                 labels           Fallback Active  Status labels: calls with one of the \
        labels of each kind
    is_success             flag             true            true finds calls that succeeded, false those that failed";

/// Parameters of the time range. Both ends are inclusive.
const FRAME: &str = "
    time_of_generation_min  day_or_nothing  2026-11-01            start of the time range, \
        inclusive, UTC; a date means its midnight
    time_of_generation_max  day_or_nothing  2026-11-21T17:30:00Z  end of the time range, inclusive, UTC; a date means its midnight";

const PAGE: &str = "
    page_size      page_size  20                            number of logs per page
    cursor         cursor     5b312c2261222c2261636d65225d  `next` of the previous page
    include_total  flag       true                          true counts all logs that match
    saved          text       failures                      name of a saved filter; other parameters override its fields";

const OWNER: &str = "
    organisation_id  text  acme     organisation of the log; needed if several organisations have \
        a log with this id
    workspace_slug   text  search   workspace of the log; needed if several workspaces have a log \
        with this id; empty for a log without a workspace
    id               text  exports  id of the log, if the path has `-` instead: for ids that a path cannot contain or that are names of routes";
const WHOSE: &str = "organisation_id  text  acme  organisation of the filter; defaults to the organisation of the key";

/// Returns the parameters of the time range.
pub(super) fn frame() -> impl Iterator<Item = Value> {
    parameters(FRAME)
}

/// Returns all filters of logs except the time range.
pub(super) fn filters() -> impl Iterator<Item = Value> {
    let metadata = json!({
        "name": "metadata", "in": "query", "required": false,
        "description": "metadata keys with their values, as a JSON object; a log must have all of them",
        "content": { JSON: {
            "schema": with(kind("{text}", ""), "maxProperties", MAX_CONDITIONS), "example": { "_user": "ana" },
        } },
    });
    parameters(FILTERS).chain([metadata])
}

/// Returns references to the filters, for operations.
pub(super) fn filter_references() -> impl Iterator<Item = Value> {
    filters().filter_map(|filter| {
        Some(json!({ "$ref": format!("#/components/parameters/{}", filter["name"].as_str()?) }))
    })
}

pub(super) fn operations() -> Vec<Operation> {
    let get = Operation::get;
    let post = Operation::post;
    let shown = || [(JSON, kind("LogObject", "")), ("text/html", kind("text", ""))];
    let page = "Returns JSON, or an HTML page if `accept` asks for `text/html`.";
    let filter = |method, id, summary| {
        Operation::new(method, "/v1/logs/filters/{name}", id, summary)
            .takes(WHOSE)
            .gives(200, "SavedFilter")
    };
    let replay =
        json!({ "endpoint": "/chat/completions", "body": { "model": "gpt-4o", "messages": [] } });
    vec![
        insert(),
        with_withheld_header(
            get("/v1/logs", "listLogs", "Lists logs, newest first, without bodies")
                .takes(FRAME)
                .takes_all(filter_references())
                .takes(PAGE)
                .gives(200, "LogPage"),
        )
        .fails(&[404]),
        with_withheld_header(get("/v1/logs/{id}", "getLog", "Returns one log with its content").takes(OWNER).gives(200, "LogObject")),
        with_withheld_header(
            get("/logs/{id}", "openLog", "Returns one log, at its permanent URL").says(page).takes(OWNER).answers(200, &shown()),
        ),
        get("/v1/logs/filters", "listSavedFilters", "Lists saved filters").gives(200, "list:SavedFilter"),
        filter("PUT", "saveFilter", "Saves a filter of logs under a name")
            .body("NewFilter", &json!({ "query": "status_code=429&ai_model=gpt-4o" })),
        filter("DELETE", "deleteSavedFilter", "Deletes a saved filter"),
        get(
            "/v1/logs/{id}/replay",
            "getReplay",
            "Returns a stored request for editing, or the reason why it cannot be sent again",
        )
        .takes(OWNER)
        .gives(200, "Replay"),
        post(
            "/v1/logs/{id}/replay",
            "sendReplay",
            "Sends an edited request to the gateway, with the caller's provider credentials",
        )
        .says("The headers that `getReplay` lists are passed on and never stored. Also requires scope `logs.read`.")
        .takes(OWNER)
        .perhaps_body("EditedRequest", &replay)
        .gives(200, "ReplayOutcome")
        .fails(&[409, 502, 504]),
        get("/v1/logs/{id}/share", "listShares", "Lists the share links to a log")
            .takes(OWNER)
            .gives(200, "list:Share"),
        post("/v1/logs/{id}/share", "shareLog", "Creates a link that opens a log without a key")
            .says("The status is 403 unless the operator enabled links (setting `share_links`).")
            .takes(OWNER)
            .perhaps_body("NewShare", &json!({ "expires_in_seconds": 3600 }))
            .gives(201, "FreshShare"),
        get("/v1/shares", "listOwnShares", "Lists the share links that the key may revoke")
            .says("Lists the links that the key created; for an admin key, all links of its organisations.")
            .gives(200, "list:Share"),
        Operation::new("DELETE", "/v1/shares/{id}", "revokeShare", "Revokes a share link").gives(200, "Share"),
        with_withheld_header(
            get("/shared/{token}", "openShared", "Returns the log of a share link, without a key")
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
    Operation::post("/v1/logs", "insertLog", "Ingests calls in the form of Portkey's SDKs")
        .says(
            "The response is `ok` for every body, because logging must not break the caller. The headers of the response \
             count the accepted and rejected records. An OTLP export of log records is accepted too and gets an OTLP \
             response. Anything but calls counts as rejected.",
        )
        .takes("header:x-portkey-metadata  text  {\"_user\":\"ana\"}  metadata of all records, a JSON object of strings")
        .perhaps_body("InsertedCall*", &example)
        .answers(200, &taken)
        .with_header(200, "x-gatelog-accepted", "Number of stored records.")
        .with_header(200, "x-gatelog-rejected", "Number of rejected records.")
        .with_header(200, "x-gatelog-over-quota", "Number of records not stored because of the plan's quota.")
        .with_header(200, "x-gatelog-past-retention", "Number of records that are older than the plan's retention.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::logs::FILTER_NAMES;

    #[test]
    fn every_filter_is_described() {
        let described: Vec<Value> = frame().chain(filters()).collect();
        let names: BTreeSet<&str> =
            described.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, FILTER_NAMES.split(", ").collect());
    }
}
