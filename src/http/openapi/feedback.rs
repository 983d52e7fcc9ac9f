//! Feedback operations: those of Portkey to give and to change feedback, and those of gatelog to
//! read it.

use serde_json::json;

use crate::http::openapi::operation::Operation;

pub(super) const SCHEMAS: &str = "\
NewFeedback+  Feedback on a trace or on one log. Numbers may be strings.
  trace_id?  any          trace that the feedback is about; required unless `log_id` is given
  log_id?    any          log that the feedback is about
  value      loose_score  rating from -10 to 10; strings and booleans are converted as in JavaScript
  weight?    any          weight from 0 to 1; any other value means 1
  metadata?  any          keys and values of the caller

FeedbackChange+  New values of the feedback. Numbers may be strings.
  value      loose_score  rating from -10 to 10; strings and booleans are converted as in JavaScript
  weight?    any          weight from 0 to 1; any other value means 1
  metadata?  any          keys and values of the caller; unchanged if omitted

FeedbackReceipt  Confirmation with the ids of the stored feedback.
  status        =success
  message       text     result in words
  feedback_ids  [text]   ids of the feedback, in the order of the request

FeedbackPage  A page of feedback.
  object    =list
  data      [Feedback]   feedback, newest first
  has_more  flag         true if there is a next page
  next      text?        `cursor` of the next page";

const WHOSE: &str = "organisation_id  text  acme  organisation of the feedback; needed if several organisations have feedback with this id";

const FILTERS: &str = "
    trace_id   words           t-1                     trace ids: feedback on one of these traces
    log_id     words           a-1                     log ids: feedback on one of these single logs
    from       day_or_nothing  2026-11-01              start of the time range, inclusive, UTC
    to         day_or_nothing  2026-11-22              end of the time range, exclusive, UTC
    page_size  page_size       20                      number of entries per page
    cursor     cursor          5b312c2261222c2262225d  `next` of the previous page";

pub(super) fn operations() -> Vec<Operation> {
    const ONE: &str = "/v1/feedback/{id}";
    let new =
        json!({ "trace_id": "t-1", "value": 5, "weight": 0.5, "metadata": { "_user": "ana" } });
    let change = |operation: Operation| {
        operation
            .takes(WHOSE)
            .body("FeedbackChange", &json!({ "value": -3 }))
            .gives(200, "FeedbackReceipt")
    };
    vec![
        Operation::post("/v1/feedback", "giveFeedback", "Adds feedback on a trace or on one log")
            .says("Takes one object, an array, or an object whose keys are numbers. Feedback on a trace appears on each of its logs.")
            .body("NewFeedback*", &new)
            .gives(200, "FeedbackReceipt")
            .fails(&[404]),
        Operation::get("/v1/feedback", "listFeedback", "Lists feedback, newest first")
            .takes(FILTERS)
            .gives(200, "FeedbackPage"),
        Operation::get(ONE, "getFeedback", "Returns feedback by id").takes(WHOSE).gives(200, "Feedback"),
        change(Operation::new("PUT", ONE, "changeFeedback", "Changes feedback")),
        change(Operation::post(ONE, "changeFeedbackPost", "Changes feedback, by the method in Portkey's reference")),
    ]
}
