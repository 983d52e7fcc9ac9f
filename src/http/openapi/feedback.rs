//! Feedback: Portkey's calls to give and to change it, and ours to read it.

use serde_json::json;

use super::operation::Operation;

pub(super) const SCHEMAS: &str = "\
NewFeedback+  Feedback. Numbers may come as texts.
  trace_id?  any          the trace that it is about; needed unless `log_id` is there
  log_id?    any          the one log that it is about
  value      loose_score  from -10 to 10; texts, true and false count as JavaScript has them
  weight?    any          0 to 1: how much it counts; 1 for anything else
  metadata?  any          keys and values of the caller's own

FeedbackChange+  What feedback is from now on. Numbers may come as texts.
  value      loose_score  from -10 to 10; texts, true and false count as JavaScript has them
  weight?    any          0 to 1: how much it counts; 1 for anything else
  metadata?  any          without it they stay

FeedbackReceipt  What was stored.
  status        =success
  message       text     a sentence
  feedback_ids  [text]   ids of the feedback, in the order of the request

FeedbackPage  A page.
  object    =list
  data      [Feedback]   feedback, newest first
  has_more  flag         whether there is a next page
  next      text?        `cursor` of the next page";

const WHOSE: &str = "organisation_id  text  acme  whose feedback is meant, where several have that id";

const FILTERS: &str = "
    trace_id   words           t-1                     traces, one of which it is about
    log_id     words           a-1                     logs, one of which it is about alone
    from       day_or_nothing  2026-11-01              first moment at which it was given, UTC
    to         day_or_nothing  2026-11-22              first moment that is no longer in, UTC
    page_size  page_size       20                      feedback of a page
    cursor     cursor          5b312c2261222c2262225d  `next` of the page before";

pub(super) fn operations() -> Vec<Operation> {
    const ONE: &str = "/v1/feedback/{id}";
    let new = json!({ "trace_id": "t-1", "value": 5, "weight": 0.5, "metadata": { "_user": "ana" } });
    let change = |operation: Operation| {
        operation.takes(WHOSE).body("FeedbackChange", &json!({ "value": -3 })).gives(200, "FeedbackReceipt")
    };
    vec![
        Operation::post("/v1/feedback", "giveFeedback", "Gives feedback on a trace, or on one log")
            .says("One, an array, or an object whose keys are numbers. It is shown on each log of the trace.")
            .body("NewFeedback*", &new)
            .gives(200, "FeedbackReceipt")
            .fails(&[404]),
        Operation::get("/v1/feedback", "listFeedback", "Lists feedback, newest first")
            .takes(FILTERS)
            .gives(200, "FeedbackPage"),
        Operation::get(ONE, "getFeedback", "Shows feedback").takes(WHOSE).gives(200, "Feedback"),
        change(Operation::new("PUT", ONE, "changeFeedback", "Changes feedback")),
        change(Operation::post(ONE, "changeFeedbackPost", "Changes feedback, by the method of Portkey's reference")),
    ]
}
