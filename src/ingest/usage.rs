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
mod shapes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use self::shapes::{BARE, bare, cohere, google, plain};
use crate::record::json::{Read, list, members, unquote};

/// Members of a JSON object.
pub(super) type Members<'a> = [(Cow<'a, str>, &'a str)];

/// Tokens of a call; `None` if the reply does not state them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) request: Option<i64>,
    pub(super) response: Option<i64>,
    pub(super) total: Option<i64>,
    /// Further values that the price depends on.
    pub(super) billed: Billed,
}

/// Values on which the price of a call depends, in addition to its model and the number of its
/// tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Billed {
    /// Tokens that have prices of their own.
    pub parts: Parts,
    /// Service tier of the call.
    pub tier: Tier,
    /// True if the call has charges that the counts do not show: tokens of an unknown kind,
    /// searches, or a surcharge for a region.
    pub is_partial: bool,
    /// Cost that the reply states, in US cents.
    pub stated_cents: Option<f64>,
}

/// Tokens that have prices of their own. The kinds are disjoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Request tokens that were read from the provider's cache, without audio.
    pub cache_read: i64,
    /// Request tokens that were written to the cache for minutes.
    pub cache_write: i64,
    /// Request tokens that were written to the cache for an hour.
    pub cache_write_1h: i64,
    /// Request tokens of audio, without those read from the cache.
    pub audio_input: i64,
    /// Request tokens of audio that were read from the cache.
    pub audio_cache_read: i64,
    /// Request tokens that the provider's tools put into the prompt.
    pub tool_use: i64,
    /// Response tokens of the model's reasoning.
    pub reasoning: i64,
    /// Response tokens of audio.
    pub audio_output: i64,
    /// Response tokens of images.
    pub image_output: i64,
}

impl Parts {
    /// Returns the number of request tokens that have prices of their own.
    pub fn request_units(&self) -> i64 {
        let audio = self.audio_input.saturating_add(self.audio_cache_read);
        self.cached().saturating_add(audio).saturating_add(self.tool_use)
    }

    /// Returns the number of request tokens that were read from or written to the cache, without
    /// audio.
    pub(super) fn cached(&self) -> i64 {
        self.cache_read.saturating_add(self.cache_write).saturating_add(self.cache_write_1h)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            audio_input: self.audio_input.saturating_add(other.audio_input),
            audio_cache_read: self.audio_cache_read.saturating_add(other.audio_cache_read),
            tool_use: self.tool_use.saturating_add(other.tool_use),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            audio_output: self.audio_output.saturating_add(other.audio_output),
            image_output: self.image_output.saturating_add(other.image_output),
        }
    }

    /// Returns the number of response tokens that have prices of their own.
    pub fn response_units(&self) -> i64 {
        self.reasoning.saturating_add(self.audio_output).saturating_add(self.image_output)
    }
}

/// Service tier of a call, which multiplies list prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The tier of the list prices.
    #[default]
    Standard,
    /// Slower at a lower price.
    Flex,
    /// Answered within hours.
    Batch,
    /// Priority, reserved throughput and others, whose prices follow no rule.
    Other,
}

impl Tier {
    fn parse(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().replace('-', "_").as_str() {
            ""
            | "default"
            | "standard"
            | "auto"
            | "standard_only"
            | "on_demand"
            | "traffic_type_unspecified" => Self::Standard,
            "flex" => Self::Flex,
            "batch" => Self::Batch,
            _ => Self::Other,
        }
    }
}

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

    fn plus(self, other: Self) -> Self {
        let sum = |one: Option<i64>, other: Option<i64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        let one = self.billed;
        let two = other.billed;
        Self {
            request: sum(self.request, other.request),
            response: sum(self.response, other.response),
            total: sum(self.total, other.total),
            billed: Billed {
                parts: one.parts.plus(two.parts),
                tier: two.tier,
                is_partial: one.is_partial || two.is_partial || one.tier != two.tier,
                stated_cents: None,
            },
        }
    }

    /// Reads the members of a `usage` object.
    pub(super) fn from_object(usage: &Members<'_>) -> Self {
        if is_object(usage, "billed_units") { cohere(usage) } else { plain(usage) }
    }

    /// Returns the usage with the counts of a source that counted by itself, unless both state the
    /// same total.
    pub(super) fn with_counts(
        self,
        request: Option<i64>,
        response: Option<i64>,
        total: Option<i64>,
    ) -> Self {
        if total.is_some()
            && total == self.total
            && self.request.is_some()
            && self.response.is_some()
        {
            return self;
        }
        let request = request.or(self.request);
        let response = response.or(self.response);
        let total = total.or(self.total);
        let mut usage = Self { request, response, total, billed: self.billed };
        usage.settle(self.billed.parts.cached(), self.billed.parts.reasoning);
        usage
    }

    /// Makes request, response and total agree. `cached` and `reasoning` are tokens that the source
    /// may have left out of its counts. The total shows this; without a total, a part that is
    /// larger than its whole does.
    fn settle(&mut self, cached: i64, reasoning: i64) {
        match (self.request, self.response, self.total) {
            (Some(request), Some(response), Some(total)) => {
                let sum = request.saturating_add(response);
                let left_out = [(0, 0), (0, reasoning), (cached, 0), (cached, reasoning)];
                let fits = |(cached, reasoning): &(i64, i64)| {
                    sum.saturating_add(*cached).saturating_add(*reasoning) == total
                };
                match left_out.into_iter().find(fits) {
                    Some((cached, reasoning)) => {
                        self.request = Some(request.saturating_add(cached));
                        self.response = Some(response.saturating_add(reasoning));
                    }
                    None if total > sum => self.billed.is_partial = true,
                    None => self.total = Some(sum),
                }
            }
            (Some(request), Some(response), None) => {
                let request =
                    if cached > request { request.saturating_add(cached) } else { request };
                let response = if reasoning > response {
                    response.saturating_add(reasoning)
                } else {
                    response
                };
                self.request = Some(request);
                self.response = Some(response);
                self.total = request.checked_add(response);
            }
            (None, Some(response), Some(total)) => {
                self.request = total.checked_sub(response).filter(|rest| *rest >= 0)
            }
            _ => {}
        }
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

/// Converts dollars to cents without rounding: the exponent grows by two.
pub(super) fn cents(raw: &str) -> Option<f64> {
    let text = raw.trim_matches('"').trim();
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'));
    let exponent = exponent.parse::<i32>().ok()?.checked_add(2)?;
    format!("{digits}e{exponent}")
        .parse::<f64>()
        .ok()
        .filter(|cents| plain && cents.is_finite() && *cents >= 0.0)
}

fn inner<'a>(of: &Members<'a>, names: &[&str]) -> Vec<(Cow<'a, str>, &'a str)> {
    get(of, names).and_then(members).unwrap_or_default()
}

fn is_object(of: &Members<'_>, name: &str) -> bool {
    get(of, &[name]).and_then(members).is_some()
}

fn string(of: &Members<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let raw = get(of, &[name]).filter(|raw| raw.starts_with('"'))?;
        Some(unquote(raw).into_owned()).filter(|text| !text.is_empty())
    })
}

/// Returns the raw value of the first name that is present and not null. Of a duplicate key the
/// last value counts, even if it is null.
pub(super) fn get<'a>(members: &Members<'a>, names: &[&str]) -> Option<&'a str> {
    let last = |name: &&str| members.iter().rfind(|(key, _)| key == name).map(|(_, raw)| *raw);
    names.iter().find_map(|name| last(name).filter(|raw| *raw != "null"))
}

/// Reads a whole number of at least 0. A fraction is rounded, and a text such as `"0123"` is
/// accepted. Anything else gives `None`.
pub(super) fn count(members: &Members<'_>, names: &[&str]) -> Option<i64> {
    let raw = get(members, names)?;
    let mut whole: Option<i64> = None;
    if whole.read("", raw).is_ok() {
        return whole.filter(|whole| *whole >= 0);
    }
    let mut number: Option<f64> = None;
    number.read("", raw).ok()?;
    number.map(f64::round).filter(|number| (0.0..9e15).contains(number)).map(|number| number as i64)
}
