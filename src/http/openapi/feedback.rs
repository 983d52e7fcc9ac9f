//! Feedback: Portkey's calls to give and to change it, and ours to read it.

use serde_json::{Value, json};

use super::operation::{JSON, Operation, commas, part, query};
use super::schema::{
    any, between, constant, day_moment_or_nothing, flag, list, object, open, or_null, refer, text, with,
};
use crate::logs::{MOST_PAGE_SIZE, MOST_VALUES, PAGE_SIZE};

pub(super) fn operations() -> Vec<Operation> {
    const ONE: &str = "/v1/feedback/{id}";
    let draft = |fields: Vec<(&str, Value)>| open(object("Feedback. Numbers may come as texts.", fields));
    let new = draft(vec![
        ("trace_id?", any("the trace that it is about; needed unless `log_id` is there")),
        ("log_id?", any("the one log that it is about")),
        ("value", value()),
        ("weight?", any("0 to 1: how much it counts; 1 for anything else")),
        ("metadata?", any("keys and values of the caller's own")),
    ]);
    let change = draft(vec![
        ("value", value()),
        ("weight?", any("0 to 1: how much it counts; 1 for anything else")),
        ("metadata?", any("without it they stay")),
    ]);
    let done = object(
        "What was stored.",
        [
            ("status", constant("success")),
            ("message", text("a sentence")),
            ("feedback_ids", list(text("an id"), "ids of the feedback, in the order of the request")),
        ],
    );
    let page = object(
        "A page.",
        [
            ("object", constant("list")),
            ("data", list(refer("Feedback"), "feedback, newest first")),
            ("has_more", flag("whether there is a next page")),
            ("next", or_null(text("`cursor` of the next page"))),
        ],
    );
    let id = || part("id", text("id of the feedback"), "0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00");
    let whose = || query("organisation_id", text("whose feedback is meant, where several have that id"), "acme");
    let word = json!({ "type": "string", "pattern": "^[^,]*[^,\\s][^,]*$" });
    let ids = |name: &str, doc: &str, example: &str| commas(name, &word, MOST_VALUES, doc, json!([example]));
    let example = json!({ "trace_id": "t-1", "value": 5, "weight": 0.5, "metadata": { "_user": "ana" } });
    let update = |method: &'static str, name: &str, summary: &str| {
        Operation::new(method, ONE, name, summary)
            .takes([id(), whose()])
            .body(true, &[JSON], &change, &json!({ "value": -3 }))
            .answers_json(200, "Changed", done.clone())
            .fails(&[404, 422, 429])
    };
    vec![
        Operation::post("/v1/feedback", "giveFeedback", "Gives feedback on a trace, or on one log")
            .says("One, an array, or an object whose keys are numbers. It is shown on each log of the trace.")
            .body(true, &[JSON], &json!({ "anyOf": [new.clone(), list(new, "several")] }), &example)
            .answers_json(200, "Stored", done.clone())
            .leads_to(200, &["getFeedback", "changeFeedback"].map(|one| (one, "id", "$response.body#/feedback_ids/0")))
            .fails(&[404, 422, 429]),
        Operation::get("/v1/feedback", "listFeedback", "Lists feedback, newest first")
            .takes([
                ids("trace_id", "traces, one of which it is about", "t-1"),
                ids("log_id", "logs, one of which it is about alone", "a-1"),
                query("from", day_moment_or_nothing("first moment at which it was given, UTC"), "2026-11-01"),
                query("to", day_moment_or_nothing("first moment that is no longer in, UTC"), "2026-11-22"),
                query("page_size", with(between(1, MOST_PAGE_SIZE, "feedback of a page"), "default", PAGE_SIZE), 20),
                query(
                    "cursor",
                    with(text("`next` of the page before"), "pattern", "^([0-9a-f]{2})*$"),
                    "5b312c2261222c2262225d",
                ),
            ])
            .answers_json(200, "A page of feedback", page)
            .fails(&[400, 422, 429]),
        Operation::get(ONE, "getFeedback", "Shows feedback")
            .takes([id(), whose()])
            .answers_json(200, "The feedback", refer("Feedback"))
            .fails(&[404, 422, 429]),
        update("PUT", "changeFeedback", "Changes feedback"),
        update("POST", "changeFeedbackPost", "Changes feedback, by the method that Portkey's reference shows"),
    ]
}

fn value() -> Value {
    let doc = "from -10 to 10; texts, true and false count as JavaScript has them";
    json!({ "type": ["number", "string", "boolean"], "minimum": -10, "maximum": 10, "description": doc })
}
