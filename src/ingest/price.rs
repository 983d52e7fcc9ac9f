//! What a call cost, where its source does not say: list prices times tokens.
//!
//! The table is `data/prices.csv`, built in; the file of setting `prices_file` has the same form, and its rows come first. A row
//! is `provider,model,above,input,output,cache_read,cache_write,reasoning`: US dollars for a million tokens, `above` = for
//! requests of more than so many tokens, provider `*` = any; columns at the end may be left out, lines that begin with `#` are passed over.
//!
//! A cost is exact: prices are whole numbers of 10^-24 cents a token, so that products and sum are whole numbers too, and
//! the sum becomes the nearest `f64` in one step. What the table does not hold has no cost: never 0, never a guess at a similar name.
//! Names are matched without case, provider prefix (`openai/gpt-4o`), region (`us.`) and date of a version (`-2024-08-06`), in that order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::error::{Error, Result};
use crate::record::Record;

const BUILT_IN: &str = include_str!("../../data/prices.csv");
const COLUMNS: [&str; 8] = ["provider", "model", "above", "input", "output", "cache_read", "cache_write", "reasoning"];
/// The provider of a row that holds for all.
const ANY: &str = "*";
/// Decimals of a price in dollars for a million tokens; 10^-4 of it are the cents for one.
const PRICE_DECIMALS: usize = 20;
/// Decimals of a cost in cents.
const COST_DECIMALS: usize = PRICE_DECIMALS + 4;

/// Providers under the names that other projects give them.
const ALIASES: [(&str, &str); 23] = [
    ("aws-bedrock", "bedrock"),
    ("azure", "azure-openai"),
    ("azure-ai-inference", "azure-ai"),
    ("azure-ai-openai", "azure-openai"),
    ("bedrock-converse", "bedrock"),
    ("cloudflare", "workers-ai"),
    ("cohere-chat", "cohere"),
    ("fireworks", "fireworks-ai"),
    ("gcp-gemini", "google"),
    ("gcp-gen-ai", "google"),
    ("gcp-vertex-ai", "vertex-ai"),
    ("gemini", "google"),
    ("jina-ai", "jina"),
    ("mistral", "mistral-ai"),
    ("moonshotai", "moonshot"),
    ("novita", "novita-ai"),
    ("oci", "oracle"),
    ("perplexity", "perplexity-ai"),
    ("text-completion-openai", "openai"),
    ("together", "together-ai"),
    ("vertex", "vertex-ai"),
    ("xai", "x-ai"),
    ("zai", "z-ai"),
];

/// Tokens that a provider bills at prices of their own. Each is a part of the request's or the response's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Tokens of the request that were read from the provider's cache.
    pub cache_read: i64,
    /// Tokens of the request that were written to it.
    pub cache_write: i64,
    /// Tokens of the response that the model thought in.
    pub reasoning: i64,
}

/// What came of looking for a cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    /// US cents.
    Cents(f64),
    /// The record does not say enough: no model, or no tokens.
    NoTokens,
    /// The table does not hold the model.
    NoPrice,
}

/// Prices of one row, in 10^-24 cents a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Price {
    /// Holds for requests of more than so many tokens.
    above: i64,
    input: i128,
    output: i128,
    cache_read: Option<i128>,
    cache_write: Option<i128>,
    reasoning: Option<i128>,
}

/// A table of prices.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// Rows by provider and model, the highest `above` first.
    models: HashMap<Box<str>, HashMap<Box<str>, Vec<Price>>>,
    /// The rows of a model for which no provider is known; none where providers differ.
    agreed: HashMap<Box<str>, Option<Vec<Price>>>,
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
        let known = |header: &Vec<&str>| header.len() >= 5 && COLUMNS.starts_with(header);
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
            let agreed = self.agreed.entry(model.clone()).or_insert_with(|| Some(prices.clone()));
            if agreed.as_ref().is_some_and(|other| other != prices) {
                *agreed = None;
            }
        }
    }

    /// What a record's tokens cost.
    pub fn cost(&self, record: &Record, parts: &Parts) -> Cost {
        let Some(request) = record.req_units.filter(|units| *units >= 0) else { return Cost::NoTokens };
        let Some(model) = record.ai_model.as_deref().filter(|model| !model.is_empty()) else { return Cost::NoTokens };
        let stated = record.res_units.or_else(|| record.total_units?.checked_sub(request)).filter(|units| *units >= 0);
        if request == 0 && stated == Some(0) {
            return Cost::NoTokens;
        }
        let Some(prices) = self.find(record.ai_org.as_deref(), model) else { return Cost::NoPrice };
        let Some(price) = prices.iter().find(|price| request > price.above || price.above == 0) else {
            return Cost::NoPrice;
        };
        // Embeddings have no tokens of a response, and are billed none.
        let Some(response) = stated.or((price.output == 0).then_some(0)) else { return Cost::NoTokens };
        price.of(request, response, parts).map_or(Cost::NoPrice, Cost::Cents)
    }

    fn find(&self, provider: Option<&str>, model: &str) -> Option<&[Price]> {
        let model = model.trim().to_ascii_lowercase();
        let provider = provider.map(canonical).filter(|provider| !provider.is_empty());
        let row = |of: &str, name: &str| self.models.get(of)?.get(name).map(Vec::as_slice);
        spellings(&model, provider.as_deref()).find_map(|name| match provider.as_deref() {
            Some(provider) => row(provider, name).or_else(|| row(ANY, name)),
            None => row(ANY, name).or_else(|| self.agreed.get(name)?.as_deref()),
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

impl Price {
    /// Cents for so many tokens; none if they are more than can be counted.
    fn of(&self, request: i64, response: i64, parts: &Parts) -> Option<f64> {
        // Tokens of a kind that has no price of its own cost what the others do.
        let part = |tokens: i64, most: i64, price: Option<i128>| match price {
            Some(price) => (tokens.clamp(0, most), price),
            None => (0, 0),
        };
        let (read, read_price) = part(parts.cache_read, request, self.cache_read);
        let (write, write_price) = part(parts.cache_write, request - read, self.cache_write);
        let (thought, thought_price) = part(parts.reasoning, response, self.reasoning);
        let terms = [
            (request - read - write, self.input),
            (read, read_price),
            (write, write_price),
            (response - thought, self.output),
            (thought, thought_price),
        ];
        let sum = terms
            .iter()
            .try_fold(0i128, |sum, (tokens, price)| sum.checked_add(i128::from(*tokens).checked_mul(*price)?))?;
        let one = 10i128.pow(COST_DECIMALS as u32);
        // Reading a decimal number rounds once, to the nearest there is.
        format!("{}.{:0width$}", sum / one, sum % one, width = COST_DECIMALS).parse().ok()
    }
}

/// A provider's name as the table has it.
fn canonical(name: &str) -> Cow<'static, str> {
    let name = name.trim().to_ascii_lowercase().replace(['_', '.', ' '], "-");
    match ALIASES.binary_search_by(|(alias, _)| (*alias).cmp(&name)) {
        Ok(at) => Cow::Borrowed(ALIASES[at].1),
        Err(_) => Cow::Owned(name),
    }
}

/// A model's name as it stands, then without what clients and providers put around it.
fn spellings<'m>(model: &'m str, provider: Option<&str>) -> impl Iterator<Item = &'m str> {
    let bare = model.split_once('/').filter(|(before, _)| provider.is_none_or(|of| canonical(before) == of));
    let bare = bare.map_or(model, |(_, rest)| rest);
    let regions = ["us.", "eu.", "apac.", "global."];
    let local = regions.iter().find_map(|region| bare.strip_prefix(region)).unwrap_or(bare);
    let dateless = without_date(local);
    [model, bare, local, dateless].into_iter()
}

/// A name without `-2024-08-06`, `-20240806`, `@20240806` or `-latest` at its end.
fn without_date(name: &str) -> &str {
    if let Some(name) = name.strip_suffix("-latest") {
        return name;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for (length, shape) in [(11, [4, 2, 2].as_slice()), (9, &[8])] {
        let Some(at) = name.len().checked_sub(length).filter(|at| *at > 0 && name.is_char_boundary(*at)) else {
            continue;
        };
        let (front, date) = name.split_at(at);
        let Some(date) = date.strip_prefix(['-', '@']) else { continue };
        let parts: Vec<&str> = date.split('-').collect();
        if parts.len() == shape.len()
            && parts.iter().zip(shape).all(|(part, length)| digits(part) && part.len() == *length)
        {
            return front;
        }
    }
    name
}

fn row(line: &str) -> Result<(Box<str>, Box<str>, Price), String> {
    let values: Vec<&str> = line.split(',').map(str::trim).collect();
    if values.len() < 5 || values.len() > COLUMNS.len() {
        return Err(format!("it has {} values; expected {}", values.len(), COLUMNS.join(",")));
    }
    let value = |at: usize| values.get(at).copied().filter(|text| !text.is_empty());
    let need = |at: usize| value(at).ok_or_else(|| format!("`{}` is missing", COLUMNS[at]));
    let price = |at: usize| match value(at) {
        None => Ok(None),
        Some(text) => amount(text).map(Some).ok_or_else(|| {
            format!("`{}` is `{text}`; expected US dollars for a million tokens, such as 0.15", COLUMNS[at])
        }),
    };
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
        name => canonical(name).into(),
    };
    need(3).and(need(4))?;
    let price = Price {
        above,
        input: price(3)?.unwrap_or_default(),
        output: price(4)?.unwrap_or_default(),
        cache_read: price(5)?,
        cache_write: price(6)?,
        reasoning: price(7)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(org: &str, model: &str, request: i64, response: i64) -> Record {
        Record {
            ai_org: (!org.is_empty()).then(|| org.to_owned()),
            ai_model: Some(model.to_owned()),
            req_units: Some(request),
            res_units: Some(response),
            ..Record::default()
        }
    }

    fn cents(org: &str, model: &str, request: i64, response: i64) -> Cost {
        Prices::built_in().cost(&tokens(org, model, request, response), &Parts::default())
    }

    #[test]
    fn the_built_in_table_can_be_read_and_its_aliases_are_sorted() {
        let table = Prices::default().with("data/prices.csv", BUILT_IN).unwrap();
        assert_eq!(table.len(), Prices::built_in().len());
        assert!(table.len() > 2_000 && !table.is_empty());
        assert!(ALIASES.is_sorted());
        for (_, provider) in ALIASES {
            assert!(table.models.contains_key(provider), "{provider}");
        }
    }

    /// The recorded requests of a real gateway have these tokens. The gateway adds in floats and sends 0.011250000000000001.
    #[test]
    fn costs_are_exact_to_the_last_digit() {
        assert_eq!(cents("openai", "gpt-4o", 9, 9), Cost::Cents(0.01125));
        assert_eq!(cents("openai", "gpt-4o", 5, 1), Cost::Cents(0.00225));
        assert_eq!(cents("openai", "gpt-4o", 10, 5), Cost::Cents(0.0075));
        assert_eq!(cents("openai", "gpt-4o", 11, 4), Cost::Cents(0.00675));
        assert_eq!(cents("openai", "gpt-4o-mini", 9, 9), Cost::Cents(0.000675));
        assert_eq!(cents("openai", "text-embedding-3-small", 3, 0), Cost::Cents(0.000006));
        // 0.1 + 0.2 in dollars for a million: ten million tokens of each are 300 cents, without a tail.
        let table = Prices::default().with("t", "provider,model,above,input,output\np,m,,0.1,0.2").unwrap();
        assert_eq!(table.cost(&tokens("p", "m", 10_000_000, 10_000_000), &Parts::default()), Cost::Cents(300.0));
        assert_eq!(table.cost(&tokens("p", "m", 3, 0), &Parts::default()), Cost::Cents(0.00003));
        assert_eq!(table.cost(&tokens("p", "m", 1 << 60, 0), &Parts::default()), Cost::Cents(11_529_215_046_068.47));
        assert_eq!(
            table.cost(&tokens("p", "m", i64::MAX, i64::MAX), &Parts::default()),
            Cost::NoPrice,
            "too many to count"
        );
    }

    #[test]
    fn what_is_not_known_has_no_cost() {
        assert_eq!(cents("openai", "gpt-unheard-of", 9, 9), Cost::NoPrice);
        assert_eq!(cents("my-own-server", "gpt-4o", 9, 9), Cost::NoPrice, "another provider's price is a guess");
        assert_eq!(cents("openai", "gpt-4o", 0, 0), Cost::NoTokens);
        assert_eq!(cents("openai", "", 9, 9), Cost::NoTokens);
        let table = Prices::built_in();
        let parts = Parts::default();
        let mut record = tokens("openai", "gpt-4o", 9, 9);
        record.res_units = None;
        assert_eq!(table.cost(&record, &parts), Cost::NoTokens);
        record.total_units = Some(18);
        assert_eq!(table.cost(&record, &parts), Cost::Cents(0.01125));
        record.req_units = None;
        assert_eq!(table.cost(&record, &parts), Cost::NoTokens);
        let mut embedding = tokens("openai", "text-embedding-3-small", 3, 0);
        embedding.res_units = None;
        assert_eq!(table.cost(&embedding, &parts), Cost::Cents(0.000006));
    }

    #[test]
    fn names_are_found_as_clients_write_them() {
        let price = cents("openai", "gpt-4o", 9, 9);
        for (org, model) in [
            ("OpenAI", "GPT-4o"),
            ("openai", "openai/gpt-4o"),
            ("openai", "gpt-4o-2024-08-06"),
            ("openai", "gpt-4o-2031-01-01"),
            ("azure", "gpt-4o"),
            ("azure.ai.openai", "gpt-4o"),
            ("", "gpt-4o"),
            ("", "openai/gpt-4o"),
        ] {
            assert_eq!(cents(org, model, 9, 9), price, "{org} {model}");
        }
        assert_eq!(cents("", "o3", 9, 9), Cost::NoPrice, "providers differ, so without one there is no telling");
        let claude = cents("anthropic", "claude-sonnet-4-20250514", 1_000, 100);
        assert_eq!(claude, Cost::Cents(0.45));
        assert_eq!(cents("vertex_ai", "claude-sonnet-4@20250514", 1_000, 100), claude);
        assert_eq!(without_date("gpt-4"), "gpt-4");
        assert_eq!(without_date("-2024-08-06"), "-2024-08-06");
        assert_eq!(without_date("model-20240806"), "model");
        assert_eq!(without_date("modelé-2024-8-6"), "modelé-2024-8-6");
    }

    #[test]
    fn parts_have_prices_of_their_own_where_the_table_has_them() {
        let text = "provider,model,above,input,output,cache_read,cache_write,reasoning\np,m,,100,1000,10,200,500\np,n,,100,1000\n";
        let table = Prices::default().with("t", text).unwrap();
        let parts = Parts { cache_read: 20, cache_write: 30, reasoning: 4 };
        // 50 at 100, 20 at 10, 30 at 200; 6 at 1000, 4 at 500: 19,200 dollars for a million, so many hundredths of cents.
        assert_eq!(table.cost(&tokens("p", "m", 100, 10), &parts), Cost::Cents(1.92));
        assert_eq!(table.cost(&tokens("p", "n", 100, 10), &parts), Cost::Cents(2.0));
        let more_than_all = Parts { cache_read: 500, cache_write: 30, reasoning: -4 };
        assert_eq!(table.cost(&tokens("p", "m", 100, 0), &more_than_all), Cost::Cents(0.1));
    }

    #[test]
    fn long_requests_have_another_price() {
        assert_eq!(cents("google", "gemini-2.5-pro", 128_000, 0), Cost::Cents(16.0));
        assert_eq!(cents("google", "gemini-2.5-pro", 128_001, 0), Cost::Cents(32.00025));
    }

    #[test]
    fn a_file_adds_and_replaces_rows() {
        let text = "# ours\nprovider,model,above,input,output\nOpenAI,GPT-4o,,1,1\nvllm,llama,,0,0\n*,anything,,2,2\n";
        let table = Prices::clone(&Prices::built_in()).with("own.csv", text).unwrap();
        let cost = |org: &str, model: &str| table.cost(&tokens(org, model, 10_000, 0), &Parts::default());
        assert_eq!(cost("openai", "gpt-4o"), Cost::Cents(1.0));
        assert_eq!(cost("azure-openai", "gpt-4o"), Cost::Cents(2.5));
        assert_eq!(cost("", "gpt-4o"), Cost::NoPrice);
        assert_eq!(cost("vllm", "llama"), Cost::Cents(0.0), "free is a price");
        assert_eq!((cost("", "anything"), cost("whoever", "anything")), (Cost::Cents(2.0), Cost::Cents(2.0)));
        for (text, words) in [
            ("", "the first line"),
            ("provider,model,price\n", "the first line"),
            ("provider,model,above,input,output\np,m,,1", "line 2: it has 4 values"),
            ("provider,model,above,input,output\n\np,m,,1,x", "line 3: `output` is `x`; expected US dollars"),
            ("provider,model,above,input,output\np,m,,1,1e3", "`output` is `1e3`"),
            ("provider,model,above,input,output\np,m,,,1", "`input` is missing"),
            ("provider,model,above,input,output\np,m,-1,1,1", "`above` is `-1`"),
            ("provider,model,above,input,output\np,m,,1,1\np,M,,1,2", "line 3: the model stands there twice"),
        ] {
            let error = Prices::default().with("own.csv", text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("own.csv"), "{error}");
        }
    }
}
