//! Reads log events into parts of records: the content that the events of one request give for each
//! span.
//!
//! A part has the id of its span's record and holds only content. All other columns come from the
//! span, which arrives before or after it. The events of a span are ordered by time; events of
//! equal time, and those without one, keep the order of the request. So the same request always
//! makes the same parts.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::call::{self, SOURCE};
use super::content::Content;
use super::export::LogRecord;
use super::object::Object;
use crate::ingest::fields::time_of_nanos;
use crate::record::json::{Checks, FieldError};
use crate::record::{Message, Record};

/// Maximum number of spans whose events are collected at the same time. It bounds the memory that
/// small events of many spans take.
const MAX_SPANS: usize = 1024;
/// Body without any member.
const NOTHING: &str = "{}";

/// Collected events.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// Position of each span in the list, by trace and span id.
    places: HashMap<(String, String), usize>,
    fragments: Vec<Fragment>,
}

#[derive(Debug)]
struct Fragment {
    trace_id: String,
    span_id: String,
    is_embedding: bool,
    /// Content of each event, with its time.
    events: Vec<(Option<DateTime<Utc>>, Content)>,
}

impl Fragments {
    /// Adds a log record, if it holds content of a call.
    pub(super) fn add(&mut self, log: LogRecord) -> Result<(), FieldError> {
        let LogRecord { trace_id, span_id, at_nanos, event } = log;
        let mut content = Content::default();
        content.add(&event);
        if content.is_empty() || trace_id.is_empty() || span_id.is_empty() {
            return Ok(());
        }
        let is_embedding = call::is_embedding(&event.attributes);
        let created_at = time_of_nanos("timeUnixNano", at_nanos)?;
        // Each event is checked on its own, so that one which cannot be stored does not affect the
        // others.
        for (field, body) in [
            ("request.body", request(&content, is_embedding)),
            ("response.body", response(&content)),
        ] {
            call::payload(field, &body)?;
        }
        let event = (created_at, content);
        match self.places.get(&(trace_id.clone(), span_id.clone())) {
            Some(place) => self.fragments[*place].events.push(event),
            None => {
                self.places.insert((trace_id.clone(), span_id.clone()), self.fragments.len());
                self.fragments.push(Fragment {
                    trace_id,
                    span_id,
                    is_embedding,
                    events: vec![event],
                });
            }
        }
        Ok(())
    }

    /// Returns true if the parts should be taken before more events are added.
    pub(super) fn is_full(&self) -> bool {
        self.fragments.len() >= MAX_SPANS
    }

    /// Takes the parts, in the order of their first events.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Record> {
        self.places.clear();
        std::mem::take(&mut self.fragments).into_iter().map(Fragment::record)
    }
}

fn request(content: &Content, is_embedding: bool) -> String {
    content.request(!is_embedding, Object::new())
}

fn response(content: &Content) -> String {
    content.response(Object::new(), None)
}

impl Fragment {
    fn record(mut self) -> Record {
        // Events without a time come last.
        self.events.sort_by_key(|(at, _)| (at.is_none(), *at));
        let created_at = self.events.first().and_then(|(at, _)| *at);
        let mut content = Content::default();
        self.events.into_iter().for_each(|(_, event)| content.extend(event));
        let message = |text: String| {
            // Each event fits, and together they are nested no deeper.
            let body = if text == NOTHING { None } else { Checks::from_text(&text).payload(&text) };
            Message { body, headers: None }
        };
        Record {
            id: Some(call::id(&self.trace_id, &self.span_id)),
            created_at,
            source: Some(SOURCE.to_owned()),
            request: message(request(&content, self.is_embedding)),
            response: message(response(&content)),
            trace_id: Some(self.trace_id),
            span_id: Some(self.span_id),
            ..Record::default()
        }
    }
}
