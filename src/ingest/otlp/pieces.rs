//! Log events to pieces of records: what the events of one request say of each span.
//!
//! A piece has the id of its span's record and says nothing but what was said: all else is the
//! span's, which comes before it or after. The events of a span stand in it in the order of their
//! times, those of one time and those without one in the order of the request, so the same request
//! again makes the same pieces.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::call::{self, SOURCE};
use super::content::Content;
use super::export::LogRecord;
use super::object::Object;
use crate::ingest::fields::time_of_nanos;
use crate::record::json::{Checks, FieldError};
use crate::record::{Message, Record};

/// Spans whose events are gathered at the same time: what small events of many spans take in memory is bounded by it.
const MOST_SPANS: usize = 1024;
/// What a body is that says nothing.
const NOTHING: &str = "{}";

/// The events that were gathered.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The place of each trace's span in the list.
    places: HashMap<(String, String), usize>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    trace_id: String,
    span_id: String,
    is_embedding: bool,
    /// What each event says, and when it was.
    said: Vec<(Option<DateTime<Utc>>, Content)>,
}

impl Pieces {
    /// Adds a log record, if it says something of a call.
    pub(super) fn add(&mut self, log: LogRecord) -> Result<(), FieldError> {
        let LogRecord { trace_id, span_id, at_nanos, event } = log;
        let mut content = Content::default();
        content.add(&event);
        if content.is_empty() || trace_id.is_empty() || span_id.is_empty() {
            return Ok(());
        }
        let is_embedding = call::is_embedding(&event.attributes);
        let created_at = time_of_nanos("timeUnixNano", at_nanos)?;
        // Alone, so that an event which cannot be stored does not cost the others.
        for (field, body) in [("request.body", request(&content, is_embedding)), ("response.body", response(&content))]
        {
            call::payload(field, &body)?;
        }
        let said = (created_at, content);
        match self.places.get(&(trace_id.clone(), span_id.clone())) {
            Some(place) => self.pieces[*place].said.push(said),
            None => {
                self.places.insert((trace_id.clone(), span_id.clone()), self.pieces.len());
                self.pieces.push(Piece { trace_id, span_id, is_embedding, said: vec![said] });
            }
        }
        Ok(())
    }

    /// Whether they should be taken before more are added.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= MOST_SPANS
    }

    /// Takes the pieces, in the order of their first events.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Record> {
        self.places.clear();
        std::mem::take(&mut self.pieces).into_iter().map(Piece::record)
    }
}

fn request(content: &Content, is_embedding: bool) -> String {
    content.request(!is_embedding, Object::new())
}

fn response(content: &Content) -> String {
    content.response(Object::new(), None)
}

impl Piece {
    fn record(mut self) -> Record {
        // Those without a time are the last.
        self.said.sort_by_key(|(at, _)| (at.is_none(), *at));
        let created_at = self.said.first().and_then(|(at, _)| *at);
        let mut content = Content::default();
        self.said.into_iter().for_each(|(_, said)| content.extend(said));
        let message = |text: String| {
            // Each event fits, and together they are nested no deeper.
            let body = if text == NOTHING { None } else { Checks::of(&text).payload(&text) };
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
