//! Records that arrive in parts: which part one is, and what parts make together.

mod bytes;
mod late;
mod waiting;

pub use late::{Late, LatePart};
pub use waiting::{Fit, Waiting, Whole};

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use self::bytes::{Bytes, organisation_of};
use crate::record::json::{list, members, write_string};
use crate::record::{Message, Record};

/// Which part of a record a source sent. Parts meet by organisation and `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    /// What is counted: tokens, cost, times, status, metadata.
    Figures,
    /// What was said: bodies and headers, and of the figures those that came with them.
    Content,
    /// One of any number of parts, nobody knows how many: a span, and the log events of it. The record is whole when its time is
    /// over.
    Piece,
}

impl Half {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Figures, Self::Content, Self::Piece];
}

/// So many pieces of one record are put together; what is more waits until the record is in the table, or is refused.
const MOST_PIECES: usize = 256;

/// Whether two parts may be of one record as far as their workspaces say. A half that says none may be of any; a piece, whose id
/// others learn as a call goes on to them, is its workspace's alone.
fn may_meet(first: &Record, second: &Record, are_pieces: bool) -> bool {
    match (&first.workspace_slug, &second.workspace_slug) {
        (Some(first), Some(second)) => first == second,
        (first, second) => !are_pieces || first == second,
    }
}

/// The record that two halves of one call make: figures win where they say something, content fills in what is missing.
///
/// Bodies and headers are those of the content, metadata is that of both. If either half is of a call that is not to be tracked,
/// so is the record, and what a half says that did not know it is dropped.
pub fn join(mut figures: Record, mut content: Record) -> Record {
    let untracked = [&figures, &content].iter().any(|half| half.do_not_track == Some(true));
    for half in [&mut figures, &mut content] {
        if untracked && half.do_not_track != Some(true) {
            (half.request, half.response) = (Message::default(), Message::default());
        }
    }
    let do_not_track = if untracked { Some(true) } else { figures.do_not_track.or(content.do_not_track) };
    let mut metadata = figures.metadata;
    let further = content.metadata.into_iter().filter(|(key, _)| !metadata.iter().any(|(known, _)| known == key));
    let further: Vec<_> = further.collect();
    metadata.extend(further);
    let message = |said: Message, figured: Message| Message {
        body: said.body.or(figured.body),
        headers: said.headers.or(figured.headers),
    };
    // Without `..`, so that no column is forgotten.
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
    record! {
        id organisation_id workspace_slug created_at is_success ai_org ai_model req_units res_units total_units cost
        cost_currency request_url request_method response_status_code response_time time_to_last_token
        upstream_response_time cache_status cache_type stream_mode retry_success_count mode last_used_option virtual_key
        config prompt_slug prompt_version_id runtime runtime_version sdk_version trace_id span_id parent_span_id span_name
        internal_trace_id user_id api_key_id source
    }
}

/// Whether a piece says how the call went. Others only say what was said in it, and may come while it still runs.
pub fn says_outcome(piece: &Record) -> bool {
    piece.is_success.is_some()
}

/// What pieces of a record make together: the first wins where it says something, and bodies that are objects are united, lists
/// in them with the later one's elements behind. The time is that of the piece that says how the call went. A piece that came
/// already adds nothing, nor does one of another workspace, which must not see into this one.
pub fn unite(first: Record, more: Record) -> Record {
    if !may_meet(&first, &more, true) {
        return first;
    }
    let created_at = match says_outcome(&more) && !says_outcome(&first) {
        true => more.created_at.or(first.created_at),
        false => first.created_at.or(more.created_at),
    };
    let body = |first: &Message, more: &Message| match (&first.body, &more.body) {
        (Some(first), Some(more)) => Some(united(&[first, more])),
        (first, more) => first.as_ref().or(more.as_ref()).cloned(),
    };
    let bodies = [body(&first.request, &more.request), body(&first.response, &more.response)];
    let mut record = join(first, more);
    record.created_at = created_at;
    [record.request.body, record.response.body] = bodies;
    if record.do_not_track == Some(true) {
        (record.request, record.response) = (Message::default(), Message::default());
    }
    record
}

/// What pieces of a record make together, as [`unite`] puts one after the other; each body is gone
/// through once, however many there are.
fn unite_all(pieces: &[Arc<Record>]) -> Record {
    let (mut together, mut requests, mut responses) = (Record::default(), Vec::new(), Vec::new());
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 && !may_meet(&together, piece, true) {
            continue;
        }
        requests.extend(piece.request.body.as_deref());
        responses.extend(piece.response.body.as_deref());
        let mut rest = Record::clone(piece);
        (rest.request.body, rest.response.body) = (None, None);
        together = if number == 0 { rest } else { unite(together, rest) };
    }
    if together.do_not_track != Some(true) {
        let body = |texts: &[&str]| (!texts.is_empty()).then(|| united(texts));
        (together.request.body, together.response.body) = (body(&requests), body(&responses));
    }
    together
}

/// The record that a stored one and a part of it that came after make together. What is stored stays as it is, unless the part says
/// that nothing of the call may be kept; so a part that came already adds nothing.
pub fn amend(stored: &Record, half: Half, late: Record) -> Record {
    if !may_meet(stored, &late, half == Half::Piece) {
        return stored.clone();
    }
    if half == Half::Piece {
        return unite(stored.clone(), late);
    }
    let mut record = join(stored.clone(), late);
    if record.do_not_track != Some(true) {
        for (message, stored) in [(&mut record.request, &stored.request), (&mut record.response, &stored.response)] {
            message.body = stored.body.clone().or(message.body.take());
            message.headers = stored.headers.clone().or(message.headers.take());
        }
    }
    record
}

/// The value of a member that several objects have.
enum Member<'t> {
    /// What is no list, or one to which no later one added anything: the first.
    First(&'t str),
    /// A list, with the elements of the later ones behind.
    List(Vec<&'t str>),
}

/// Returns whether elements stand in a list one behind the other.
fn holds_run(list: &[&str], run: &[&str]) -> bool {
    list.windows(run.len()).any(|window| window == run)
}

/// The members of objects, those of the first one first; if the first text is none, that text.
fn united(texts: &[&str]) -> String {
    let first = texts.first().copied().unwrap_or("null");
    if members(first).is_none() {
        return first.to_owned();
    }
    let (mut all, mut places) = (Vec::<(Cow<'_, str>, Member<'_>)>::new(), HashMap::new());
    for (key, raw) in texts.iter().filter_map(|text| members(text)).flatten() {
        let Some(place) = places.get(&key) else {
            places.insert(key.clone(), all.len());
            all.push((key, Member::First(raw)));
            continue;
        };
        let Some(tail) = list(raw).filter(|tail| !tail.is_empty()) else { continue };
        let known: &mut Member<'_> = &mut all[*place].1;
        let first = match known {
            Member::First(raw) => Some(*raw),
            Member::List(_) => None,
        };
        if let Some(head) = first.and_then(list) {
            if !holds_run(&head, &tail) {
                *known = Member::List(head.into_iter().chain(tail).collect());
            }
        } else if let Member::List(head) = known
            && !holds_run(head, &tail)
        {
            head.extend(tail);
        }
    }
    let mut text = Vec::new();
    for (key, member) in &all {
        text.push(if text.is_empty() { b'{' } else { b',' });
        write_string(&mut text, key);
        text.push(b':');
        match member {
            Member::First(raw) => text.extend_from_slice(raw.as_bytes()),
            Member::List(elements) => text.extend_from_slice(format!("[{}]", elements.join(",")).as_bytes()),
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
    use super::*;

    #[test]
    fn pieces_make_one_record_in_any_order_and_come_again_without_harm() {
        let of = |request: &str, response: &str| Record {
            request: message(request),
            response: message(response),
            ..Record::default()
        };
        let span = Record { ai_model: text("gpt-4o"), ..of(r#"{"model":"gpt-4o"}"#, r#"{"usage":{}}"#) };
        let asked = of(r#"{"messages":[{"role":"user","content":"hi"}]}"#, "{}");
        let said = of(r#"{"messages":[{"role":"user","content":"hi"},{"role":"tool"}]}"#, r#"{"choices":[1]}"#);
        let both = unite(unite(span.clone(), asked.clone()), said.clone());
        assert_eq!(both.ai_model, text("gpt-4o"));
        let hi = r#"{"role":"user","content":"hi"}"#;
        assert_eq!(
            both.request.body,
            Some(format!(r#"{{"model":"gpt-4o","messages":[{hi},{hi},{{"role":"tool"}}]}}"#))
        );
        assert_eq!(both.response.body, text(r#"{"usage":{},"choices":[1]}"#));
        for again in [&span, &asked, &said] {
            assert_eq!(unite(both.clone(), again.clone()), both);
        }
        let reverse = unite(said, span);
        assert_eq!(reverse.response.body, text(r#"{"choices":[1],"usage":{}}"#));
        assert_eq!(unite(of("1", "{}"), of("{}", "[]")).request.body, text("1"), "what is no object stays");
        let untracked = Record { do_not_track: Some(true), ..of("{}", "{}") };
        assert_eq!(unite(untracked, asked).request, Message::default());
    }

    #[test]
    fn pieces_have_the_time_of_the_call_and_keep_to_their_workspace() {
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0);
        let said = |seconds| Record { created_at: at(seconds), ..Record::default() };
        let span = Record { is_success: Some(1), ..said(20) };
        for piece in [said(10), said(30)] {
            assert_eq!(unite(span.clone(), piece.clone()).created_at, at(20));
            let both = unite(piece.clone(), span.clone());
            assert_eq!((both.created_at, both.is_success), (at(20), Some(1)));
            assert_eq!(unite(both.clone(), piece), both);
        }
        assert_eq!(unite(said(10), said(9)).created_at, at(10));

        let of = |workspace: Option<&str>, body: &str| Record {
            workspace_slug: workspace.map(str::to_owned),
            request: message(body),
            ..Record::default()
        };
        for (one, other) in [(Some("a"), Some("b")), (Some("a"), None), (None, Some("a"))] {
            let first = of(one, r#"{"k":1}"#);
            assert_eq!(unite(first.clone(), of(other, r#"{"l":2}"#)), first);
        }
        assert_eq!(
            unite(of(Some("a"), r#"{"k":1}"#), of(Some("a"), r#"{"l":2}"#)).request,
            message(r#"{"k":1,"l":2}"#)
        );
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
        assert_eq!(join(expected.clone(), content), expected, "a half that comes again changes nothing");
        assert_eq!(join(figures.clone(), Record::default()), figures);
        let alone = Record { retention_days: 0, ..expected };
        assert_eq!(join(Record::default(), alone.clone()), alone);
    }

    #[test]
    fn bodies_come_from_the_content_and_else_from_the_figures() {
        let headers = || text("[]");
        let figures = Record { response: Message { body: text("1"), headers: headers() }, ..Record::default() };
        let content = Record { response: message("2"), request: message("3"), ..Record::default() };
        let joined = join(figures, content);
        assert_eq!(joined.response, Message { body: text("2"), headers: headers() });
        assert_eq!(joined.request, message("3"));
    }

    #[test]
    fn one_half_that_is_not_to_be_tracked_is_enough() {
        let untracked = |response| Record { do_not_track: Some(true), response, ..Record::default() };
        let tracked = Record { do_not_track: Some(false), request: message("secret"), ..Record::default() };
        for joined in
            [join(untracked(Message::default()), tracked.clone()), join(tracked.clone(), untracked(Message::default()))]
        {
            assert_eq!((joined.do_not_track, joined.request), (Some(true), Message::default()));
        }
        // What a half kept that knew it, such as a provider's error, was kept on purpose.
        assert_eq!(join(Record::default(), untracked(message("error"))).response, message("error"));
        assert_eq!(join(tracked, Record::default()).do_not_track, Some(false));
    }
}
