//! Reads tokens from a provider's reply, under each provider's names, counted by kind.
//!
//! Providers disagree on what their totals include: some leave cached tokens out of the input, some
//! leave reasoning out of the output, and some count what tools put into the prompt separately. In
//! every format, [`Usage`] has one meaning: `request` holds every input token, `response` holds
//! every output token, `total` is their sum, and the kinds in [`Parts`] are disjoint parts of the
//! two. If a total shows that a kind was left out, the kind is added. If tokens remain that no kind
//! explains, the counts stay as stated and the call gets no cost.
//!
//! Every source reads usage here, so all of them count alike. [`super::price`] prices the result.

pub(super) mod attributes;
mod members;
mod shapes;
#[cfg(test)]
mod tests;
mod tokens;

use std::borrow::Cow;
use std::collections::HashMap;

pub(super) use self::members::{Members, cents, count, get};
use self::members::{is_object, string};
use self::shapes::{BARE, bare, cohere, google, plain};
pub(super) use self::tokens::Usage;
pub use self::tokens::{Billed, Parts, Tier};
use crate::record::json::{list, members, unquote};

impl Usage {
    /// Reads the tokens that a reply states. The reply is one JSON value, a list of the chunks of a
    /// stream, or a text that holds the events of one. `asked` is the request's body, which may
    /// have asked for a service tier.
    pub(super) fn from_reply(asked: &Members<'_>, reply: Option<&str>) -> Self {
        let text = reply.unwrap_or_default();
        let inner = if text.starts_with('"') { unquote(text) } else { Cow::Borrowed("") };
        let mut found = Found::default();
        if let Some(reply) = members(text) {
            found.add(&reply, LEVELS);
        } else if let Some(chunks) = list(text) {
            let chunks: Vec<_> = chunks.into_iter().filter_map(members).collect();
            let answers = || chunks.iter().filter(|chunk| is_answer(chunk));
            if answers().nth(1).is_some() {
                return Self::from_session(asked, answers().map(Vec::as_slice));
            }
            chunks.iter().for_each(|chunk| found.add(chunk, LEVELS));
        } else {
            let events =
                inner.lines().map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
            let telling = |line: &&str| TELLING.iter().any(|word| line.contains(word));
            events.filter(telling).filter_map(members).for_each(|event| found.add(&event, LEVELS));
        }
        found.read(asked)
    }

    /// Adds up the answers of a realtime session, each of which has a usage of its own.
    fn from_session<'a>(
        asked: &Members<'_>,
        answers: impl Iterator<Item = &'a Members<'a>>,
    ) -> Self {
        let usages = answers.map(|answer| {
            let mut found = Found::default();
            found.add(answer, LEVELS);
            found.read(asked)
        });
        usages.reduce(Self::plus).unwrap_or_default()
    }

    /// Reads the members of a `usage` object.
    pub(super) fn from_object(usage: &Members<'_>) -> Self {
        if is_object(usage, "billed_units") { cohere(usage) } else { plain(usage) }
    }
}

/// Depth to which nested objects are searched for usage.
const LEVELS: usize = 3;
/// Objects that hold the reply, or the event of a stream that carries the usage.
const WRAPPERS: [&str; 5] = ["response", "message", "delta", "result", "x_groq"];
/// Substrings of which each event that carries usage has at least one.
const TELLING: [&str; 4] = ["sage", "oken", "illed_units", "eval_count"];
const METRICS: &str = "amazon-bedrock-invocationMetrics";

/// Returns true if an event of a realtime session ends an answer.
fn is_answer(event: &Members<'_>) -> bool {
    string(event, &["type"]).as_deref() == Some("response.done")
}

/// Format of the counts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Shape {
    #[default]
    Plain,
    Google,
    Cohere,
    /// Counts that are members of the reply itself.
    Bare,
}

/// Counts of a reply, or of all chunks of a stream, in which later counts replace earlier ones.
#[derive(Default)]
struct Found<'a> {
    shape: Shape,
    counts: Vec<(Cow<'a, str>, &'a str)>,
    tier: Tier,
    tier_is_known: bool,
    /// True if the reply is a list of vectors or ranks, which has no tokens of its own.
    is_list: bool,
}

impl<'a> Found<'a> {
    /// Adds the counts of one object, or of the objects within it if it has none.
    fn add(&mut self, reply: &[(Cow<'a, str>, &'a str)], levels: usize) {
        let own = |names: &[&str]| {
            get(reply, names).and_then(members).map(non_null).filter(|of| !of.is_empty())
        };
        let counts = if let Some(usage) = own(&["usage"]) {
            let shape =
                if is_object(&usage, "billed_units") { Shape::Cohere } else { Shape::Plain };
            Some((shape, usage))
        } else if let Some(usage) = own(&["usageMetadata", "usage_metadata"]) {
            Some((Shape::Google, usage))
        } else if let Some(meta) = own(&["meta"]).filter(|meta| is_object(meta, "billed_units")) {
            Some((Shape::Cohere, meta))
        } else if let Some(metrics) = own(&[METRICS]) {
            Some((Shape::Plain, metrics))
        } else if get(reply, &BARE).is_some() {
            Some((Shape::Bare, non_null(reply.to_vec())))
        } else {
            None
        };
        let Some((shape, counts)) = counts else {
            let wrapped = WRAPPERS.iter().filter(|_| levels > 0).filter_map(|name| own(&[name]));
            return wrapped.for_each(|inner| self.add(&inner, levels - 1));
        };
        self.tell_tier(reply, &counts);
        self.is_list |= ["data", "embeddings", "results"]
            .iter()
            .any(|name| get(reply, &[name]).and_then(list).is_some());
        if self.shape != shape {
            self.counts.clear();
        }
        self.shape = shape;
        self.counts.extend(counts);
    }

    fn tell_tier(&mut self, reply: &Members<'_>, counts: &Members<'_>) {
        let names = ["service_tier", "serviceTier", "trafficType", "traffic_type"];
        let kind =
            |of: &Members<'_>| string(&get(of, &["serviceTier"]).and_then(members)?, &["type"]);
        let non_null = string(counts, &names).or_else(|| string(reply, &names[..2]));
        if let Some(name) = non_null.or_else(|| kind(reply)).or_else(|| kind(counts)) {
            self.tier = Tier::parse(&name);
            self.tier_is_known = true;
        }
    }

    /// Reads the counts. `asked` is the request's body.
    fn read(&self, asked: &Members<'_>) -> Usage {
        if self.counts.is_empty() {
            return Usage::default();
        }
        let mut usage = match self.shape {
            Shape::Plain => plain(&self.counts),
            Shape::Google => google(&self.counts),
            Shape::Cohere => cohere(&self.counts),
            Shape::Bare => bare(&self.counts),
        };
        let tier =
            || Tier::parse(&string(asked, &["service_tier", "serviceTier"]).unwrap_or_default());
        usage.billed.tier = if self.tier_is_known { self.tier } else { tier() };
        if self.is_list && usage.request.is_none() && usage.response.is_none() {
            usage.request = usage.total;
        }
        usage
    }
}

/// Returns the members of an event that hold a value, so that a null does not erase the value of an
/// earlier event. Of a duplicate key the last value counts.
fn non_null<'a>(mut event: Vec<(Cow<'a, str>, &'a str)>) -> Vec<(Cow<'a, str>, &'a str)> {
    let is_null = |(_, raw): &(Cow<'_, str>, &str)| *raw == "null";
    let says_nothing =
        |raw: &str| raw == "null" || members(raw).is_some_and(|of| of.iter().all(is_null));
    let last: HashMap<Cow<'a, str>, bool> =
        event.iter().map(|(name, raw)| (name.clone(), says_nothing(raw))).collect();
    event.retain(|(name, _)| !last[name]);
    event
}
