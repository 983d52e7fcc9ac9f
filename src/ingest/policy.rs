//! The policy that is applied to every record on arrival, in every format: drops content that must
//! not be kept, masks secrets, redacts texts, and computes a cost if the source gave none. All of
//! this happens before anything is written.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::mask;
use super::names;
use super::price::{Billed, Cost, Prices};
use super::redact::Redact;
use super::usage::Usage;
use crate::config::{Config, Failures};
use crate::error::{self, Error};
use crate::record::json::{FieldError, KeyScan, members};
use crate::record::{Feedback, Message, Record};

/// The rules of one engine, with counters of missing prices and of values left out.
#[derive(Debug)]
pub struct Policy {
    prices: Arc<Prices>,
    redact: Redact,
    /// The redaction patterns without their places, for texts that are no part of a record.
    patterns: Redact,
    failures: Failures,
    /// Names of span attributes that the configuration adds to the known metadata. A name that ends
    /// with `*` is a prefix.
    labels: Vec<String>,
    without_price: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Policy {
    /// Returns the policy with built-in prices, no redaction, and no content of calls that are not
    /// tracked.
    fn default() -> Self {
        Self {
            prices: Prices::built_in(),
            redact: Redact::default(),
            patterns: Redact::default(),
            failures: Failures::Strict,
            labels: Vec::new(),
            without_price: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Policy {
    /// Builds the policy of a configuration. Reads the file of prices if one is set.
    pub fn open(config: &Config) -> error::Result<Arc<Self>> {
        let mut prices = Prices::built_in();
        if !config.prices_file.is_empty() {
            let file = &config.prices_file;
            let text = std::fs::read_to_string(file).map_err(|cause| {
                Error::invalid(format!("setting `prices_file`: cannot read `{file}`"))
                    .with_source(cause)
            })?;
            prices = Arc::new(Prices::clone(&prices).with(file, &text)?);
        }
        let redact = Redact::new(&config.redact)?;
        let patterns = Redact::patterns(&config.redact)?;
        let failures = config.do_not_track_failures;
        let labels = config.span_labels.split(',').map(str::trim).filter(|name| !name.is_empty());
        let labels = labels.map(str::to_owned).collect();
        let own = Self { prices, redact, patterns, failures, labels, ..Self::default() };
        Ok(Arc::new(own))
    }

    /// Returns true if the configuration declares a span attribute of that name as metadata.
    pub fn is_label(&self, key: &str) -> bool {
        self.labels.iter().any(|label| match label.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => key == label,
        })
    }

    /// Returns the shared default policy, for calls that set none.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<Policy>> = LazyLock::new(Arc::default);
        Arc::clone(&SHARED)
    }

    /// Sets the provider of a record whose source states only the URL of the call, and computes the
    /// cost if the source states none. `billed` holds what the price depends on in addition to
    /// model and tokens.
    ///
    /// A record without tokens gets no cost. A record whose model has no price gets no cost either,
    /// and is counted.
    pub fn price(&self, record: &mut Record, billed: &Billed) {
        name_provider(record);
        if record.cost.is_some() {
            return;
        }
        if let Some(cents) = billed.stated_cents.filter(|_| states_cost(record)) {
            record.cost = Some(cents);
            record.cost_currency = Some("USD".to_owned());
            return;
        }
        match self.prices.cost(record, billed) {
            Cost::Cents(cents) => {
                record.cost = Some(cents);
                record.cost_currency = Some("USD".to_owned());
            }
            Cost::NoPrice => drop(self.without_price.fetch_add(1, Ordering::Relaxed)),
            Cost::NoTokens => {}
        }
    }

    /// Does the same as [`Policy::price`] for a record whose response states cached and reasoning
    /// tokens.
    pub fn price_by_response(&self, record: &mut Record) {
        // Most records state a cost, so the response need not be read.
        if record.cost.is_some() || record.req_units.is_none() {
            return name_provider(record);
        }
        let asked = record.request.body.as_deref().and_then(members).unwrap_or_default();
        let billed = Usage::from_reply(&asked, record.response.body.as_deref()).billed;
        self.price(record, &billed);
    }

    /// Removes what must not be kept: all content of a call that is not tracked, secrets, values
    /// that redaction rules match, and duplicate keys in bodies except the last.
    pub fn protect(&self, record: &mut Record) {
        self.untrack(record);
        let mut keys = KeyScan::default();
        for message in [&mut record.request, &mut record.response] {
            for text in [&mut message.body, &mut message.headers].into_iter().flatten() {
                if let Cow::Owned(single) = keys.last_keys(text) {
                    *text = single;
                }
            }
            message.headers.iter_mut().for_each(mask::any_headers);
        }
        record.request_url.iter_mut().for_each(mask::url);
        record.config.iter_mut().for_each(mask::config);
        self.redact.apply(record);
    }

    /// Removes all content of a call that is not tracked.
    pub fn untrack(&self, record: &mut Record) {
        if record.do_not_track == Some(true) {
            let failed = match record.response_status_code {
                Some(status) => !(200..300).contains(&status),
                None => record.is_success == Some(0),
            };
            record.request = Message::default();
            if !(failed && self.failures == Failures::Portkey) {
                record.response = Message::default();
            }
        }
    }

    /// Applies the redaction rules for a record's metadata and user to feedback.
    pub fn protect_feedback(&self, feedback: &mut Feedback) {
        let user_id = feedback.user_id.take();
        let metadata = std::mem::take(&mut feedback.metadata);
        let mut record = Record { user_id, metadata, ..Record::default() };
        self.redact.apply(&mut record);
        feedback.user_id = record.user_id;
        feedback.metadata = record.metadata;
    }

    /// Returns true if there are redaction rules.
    pub(super) fn redacts(&self) -> bool {
        !self.redact.is_empty()
    }

    /// Replaces what the redaction patterns match in a text of a rejection.
    pub fn redacted(&self, text: &str) -> String {
        self.patterns.plain(text)
    }

    /// Enforces the limits of a record's values, or refuses the record. Counts the values that are
    /// left out.
    pub fn limit(&self, record: &mut Record) -> Result<(), FieldError> {
        let left_out = record.keep_limits()?;
        self.left_out.fetch_add(left_out, Ordering::Relaxed);
        Ok(())
    }

    /// Number of values since the start that were left out because they exceed their limits.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Number of records since the start whose tokens are known and whose model has no price.
    pub fn without_price(&self) -> u64 {
        self.without_price.load(Ordering::Relaxed)
    }
}

/// Sets the provider from the URL of the call if the source does not name one.
pub(super) fn name_provider(record: &mut Record) {
    if record.ai_org.as_deref().is_none_or(str::is_empty)
        && let Some(provider) = record.request_url.as_deref().and_then(names::provider_of_url)
    {
        record.ai_org = Some(provider.to_owned());
    }
}

/// Returns true if the provider's replies state the cost of the call in US dollars.
fn states_cost(record: &Record) -> bool {
    let provider = record.ai_org.as_deref().map(names::provider);
    provider.is_some_and(|provider| ["openrouter", "perplexity-ai"].contains(&&*provider))
}
