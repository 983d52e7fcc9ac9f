//! What a call cost, where its source does not say: list prices times tokens.
//!
//! The table is `data/prices.csv`, built in; the file of setting `prices_file` has the same form, and its rows come first. A row
//! is a provider (`*` = any), a model, `above` = for requests of more than so many tokens, and prices in US dollars for a
//! million tokens: the columns of the table. Columns at the end may be left out, lines that begin with `#` are passed over.
//!
//! `?` stands for a price that there is but that is not known: a call with such tokens has no cost. A value that is left out
//! is the price of the kind around it: cached and written tokens cost what the input does, reasoning what the output does. Audio
//! and writes for an hour, which are dearer wherever they are billed apart, have no cost until their price is stated.
//!
//! A cost is exact: prices are whole numbers of 10^-24 cents a token, so that products and sum are whole numbers too, and
//! the sum becomes the nearest `f64` in one step. What the table does not hold has no cost: never 0, never a guess at a similar name.
//! Names are matched without case, provider prefix (`openai/gpt-4o`), region (`us.`) and date of a version (`-2024-08-06`), in that order.

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
/// Places of the prices among them.
const PRICES: std::ops::Range<usize> = 3..12;
/// Columns that every row has a value in.
const NEEDED: usize = 5;
/// The provider of a row that holds for all.
const ANY: &str = "*";
/// Decimals of a price in dollars for a million tokens; 10^-4 of it are the cents for one.
const PRICE_DECIMALS: usize = 20;
/// Decimals of a cost in cents: one more, for the half that some tiers cost.
const COST_DECIMALS: usize = PRICE_DECIMALS + 4 + 1;

/// What came of looking for a cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    /// US cents.
    Cents(f64),
    /// The record does not say enough: no model, or no tokens.
    NoTokens,
    /// The table does not hold the model, or not the price of some of the tokens.
    NoPrice,
}

/// Prices of one row, in 10^-24 cents a token; none = not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Price {
    /// Holds for requests of more than so many tokens.
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
    /// The rows of a model for which no provider is known: the prices that all providers agree on.
    agreed: HashMap<Box<str>, Vec<Price>>,
}

impl Prices {
    /// The table that is built in.
    pub fn built_in() -> Arc<Self> {
        static TABLE: LazyLock<Arc<Prices>> = LazyLock::new(|| {
            // A test reads the built-in table; what it could not read would have no cost, which is what no table has too.
            Arc::new(Prices::default().with("data/prices.csv", BUILT_IN).unwrap_or_default())
        });
        Arc::clone(&TABLE)
    }

    /// This table with the rows of a text over its own: all rows of a model are replaced by those that the text has of it.
    pub fn with(mut self, name: &str, text: &str) -> Result<Self> {
        let mut rows: HashMap<(Box<str>, Box<str>), Vec<Price>> = HashMap::new();
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let header = lines.next().map(|(_, line)| line.split(',').map(str::trim).collect::<Vec<_>>());
        let known = |header: &Vec<&str>| header.len() >= NEEDED && COLUMNS.starts_with(header);
        if !header.is_some_and(|header| known(&header)) {
            let expected = COLUMNS.join(",");
            return Err(Error::invalid(format!(
                "prices in `{name}`: the first line is not `{expected}`, or its beginning"
            )));
        }
        for (at, line) in lines {
            let (provider, model, price) =
                row(line).map_err(|why| Error::invalid(format!("prices in `{name}`, line {}: {why}", at + 1)))?;
            let prices = rows.entry((provider, model)).or_default();
            if prices.iter().any(|other| other.above == price.above) {
                return Err(Error::invalid(format!(
                    "prices in `{name}`, line {}: the model stands there twice",
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
        for (model, prices) in self.models.iter().filter(|(provider, _)| &***provider != ANY).flat_map(|(_, of)| of) {
            let agreed = self.agreed.entry(model.clone()).or_insert_with(|| prices.clone());
            if agreed.len() != prices.len() {
                agreed.clear();
            }
            agreed.iter_mut().zip(prices).for_each(|(agreed, price)| agreed.keep_common(price));
        }
    }

    /// What a record's tokens cost.
    pub fn cost(&self, record: &Record, billed: &Billed) -> Cost {
        let Some(request) = record.req_units.filter(|units| *units >= 0) else { return Cost::NoTokens };
        let Some(model) = record.ai_model.as_deref().filter(|model| !model.is_empty()) else { return Cost::NoTokens };
        let stated = record.res_units.or_else(|| record.total_units?.checked_sub(request)).filter(|units| *units >= 0);
        if request == 0 && stated == Some(0) {
            return Cost::NoTokens;
        }
        let provider = record.ai_org.as_deref().map(names::provider).filter(|provider| !provider.is_empty());
        let provider = provider.as_deref();
        let Some(prices) = self.find(provider, model) else { return Cost::NoPrice };
        let Some(price) = prices.iter().find(|price| request > price.above || price.above == 0) else {
            return Cost::NoPrice;
        };
        // Embeddings have no tokens of a response, and are billed none.
        let Some(response) = stated.or((price.output == Some(0)).then_some(0)) else { return Cost::NoTokens };
        match halves(provider, billed.tier).filter(|_| !billed.is_partial) {
            Some(halves) => price.of(request, response, &billed.parts, halves).map_or(Cost::NoPrice, Cost::Cents),
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

    /// Models that it has prices of.
    pub fn len(&self) -> usize {
        self.models.values().map(HashMap::len).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }
}

/// What a tier costs, in halves of the list price; none where there is no rule. Groq bills its flex tier as usual.
fn halves(provider: Option<&str>, tier: Tier) -> Option<i128> {
    const HALVE_BATCHES: [&str; 8] =
        ["anthropic", "azure-openai", "bedrock", "google", "groq", "mistral-ai", "openai", "vertex-ai"];
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
    /// Cents for so many tokens, in halves of the list price; none if a price of them is not known, if the kinds are more
    /// than the whole, or if they are more than can be counted.
    fn of(&self, request: i64, response: i64, parts: &Parts, halves: i128) -> Option<f64> {
        let fresh = request.checked_sub(parts.of_request()).filter(|rest| *rest >= 0)?;
        let said = response.checked_sub(parts.of_response()).filter(|rest| *rest >= 0)?;
        let terms = [
            (fresh, self.input),
            (parts.tool_use, self.input),
            (parts.cache_read, self.cache_read),
            (parts.cache_write, self.cache_write),
            (parts.cache_write_1h, self.cache_write_1h),
            (parts.audio_input, self.audio_input),
            (parts.audio_cache_read, self.audio_cache_read),
            (said, self.output),
            (parts.reasoning, self.reasoning),
            (parts.audio_output, self.audio_output),
            (parts.image_output, None),
        ];
        let sum = terms
            .iter()
            .filter(|(tokens, _)| *tokens != 0)
            .try_fold(0i128, |sum, (tokens, price)| sum.checked_add(i128::from(*tokens).checked_mul((*price)?)?))?;
        // Half of it is five times as much with one more decimal.
        let sum = sum.checked_mul(5)?.checked_mul(halves)?;
        let one = 10i128.pow(COST_DECIMALS as u32);
        // Reading a decimal number rounds once, to the nearest there is.
        format!("{}.{:0width$}", sum / one, sum % one, width = COST_DECIMALS).parse().ok()
    }

    /// Forgets the prices that another row does not have too.
    fn keep_common(&mut self, other: &Self) {
        let same = |own: &mut Option<i128>, other: Option<i128>| *own = own.filter(|own| Some(*own) == other);
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

    /// The price, or that of the kind around it.
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
        return Err(format!("it has {} values; expected {}", values.len(), COLUMNS.join(",")));
    }
    let value = |at: usize| values.get(at).copied().filter(|text| !text.is_empty());
    let need = |at: usize| value(at).ok_or_else(|| format!("`{}` is missing", COLUMNS[at]));
    let above = match value(2) {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|tokens| *tokens >= 0)
            .ok_or_else(|| format!("`above` is `{text}`; expected a number of tokens, or nothing"))?,
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
    let [input, output, cache_read, cache_write, reasoning, hour, audio_input, audio_cache_read, audio_output] = prices;
    let (input, output) = (input.or(None), output.or(None));
    // What costs nothing costs nothing in any form.
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

/// A decimal number in units of 10^-20.
fn amount(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (1..=9).contains(&whole.len()) && fraction.len() <= PRICE_DECIMALS;
    if !fits || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return None;
    }
    format!("{whole}{fraction:0<width$}", width = PRICE_DECIMALS).parse().ok()
}
