//! Compiled redaction rules: replaces texts in bodies, headers, metadata, user and URL of a record.
//!
//! A JSON text is walked once. Each string and number in it is matched on its own, unescaped, so
//! that no escape hides a match and no replacement breaks the JSON. Everything that no rule changes
//! keeps its bytes. All rules without paths are tried in one pass ([`RegexSet`]), so a text without
//! a match, which is the common case, costs one search.

use std::borrow::Cow;

use regex::{Regex, RegexSet};

use crate::config::{self, Path, Step};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::record::json::{unquote, value_end, write_string};

/// The rules of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redact {
    rules: Vec<Rule>,
    /// Patterns of the rules without paths, and the rule of each.
    everywhere: RegexSet,
    of_everywhere: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Option<Regex>,
    replacement: String,
    paths: Vec<Path>,
}

/// A rule's path during a walk: the rule, and the remaining steps.
#[derive(Clone, Copy)]
struct Going<'r> {
    rule: usize,
    steps: &'r [Step],
}

impl Redact {
    /// Compiles rules.
    pub(crate) fn new(rules: &config::Redact) -> Result<Self> {
        let mut compiled = Self::default();
        let mut patterns = Vec::new();
        for (name, rule) in &rules.0 {
            let wrong =
                |why: String| Error::invalid(format!("setting `redact`, rule `{name}`: {why}"));
            let pattern = rule
                .pattern
                .as_deref()
                .map(Regex::new)
                .transpose()
                .map_err(|error| wrong(error.to_string()))?;
            let paths = rule
                .paths
                .iter()
                .map(|path| Path::parse(path))
                .collect::<Result<Vec<_>, _>>()
                .map_err(wrong)?;
            if let Some(text) = rule.pattern.as_deref().filter(|_| paths.is_empty()) {
                patterns.push(text);
                compiled.of_everywhere.push(compiled.rules.len());
            }
            compiled.rules.push(Rule { pattern, replacement: rule.replacement.clone(), paths });
        }
        compiled.everywhere = RegexSet::new(patterns)
            .map_err(|error| Error::invalid(format!("setting `redact`: {error}")))?;
        Ok(compiled)
    }

    /// Compiles the patterns of rules for texts that are no part of a record: each pattern applies
    /// everywhere, regardless of the paths of its rule.
    pub(super) fn patterns(rules: &config::Redact) -> Result<Self> {
        let patterns = rules.0.iter().filter(|(_, rule)| rule.pattern.is_some());
        let everywhere = patterns
            .map(|(name, rule)| (name.clone(), config::Rule { paths: Vec::new(), ..rule.clone() }));
        Self::new(&config::Redact(everywhere.collect()))
    }

    /// Replaces what the patterns without paths match in a plain text.
    pub(super) fn plain(&self, text: &str) -> String {
        self.text(text, &[]).unwrap_or_else(|| text.to_owned())
    }

    /// Returns true if there are no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Applies the rules to a record.
    pub(crate) fn apply(&self, record: &mut Record) {
        if self.is_empty() {
            return;
        }
        let request = &mut record.request;
        let response = &mut record.response;
        for (column, text) in [
            ("request.body", &mut request.body),
            ("request.headers", &mut request.headers),
            ("response.body", &mut response.body),
            ("response.headers", &mut response.headers),
        ] {
            if let Some(changed) = text.as_deref().and_then(|text| self.json(column, text)) {
                *text = Some(changed);
            }
        }
        for (column, text) in
            [("request_url", &mut record.request_url), ("user_id", &mut record.user_id)]
        {
            let mut going = self.start(column);
            if column == "user_id" {
                // The user comes from the metadata.
                going.extend(self.enter(&self.start("metadata"), Some("_user"), None));
            }
            if let Some(changed) = text.as_deref().and_then(|text| self.text(text, &going)) {
                *text = Some(changed);
            }
        }
        let start = self.start("metadata");
        for (key, value) in &mut record.metadata {
            let going = self.enter(&start, Some(key), None);
            if let Some(changed) = self.text(value, &going) {
                *value = changed;
            }
            if let Some(changed) = self.text(key, &[]) {
                *key = changed;
            }
        }
    }

    fn start(&self, column: &str) -> Vec<Going<'_>> {
        let paths = self
            .rules
            .iter()
            .enumerate()
            .flat_map(|(at, rule)| rule.paths.iter().map(move |path| (at, path)));
        let here = paths.filter(|(_, path)| path.column == column);
        here.map(|(rule, path)| Going { rule, steps: &path.steps }).collect()
    }

    /// Returns the paths one level down, at a member or an element.
    fn enter<'r>(
        &self,
        going: &[Going<'r>],
        name: Option<&str>,
        number: Option<usize>,
    ) -> Vec<Going<'r>> {
        let mut next: Vec<Going<'r>> = Vec::new();
        // Two paths to the same place are merged, since nested members of one name would otherwise
        // multiply them.
        let mut push = |steps: &'r [Step], rule: usize| {
            if !next.iter().any(|known| known.rule == rule && std::ptr::eq(known.steps, steps)) {
                next.push(Going { rule, steps });
            }
        };
        for Going { rule, steps } in going.iter().copied() {
            match steps.split_first() {
                // A path that has ended covers everything below its place.
                None => push(steps, rule),
                Some((Step::Any, rest)) => push(rest, rule),
                Some((Step::Member(wanted), rest)) if name == Some(wanted) => push(rest, rule),
                Some((Step::Element(wanted), rest)) if number == Some(*wanted) => push(rest, rule),
                Some((Step::Deep(wanted), rest)) => {
                    push(steps, rule);
                    if name == Some(wanted) {
                        push(rest, rule);
                    }
                }
                _ => {}
            }
        }
        next
    }

    /// Returns the replacement of a rule that replaces a whole place, if one of the paths has
    /// reached its end.
    fn whole(&self, going: &[Going<'_>]) -> Option<&str> {
        let mut there =
            going.iter().filter(|path| path.steps.is_empty()).map(|path| &self.rules[path.rule]);
        there.find(|rule| rule.pattern.is_none()).map(|rule| rule.replacement.as_str())
    }

    /// Returns the text at a place after the rules, or `None` if no rule changes it.
    fn text(&self, text: &str, going: &[Going<'_>]) -> Option<String> {
        if let Some(replacement) = self.whole(going) {
            return (text != replacement).then(|| replacement.to_owned());
        }
        let mut rules: Vec<usize> =
            going.iter().filter(|path| path.steps.is_empty()).map(|path| path.rule).collect();
        if self.everywhere.is_match(text) {
            rules.extend(&self.of_everywhere);
        }
        rules.sort_unstable();
        rules.dedup();
        let mut changed = Cow::Borrowed(text);
        for rule in rules.into_iter().map(|at| &self.rules[at]) {
            if let Some(pattern) = &rule.pattern
                && let Cow::Owned(next) = pattern.replace_all(&changed, rule.replacement.as_str())
            {
                changed = Cow::Owned(next);
            }
        }
        match changed {
            Cow::Owned(changed) if changed != text => Some(changed),
            _ => None,
        }
    }

    /// Returns a valid JSON text after the rules, or `None` if no rule changes it.
    fn json(&self, column: &str, raw: &str) -> Option<String> {
        let mut walk = Walk { redact: self, raw, at: 0, copied: 0, out: Vec::new() };
        walk.value(&self.start(column));
        if walk.out.is_empty() {
            return None;
        }
        walk.out.extend_from_slice(&raw.as_bytes()[walk.copied..]);
        String::from_utf8(walk.out).ok()
    }
}

/// A walk through one valid JSON text. Unchanged text is copied once the next change is found.
struct Walk<'a> {
    redact: &'a Redact,
    raw: &'a str,
    at: usize,
    copied: usize,
    out: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn byte(&self) -> u8 {
        self.raw.as_bytes().get(self.at).copied().unwrap_or(b'}')
    }

    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') {
            self.at += 1;
        }
    }

    /// Walks through one value. The nesting of the text is bounded by that of a record.
    fn value(&mut self, going: &[Going<'a>]) {
        self.space();
        let start = self.at;
        if let Some(replacement) = self.redact.whole(going) {
            self.skip();
            return self.replace(start, replacement);
        }
        match self.byte() {
            b'"' => drop(self.string(going)),
            open @ (b'{' | b'[') => {
                self.at += 1;
                let mut number = 0;
                loop {
                    self.space();
                    if matches!(self.byte(), b'}' | b']') {
                        self.at += 1;
                        return;
                    }
                    let below = if open == b'{' {
                        let key = self.string(&[]);
                        if going.is_empty() {
                            Vec::new()
                        } else {
                            self.redact.enter(going, Some(&key), None)
                        }
                    } else if going.is_empty() {
                        Vec::new()
                    } else {
                        self.redact.enter(going, None, Some(number))
                    };
                    number += 1;
                    self.value(&below);
                }
            }
            _ => {
                self.skip();
                let text = &self.raw[start..self.at];
                // Digits can be a card or telephone number; `true`, `false` and `null` cannot.
                if text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
                    && let Some(changed) = self.redact.text(text, going)
                {
                    self.replace(start, &changed);
                }
            }
        }
    }

    /// Walks through a string and returns it as it was.
    fn string(&mut self, going: &[Going<'a>]) -> Cow<'a, str> {
        let start = self.at;
        self.skip();
        let text = unquote(&self.raw[start..self.at]);
        if let Some(changed) = self.redact.text(&text, going) {
            self.replace(start, &changed);
        }
        text
    }

    /// Skips one value.
    fn skip(&mut self) {
        self.at = value_end(self.raw.as_bytes(), self.at);
    }

    fn replace(&mut self, start: usize, text: &str) {
        self.out.extend_from_slice(&self.raw.as_bytes()[self.copied..start]);
        write_string(&mut self.out, text);
        self.copied = self.at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Message;

    fn rules(text: &str) -> Redact {
        Redact::new(&config::Redact::parse(text).unwrap()).unwrap()
    }

    fn body(rules: &Redact, body: &str) -> String {
        let request = Message { body: Some(body.to_owned()), headers: None };
        let mut record = Record { request, ..Record::default() };
        rules.apply(&mut record);
        record.request.body.unwrap()
    }

    #[test]
    fn patterns_see_texts_and_leave_the_rest_as_it_is() {
        let rules = rules(
            "[mail]\npattern = '(\\w+)@(\\w+)\\.org'\nreplacement = '<$2>'\n[card]\npattern = '\\b\\d{16}\\b'\n[line]\npattern = '^top$'",
        );
        for (raw, expected) in [
            (r#"{"a": "ann@example.org", "n":1.50}"#, r#"{"a": "<example>", "n":1.50}"#),
            (
                r#"["x",{"b":"\u0061nn@example.org and\nbob@work.org"}]"#,
                r#"["x",{"b":"<example> and\n<work>"}]"#,
            ),
            (r#"{"n":4111111111111111,"m":-1,"t":true}"#, r#"{"n":"[redacted]","m":-1,"t":true}"#),
            (r#"{"ann@example.org":null}"#, r#"{"<example>":null}"#),
            (r#"["top","not top"]"#, r#"["[redacted]","not top"]"#),
            (r#""ann@example.org \"quoted\"""#, r#""<example> \"quoted\"""#),
            (
                r#"{"a":{},"b":[],"c":"ann@example.com"}"#,
                r#"{"a":{},"b":[],"c":"ann@example.com"}"#,
            ),
        ] {
            assert_eq!(body(&rules, raw), expected);
        }
    }

    #[test]
    fn paths_say_where() {
        let rules = rules(
            r#"
            [a]
            paths = ["request.body.user.name", "request.body.messages[*].name", "request.body..ssn", "request.body.l[1]"]
            [b]
            pattern = "secret"
            replacement = "-"
            paths = ["request.body.messages"]
            "#,
        );
        for (raw, expected) in [
            (
                r#"{"user":{"name":{"first":"x"},"age":1},"name":"kept"}"#,
                r#"{"user":{"name":"[redacted]","age":1},"name":"kept"}"#,
            ),
            (
                r#"{"messages":[{"name":"n","content":"a secret"}],"x":"secret"}"#,
                r#"{"messages":[{"name":"[redacted]","content":"a -"}],"x":"secret"}"#,
            ),
            (
                r#"{"ssn":1,"a":[{"b":{"ssn":[1,"]",{}]}}]}"#,
                r#"{"ssn":"[redacted]","a":[{"b":{"ssn":"[redacted]"}}]}"#,
            ),
            (r#"{"l":["a","b","c"]}"#, r#"{"l":["a","[redacted]","c"]}"#),
            (r#"{"messages":"secret"}"#, r#"{"messages":"-"}"#),
        ] {
            assert_eq!(body(&rules, raw), expected);
        }
        assert_eq!(
            body(&self::rules("[a]\npaths = ['request.body']"), r#" {"a":1} "#),
            r#" "[redacted]" "#
        );
    }

    #[test]
    fn every_place_of_content_is_reached() {
        let text = |text: &str| Some(text.to_owned());
        let message = || Message { body: text(r#""key-1""#), headers: text(r#"{"x":"key-2"}"#) };
        let mut record = Record {
            request: message(),
            response: message(),
            request_url: text("http://127.0.0.1/key-3"),
            user_id: text("key-4"),
            metadata: vec![
                ("_user".to_owned(), "key-4".to_owned()),
                ("key-5".to_owned(), "card".to_owned()),
            ],
            ..Record::default()
        };
        rules("[key]\npattern = 'key-\\d'\n[own]\npaths = ['metadata.key-5']").apply(&mut record);
        let shown = format!("{record:?}");
        assert!(!shown.contains("key-") && !shown.contains("card"), "{shown}");

        let mut record = Record {
            user_id: text("ann"),
            metadata: vec![("_user".to_owned(), "ann".to_owned())],
            ..Record::default()
        };
        rules("[user]\npaths = ['metadata._user']\nreplacement = 'somebody'").apply(&mut record);
        assert_eq!(
            (record.user_id.as_deref(), &*record.metadata[0].1),
            (Some("somebody"), "somebody")
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            ".{0,6}".prop_map(Into::into),
            Just(serde_json::Value::from("find me")),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::hash_map("[a-z\"\\\\]{0,3}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn replaced(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::String(text) => text.replace("find me", "gone").into(),
            serde_json::Value::Array(elements) => elements.iter().map(replaced).collect(),
            serde_json::Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), replaced(value))).collect()
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn any_json_stays_json_and_loses_the_match_only(value in json(), pretty in any::<bool>()) {
            let raw = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let out = body(&rules("[f]\npattern = 'find me'\nreplacement = 'gone'\n[never]\npaths = ['request.body.zz.zz[3]..zz']"), &raw);
            let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(parsed, replaced(&value));
            if !raw.contains("find me") {
                prop_assert_eq!(out, raw);
            }
        }
    }
}
