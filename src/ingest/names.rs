//! Names of providers and models: one canonical spelling for the many that clients, gateways and
//! clouds use.
//!
//! Columns keep the spelling of the source. The canonical name is used by the price table, and by
//! reports through the SQL function `canonical_model`. A name that matches no rule is only
//! lower-cased: two models are never merged by a guess.

use std::borrow::Cow;

/// Providers under the names that other projects give them.
pub(crate) const ALIASES: [(&str, &str); 23] = [
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

/// Hosts of providers. A name that begins with a dot or a hyphen matches all hosts that end with
/// it.
const HOSTS: [(&str, &str); 47] = [
    ("api.openai.com", "openai"),
    (".api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "google"),
    ("aiplatform.googleapis.com", "vertex-ai"),
    (".aiplatform.googleapis.com", "vertex-ai"),
    ("-aiplatform.googleapis.com", "vertex-ai"),
    (".openai.azure.com", "azure-openai"),
    (".openai.azure.us", "azure-openai"),
    (".services.ai.azure.com", "azure-ai"),
    (".inference.ai.azure.com", "azure-ai"),
    ("api.mistral.ai", "mistral-ai"),
    ("codestral.mistral.ai", "mistral-ai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.x.ai", "x-ai"),
    (".api.x.ai", "x-ai"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.perplexity.ai", "perplexity-ai"),
    ("api.together.xyz", "together-ai"),
    ("api.together.ai", "together-ai"),
    ("api.fireworks.ai", "fireworks-ai"),
    ("openrouter.ai", "openrouter"),
    ("api.cerebras.ai", "cerebras"),
    ("api.deepinfra.com", "deepinfra"),
    ("api.moonshot.cn", "moonshot"),
    ("api.moonshot.ai", "moonshot"),
    ("dashscope.aliyuncs.com", "dashscope"),
    ("dashscope-intl.aliyuncs.com", "dashscope"),
    ("dashscope-us.aliyuncs.com", "dashscope"),
    ("api.ai21.com", "ai21"),
    ("api.jina.ai", "jina"),
    ("api.voyageai.com", "voyage"),
    ("api.novita.ai", "novita-ai"),
    ("api.studio.nebius.ai", "nebius"),
    ("api.studio.nebius.com", "nebius"),
    ("api.tokenfactory.nebius.com", "nebius"),
    ("open.bigmodel.cn", "zhipu"),
    ("api.z.ai", "z-ai"),
    ("api.minimax.io", "minimax"),
    ("api.minimax.chat", "minimax"),
    ("api-atlas.nomic.ai", "nomic"),
    ("router.huggingface.co", "huggingface"),
    ("api-inference.huggingface.co", "huggingface"),
    ("api.replicate.com", "replicate"),
    ("api.sambanova.ai", "sambanova"),
];

/// Makers of models and providers that prefix a model's name, as in `openai/gpt-4o` and
/// `amazon.nova-lite-v1:0`.
const VENDORS: [&str; 55] = [
    "ai21",
    "alibaba",
    "amazon",
    "anthropic",
    "azure",
    "azure-ai",
    "azure-openai",
    "bedrock",
    "bytedance",
    "cerebras",
    "cohere",
    "dashscope",
    "databricks",
    "deepinfra",
    "deepseek",
    "deepseek-ai",
    "fireworks-ai",
    "github",
    "google",
    "groq",
    "ibm-granite",
    "jina",
    "litellm-proxy",
    "meta",
    "meta-llama",
    "microsoft",
    "minimax",
    "minimaxai",
    "mistral",
    "mistral-ai",
    "mistralai",
    "models",
    "moonshot",
    "moonshotai",
    "nebius",
    "nousresearch",
    "novita-ai",
    "nvidia",
    "ollama",
    "ollama-chat",
    "openai",
    "openrouter",
    "oracle",
    "perplexity-ai",
    "qwen",
    "replicate",
    "sambanova",
    "together-ai",
    "vertex-ai",
    "vertex-ai-beta",
    "voyage",
    "workers-ai",
    "x-ai",
    "xiaomi",
    "z-ai",
];

/// Groups of AWS regions that prefix a model's name in Bedrock.
const REGIONS: [&str; 8] = ["us.", "eu.", "apac.", "global.", "us-gov.", "jp.", "au.", "ca."];
/// Number of the first regions that have the list price.
const LIST_PRICED: usize = 4;

/// Serving variants that a router appends to a model's name.
const VARIANTS: [&str; 8] =
    [":latest", ":free", ":nitro", ":floor", ":online", ":thinking", ":extended", ":batch"];

/// Returns a provider's name as the price table spells it.
pub(crate) fn provider(name: &str) -> Cow<'static, str> {
    let name = name.trim().to_ascii_lowercase().replace(['_', '.', ' '], "-");
    match ALIASES.binary_search_by(|(alias, _)| (*alias).cmp(&name)) {
        Ok(at) => Cow::Borrowed(ALIASES[at].1),
        Err(_) => Cow::Owned(name),
    }
}

/// Returns the provider whose API a URL calls, or `None` if the host is unknown. The scheme may be
/// missing.
pub(crate) fn provider_of_url(url: &str) -> Option<&'static str> {
    let rest = url.trim().split_once("://").map_or(url.trim(), |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host
        .split_once(':')
        .map_or(host, |(host, _)| host)
        .trim_end_matches('.')
        .to_ascii_lowercase();
    if let Some((_, provider)) = HOSTS.iter().find(|(known, _)| is_host(&host, known)) {
        return Some(provider);
    }
    let is_aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    if is_aws && (host.starts_with("bedrock-runtime.") || host.starts_with("bedrock-runtime-fips."))
    {
        return Some("bedrock");
    }
    // These hosts serve more than models.
    match host.as_str() {
        "api.cloudflare.com" if path.contains("/ai/") => Some("workers-ai"),
        host if host.ends_with(".cognitiveservices.azure.com") && path.starts_with("/openai/") => {
            Some("azure-openai")
        }
        _ => None,
    }
}

fn is_host(host: &str, known: &str) -> bool {
    if known.starts_with(['.', '-']) {
        return host.len() > known.len() && host.ends_with(known);
    }
    host == known
}

/// Returns the canonical name of a model, for any spelling of its source: `gpt-4o` for
/// `gpt-4o-2024-08-06`, `openai/gpt-4o` and `azure/gpt-4o`.
///
/// Removes paths, prefixes of providers and regions, and dates and versions of the same model. A
/// fine-tuned model keeps its whole name.
pub fn canonical_model(provider_name: Option<&str>, model: &str) -> String {
    let model = model.trim().to_ascii_lowercase();
    if model.starts_with("ft:") {
        return model;
    }
    let own = provider_name.map(provider);
    let mut name = unwrapped(&model, own.as_deref());
    name = VARIANTS.iter().find_map(|variant| name.strip_suffix(variant)).unwrap_or(name);
    name = without_version(name);
    name = without_date(name);
    if let Some(rest) = name.strip_prefix("gpt-35") {
        return format!("gpt-3.5{}", without_month(rest));
    }
    if name.starts_with("gpt-") {
        return without_month(name).to_owned();
    }
    if name.starts_with("claude-") { claude(name) } else { name.to_owned() }
}

/// Returns a model's name as given, then without what clients and providers add to it.
pub(crate) fn spellings<'m>(
    model: &'m str,
    provider_name: Option<&str>,
) -> impl Iterator<Item = &'m str> {
    let bare = model
        .split_once('/')
        .filter(|(before, _)| provider_name.is_none_or(|of| provider(before) == of));
    let bare = bare.map_or(model, |(_, rest)| rest);
    let local =
        REGIONS[..LIST_PRICED].iter().find_map(|region| bare.strip_prefix(region)).unwrap_or(bare);
    // `ft:gpt-4o-2024-08-06:organisation::id`
    let tuned = local.match_indices(':').nth(1).filter(|_| local.starts_with("ft:"));
    let base = tuned.map_or(local, |(end, _)| &local[..end]);
    [model, bare, local, base, without_date(base)].into_iter()
}

/// Removes the path, the providers and the regions before a name.
fn unwrapped<'m>(model: &'m str, own: Option<&str>) -> &'m str {
    // `publishers/google/models/…`, `accounts/fireworks/models/…`,
    // `arn:aws:bedrock:…:foundation-model/…`.
    let resource = ["/models/", ":foundation-model/", ":inference-profile/"];
    let mut name = resource
        .iter()
        .find_map(|before| model.rsplit_once(before))
        .map_or(model, |(_, name)| name);
    name = name.strip_prefix('~').unwrap_or(name);
    let is_vendor = |before: &str| {
        let before = provider(before);
        own == Some(&*before) || VENDORS.binary_search(&&*before).is_ok()
    };
    name = name.strip_prefix("@cf/").or_else(|| name.strip_prefix("@hf/")).unwrap_or(name);
    while let Some((_, rest)) =
        name.split_once('/').filter(|(before, rest)| is_vendor(before) && !rest.is_empty())
    {
        name = rest;
    }
    let local = REGIONS.iter().find_map(|region| name.strip_prefix(region)).unwrap_or(name);
    match local.split_once('.') {
        Some((vendor, rest)) if is_vendor(vendor) && !rest.is_empty() => rest,
        _ => name,
    }
}

/// Removes Bedrock's version, such as `-v1:0`, if the remaining name still states a version.
fn without_version(name: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let revised = name.strip_suffix(":0");
    let name = revised
        .filter(|name| name.rsplit_once("-v").is_some_and(|(_, of)| digits(of)))
        .unwrap_or(name);
    match name.rsplit_once("-v") {
        Some((front, version))
            if digits(version) && front.contains(|c: char| c.is_ascii_digit()) =>
        {
            front
        }
        _ => name,
    }
}

/// Removes `-2024-08-06`, `-20240806`, `@20240806` or `-latest` from the end of a name.
pub(crate) fn without_date(name: &str) -> &str {
    if let Some(name) = name.strip_suffix("-latest") {
        return name;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for (length, shape) in [(11, [4, 2, 2].as_slice()), (9, &[8])] {
        let Some(at) =
            name.len().checked_sub(length).filter(|at| *at > 0 && name.is_char_boundary(*at))
        else {
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

/// Removes the month and day of the version from an OpenAI name, as in `gpt-4-0613`.
fn without_month(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((front, date))
            if date.len() == 4 && date.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            front
        }
        _ => name,
    }
}

/// Returns an Anthropic model's name in Anthropic's own spelling: `claude-3.7-sonnet` becomes
/// `claude-3-7-sonnet`, and `claude-4-sonnet` and `claude-sonnet-4-0` become `claude-sonnet-4`.
fn claude(name: &str) -> String {
    let name = name.replace('.', "-");
    let name = without_version(&name);
    let words: Vec<&str> = name.split('-').collect();
    match words.as_slice() {
        ["claude", "4", family] => format!("claude-{family}-4"),
        ["claude", family @ ("opus" | "sonnet" | "haiku"), "4", "0"] => {
            format!("claude-{family}-4")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(ALIASES.is_sorted());
        assert!(VENDORS.is_sorted());
    }

    #[test]
    fn one_model_has_one_name() {
        let groups: [(&str, &[(&str, &str)]); 10] = [
            (
                "gpt-4o",
                &[
                    ("openai", "gpt-4o"),
                    ("openai", "GPT-4o-2024-08-06"),
                    ("openai", "gpt-4o-latest"),
                    ("", "openai/gpt-4o"),
                    ("azure", "azure/gpt-4o"),
                    ("openrouter", "openrouter/openai/gpt-4o:free"),
                    ("my-gateway", "my-gateway/gpt-4o"),
                ],
            ),
            (
                "gpt-3.5-turbo",
                &[("azure-openai", "gpt-35-turbo"), ("openai", "gpt-3.5-turbo-0125")],
            ),
            (
                "claude-3-7-sonnet",
                &[
                    ("anthropic", "claude-3-7-sonnet-20250219"),
                    ("bedrock", "us.anthropic.claude-3-7-sonnet-20250219-v1:0"),
                    ("bedrock", "bedrock/anthropic.claude-3-7-sonnet-20250219-v1:0"),
                    ("vertex_ai", "claude-3-7-sonnet@20250219"),
                    ("openrouter", "anthropic/claude-3.7-sonnet"),
                    ("openrouter", "anthropic/claude-3.7-sonnet:thinking"),
                    (
                        "bedrock",
                        "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-7-sonnet-20250219-v1:0",
                    ),
                ],
            ),
            (
                "claude-sonnet-4",
                &[
                    ("anthropic", "claude-sonnet-4-20250514"),
                    ("anthropic", "claude-sonnet-4-0"),
                    ("anthropic", "claude-4-sonnet-20250514"),
                    ("vertex-ai", "publishers/anthropic/models/claude-sonnet-4@20250514"),
                ],
            ),
            (
                "claude-sonnet-4-5",
                &[
                    ("openrouter", "anthropic/claude-sonnet-4.5"),
                    ("", "claude-sonnet-4-5-20250929"),
                ],
            ),
            (
                "gemini-2.5-pro",
                &[("google", "models/gemini-2.5-pro"), ("", "vertex_ai/gemini-2.5-pro")],
            ),
            (
                "nova-lite-v1",
                &[("bedrock", "amazon.nova-lite-v1:0"), ("openrouter", "amazon/nova-lite-v1")],
            ),
            ("claude-v2", &[("bedrock", "anthropic.claude-v2"), ("bedrock", "claude-v2")]),
            ("llama3:8b", &[("ollama", "llama3:8b"), ("", "ollama/llama3:8b")]),
            ("gpt-4.1", &[("openai", "gpt-4.1"), ("openai", "gpt-4.1-2025-04-14")]),
        ];
        for (name, examples) in groups {
            for (org, model) in examples {
                let org = Some(*org).filter(|org| !org.is_empty());
                assert_eq!(canonical_model(org, model), name, "{org:?} {model}");
            }
        }
    }

    #[test]
    fn different_models_keep_their_names() {
        for name in [
            "gpt-4o-mini",
            "gpt-4",
            "claude-v2:1",
            "o3",
            "team-a/model",
            "ft:gpt-4o-2024-08-06:ours::id",
            "claude-3-5-sonnet",
            "deepseek-r1-0528",
            "gemini-1.5-flash-001",
            "v1:0",
            "/",
            "openai/",
            "",
            "é",
        ] {
            assert_eq!(canonical_model(None, name), name);
        }
    }

    #[test]
    fn known_hosts_tell_the_provider() {
        for (url, name) in [
            ("https://api.openai.com/v1/chat/completions", Some("openai")),
            ("https://eu.api.openai.com/v1/responses", Some("openai")),
            ("api.openai.com:443", Some("openai")),
            ("https://user:pw@API.Anthropic.com/v1/messages?x=1", Some("anthropic")),
            (
                "https://generativelanguage.googleapis.com/v1beta/models/g:generateContent",
                Some("google"),
            ),
            ("https://us-central1-aiplatform.googleapis.com/v1/projects/p", Some("vertex-ai")),
            ("https://bedrock-runtime.us-east-1.amazonaws.com/model/m/converse", Some("bedrock")),
            ("https://ours.openai.azure.com/openai/deployments/d", Some("azure-openai")),
            ("https://ours.cognitiveservices.azure.com/openai/v1", Some("azure-openai")),
            ("https://ours.cognitiveservices.azure.com/speech", None),
            ("https://api.mistral.ai/v1", Some("mistral-ai")),
            ("https://api.cohere.com/v2/chat", Some("cohere")),
            ("https://api.x.ai/v1", Some("x-ai")),
            ("https://api.groq.com/openai/v1", Some("groq")),
            ("https://api.cloudflare.com/client/v4/accounts/a/ai/run/m", Some("workers-ai")),
            ("https://api.openai.com.example.org/v1", None),
            ("https://example.org/api.openai.com", None),
            ("https://example.org?u=@api.openai.com", None),
            (".openai.azure.com", None),
            ("http://localhost:11434/api/chat", None),
            ("", None),
        ] {
            assert_eq!(provider_of_url(url), name, "{url}");
        }
    }
}
