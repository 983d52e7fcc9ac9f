//! The HTTP client of the gateway to which replays are sent.

use std::time::Duration;

use crate::config::Config;

const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Client of the gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// `None` if no gateway is configured, or the client cannot be created.
    client: Option<reqwest::Client>,
}

impl Gateway {
    pub(crate) fn new(config: &Config) -> Self {
        let client = match config.gateway_url.as_str() {
            "" => None,
            _ => client(config)
                .inspect_err(|cause| tracing::error!(%cause, "replays cannot be sent"))
                .ok(),
        };
        Self { client }
    }

    /// Returns the client, or `None` if no gateway is configured.
    pub(crate) fn client(&self) -> Option<reqwest::Client> {
        self.client.clone()
    }
}

fn client(config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIME)
        .timeout(Duration::from_secs(config.replay_timeout_seconds))
        // A gateway on this machine or network needs no root certificates, and the system may have
        // none.
        .tls_built_in_root_certs(config.gateway_url.starts_with("https"))
        .build()
}
