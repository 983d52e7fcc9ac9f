//! Models with list prices, and the applications that call them in the sample records, with their
//! routes through the gateway.

use super::words::{self, Theme};

/// A model behind a provider.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) provider: &'static str,
    pub(super) name: &'static str,
    pub(super) url: &'static str,
    /// List price, cents per million tokens.
    pub(super) input_cents: f64,
    pub(super) output_cents: f64,
    /// Typical time to the first token, and for each further one, ms.
    pub(super) first_token_ms: f64,
    pub(super) token_ms: f64,
}

macro_rules! models {
    ($($id:ident = $provider:literal $name:literal at $url:expr, $input:literal $output:literal
     cents,
        $first:literal $each:literal ms;)*) => {
        $(pub(super) const $id: Model = Model {
            provider: $provider, name: $name, url: $url, input_cents: $input, output_cents: $output,
            first_token_ms: $first, token_ms: $each,
        };)*
    };
}

// Prices as the providers listed them in 2026.
models! {
    GPT = "openai" "gpt-5.4" at "https://api.openai.com/v1/chat/completions",
        250.0 1500.0 cents, 620.0 13.0 ms;
    GPT_MINI = "openai" "gpt-5.4-mini" at "https://api.openai.com/v1/chat/completions",
        75.0 450.0 cents, 380.0 7.0 ms;
    AZURE = "azure-openai" "gpt-5.4-mini"
        at "https://harbor-eu.openai.azure.com/openai/deployments/gpt-54-mini/chat/completions",
        75.0 450.0 cents, 430.0 8.0 ms;
    SONNET = "anthropic" "claude-sonnet-4-6" at "https://api.anthropic.com/v1/messages",
        300.0 1500.0 cents, 780.0 14.0 ms;
    HAIKU = "anthropic" "claude-haiku-4-5" at "https://api.anthropic.com/v1/messages",
        100.0 500.0 cents, 410.0 6.0 ms;
    FLASH = "vertex-ai" "gemini-2.5-flash"
        at concat!(
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/fieldstone/locations/europe-west4",
            "/publishers/google/models/gemini-2.5-flash:generateContent",
        ),
        30.0 250.0 cents, 350.0 5.0 ms;
    MISTRAL = "mistral-ai" "mistral-small-latest" at "https://api.mistral.ai/v1/chat/completions",
        10.0 30.0 cents, 300.0 8.0 ms;
    LLAMA = "groq" "llama-3.3-70b-versatile" at "https://api.groq.com/openai/v1/chat/completions",
        59.0 79.0 cents, 190.0 3.0 ms;
    EMBED = "openai" "text-embedding-3-small" at "https://api.openai.com/v1/embeddings",
        2.0 0.0 cents, 90.0 0.0 ms;
}

/// Routing in the gateway's config.
#[derive(Debug)]
pub(super) enum Route {
    /// A single model.
    Single(&'static Model),
    /// The first model, and the second if the first fails.
    Fallback(&'static Model, &'static Model),
    /// One of the models, by weight.
    Loadbalance(&'static [(&'static Model, u32)]),
    /// The second model for users on the paid plan, the first for others.
    Conditional(&'static Model, &'static Model),
}

/// Caching in the gateway's config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    Off,
    Simple,
    Semantic,
}

/// Kind of calls that an application makes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Conversations. `goes_on` is the share of calls that continue one.
    Chat { goes_on: f64 },
    /// Single questions, some of them asked by many users.
    Questions,
    /// Retrieval: an embedding call and a chat call in one trace.
    Lookup,
    /// Indexing of passages.
    Embedding,
}

/// An application of an organisation.
#[derive(Debug)]
pub(super) struct App {
    pub(super) organisation: &'static str,
    pub(super) workspace: &'static str,
    pub(super) feature: &'static str,
    /// Share of the calls, relative to the sum over [`APPS`].
    pub(super) weight: u32,
    pub(super) users: u32,
    pub(super) kind: Kind,
    pub(super) theme: &'static Theme,
    pub(super) route: Route,
    pub(super) cache: Cache,
    /// Retries after the first try. 0 if the config asks for none.
    pub(super) retries: i32,
    pub(super) config: Option<&'static str>,
    pub(super) prompt: Option<(&'static str, &'static str)>,
    /// Share of streamed calls.
    pub(super) streamed: f64,
    /// Share of calls that ask not to be tracked.
    pub(super) untracked: f64,
    /// Client: runtime, its version, library.
    pub(super) client: (&'static str, &'static str, &'static str),
}

const NODE: (&str, &str, &str) = ("node", "v22.11.0", "portkey-3.1.0");
const PYTHON: (&str, &str, &str) = ("CPython", "3.12.7", "portkey-2.3.4");
const OLD_PYTHON: (&str, &str, &str) = ("CPython", "3.10.15", "portkey-2.0.2");

/// Base of the other applications.
const PLAIN: App = App {
    organisation: "",
    workspace: "",
    feature: "chat",
    weight: 0,
    users: 40,
    kind: Kind::Chat { goes_on: 0.6 },
    theme: &words::BANK,
    route: Route::Single(&GPT_MINI),
    cache: Cache::Off,
    retries: 0,
    config: None,
    prompt: None,
    streamed: 0.0,
    untracked: 0.0,
    client: PYTHON,
};

/// All applications.
pub(super) const APPS: &[App] = &[
    App {
        organisation: "harbor-bank",
        workspace: "support",
        weight: 26,
        users: 320,
        route: Route::Fallback(&GPT_MINI, &AZURE),
        retries: 3,
        config: Some("pc-harbor-support-2f81a0"),
        prompt: Some(("pp-support-reply-71c0de", "6b1f0c52-7c6e-4d0f-9a53-0b1d3c6f8e11")),
        streamed: 0.8,
        client: NODE,
        ..PLAIN
    },
    App {
        organisation: "harbor-bank",
        workspace: "support",
        feature: "faq",
        weight: 14,
        users: 320,
        kind: Kind::Questions,
        route: Route::Single(&HAIKU),
        cache: Cache::Semantic,
        retries: 2,
        config: Some("pc-harbor-faq-90bb31"),
        client: NODE,
        ..PLAIN
    },
    App {
        organisation: "maple-clinic",
        workspace: "front-desk",
        weight: 9,
        users: 60,
        theme: &words::CLINIC,
        route: Route::Single(&SONNET),
        config: Some("pc-maple-private-5d2e77"),
        streamed: 0.5,
        untracked: 0.85,
        ..PLAIN
    },
    App {
        organisation: "tidepool-games",
        workspace: "player-help",
        weight: 17,
        users: 900,
        theme: &words::PLAYERS,
        route: Route::Loadbalance(&[(&LLAMA, 60), (&MISTRAL, 30), (&FLASH, 10)]),
        retries: 1,
        config: Some("pc-tidepool-balance-c4410f"),
        streamed: 0.6,
        client: NODE,
        ..PLAIN
    },
    App {
        organisation: "tidepool-games",
        workspace: "player-help",
        feature: "tips",
        weight: 8,
        users: 900,
        kind: Kind::Questions,
        theme: &words::PLAYERS,
        route: Route::Single(&MISTRAL),
        cache: Cache::Simple,
        config: Some("pc-tidepool-tips-18fa6b"),
        prompt: Some(("pp-daily-tip-e07a19", "0f6f2f3c-31b8-4b6e-8f0e-6c1b52c7a940")),
        client: NODE,
        ..PLAIN
    },
    App {
        organisation: "tidepool-games",
        workspace: "studio",
        feature: "code",
        weight: 10,
        users: 35,
        kind: Kind::Chat { goes_on: 0.75 },
        theme: &words::STUDIO,
        route: Route::Conditional(&GPT_MINI, &SONNET),
        retries: 2,
        config: Some("pc-tidepool-studio-77e2d9"),
        streamed: 0.9,
        ..PLAIN
    },
    App {
        organisation: "quill-press",
        workspace: "editing",
        feature: "edit",
        weight: 7,
        users: 18,
        theme: &words::EDITING,
        route: Route::Single(&GPT),
        streamed: 0.3,
        client: OLD_PYTHON,
        ..PLAIN
    },
    App {
        organisation: "fieldstone-energy",
        workspace: "control-room",
        feature: "runbook",
        weight: 6,
        users: 24,
        kind: Kind::Lookup,
        theme: &words::GRID,
        route: Route::Fallback(&FLASH, &HAIKU),
        retries: 2,
        config: Some("pc-fieldstone-ops-3a9c55"),
        ..PLAIN
    },
    App {
        organisation: "fieldstone-energy",
        workspace: "indexing",
        feature: "index",
        weight: 3,
        users: 2,
        kind: Kind::Embedding,
        theme: &words::GRID,
        route: Route::Single(&EMBED),
        retries: 3,
        config: Some("pc-fieldstone-index-60d1b8"),
        ..PLAIN
    },
];
