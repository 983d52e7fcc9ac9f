//! Removes withheld columns from records, and everything that would reveal them.
//!
//! A single record and the records of a list are read whole, since their order and feedback depend
//! on columns that the reader may not see. Withheld columns are removed from the response here.
//! `withheld` names them as the header does: `cost`, `request.body`, `metadata.value._user`. Values
//! derived from a withheld column (a label, the weighted feedback) become null too.

use serde_json::Value;

use super::filter::RATED_COLUMNS;
use super::status::Status;
use crate::record::Record;

/// Prefix of metadata keys.
const METADATA_VALUE: &str = "metadata.value.";
/// Labels of a status, with the columns that each reveals.
const LABELS: [(&str, &[&str]); 4] = [
    ("cache", &["cache_status"]),
    ("retry", &["retry_success_count", "is_success", "response_status_code"]),
    ("fallback", &["mode"]),
    ("loadbalance", &["mode"]),
];

/// Removes withheld columns from a record.
pub(crate) fn hide(record: &mut Record, withheld: &[String]) {
    for name in withheld {
        match name.as_str() {
            "request.body" => record.request.body = None,
            "request.headers" => record.request.headers = None,
            "response.body" => record.response.body = None,
            "response.headers" => record.response.headers = None,
            name => match name.strip_prefix(METADATA_VALUE) {
                Some(key) => record.metadata.retain(|(known, _)| known != key),
                None => record.clear(name),
            },
        }
    }
}

/// Removes withheld columns from a record of a list.
pub(super) fn hide_in_item(item: &mut Value, withheld: &[String]) {
    for name in withheld {
        match name.strip_prefix(METADATA_VALUE) {
            Some(key) => drop(
                item.get_mut("metadata")
                    .and_then(Value::as_object_mut)
                    .map(|tags| tags.remove(key)),
            ),
            None => {
                if let Some(value) = item.get_mut(name) {
                    *value = Value::Null;
                }
            }
        }
    }
    if let Some(status) = item.get_mut("status") {
        hide_labels(status, withheld);
    }
    if is_feedback_withheld(withheld)
        && let Some(mean) = item.get_mut("weighted_feedback")
    {
        *mean = Value::Null;
    }
}

/// Returns the labels of a record as JSON. Labels that reveal a withheld column are null.
pub(super) fn labels(record: &Record, withheld: &[String]) -> serde_json::Result<Value> {
    let mut status = serde_json::to_value(Status::from_record(record))?;
    hide_labels(&mut status, withheld);
    Ok(status)
}

/// Returns the labels of a record that reveal no withheld column.
pub(crate) fn shown_labels(record: &Record, withheld: &[String]) -> Vec<String> {
    let labels = labels(record, withheld).unwrap_or_default();
    LABELS.iter().filter_map(|(label, _)| labels[*label].as_str()).map(str::to_owned).collect()
}

fn hide_labels(status: &mut Value, withheld: &[String]) {
    for (label, columns) in LABELS {
        if columns.iter().any(|column| is_withheld(column, withheld)) {
            status[label] = Value::Null;
        }
    }
}

/// Returns true if feedback on a record would reveal a withheld column, such as its trace.
pub(crate) fn is_feedback_withheld(withheld: &[String]) -> bool {
    RATED_COLUMNS.iter().any(|column| is_withheld(column, withheld))
}

fn is_withheld(column: &str, withheld: &[String]) -> bool {
    withheld.iter().any(|name| name == column)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::{COLUMNS, Message};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn record() -> Record {
        let message = || Message { body: Some("{}".to_owned()), headers: Some("[]".to_owned()) };
        Record {
            cost: Some(1.5),
            user_id: Some("ada".to_owned()),
            metadata: vec![
                ("_user".to_owned(), "ada".to_owned()),
                ("team".to_owned(), "a".to_owned()),
            ],
            request: message(),
            response: message(),
            ..Record::default()
        }
    }

    #[test]
    fn a_record_loses_what_is_withheld_and_nothing_else() {
        let mut hidden = record();
        hide(
            &mut hidden,
            &names(&["cost", "metadata.value._user", "request.body", "response.headers"]),
        );
        let mut expected = record();
        expected.cost = None;
        expected.metadata.remove(0);
        (expected.request.body, expected.response.headers) = (None, None);
        assert_eq!(hidden, expected);
        let mut hidden = record();
        hide(&mut hidden, &COLUMNS.iter().map(|column| column.name.to_owned()).collect::<Vec<_>>());
        assert_eq!(hidden, Record::default());
    }

    #[test]
    fn what_is_made_of_a_withheld_column_is_null_too() {
        let status = json!({ "cache": "a", "retry": "b", "fallback": "c", "loadbalance": "d" });
        let item = json!({ "cost": 1, "metadata": { "_user": "ada", "team": "a" }, "status": status,
            "weighted_feedback": 5 });
        let mut hidden = item.clone();
        hide_in_item(&mut hidden, &names(&["cost", "metadata.value._user", "mode", "trace_id"]));
        let status = json!({ "cache": "a", "retry": "b", "fallback": null, "loadbalance": null });
        let expected = json!({ "cost": null, "metadata": { "team": "a" }, "status": status,
            "weighted_feedback": null });
        assert_eq!(hidden, expected);
        let mut same = item.clone();
        hide_in_item(&mut same, &names(&["ai_model"]));
        assert_eq!(same, item);
    }
}
