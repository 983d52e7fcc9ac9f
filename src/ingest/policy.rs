//! What is done to every record on its way in, whatever its shape: content that must not be kept is dropped, secrets are masked,
//! texts are redacted, and a cost is computed where the source gave none. All of it before anything is written.

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
use crate::record::json::{FieldError, last_keys, members};
use crate::record::{Feedback, Message, Record};

/// The rules of one engine, and how often one of them found nothing.
#[derive(Debug)]
pub struct Policy {
    prices: Arc<Prices>,
    redact: Redact,
    /// The patterns alone, which hold everywhere: for texts that have no place in a record.
    patterns: Redact,
    failures: Failures,
    /// Names of span attributes that are metadata, beside those that are known to be; one that ends
    /// with `*` is a beginning.
    labels: Vec<String>,
    without_price: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Policy {
    /// Built-in prices, no redaction, no content of any call that is not tracked.
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
    /// The policy of a configuration. Reads the file of prices, if one is named.
    pub fn open(config: &Config) -> error::Result<Arc<Self>> {
        let mut prices = Prices::built_in();
        if !config.prices_file.is_empty() {
            let file = &config.prices_file;
            let text = std::fs::read_to_string(file).map_err(|cause| {
                Error::invalid(format!("setting `prices_file`: cannot read `{file}`")).with_source(cause)
            })?;
            prices = Arc::new(Prices::clone(&prices).with(file, &text)?);
        }
        let (redact, failures) = (Redact::new(&config.redact)?, config.do_not_track_failures);
        let patterns = Redact::patterns(&config.redact)?;
        let labels = config.span_labels.split(',').map(str::trim).filter(|name| !name.is_empty());
        let labels = labels.map(str::to_owned).collect();
        let own = Self { prices, redact, patterns, failures, labels, ..Self::default() };
        Ok(Arc::new(own))
    }

    /// Returns whether the configuration says that a span attribute of that name is metadata.
    pub fn is_label(&self, key: &str) -> bool {
        self.labels.iter().any(|label| match label.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => key == label,
        })
    }

    /// The policy of a call that names none.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<Policy>> = LazyLock::new(Arc::default);
        Arc::clone(&SHARED)
    }

    /// Names the provider of a record whose source says only which URL was called, and computes the cost of one that
    /// states none; `billed` is what the price depends on beside model and tokens.
    ///
    /// Without tokens there is nothing to compute; a model without a price stays without a cost, and is counted.
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

    /// [`Policy::price`] for a record whose response says what was cached and thought.
    pub fn price_by_response(&self, record: &mut Record) {
        // Most records state a cost, and the response need not be read.
        if record.cost.is_some() || record.req_units.is_none() {
            return name_provider(record);
        }
        let asked = record.request.body.as_deref().and_then(members).unwrap_or_default();
        let billed = Usage::of(&asked, record.response.body.as_deref()).billed;
        self.price(record, &billed);
    }

    /// Takes out what must not be kept: all content of a call that is not tracked, secrets, what the rules of redaction say,
    /// and in bodies all but the last member of a doubled key.
    pub fn protect(&self, record: &mut Record) {
        self.untrack(record);
        for message in [&mut record.request, &mut record.response] {
            for text in [&mut message.body, &mut message.headers].into_iter().flatten() {
                if let Cow::Owned(single) = last_keys(text) {
                    *text = single;
                }
            }
            message.headers.iter_mut().for_each(mask::any_headers);
        }
        record.request_url.iter_mut().for_each(mask::url);
        record.config.iter_mut().for_each(mask::config);
        self.redact.apply(record);
    }

    /// Takes out all content of a call that is not tracked.
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

    /// Takes out of feedback what the rules of redaction say of the metadata and the user of a record.
    pub fn protect_feedback(&self, feedback: &mut Feedback) {
        let (user_id, metadata) = (feedback.user_id.take(), std::mem::take(&mut feedback.metadata));
        let mut record = Record { user_id, metadata, ..Record::default() };
        self.redact.apply(&mut record);
        (feedback.user_id, feedback.metadata) = (record.user_id, record.metadata);
    }

    /// Returns whether there are rules of redaction.
    pub(super) fn redacts(&self) -> bool {
        !self.redact.is_empty()
    }

    /// Takes out of a text of a refusal what the patterns of redaction match.
    pub fn redacted(&self, text: &str) -> String {
        self.patterns.plain(text)
    }

    /// Keeps the limits of a record's values, or refuses it; what is left out is counted.
    pub fn limit(&self, record: &mut Record) -> Result<(), FieldError> {
        let left_out = record.keep_limits()?;
        self.left_out.fetch_add(left_out, Ordering::Relaxed);
        Ok(())
    }

    /// Values since the start that were left out because they were beyond their limits.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Records since the start whose tokens are known and whose model has no price.
    pub fn without_price(&self) -> u64 {
        self.without_price.load(Ordering::Relaxed)
    }
}

/// The provider that the URL of the call tells, where the source does not say it.
pub(super) fn name_provider(record: &mut Record) {
    if record.ai_org.as_deref().is_none_or(str::is_empty)
        && let Some(provider) = record.request_url.as_deref().and_then(names::provider_of_url)
    {
        record.ai_org = Some(provider.to_owned());
    }
}

/// Returns whether the provider is one whose replies state what the call cost in US dollars.
fn states_cost(record: &Record) -> bool {
    let provider = record.ai_org.as_deref().map(names::provider);
    provider.is_some_and(|provider| ["openrouter", "perplexity-ai"].contains(&&*provider))
}
