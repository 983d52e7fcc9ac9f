//! Computes the cost of a call if its source does not state one: list prices times tokens.
//!
//! The built-in table is `data/prices.csv`. The file of the setting `prices_file` has the same
//! form, and its rows take precedence. A row holds a provider (`*` for any), a model, `above` (the
//! row applies to requests of more than that many tokens), and prices in US dollars for a million
//! tokens in the columns of the table. Columns at the end may be left out, and lines that begin
//! with `#` are ignored.
//!
//! `?` stands for a price that exists but is not known: a call with such tokens has no cost. A
//! value that is left out is the price of the enclosing kind: cached and written tokens cost as
//! much as input, and reasoning costs as much as output. Audio and writes for an hour cost more
//! wherever they are billed separately, so they have no cost until their price is stated.
//!
//! A cost is exact: prices are whole numbers of 10^-24 cents a token, so products and sum are whole
//! numbers too, and the sum is rounded to the nearest `f64` in one step. A model that the table
//! does not hold has no cost: never 0, and never a guess from a similar name. Names are matched
//! without case, provider prefix (`openai/gpt-4o`), region (`us.`) and date of a version
//! (`-2024-08-06`), in that order.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::names;
pub use super::usage::{Billed, Parts, Tier};
use crate::error::{Error, Result};
use crate::record::Record;

const BUILT_IN: &str = include_str!("../../data/prices.csv");
const COLUMNS: [&str; 12] = [
    "provider",
    "model",
    "above",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
    "cache_write_1h",
    "audio_input",
    "audio_cache_read",
    "audio_output",
];
/// Positions of the prices among the columns.
const PRICES: std::ops::Range<usize> = 3..12;
/// Number of columns in which every row has a value.
const NEEDED: usize = 5;
/// Provider of a row that applies to all providers.
const ANY: &str = "*";
/// Decimals of a price in dollars for a million tokens. The price divided by 10^4 is in cents for
/// one token.
const PRICE_DECIMALS: usize = 20;
/// Decimals of a cost in cents: one more than a price needs, for tiers at half the price.
const COST_DECIMALS: usize = PRICE_DECIMALS + 4 + 1;

/// Result of a cost lookup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    /// US cents.
    Cents(f64),
    /// The record lacks a model or tokens.
    NoTokens,
    /// The table does not hold the model, or lacks the price of some of the tokens.
    NoPrice,
}

/// Prices of one row, in 10^-24 cents a token. `None` means that the price is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Price {
    /// Number of tokens of a request above which the row applies.
    above: i64,
    input: Option<i128>,
    output: Option<i128>,
    cache_read: Option<i128>,
    cache_write: Option<i128>,
    reasoning: Option<i128>,
    cache_write_1h: Option<i128>,
    audio_input: Option<i128>,
    audio_cache_read: Option<i128>,
    audio_output: Option<i128>,
}

/// A table of prices.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// Rows by provider and model, the highest `above` first.
    models: HashMap<Box<str>, HashMap<Box<str>, Vec<Price>>>,
    /// Rows for a model of an unknown provider: the prices on which all providers agree.
    agreed: HashMap<Box<str>, Vec<Price>>,
}

impl Prices {
    /// Returns the built-in table.
    pub fn built_in() -> Arc<Self> {
        static TABLE: LazyLock<Arc<Prices>> = LazyLock::new(|| {
            // A test parses the built-in table. If it could not be parsed, calls would have no
            // cost, as with an empty table.
            Arc::new(Prices::default().with("data/prices.csv", BUILT_IN).unwrap_or_default())
        });
        Arc::clone(&TABLE)
    }

    /// Returns this table with the rows of a text added. Rows of the text replace all rows of the
    /// same model.
    pub fn with(mut self, name: &str, text: &str) -> Result<Self> {
        let mut rows: HashMap<(Box<str>, Box<str>), Vec<Price>> = HashMap::new();
        let mut lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let header =
            lines.next().map(|(_, line)| line.split(',').map(str::trim).collect::<Vec<_>>());
        let known = |header: &Vec<&str>| header.len() >= NEEDED && COLUMNS.starts_with(header);
        if !header.is_some_and(|header| known(&header)) {
            let expected = COLUMNS.join(",");
            return Err(Error::invalid(format!(
                "prices in `{name}`: the first line is not `{expected}`, or its beginning"
            )));
        }
        for (at, line) in lines {
            let (provider, model, price) = row(line).map_err(|why| {
                Error::invalid(format!("prices in `{name}`, line {}: {why}", at + 1))
            })?;
            let prices = rows.entry((provider, model)).or_default();
            if prices.iter().any(|other| other.above == price.above) {
                return Err(Error::invalid(format!(
                    "prices in `{name}`, line {}: the model is listed twice",
                    at + 1
                )));
            }
            prices.push(price);
        }
        for ((provider, model), mut prices) in rows {
            prices.sort_by_key(|price| std::cmp::Reverse(price.above));
            self.models.entry(provider).or_default().insert(model, prices);
        }
        self.agree();
        Ok(self)
    }

    fn agree(&mut self) {
        self.agreed.clear();
        for (model, prices) in
            self.models.iter().filter(|(provider, _)| &***provider != ANY).flat_map(|(_, of)| of)
        {
            let agreed = self.agreed.entry(model.clone()).or_insert_with(|| prices.clone());
            if agreed.len() != prices.len() {
                agreed.clear();
            }
            agreed.iter_mut().zip(prices).for_each(|(agreed, price)| agreed.keep_common(price));
        }
    }

    /// Returns the cost of a record's tokens.
    pub fn cost(&self, record: &Record, billed: &Billed) -> Cost {
        let Some(request) = record.req_units.filter(|units| *units >= 0) else {
            return Cost::NoTokens;
        };
        let Some(model) = record.ai_model.as_deref().filter(|model| !model.is_empty()) else {
            return Cost::NoTokens;
        };
        let stated = record
            .res_units
            .or_else(|| record.total_units?.checked_sub(request))
            .filter(|units| *units >= 0);
        if request == 0 && stated == Some(0) {
            return Cost::NoTokens;
        }
        let provider =
            record.ai_org.as_deref().map(names::provider).filter(|provider| !provider.is_empty());
        let provider = provider.as_deref();
        let Some(prices) = self.find(provider, model) else { return Cost::NoPrice };
        let Some(price) = prices.iter().find(|price| request > price.above || price.above == 0)
        else {
            return Cost::NoPrice;
        };
        // Embeddings have no response tokens, and are not billed for any.
        let Some(response) = stated.or((price.output == Some(0)).then_some(0)) else {
            return Cost::NoTokens;
        };
        match halves(provider, billed.tier).filter(|_| !billed.is_partial) {
            Some(halves) => price
                .cents(request, response, &billed.parts, halves)
                .map_or(Cost::NoPrice, Cost::Cents),
            None => Cost::NoPrice,
        }
    }

    fn find(&self, provider: Option<&str>, model: &str) -> Option<&[Price]> {
        let model = model.trim().to_ascii_lowercase();
        let row = |of: &str, name: &str| self.models.get(of)?.get(name).map(Vec::as_slice);
        names::spellings(&model, provider).find_map(|name| match provider {
            Some(provider) => row(provider, name).or_else(|| row(ANY, name)),
            None => row(ANY, name).or_else(|| self.agreed.get(name).map(Vec::as_slice)),
        })
    }

    /// Number of models with prices.
    pub fn len(&self) -> usize {
        self.models.values().map(HashMap::len).sum()
    }

    /// Returns true if the table has no prices.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }
}

/// Returns the price of a tier in halves of the list price, or `None` if there is no rule. Groq
/// bills its flex tier at the list price.
fn halves(provider: Option<&str>, tier: Tier) -> Option<i128> {
    const HALVE_BATCHES: [&str; 8] = [
        "anthropic",
        "azure-openai",
        "bedrock",
        "google",
        "groq",
        "mistral-ai",
        "openai",
        "vertex-ai",
    ];
    match tier {
        Tier::Standard => Some(2),
        Tier::Batch => HALVE_BATCHES.contains(&provider?).then_some(1),
        Tier::Flex => match provider? {
            "openai" => Some(1),
            "groq" => Some(2),
            _ => None,
        },
        Tier::Other => None,
    }
}

impl Price {
    /// Returns the cost in cents for a number of tokens, at so many halves of the list price.
    /// Returns `None` if a needed price is not known, if the kinds add up to more than the whole,
    /// or on overflow.
    fn cents(&self, request: i64, response: i64, parts: &Parts, halves: i128) -> Option<f64> {
        let fresh = request.checked_sub(parts.request_units()).filter(|rest| *rest >= 0)?;
        let plain_output =
            response.checked_sub(parts.response_units()).filter(|rest| *rest >= 0)?;
        let terms = [
            (fresh, self.input),
            (parts.tool_use, self.input),
            (parts.cache_read, self.cache_read),
            (parts.cache_write, self.cache_write),
            (parts.cache_write_1h, self.cache_write_1h),
            (parts.audio_input, self.audio_input),
            (parts.audio_cache_read, self.audio_cache_read),
            (plain_output, self.output),
            (parts.reasoning, self.reasoning),
            (parts.audio_output, self.audio_output),
            (parts.image_output, None),
        ];
        let sum = terms
            .iter()
            .filter(|(tokens, _)| *tokens != 0)
            .try_fold(0i128, |sum, (tokens, price)| {
                sum.checked_add(i128::from(*tokens).checked_mul((*price)?)?)
            })?;
        // Half a unit is five units with one more decimal.
        let sum = sum.checked_mul(5)?.checked_mul(halves)?;
        let one = 10i128.pow(COST_DECIMALS as u32);
        // Parsing a decimal number rounds once, to the nearest `f64`.
        format!("{}.{:0width$}", sum / one, sum % one, width = COST_DECIMALS).parse().ok()
    }

    /// Removes the prices that differ from those of another row.
    fn keep_common(&mut self, other: &Self) {
        let same = |own: &mut Option<i128>, other: Option<i128>| {
            *own = own.filter(|own| Some(*own) == other)
        };
        if self.above != other.above {
            *self = Self { above: self.above, ..Self::default() };
        }
        same(&mut self.input, other.input);
        same(&mut self.output, other.output);
        same(&mut self.cache_read, other.cache_read);
        same(&mut self.cache_write, other.cache_write);
        same(&mut self.reasoning, other.reasoning);
        same(&mut self.cache_write_1h, other.cache_write_1h);
        same(&mut self.audio_input, other.audio_input);
        same(&mut self.audio_cache_read, other.audio_cache_read);
        same(&mut self.audio_output, other.audio_output);
    }
}

/// A value of the price table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Stated(i128),
    Unknown,
    LeftOut,
}

impl Value {
    fn read(text: Option<&str>, column: &str) -> Result<Self, String> {
        match text {
            None => Ok(Self::LeftOut),
            Some("?") => Ok(Self::Unknown),
            Some(text) => amount(text).map(Self::Stated).ok_or_else(|| {
                format!(
                    "`{column}` is `{text}`; expected US dollars for a million tokens, such as 0.15, or `?` where \
                     the price is not known"
                )
            }),
        }
    }

    /// Returns the price, or that of the enclosing kind if it is left out.
    fn or(self, around: Option<i128>) -> Option<i128> {
        match self {
            Self::Stated(price) => Some(price),
            Self::Unknown => None,
            Self::LeftOut => around,
        }
    }
}

fn row(line: &str) -> Result<(Box<str>, Box<str>, Price), String> {
    let values: Vec<&str> = line.split(',').map(str::trim).collect();
    if values.len() < NEEDED || values.len() > COLUMNS.len() {
        return Err(format!("the row has {} values; expected {}", values.len(), COLUMNS.join(",")));
    }
    let value = |at: usize| values.get(at).copied().filter(|text| !text.is_empty());
    let need = |at: usize| value(at).ok_or_else(|| format!("`{}` is missing", COLUMNS[at]));
    let above = match value(2) {
        None => 0,
        Some(text) => text.parse().ok().filter(|tokens| *tokens >= 0).ok_or_else(|| {
            format!("`above` is `{text}`; expected a number of tokens, or nothing")
        })?,
    };
    let provider = match need(0)? {
        ANY => ANY.into(),
        name => names::provider(name).into(),
    };
    need(3).and(need(4))?;
    let mut prices = [Value::LeftOut; PRICES.end - PRICES.start];
    for (place, at) in PRICES.enumerate() {
        prices[place] = Value::read(value(at), COLUMNS[at])?;
    }
    let [
        input,
        output,
        cache_read,
        cache_write,
        reasoning,
        hour,
        audio_input,
        audio_cache_read,
        audio_output,
    ] = prices;
    let input = input.or(None);
    let output = output.or(None);
    // A free kind is free in every form.
    let free = |price: Option<i128>| price.filter(|price| *price == 0);
    let is_written_apart = cache_write != Value::LeftOut;
    let price = Price {
        above,
        input,
        output,
        cache_read: cache_read.or(input),
        cache_write: cache_write.or(input),
        reasoning: reasoning.or(output),
        cache_write_1h: hour.or(if is_written_apart { free(input) } else { input }),
        audio_input: audio_input.or(free(input)),
        audio_cache_read: audio_cache_read.or(free(input)),
        audio_output: audio_output.or(free(output)),
    };
    Ok((provider, need(1)?.to_ascii_lowercase().into(), price))
}

/// Parses a decimal number in units of 10^-20.
fn amount(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (1..=9).contains(&whole.len()) && fraction.len() <= PRICE_DECIMALS;
    if !fits || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return None;
    }
    format!("{whole}{fraction:0<width$}", width = PRICE_DECIMALS).parse().ok()
}
