//! The kinds of parts of a record, and how parts are joined.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::record::json::{list, members, write_string};
use crate::record::{Message, Record};

/// Kind of a part. Parts of one record have the same organisation and `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordPart {
    /// The metrics of a call: tokens, cost, times, status, metadata.
    Figures,
    /// The content of a call: bodies and headers, and the metrics that came with them.
    Content,
    /// A fragment of a record with an unknown number of fragments: a span, or one of its log
    /// events. The record is complete when its wait ends.
    Fragment,
}

impl RecordPart {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Figures, Self::Content, Self::Fragment];
}

/// Maximum number of fragments of one record that are joined. Further ones wait until the record is
/// in the table, or are refused.
pub(super) const MAX_FRAGMENTS: usize = 256;

/// Maximum number of comparisons of list elements while bodies are joined, beside eight for each
/// element.
const MAX_COMPARED: usize = 1_000_000;

/// Passes a macro the columns that a part either has or lacks: all but metadata, messages and
/// marks.
macro_rules! with_columns {
    ($then:ident) => {
        $then! {
            id organisation_id workspace_slug created_at is_success ai_org ai_model req_units
            res_units total_units cost cost_currency request_url request_method
            response_status_code response_time time_to_last_token upstream_response_time
            cache_status cache_type stream_mode retry_success_count mode last_used_option
            virtual_key config prompt_slug prompt_version_id runtime runtime_version sdk_version
            trace_id span_id parent_span_id span_name internal_trace_id user_id api_key_id source
        }
    };
}

/// Joins the metrics part and the content part of a call. Columns of the metrics part win; the
/// content part fills in the rest.
///
/// Bodies and headers are those of the content part; metadata is that of both. If either part
/// belongs to a call that must not be tracked, so does the record, and content of a part that did
/// not know this is dropped.
pub(crate) fn join(mut figures: Record, mut content: Record) -> Record {
    let untracked =
        [&figures, &content].iter().any(|part_kind| part_kind.do_not_track == Some(true));
    for part_kind in [&mut figures, &mut content] {
        if untracked && part_kind.do_not_track != Some(true) {
            part_kind.request = Message::default();
            part_kind.response = Message::default();
        }
    }
    let do_not_track =
        if untracked { Some(true) } else { figures.do_not_track.or(content.do_not_track) };
    let mut metadata = figures.metadata;
    metadata.append(&mut content.metadata);
    keep_first(&mut metadata);
    let message = |content: Message, figures: Message| Message {
        body: content.body.or(figures.body),
        headers: content.headers.or(figures.headers),
    };
    // Without `..`, so that the compiler finds a missing column.
    macro_rules! record {
        ($($either:ident)*) => {
            Record {
                $($either: figures.$either.or(content.$either),)*
                do_not_track,
                metadata,
                request: message(content.request, figures.request),
                response: message(content.response, figures.response),
                retention_days: figures.retention_days,
            }
        };
    }
    with_columns!(record)
}

/// Keeps the first of several pairs with the same key.
fn keep_first(pairs: &mut Vec<(String, String)>) {
    let mut known = HashSet::with_capacity(pairs.len());
    let kept: Vec<bool> = pairs.iter().map(|(key, _)| known.insert(key.as_str())).collect();
    let mut kept = kept.into_iter();
    pairs.retain(|_| kept.next().unwrap_or(true));
}

/// Returns true if a fragment has the outcome of the call. Other fragments only have content, and
/// may arrive while the call is running.
pub(crate) fn has_outcome(fragment: &Record) -> bool {
    fragment.is_success.is_some()
}

/// Fills in missing columns from a part. The time comes from the part with the outcome of the call.
fn fill(record: &mut Record, part: &Record) {
    let is_outcome = has_outcome(part) && !has_outcome(record);
    let created_at = if is_outcome {
        part.created_at.or(record.created_at)
    } else {
        record.created_at.or(part.created_at)
    };
    macro_rules! fill {
        ($($column:ident)*) => {
            $(if record.$column.is_none() {
                record.$column.clone_from(&part.$column);
            })*
        };
    }
    with_columns!(fill);
    record.created_at = created_at;
    record.do_not_track = match part.do_not_track {
        Some(true) => Some(true),
        stated => record.do_not_track.or(stated),
    };
}

/// Joins the parts of a record. The first value of a column wins. Bodies of fragments that are
/// objects are merged; for lists in them, the elements of the later part are appended. A part that
/// is not a fragment adds no body if there already is one. A part that has arrived before adds
/// nothing. Each part is read once, however many there are.
///
/// If one part forbids keeping any content of the call, the content of the others is dropped.
pub(crate) fn join_all<'p>(parts: impl IntoIterator<Item = (RecordPart, &'p Record)>) -> Record {
    let parts: Vec<(RecordPart, &Record)> = parts.into_iter().collect();
    let mut record = figures_of(parts.iter().map(|(_, part)| *part));
    let is_untracked = record.do_not_track == Some(true);
    if is_untracked && parts.iter().any(|(part_kind, _)| *part_kind == RecordPart::Fragment) {
        return with_tags(record, &parts);
    }
    let may_have_content = |part: &Record| !is_untracked || part.do_not_track == Some(true);
    let sources: Vec<(RecordPart, &Record)> =
        parts.iter().copied().filter(|(_, part)| may_have_content(part)).collect();
    let are_events = new_events(&sources);
    let joined = |message: fn(&Record) -> &Message| {
        let parts = sources.iter().zip(&are_events);
        message_of(
            parts.map(|((part_kind, part), is_event)| (*part_kind, *is_event, message(part))),
        )
    };
    record.request = joined(|part| &part.request);
    record.response = joined(|part| &part.response);
    with_tags(record, &parts)
}

/// Joins the columns of parts without their metadata and messages, which may be large.
pub(crate) fn figures_of<'p>(parts: impl IntoIterator<Item = &'p Record>) -> Record {
    let mut parts = parts.into_iter();
    let mut record = Record::default();
    let Some(first) = parts.next() else { return record };
    record.retention_days = first.retention_days;
    fill(&mut record, first);
    parts.for_each(|part| fill(&mut record, part));
    record
}

fn with_tags(mut record: Record, parts: &[(RecordPart, &Record)]) -> Record {
    record.metadata = parts.iter().flat_map(|(_, part)| part.metadata.iter().cloned()).collect();
    keep_first(&mut record.metadata);
    record
}

/// Returns a flag for each part: true for a log event with a time that no part before it has.
/// Content that such an event shares with another event was sent twice and is kept twice. The span
/// may contain it already.
fn new_events(parts: &[(RecordPart, &Record)]) -> Vec<bool> {
    let mut times = HashSet::new();
    let is_new = |(part_kind, part): &(RecordPart, &Record)| {
        let is_event = *part_kind == RecordPart::Fragment && !has_outcome(part);
        is_event && part.created_at.is_some_and(|at| times.insert(at))
    };
    parts.iter().map(is_new).collect()
}

fn message_of<'p>(messages: impl Iterator<Item = (RecordPart, bool, &'p Message)>) -> Message {
    let mut bodies = Vec::new();
    let mut headers = None;
    for (part_kind, is_event, message) in messages {
        if part_kind == RecordPart::Fragment || bodies.is_empty() {
            bodies.extend(message.body.as_deref().map(|body| (body, is_event)));
        }
        headers = headers.or(message.headers.as_ref());
    }
    let body = match bodies[..] {
        [] => None,
        [(one, _)] => Some(one.to_owned()),
        _ => Some(united(&bodies)),
    };
    Message { body, headers: headers.cloned() }
}

/// Joins two fragments.
#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "tests write the fragments where they are joined"
)]
pub(crate) fn unite(first: Record, more: Record) -> Record {
    join_all([(RecordPart::Fragment, &first), (RecordPart::Fragment, &more)])
}

/// Value of a member that several objects have.
enum Member<'t> {
    /// The first value: not a list, or a list to which no later object added anything. The flag is
    /// true if it is from a new event.
    First(&'t str, bool),
    /// A list with the appended elements of later objects.
    List(List<'t>),
}

/// Elements of a list that several objects have.
struct List<'t> {
    elements: Vec<&'t str>,
    /// Number of elements at the front that are not from new events.
    unordered: usize,
}

/// Searches lists for runs of elements, with a bounded number of comparisons.
struct Search {
    left: usize,
}

impl Search {
    /// Returns true if a list contains a run of elements (Knuth, Morris and Pratt). Returns false
    /// once the comparisons are used up; the elements are then appended a second time.
    fn holds_run(&mut self, list: &[&str], run: &[&str]) -> bool {
        if run.len() > list.len() {
            return false;
        }
        let Some(left) = self.left.checked_sub(list.len() + run.len()) else { return false };
        self.left = left;
        // For each prefix of the run, the longest shorter prefix that it ends with.
        let mut shorter = vec![0; run.len()];
        let mut length = 0;
        for at in 1..run.len() {
            length = longer(run, &shorter, length, run[at]);
            shorter[at] = length;
        }
        length = 0;
        list.iter().any(|element| {
            length = longer(run, &shorter, length, element);
            length == run.len()
        })
    }
}

/// Returns the length of the longest prefix of a run that ends with an element, given the length
/// for the elements before it.
fn longer(run: &[&str], shorter: &[usize], mut length: usize, element: &str) -> usize {
    while length > 0 && run[length] != element {
        length = shorter[length - 1];
    }
    length + usize::from(run[length] == element)
}

/// Merges objects: members of the first one come first. If the first text is not an object, returns
/// that text. The flag of a text is true if it is from a new event: such texts are not searched for
/// in each other.
fn united(texts: &[(&str, bool)]) -> String {
    let first = texts.first().map_or("null", |(first, _)| *first);
    if members(first).is_none() {
        return first.to_owned();
    }
    let bytes: usize = texts.iter().map(|(text, _)| text.len()).sum();
    // An element takes at least two bytes with its comma.
    let mut search = Search { left: MAX_COMPARED + 8 * (bytes / 2) };
    let mut all = Vec::<(Cow<'_, str>, Member<'_>)>::new();
    let mut places = HashMap::new();
    let fields = texts.iter().filter_map(|(text, is_event)| Some((members(text)?, *is_event)));
    for (key, raw, is_event) in fields
        .flat_map(|(all, is_event)| all.into_iter().map(move |(key, raw)| (key, raw, is_event)))
    {
        let Some(place) = places.get(&key) else {
            places.insert(key.clone(), all.len());
            all.push((key, Member::First(raw, is_event)));
            continue;
        };
        let Some(tail) = list(raw).filter(|tail| !tail.is_empty()) else { continue };
        let known: &mut Member<'_> = &mut all[*place].1;
        if let Member::First(raw, is_first_event) = known {
            let Some(elements) = list(raw) else { continue };
            let unordered = if *is_first_event { 0 } else { elements.len() };
            *known = Member::List(List { elements, unordered });
        }
        let Member::List(List { elements, unordered }) = known else { continue };
        let searched = if is_event { &elements[..*unordered] } else { &elements[..] };
        if search.holds_run(searched, &tail) {
            continue;
        }
        if !is_event && *unordered == elements.len() {
            *unordered += tail.len();
        }
        elements.extend(tail);
    }
    let mut text = Vec::with_capacity(bytes);
    for (key, member) in &all {
        text.push(if text.is_empty() { b'{' } else { b',' });
        write_string(&mut text, key);
        text.push(b':');
        match member {
            Member::First(raw, _) => text.extend_from_slice(raw.as_bytes()),
            Member::List(List { elements, .. }) => {
                text.extend_from_slice(format!("[{}]", elements.join(",")).as_bytes())
            }
        }
    }
    if text.is_empty() {
        text.push(b'{');
    }
    text.push(b'}');
    String::from_utf8(text).unwrap_or_else(|_| first.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parts::{LatePart, amend};

    #[test]
    fn fragments_make_one_record_in_any_order_and_repeated_ones_change_nothing() {
        let of = |request: &str, response: &str| Record {
            request: message(request),
            response: message(response),
            ..Record::default()
        };
        let span =
            Record { ai_model: text("gpt-4o"), ..of(r#"{"model":"gpt-4o"}"#, r#"{"usage":{}}"#) };
        let asked = of(r#"{"messages":[{"role":"user","content":"hi"}]}"#, "{}");
        let later = of(
            r#"{"messages":[{"role":"user","content":"hi"},{"role":"tool"}]}"#,
            r#"{"choices":[1]}"#,
        );
        let both = unite(unite(span.clone(), asked.clone()), later.clone());
        assert_eq!(both.ai_model, text("gpt-4o"));
        let hi = r#"{"role":"user","content":"hi"}"#;
        assert_eq!(
            both.request.body,
            Some(format!(r#"{{"model":"gpt-4o","messages":[{hi},{hi},{{"role":"tool"}}]}}"#))
        );
        assert_eq!(both.response.body, text(r#"{"usage":{},"choices":[1]}"#));
        for again in [&span, &asked, &later] {
            assert_eq!(unite(both.clone(), again.clone()), both);
        }
        let reverse = unite(later, span);
        assert_eq!(reverse.response.body, text(r#"{"choices":[1],"usage":{}}"#));
        assert_eq!(
            unite(of("1", "{}"), of("{}", "[]")).request.body,
            text("1"),
            "a body that is no object stays"
        );
        let untracked = Record { do_not_track: Some(true), ..of("{}", "{}") };
        assert_eq!(unite(untracked, asked).request, Message::default());
    }

    #[test]
    fn a_run_is_found_at_any_place_and_no_other_is() {
        let mut seed = 7u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ["a", "b"][(seed >> 31) as usize]
        };
        for length in 0..40 {
            let list: Vec<&str> = (0..length).map(|_| next()).collect();
            let run: Vec<&str> = (0..1 + length % 5).map(|_| next()).collect();
            let expected = list.windows(run.len()).any(|window| window == run);
            assert_eq!(
                Search { left: usize::MAX }.holds_run(&list, &run),
                expected,
                "{list:?} {run:?}"
            );
        }
        assert!(
            !Search { left: 3 }.holds_run(&["a", "b", "c"], &["b"]),
            "no more comparisons than are allowed"
        );
    }

    #[test]
    fn late_parts_add_to_a_stored_record_and_remove_nothing_from_it() {
        let part =
            |part_kind, record: Record| LatePart { key: 1, part_kind, record: Arc::new(record) };
        let body = |body: &str| Record { request: message(body), ..Record::default() };
        let stored = Record {
            ai_model: text("m"),
            metadata: vec![tag("k", "v")],
            ..body(r#"{"messages":[1]}"#)
        };
        let late = [
            part(
                RecordPart::Content,
                Record { metadata: vec![tag("k", "w"), tag("l", "w")], ..body("{}") },
            ),
            part(RecordPart::Fragment, body(r#"{"messages":[2]}"#)),
            part(RecordPart::Fragment, body(r#"{"messages":[1,2]}"#)),
            part(
                RecordPart::Figures,
                Record { ai_model: text("n"), total_units: Some(3), ..Record::default() },
            ),
        ];
        let amended = amend(&stored, &late);
        assert_eq!((amended.ai_model.clone(), amended.total_units), (text("m"), Some(3)));
        assert_eq!(amended.metadata, [tag("k", "v"), tag("l", "w")]);
        assert_eq!(amended.request, message(r#"{"messages":[1,2]}"#));
        assert_eq!(amend(&amended, &late), amended);
        let untracked =
            part(RecordPart::Figures, Record { do_not_track: Some(true), ..Record::default() });
        assert_eq!(amend(&stored, &[untracked]).request, Message::default());
    }

    #[test]
    fn an_event_with_the_same_content_at_another_time_is_kept_twice() {
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0);
        let body = |words: &[&str]| message(&serde_json::json!({ "messages": words }).to_string());
        let event = |seconds, words: &[&str]| Record {
            created_at: at(seconds),
            request: body(words),
            ..Record::default()
        };
        let together = |parts: &[Record]| {
            join_all(parts.iter().map(|part| (RecordPart::Fragment, part))).request
        };
        let events = [event(1, &["yes"]), event(2, &["no"]), event(3, &["yes"])];
        assert_eq!(together(&events), body(&["yes", "no", "yes"]));
        // The span may contain the content of its events.
        let span = |words: &[&str]| Record { is_success: Some(1), ..event(9, words) };
        assert_eq!(
            together(&[&[span(&["yes", "no"])], &events[..]].concat()),
            body(&["yes", "no"])
        );
        assert_eq!(
            together(&[&[span(&["hi"])], &events[..]].concat()),
            body(&["hi", "yes", "no", "yes"])
        );
        // With the same time, or without one, it may be the same event in another request.
        assert_eq!(together(&[event(1, &["yes", "no"]), event(1, &["no"])]), body(&["yes", "no"]));
        let untimed = Record { created_at: None, ..event(0, &["no"]) };
        assert_eq!(together(&[event(1, &["yes", "no"]), untimed]), body(&["yes", "no"]));
        // The stored record already contains the late-arriving parts.
        let late = events.map(|event| LatePart {
            key: 1,
            part_kind: RecordPart::Fragment,
            record: std::sync::Arc::new(event),
        });
        let stored = amend(&event(1, &["hi"]), &late);
        assert_eq!(stored.request, body(&["hi", "yes", "no", "yes"]));
        assert_eq!(amend(&stored, &late), stored);
    }

    #[test]
    fn fragments_have_the_time_of_the_call() {
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0);
        let event = |seconds| Record { created_at: at(seconds), ..Record::default() };
        let span = Record { is_success: Some(1), ..event(20) };
        for fragment in [event(10), event(30)] {
            assert_eq!(unite(span.clone(), fragment.clone()).created_at, at(20));
            let both = unite(fragment.clone(), span.clone());
            assert_eq!((both.created_at, both.is_success), (at(20), Some(1)));
            assert_eq!(unite(both.clone(), fragment), both);
        }
        assert_eq!(unite(event(10), event(9)).created_at, at(10));

        // An event without a time has no time of the call.
        assert_eq!(unite(Record::default(), event(9)).created_at, at(9));
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn tag(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    fn message(body: &str) -> Message {
        Message { body: text(body), headers: None }
    }

    #[test]
    fn figures_win_and_content_fills_in() {
        let figures = Record {
            id: text("a"),
            cost: Some(0.0),
            ai_model: text("row"),
            metadata: vec![tag("team", "row"), tag("k", "v")],
            retention_days: 30,
            ..Record::default()
        };
        let content = Record {
            id: text("a"),
            cost: Some(1.0),
            ai_model: text("log"),
            last_used_option: text("config"),
            metadata: vec![tag("team", "log"), tag("own", "1")],
            request: message("{}"),
            ..Record::default()
        };
        let expected = Record {
            last_used_option: text("config"),
            metadata: vec![tag("team", "row"), tag("k", "v"), tag("own", "1")],
            request: message("{}"),
            ..figures.clone()
        };
        assert_eq!(join(figures.clone(), content.clone()), expected);
        assert_eq!(join(expected.clone(), content), expected, "a repeated part changes nothing");
        assert_eq!(join(figures.clone(), Record::default()), figures);
        let alone = Record { retention_days: 0, ..expected };
        assert_eq!(join(Record::default(), alone.clone()), alone);
    }

    #[test]
    fn bodies_come_from_the_content_and_otherwise_from_the_figures() {
        let headers = || text("[]");
        let figures = Record {
            response: Message { body: text("1"), headers: headers() },
            ..Record::default()
        };
        let content = Record { response: message("2"), request: message("3"), ..Record::default() };
        let joined = join(figures, content);
        assert_eq!(joined.response, Message { body: text("2"), headers: headers() });
        assert_eq!(joined.request, message("3"));
    }

    #[test]
    fn one_untracked_part_is_enough() {
        let untracked =
            |response| Record { do_not_track: Some(true), response, ..Record::default() };
        let tracked =
            Record { do_not_track: Some(false), request: message("secret"), ..Record::default() };
        for joined in [
            join(untracked(Message::default()), tracked.clone()),
            join(tracked.clone(), untracked(Message::default())),
        ] {
            assert_eq!((joined.do_not_track, joined.request), (Some(true), Message::default()));
        }
        // A part that knew that the call must not be tracked kept content, such as a provider's
        // error, on purpose.
        assert_eq!(join(Record::default(), untracked(message("error"))).response, message("error"));
        assert_eq!(join(tracked, Record::default()).do_not_track, Some(false));
    }
}
