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
    Prices::built_in().cost(&tokens(org, model, request, response), &Billed::default())
}

#[test]
fn the_built_in_table_can_be_read_and_its_aliases_are_sorted() {
    let table = Prices::default().with("data/prices.csv", BUILT_IN).unwrap();
    assert_eq!(table.len(), Prices::built_in().len());
    assert!(table.len() > 2_000 && !table.is_empty());
    assert!(names::ALIASES.is_sorted());
    for (_, provider) in names::ALIASES {
        assert!(table.models.contains_key(provider), "{provider}");
    }
}

/// The recorded requests of a real gateway have these tokens. The gateway adds floats and sends
/// 0.011250000000000001.
#[test]
fn costs_are_exact_to_the_last_digit() {
    assert_eq!(cents("openai", "gpt-4o", 9, 9), Cost::Cents(0.01125));
    assert_eq!(cents("openai", "gpt-4o", 5, 1), Cost::Cents(0.00225));
    assert_eq!(cents("openai", "gpt-4o", 10, 5), Cost::Cents(0.0075));
    assert_eq!(cents("openai", "gpt-4o", 11, 4), Cost::Cents(0.00675));
    assert_eq!(cents("openai", "gpt-4o-mini", 9, 9), Cost::Cents(0.000675));
    assert_eq!(cents("openai", "text-embedding-3-small", 3, 0), Cost::Cents(0.000006));
    // 0.1 + 0.2 in dollars for a million: ten million tokens of each are 300 cents, without a tail.
    let table =
        Prices::default().with("t", "provider,model,above,input,output\np,m,,0.1,0.2").unwrap();
    assert_eq!(
        table.cost(&tokens("p", "m", 10_000_000, 10_000_000), &Billed::default()),
        Cost::Cents(300.0)
    );
    assert_eq!(table.cost(&tokens("p", "m", 3, 0), &Billed::default()), Cost::Cents(0.00003));
    assert_eq!(
        table.cost(&tokens("p", "m", 1 << 60, 0), &Billed::default()),
        Cost::Cents(11_529_215_046_068.47)
    );
    assert_eq!(
        table.cost(&tokens("p", "m", i64::MAX, i64::MAX), &Billed::default()),
        Cost::NoPrice,
        "too many to count"
    );
}

#[test]
fn unknown_models_and_tokens_have_no_cost() {
    assert_eq!(cents("openai", "gpt-unheard-of", 9, 9), Cost::NoPrice);
    assert_eq!(
        cents("my-own-server", "gpt-4o", 9, 9),
        Cost::NoPrice,
        "another provider's price is a guess"
    );
    assert_eq!(cents("openai", "gpt-4o", 0, 0), Cost::NoTokens);
    assert_eq!(cents("openai", "", 9, 9), Cost::NoTokens);
    let table = Prices::built_in();
    let parts = Billed::default();
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
    assert_eq!(
        cents("", "o3", 9, 9),
        Cost::NoPrice,
        "providers differ, so without one the price is unknown"
    );
    let claude = cents("anthropic", "claude-sonnet-4-20250514", 1_000, 100);
    assert_eq!(claude, Cost::Cents(0.45));
    assert_eq!(cents("vertex_ai", "claude-sonnet-4@20250514", 1_000, 100), claude);
    let tuned = cents("openai", "ft:gpt-4o-2024-08-06", 1_000, 100);
    assert_eq!(cents("openai", "ft:gpt-4o-2024-08-06:ours::id", 1_000, 100), tuned);
    assert_eq!(tuned, Cost::Cents(0.525));
}

/// A dollar for a million tokens.
const ONE: i128 = 10i128.pow(PRICE_DECIMALS as u32);

fn billed(parts: Parts) -> Billed {
    Billed { parts, ..Billed::default() }
}

#[test]
fn parts_have_prices_of_their_own_where_the_table_has_them() {
    let text = "provider,model,above,input,output,cache_read,cache_write,reasoning\np,m,,100,1000,10,200,500\np,n,,100,1000\n";
    let table = Prices::default().with("t", text).unwrap();
    let parts = billed(Parts { cache_read: 20, cache_write: 30, reasoning: 4, ..Parts::default() });
    // 50 at 100, 20 at 10, 30 at 200; 6 at 1000, 4 at 500: 19,200 dollars for a million, so many
    // hundredths of cents.
    assert_eq!(table.cost(&tokens("p", "m", 100, 10), &parts), Cost::Cents(1.92));
    assert_eq!(table.cost(&tokens("p", "n", 100, 10), &parts), Cost::Cents(2.0));
    let more_than_all = billed(Parts { cache_read: 500, ..Parts::default() });
    assert_eq!(
        table.cost(&tokens("p", "m", 100, 0), &more_than_all),
        Cost::NoPrice,
        "the counts contradict each other"
    );
}

/// One token of each kind costs its own price, and has no cost if the price is not known.
#[test]
fn each_kind_costs_its_price_or_the_call_has_no_cost() {
    let text = "provider,model,above,input,output,cache_read,cache_write,reasoning,cache_write_1h,audio_input,\
                audio_cache_read,audio_output\n\
                p,all,,1,2,3,4,5,6,7,8,9\np,unknown,,1,2,?,?,?,?,?,?,?\np,short,,1,2\np,written,,1,2,3,4\np,free,,0,0\n\
                p,tier,,1,2\np,tier,10,?,?\n";
    let table = Prices::default().with("t", text).unwrap();
    let none = Parts::default();
    let kinds: [(Parts, &str); 8] = [
        (Parts { cache_read: 1, ..none }, "3 x 1 3 0"),
        (Parts { cache_write: 1, ..none }, "4 x 1 4 0"),
        (Parts { reasoning: 1, ..none }, "5 x 2 2 0"),
        (Parts { cache_write_1h: 1, ..none }, "6 x 1 x 0"),
        (Parts { audio_input: 1, ..none }, "7 x x x 0"),
        (Parts { audio_cache_read: 1, ..none }, "8 x x x 0"),
        (Parts { audio_output: 1, ..none }, "9 x x x 0"),
        (Parts { tool_use: 1, ..none }, "1 1 1 1 0"),
    ];
    for (parts, expected) in kinds {
        let request = parts.request_units();
        let response = parts.response_units();
        for (model, price) in
            ["all", "unknown", "short", "written", "free"].iter().zip(expected.split(' '))
        {
            let cost = price
                .parse::<f64>()
                .map_or(Cost::NoPrice, |dollars| Cost::Cents(dollars / 10_000.0));
            assert_eq!(
                table.cost(&tokens("p", model, request, response), &billed(parts)),
                cost,
                "{model} {parts:?}"
            );
        }
    }
    let plain = Billed::default();
    assert_eq!(table.cost(&tokens("p", "tier", 10, 0), &plain), Cost::Cents(0.001));
    assert_eq!(
        table.cost(&tokens("p", "tier", 11, 0), &plain),
        Cost::NoPrice,
        "the price of that tier is not known"
    );
    let images = billed(Parts { image_output: 1, ..none });
    assert_eq!(table.cost(&tokens("p", "all", 0, 1), &images), Cost::NoPrice);
}

#[test]
fn service_tiers_cost_half_or_have_no_cost() {
    let cost = |org: &str, model: &str, tier| {
        Prices::built_in()
            .cost(&tokens(org, model, 1_000, 1_000), &Billed { tier, ..Billed::default() })
    };
    assert_eq!(cost("openai", "gpt-5-mini", Tier::Standard), Cost::Cents(0.225));
    assert_eq!(cost("openai", "gpt-5-mini", Tier::Flex), Cost::Cents(0.1125));
    assert_eq!(cost("openai", "gpt-5-mini", Tier::Batch), Cost::Cents(0.1125));
    assert_eq!(cost("openai", "gpt-5-mini", Tier::Other), Cost::NoPrice);
    assert_eq!(cost("anthropic", "claude-sonnet-4-5", Tier::Batch), Cost::Cents(0.9));
    assert_eq!(cost("anthropic", "claude-sonnet-4-5", Tier::Flex), Cost::NoPrice);
    let usual = cost("groq", "llama-3.1-8b-instant", Tier::Standard);
    assert_eq!(
        cost("groq", "llama-3.1-8b-instant", Tier::Flex),
        usual,
        "Groq's flex tier costs what others do"
    );
    assert_eq!(cost("together-ai", "none", Tier::Batch), Cost::NoPrice);
    let table = Prices::default()
        .with("t", "provider,model,above,input,output\nopenai,m,,0.00000000000000000001,0")
        .unwrap();
    let batch = Billed { tier: Tier::Batch, ..Billed::default() };
    assert_eq!(
        table.cost(&tokens("openai", "m", 1, 0), &batch),
        Cost::Cents(5e-25),
        "the half is exact"
    );
}

#[test]
fn a_call_with_charges_beside_tokens_has_no_cost() {
    let billed = Billed { is_partial: true, ..Billed::default() };
    assert_eq!(Prices::built_in().cost(&tokens("openai", "gpt-4o", 9, 9), &billed), Cost::NoPrice);
}

#[test]
fn long_requests_have_another_price() {
    for org in ["google", "vertex-ai"] {
        assert_eq!(cents(org, "gemini-2.5-pro", 150_000, 0), Cost::Cents(18.75));
        assert_eq!(cents(org, "gemini-2.5-pro", 200_000, 0), Cost::Cents(25.0));
        assert_eq!(cents(org, "gemini-2.5-pro", 200_001, 0), Cost::Cents(50.00025));
        assert_eq!(cents(org, "gemini-3.1-pro-preview", 150_000, 0), Cost::Cents(30.0));
        assert_eq!(cents(org, "gemini-3-pro-preview", 200_001, 0), Cost::Cents(80.0004));
    }
    assert_eq!(cents("google", "gemini-1.5-pro", 128_001, 0), Cost::Cents(32.00025));
    assert_eq!(cents("anthropic", "claude-sonnet-4-5", 200_001, 0), Cost::Cents(120.0006));
    assert_eq!(
        cents("openai", "gpt-5.4", 272_001, 0),
        Cost::NoPrice,
        "more expensive, by an unknown factor"
    );
}

/// Rows that were wrong before: a price in another column, at another number of tokens, or in
/// another unit.
#[test]
fn prices_that_were_wrong_before_are_right() {
    let read = |org: &str, model: &str| {
        let all = billed(Parts { cache_read: 100_000, ..Parts::default() });
        Prices::built_in().cost(&tokens(org, model, 100_000, 0), &all)
    };
    assert_eq!(read("bedrock", "us.anthropic.claude-3-7-sonnet-20250219-v1:0"), Cost::Cents(3.0));
    assert_eq!(read("google", "gemini-3.1-pro-preview"), Cost::Cents(2.0));
    assert_eq!(read("google", "gemini-3-pro-preview-02-05"), Cost::Cents(2.0));
    assert_eq!(read("azure", "codex-mini-latest"), Cost::Cents(3.75));
    assert_eq!(read("openai", "codex-mini-latest"), Cost::Cents(3.75));
    assert_eq!(read("openai", "gpt-4o"), Cost::Cents(12.5));
    assert_eq!(read("openai", "gpt-5-pro"), Cost::Cents(150.0), "has no price for cached tokens");
    let hour = billed(Parts { cache_write_1h: 344_139, ..Parts::default() });
    let cost = Prices::built_in().cost(&tokens("anthropic", "claude-opus-4-5", 344_149, 48), &hour);
    assert_eq!(cost, Cost::Cents(344.264), "5 and 10 and 25 dollars for a million");
}

/// Checks how the prices of one model differ by the length of its input.
fn check_tiers(model: &str, prices: &[Price], check: &mut impl FnMut(bool, &str)) {
    for (long, short) in prices.iter().zip(prices.iter().skip(1)) {
        let no_less = |long: Option<i128>, short: Option<i128>| {
            long.zip(short).is_none_or(|(long, short)| long >= short)
        };
        check(
            no_less(long.input, short.input) && no_less(long.output, short.output),
            "longer is not cheaper",
        );
        check(no_less(long.cache_read, short.cache_read), "longer is not cheaper from the cache");
        check([32_000, 128_000, 200_000, 256_000, 272_000].contains(&long.above), "a known step");
    }
    let steps: Vec<i64> = prices.iter().map(|price| price.above).collect();
    let long_context = |name: &str| model.rsplit('/').next().unwrap_or(model).starts_with(name);
    if ["gemini-2.5-pro", "gemini-3-pro", "gemini-3.1-pro"].into_iter().any(long_context) {
        check(steps == [200_000, 0], "Gemini Pro has one step, at 200,000");
    }
}

/// Rules for every row of the built-in table, which find a price in the wrong column, unit or tier.
#[test]
fn the_built_in_table_is_plausible() {
    // Models whose output costs less than their input, as these providers list them.
    const CHEAP_TO_SAY: [(&str, &str); 3] = [
        ("dashscope", "qwen3-omni-30b-a3b-captioner"),
        ("openrouter", "meta-llama/llama-guard-3-8b"),
        ("workers-ai", "@cf/meta/llama-guard-3-8b"),
    ];
    let mut wrong = Vec::new();
    let table = Prices::built_in();
    for (provider, model, prices) in table
        .models
        .iter()
        .flat_map(|(provider, of)| of.iter().map(move |(model, prices)| (provider, model, prices)))
    {
        let mut check = |holds: bool, rule: &str| {
            if !holds {
                wrong.push(format!("{provider},{model}: {rule}"));
            }
        };
        check(
            prices.last().is_some_and(|first| first.above == 0),
            "there is a row for short requests",
        );
        for price in prices {
            let Some((input, output)) = price.input.zip(price.output) else {
                check(price.above > 0, "only a tier may have no known price");
                continue;
            };
            // The ratio to the price of the input, in thousandths.
            let times = |price: Option<i128>| price.map(|price| price * 1_000 / input.max(1));
            let within = |price: Option<i128>, low, high| {
                times(price).is_none_or(|times| (low..=high).contains(&times))
            };
            check(input > 0, "tokens that are read cost something");
            check(
                input <= 150 * ONE && output <= 600 * ONE,
                "at most what the dearest model costs",
            );
            check(output == 0 || input >= ONE / 200, "at least half a cent for a million tokens");
            let is_cheap = CHEAP_TO_SAY.contains(&(&**provider, &**model));
            check(
                output == 0 || output >= input || is_cheap,
                "an answer costs no less than the question",
            );
            check(output <= 15 * input, "an answer costs at most 15 times the question");
            check(
                within(price.cache_read, 5, 1_000),
                "cached tokens cost 0.5 to 100 % of the input",
            );
            check(
                within(price.cache_write, 1_000, 1_270),
                "a write costs 100 to 125 % of the input",
            );
            check(
                within(price.cache_write_1h, 1_000, 2_000),
                "a write for an hour costs 100 to 200 % of the input",
            );
            check(
                price.cache_write_1h >= price.cache_write || price.cache_write_1h.is_none(),
                "an hour costs no less",
            );
            check(within(price.audio_input, 1_000, 70_000), "audio costs no less than text");
            check(
                price.audio_cache_read <= price.audio_input,
                "cached audio costs no more than audio",
            );
            check(
                price.audio_output.is_none_or(|audio| audio >= output),
                "spoken answers cost no less than text",
            );
            check(
                price.reasoning.is_none_or(|price| price == output),
                "reasoning costs what the answer does",
            );
            if model.contains("claude") && price.cache_write.is_some() {
                check(
                    times(price.cache_write_1h) == Some(2_000),
                    "Anthropic bills an hour at twice the input",
                );
            }
        }
        check_tiers(model, prices, &mut check);
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_file_adds_and_replaces_rows() {
    let text = "# ours\nprovider,model,above,input,output\nOpenAI,GPT-4o,,1,1\nvllm,llama,,0,0\n*,anything,,2,2\n";
    let table = Prices::clone(&Prices::built_in()).with("own.csv", text).unwrap();
    let cost =
        |org: &str, model: &str| table.cost(&tokens(org, model, 10_000, 0), &Billed::default());
    assert_eq!(cost("openai", "gpt-4o"), Cost::Cents(1.0));
    assert_eq!(cost("azure-openai", "gpt-4o"), Cost::Cents(2.5));
    assert_eq!(cost("", "gpt-4o"), Cost::NoPrice);
    assert_eq!(cost("vllm", "llama"), Cost::Cents(0.0), "free is a price");
    assert_eq!(
        (cost("", "anything"), cost("whoever", "anything")),
        (Cost::Cents(2.0), Cost::Cents(2.0))
    );
    for (text, words) in [
        ("", "the first line"),
        ("provider,model,price\n", "the first line"),
        ("provider,model,above,input,output\np,m,,1", "line 2: the row has 4 values"),
        (
            "provider,model,above,input,output\n\np,m,,1,x",
            "line 3: `output` is `x`; expected US dollars",
        ),
        ("provider,model,above,input,output\np,m,,1,1e3", "`output` is `1e3`"),
        ("provider,model,above,input,output\np,m,,,1", "`input` is missing"),
        ("provider,model,above,input,output\np,m,-1,1,1", "`above` is `-1`"),
        (
            "provider,model,above,input,output\np,m,,1,1\np,M,,1,2",
            "line 3: the model is listed twice",
        ),
    ] {
        let error = Prices::default().with("own.csv", text).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("own.csv"), "{error}");
    }
}
