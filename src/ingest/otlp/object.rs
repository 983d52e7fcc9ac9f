//! Writes JSON objects member by member.

use crate::record::json::write_string;

/// Returns a text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

/// A JSON object under construction.
#[derive(Clone, Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Parses a JSON object, to which members can be added.
    pub(super) fn parse(object: &str) -> Self {
        let inner = object.trim().strip_suffix('}').map_or("{", str::trim_end);
        Self(inner.to_owned())
    }

    pub(super) fn add_raw(&mut self, key: &str, raw: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(raw);
    }

    pub(super) fn add_text(&mut self, key: &str, text: &str) {
        self.add_raw(key, &quoted(text));
    }

    pub(super) fn raw(mut self, key: &str, raw: &str) -> Self {
        self.add_raw(key, raw);
        self
    }

    pub(super) fn text(mut self, key: &str, text: &str) -> Self {
        self.add_text(key, text);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
