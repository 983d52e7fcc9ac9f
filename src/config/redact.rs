//! Redaction rules: content that is removed from every record before it is stored. Plain data;
//! `ingest` applies it.
//!
//! `[redact.NAME]` in `gatelog.toml` is a rule: a regular expression, paths, or both.
//!
//! ```toml
//! [redact.email]
//! pattern = '[\w.+-]+@[\w-]+\.[\w.]+'       # Rust `regex` syntax; matched per JSON string
//! replacement = "<email>"                   # `$1` is the first group; default `[redacted]`
//!
//! [redact.patient]
//! paths = ["request.body.patient", "request.body.messages[*].name", "response.body..ssn", "metadata.card"]
//! ```
//!
//! A rule without paths applies to bodies, headers, metadata, user and URL. A rule without a
//! pattern replaces everything at its paths. A path begins with a column; `.name` is a member,
//! `[3]` an element, `[*]` any member or element, `..name` a member at any depth. Rules are applied
//! in the order of their names.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Columns that a path can begin with.
const COLUMNS: [&str; 7] = [
    "request.body",
    "request.headers",
    "response.body",
    "response.headers",
    "metadata",
    "request_url",
    "user_id",
];

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Pattern of the text to replace. `None` to replace everything at the paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Replacement text; `$1` stands for a group of the pattern.
    #[serde(default = "redacted")]
    pub replacement: String,
    /// Paths that the rule applies to. Empty for all of the content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

fn redacted() -> String {
    "[redacted]".to_owned()
}

/// A path into a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Column at which the path begins.
    pub column: &'static str,
    /// Steps from there.
    pub steps: Vec<Step>,
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member with this name.
    Member(String),
    /// The element with this index.
    Element(usize),
    /// Any member or element.
    Any,
    /// A member with this name at any depth.
    Deep(String),
}

impl Path {
    /// Parses a path. The error explains the problem.
    pub fn parse(text: &str) -> Result<Self, String> {
        let column = COLUMNS.into_iter().find(|column| {
            text.strip_prefix(column)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let column =
            column.ok_or_else(|| format!("it must begin with one of {}", COLUMNS.join(", ")))?;
        let mut rest = &text[column.len()..];
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = Self::step(rest).ok_or_else(|| {
                format!("`{rest}` is not a step; expected `.name`, `..name`, `[number]`, `[*]` or `[\"any name\"]`")
            })?;
            steps.push(step);
            rest = after;
        }
        Ok(Self { column, steps })
    }

    fn step(text: &str) -> Option<(Step, &str)> {
        let name = |text: &str| {
            let end = text.find(['.', '[']).unwrap_or(text.len());
            (end > 0).then(|| (text[..end].to_owned(), end))
        };
        if let Some(rest) = text.strip_prefix("..") {
            let (name, end) = name(rest)?;
            return Some((Step::Deep(name), &rest[end..]));
        }
        if let Some(rest) = text.strip_prefix('.') {
            let (name, end) = name(rest)?;
            return Some((if name == "*" { Step::Any } else { Step::Member(name) }, &rest[end..]));
        }
        let rest = text.strip_prefix('[')?;
        if let Some(quoted) = rest.strip_prefix('"') {
            let (name, after) = quoted.split_once("\"]")?;
            return Some((Step::Member(name.to_owned()), after));
        }
        let (inner, after) = rest.split_once(']')?;
        Some((if inner == "*" { Step::Any } else { Step::Element(inner.parse().ok()?) }, after))
    }
}

impl Rule {
    fn validate(&self, name: &str) -> Result<()> {
        let wrong =
            |why: String| Err(Error::invalid(format!("setting `redact`, rule `{name}`: {why}")));
        if self.pattern.is_none() && self.paths.is_empty() {
            return wrong(
                "it has neither `pattern` nor `paths`; give one of them, or both".to_owned(),
            );
        }
        if let Some(pattern) = &self.pattern {
            match Regex::new(pattern) {
                Ok(regex) if regex.is_match("") => {
                    return wrong(format!(
                        "`pattern` is `{pattern}`, which matches the empty text; expected one that does not"
                    ));
                }
                Ok(_) => {}
                // The last line explains the problem; the lines before it mark its place.
                Err(error) => {
                    let error = error.to_string();
                    let why =
                        error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    return wrong(format!("`pattern` is `{pattern}`: {why}"));
                }
            }
        }
        for path in &self.paths {
            if let Err(why) = Path::parse(path) {
                return wrong(format!("path `{path}`: {why}"));
            }
        }
        Ok(())
    }
}

/// The rules of a configuration, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact(pub BTreeMap<String, Rule>);

impl Redact {
    /// Reads rules from TOML: one table for each rule, or one inline table with all of them.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Inline {
            redact: BTreeMap<String, toml::Value>,
        }
        let wrong = |cause: toml::de::Error| {
            Error::invalid(format!("setting `redact` is not a table of rules: {}", cause.message()))
        };
        let tables: Result<BTreeMap<String, toml::Value>, _> = if text.trim().starts_with('{') {
            toml::from_str(&format!("redact = {}", text.trim())).map(|inline: Inline| inline.redact)
        } else {
            toml::from_str(text)
        };
        let rules = tables.map_err(wrong)?.into_iter().map(|(name, table)| {
            let rule: Rule = table.try_into().map_err(|cause: toml::de::Error| {
                Error::invalid(format!(
                    "setting `redact`, rule `{name}`: {}",
                    cause.message().trim()
                ))
            })?;
            rule.validate(&name)?;
            Ok((name, rule))
        });
        Ok(Self(rules.collect::<Result<_>>()?))
    }
}

impl fmt::Display for Redact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = toml::Table::try_from(&self.0).map_err(|_| fmt::Error)?;
        fmt::Display::fmt(&toml::Value::Table(rules), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_as_they_are_read() {
        let text = "[email]\npattern = '\\w+@\\w+'\nreplacement = '<\"mail\">'\n[all]\npaths = ['metadata', 'request.body.a[0]']";
        let rules = Redact::parse(text).unwrap();
        assert_eq!(rules.0["all"].replacement, "[redacted]");
        assert_eq!(Redact::parse(&rules.to_string()).unwrap(), rules);
        assert!(!rules.to_string().contains('\n'));
        assert_eq!(Redact::parse(&Redact::default().to_string()).unwrap(), Redact::default());
    }

    #[test]
    fn a_path_is_a_column_and_steps() {
        let path = Path::parse(r#"response.body.choices[*].message[2]..text["a.b"].*"#).unwrap();
        let name = |name: &str| name.to_owned();
        let steps = vec![
            Step::Member(name("choices")),
            Step::Any,
            Step::Member(name("message")),
            Step::Element(2),
            Step::Deep(name("text")),
            Step::Member(name("a.b")),
            Step::Any,
        ];
        assert_eq!(path, Path { column: "response.body", steps });
        assert_eq!(Path::parse("user_id").unwrap().steps, []);
    }

    #[test]
    fn a_wrong_rule_is_refused_by_name() {
        for (text, words) in [
            ("[a]\npattern = '('", "rule `a`: `pattern` is `(`: unclosed group"),
            ("[a]\npattern = 'x*'", "rule `a`: `pattern` is `x*`, which matches the empty text"),
            ("[a]\nreplacement = 'x'", "rule `a`: it has neither `pattern` nor `paths`"),
            (
                "[a]\npaths = ['body.x']",
                "rule `a`: path `body.x`: it must begin with one of request.body,",
            ),
            (
                "[a]\npaths = ['request.body[x]']",
                "rule `a`: path `request.body[x]`: `[x]` is not a step",
            ),
            ("[a]\npaths = ['request.body.']", "`.` is not a step"),
            ("[a]\nregex = 'x'", "rule `a`: unknown field `regex`"),
            ("[a]\npattern = 7", "rule `a`: invalid type"),
            ("a = 1", "rule `a`: invalid type"),
        ] {
            let error = Redact::parse(text).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }
}
