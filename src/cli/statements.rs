//! Splits text into SQL statements at each `;` outside quotes and comments. Pure.

/// Text split into statements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statements<'a> {
    /// Statements that end with a `;`, without it and without blank ones.
    pub(super) complete: Vec<&'a str>,
    /// Text after the last `;`, trimmed. Empty if it has only white space and comments.
    pub(super) rest: &'a str,
}

/// Splits `text` at the semicolons that end a statement.
pub(super) fn split(text: &str) -> Statements<'_> {
    let bytes = text.as_bytes();
    let mut complete = Vec::new();
    let mut start = 0;
    let mut at = 0;
    // True if the statement so far has more than white space and comments.
    let mut words = false;
    while at < bytes.len() {
        let (next, kind) = token(bytes, at);
        match kind {
            Token::End => {
                if words {
                    complete.push(text[start..at].trim());
                }
                (start, words) = (next, false);
            }
            Token::Word => words = true,
            Token::Nothing => {}
        }
        at = next;
    }
    Statements { complete, rest: if words { text[start..].trim() } else { "" } }
}

enum Token {
    End,
    Word,
    Nothing,
}

/// Returns the start of the next token and the kind of the one at `at`. Only ASCII bytes are
/// compared, so splits fall on character boundaries.
fn token(bytes: &[u8], at: usize) -> (usize, Token) {
    let from = |offset: usize| bytes.get(at + offset..).unwrap_or_default();
    let until = |offset: usize, end: &[u8]| {
        let found = from(offset).windows(end.len()).position(|window| window == end);
        found.map_or(bytes.len(), |found| at + offset + found + end.len())
    };
    match (bytes[at], bytes.get(at + 1)) {
        (b';', _) => (at + 1, Token::End),
        (quote @ (b'\'' | b'"' | b'`'), _) => (until(1, &[quote]), Token::Word),
        (b'-', Some(b'-')) => (until(2, b"\n"), Token::Nothing),
        (b'/', Some(b'*')) => (until(2, b"*/"), Token::Nothing),
        (byte, _) if byte.is_ascii_whitespace() => (at + 1, Token::Nothing),
        _ => (at + 1, Token::Word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, complete: &[&str], rest: &str) {
        assert_eq!(split(text), Statements { complete: complete.to_vec(), rest });
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_quotes_and_comments() {
        check("", &[], "");
        check("select 1", &[], "select 1");
        check("select 1;", &["select 1"], "");
        check(" select 1 ; ;; select 2 ", &["select 1"], "select 2");
        check("select ';''', \"a;b\"; x", &["select ';''', \"a;b\""], "x");
        check("-- a;b\nselect 1 /* ; */ ; -- done", &["-- a;b\nselect 1 /* ; */"], "");
        check("select 'open; ", &[], "select 'open;");
        check("select 'é;';/* open ;", &["select 'é;'"], "");
    }
}
