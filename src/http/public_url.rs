//! The address at which clients reach this server, for links in responses.

use axum::http::{HeaderMap, Uri};

use crate::config::Config;

/// Returns the address at which clients reach this server: the setting `public_url`, or else the
/// address in the request if that is this machine or a bare IP address. A host name in a request
/// can be forged, and a signed URL would lead there.
pub(crate) fn base(config: &Config, uri: &Uri, headers: &HeaderMap) -> String {
    if !config.public_url.is_empty() {
        return config.public_url.trim_end_matches('/').to_owned();
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").and_then(|list| list.split(',').next()).map(str::trim);
    let scheme = scheme.filter(|scheme| ["http", "https"].contains(scheme)).unwrap_or("http");
    let host = text("host").or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    let host = host.filter(|host| is_plain(host));
    format!("{scheme}://{}", host.unwrap_or(&config.listen))
}

/// Returns true if an authority names its host by IP address, or as `localhost`.
fn is_plain(authority: &str) -> bool {
    let Ok(parsed) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    !authority.contains('@') && (host == "localhost" || host.parse::<std::net::IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_url_is_the_configured_one_or_a_bare_address() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            base(&Config::default(), &Uri::from_static("/v1"), &headers)
        };
        assert_eq!(of(&[]), "http://127.0.0.1:8080");
        assert_eq!(of(&[("host", "localhost:81")]), "http://localhost:81");
        assert_eq!(of(&[("host", "[::1]:81")]), "http://[::1]:81");
        assert_eq!(
            of(&[("host", "127.0.0.2"), ("x-forwarded-proto", "https, http")]),
            "https://127.0.0.2"
        );
        assert_eq!(
            of(&[("host", "127.0.0.2"), ("x-forwarded-proto", "javascript")]),
            "http://127.0.0.2"
        );
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "a/b?",
            "user@localhost",
            "127.0.0.1@evil.example",
        ] {
            assert_eq!(of(&[("host", foreign)]), "http://127.0.0.1:8080", "{foreign}");
        }
        let config =
            Config { public_url: "https://logs.example/g/".to_owned(), ..Config::default() };
        let headers =
            HeaderMap::from_iter([(axum::http::header::HOST, "evil.example".parse().unwrap())]);
        assert_eq!(base(&config, &Uri::from_static("/v1"), &headers), "https://logs.example/g");
    }
}
