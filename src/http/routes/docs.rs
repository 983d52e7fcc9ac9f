//! `GET /docs` and `/docs/{page}`: the guide as HTML, without a key.
//!
//! The pages are the Markdown of [`crate::guide`]. They are rendered once and hold no data of any
//! tenant.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

use crate::guide::{PAGES, Page, page};
use crate::http::error::Failure;
use crate::nearest::{clip, hint};

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:50rem}\
nav{font-size:.875rem;border-bottom:1px solid;padding-bottom:.5rem}\
nav a{margin-right:.75rem;white-space:nowrap}\
nav a[aria-current]{font-weight:bold;text-decoration:none}\
pre,table{overflow-x:auto;display:block}\
pre,code{font:.875rem/1.4 ui-monospace,monospace}\
pre{border:1px solid;border-radius:4px;padding:.5rem}\
th,td{border-bottom:1px solid;padding:.25rem .75rem .25rem 0;text-align:left;vertical-align:top}";

/// Every page as HTML, by name; the list of pages is under the empty name.
static RENDERED: LazyLock<HashMap<&str, Bytes>> = LazyLock::new(|| {
    let pages =
        PAGES.iter().map(|page| (page.name(), document(page.title(), page.name(), &body(page))));
    pages.chain([("", document("Guide", "", &index()))]).collect()
});

/// Shows the list of pages.
pub(crate) async fn list() -> Response {
    shown(&RENDERED[""])
}

/// Shows a page.
pub(crate) async fn show(Path(name): Path<String>) -> Result<Response, Failure> {
    let Some(page) = page(&name) else {
        let hint = hint(&name, PAGES.iter().map(Page::name), "pages", "`/docs`");
        let message = format!("the guide has no page `{}`; {hint}", clip(&name));
        return Err(Failure::new(StatusCode::NOT_FOUND, message));
    };
    Ok(shown(&RENDERED[page.name()]))
}

fn shown(html: &Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, html.clone()).into_response()
}

fn document(title: &str, current: &str, body: &str) -> Bytes {
    let mut nav = String::from("<a href=\"/docs\">Guide</a>");
    for page in PAGES {
        let mark = if page.name() == current { " aria-current=\"page\"" } else { "" };
        nav.push_str(&format!("<a href=\"/docs/{}\"{mark}>{}</a>", page.name(), page.title()));
    }
    Bytes::from(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} · gatelog</title>\
         <style>{STYLE}</style></head><body><nav aria-label=\"Pages\">{nav}</nav><main>{body}</main></body></html>"
    ))
}

fn index() -> String {
    let mut list = String::from("<h1>Guide</h1><ul>");
    for page in PAGES {
        let summary = inline(&page.summary());
        list.push_str(&format!(
            "<li><a href=\"/docs/{}\">{}</a>: {summary}</li>",
            page.name(),
            page.title()
        ));
    }
    list.push_str("</ul><p><a href=\"/openapi.json\">OpenAPI document of the HTTP API</a></p>");
    list
}

/// Renders a paragraph, without its element.
fn inline(markdown: &str) -> String {
    let rendered = rendered(markdown);
    rendered.trim().trim_start_matches("<p>").trim_end_matches("</p>").to_owned()
}

fn body(page: &Page) -> String {
    rendered(page.text)
}

/// Renders Markdown with an `id` for each heading and links that lead to `/docs`.
fn rendered(markdown: &str) -> String {
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    let anchors: Vec<Option<String>> = (0..events.len()).map(|at| anchor(&events[at..])).collect();
    for (event, anchor) in events.iter_mut().zip(anchors) {
        match event {
            Event::Start(Tag::Heading { id, .. }) => *id = anchor.map(CowStr::from),
            Event::Start(Tag::Link { dest_url, .. }) => *dest_url = address(dest_url).into(),
            _ => {}
        }
    }
    let mut text = String::new();
    html::push_html(&mut text, events.into_iter());
    text
}

/// Returns the `id` of the heading that these events begin with, as GitHub makes it.
fn anchor(events: &[Event<'_>]) -> Option<String> {
    if !matches!(events.first()?, Event::Start(Tag::Heading { .. })) {
        return None;
    }
    let inside = events.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
    let text: String = inside
        .filter_map(|event| match event {
            Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
            _ => None,
        })
        .collect();
    let kept = text.to_lowercase().replace(' ', "-");
    Some(
        kept.chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_'))
            .collect(),
    )
}

/// Turns a link to another page's file into its address here.
fn address(link: &str) -> String {
    let (file, rest) = link.split_at(link.find('#').unwrap_or(link.len()));
    match page(file) {
        Some(page) if file == page.file => format!("/docs/{}{rest}", page.name()),
        _ => link.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_link_between_pages_leads_to_a_heading() {
        let mut ids = BTreeSet::new();
        let mut links = Vec::new();
        for page in PAGES {
            let html = body(page);
            let found =
                html.split("<h").filter_map(|part| part.split_once("id=\"")?.1.split_once('"'));
            ids.extend(found.map(|(id, _)| format!("/docs/{}#{id}", page.name())));
            ids.insert(format!("/docs/{}", page.name()));
            let found = html.split("href=\"").skip(1).filter_map(|part| part.split_once('"'));
            links.extend(found.map(|(link, _)| match link.strip_prefix('#') {
                Some(id) => (page.name(), format!("/docs/{}#{id}", page.name())),
                None => (page.name(), link.to_owned()),
            }));
        }
        assert!(ids.len() > 3 * PAGES.len(), "{ids:?}");
        for (page, link) in links {
            let is_outside = link.starts_with("https://") || link.starts_with("/openapi.json");
            assert!(is_outside || ids.contains(&link), "{page}: {link}");
        }
    }

    #[test]
    fn headings_have_the_anchors_of_github() {
        let html = rendered(
            "## Errors, and `429` here\n\n[x](sql.md#limits) [y](https://a.example/sql.md)",
        );
        assert!(html.contains("<h2 id=\"errors-and-429-here\">"), "{html}");
        assert!(
            html.contains("href=\"/docs/sql#limits\"") && html.contains("https://a.example/sql.md"),
            "{html}"
        );
    }
}
