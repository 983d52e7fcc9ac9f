//! Implements `LIKE … ESCAPE` as in PostgreSQL.
//!
//! DataFusion supports only the escape character `\` in LIKE. A pattern with another one, or with
//! none (`escape ''`), is rewritten with `\` before the statement is planned: a literal directly,
//! any other pattern by the function `like_pattern`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{exec_err, plan_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Value, ValueWithSpan,
};

/// Name of the function.
const NAME: &str = "like_pattern";
/// Escape character of DataFusion's LIKE.
const BACKSLASH: char = '\\';

/// Rewrites a LIKE or ILIKE with an ESCAPE clause.
pub(super) fn rewrite_escape(expr: &mut Expr) -> Result<()> {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr
    else {
        return Ok(());
    };
    let named = escape_char.take();
    let escape = match named.map(|value| value.value) {
        None => Some(BACKSLASH),
        // LIKE with a null escape character is null.
        Some(Value::Null) => {
            **pattern = Expr::value(Value::Null);
            return Ok(());
        }
        Some(value) => escape_of(&value)?,
    };
    let literal = match pattern.as_ref() {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
            Some(translate(text, escape)?)
        }
        _ => None,
    };
    match literal {
        Some(text) => **pattern = Expr::value(Value::SingleQuotedString(text)),
        None if escape == Some(BACKSLASH) => {}
        None => {
            let escape = escape.map(String::from).unwrap_or_default();
            **pattern = call(std::mem::replace(pattern, Expr::value(Value::Null)), escape);
        }
    }
    Ok(())
}

/// Returns the escape character of a literal. `None` if the literal is empty.
fn escape_of(value: &Value) -> Result<Option<char>> {
    let (Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text)) = value else {
        return plan_err!(
            "the escape character of LIKE is {value}; expected one character in quotes, or none"
        );
    };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (escape, None) => Ok(escape),
        _ => plan_err!(
            "the escape character of LIKE is {value}; expected one character in quotes, or none"
        ),
    }
}

/// Returns the call of `like_pattern` for a pattern that is not a literal.
fn call(pattern: Expr, escape: String) -> Expr {
    let args = [pattern, Expr::value(Value::SingleQuotedString(escape))];
    let args =
        args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(NAME)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Rewrites a pattern with `\` as its escape character.
fn translate(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut written = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = if Some(c) == escape {
            let Some(escaped) = chars.next() else {
                return Err(plan_datafusion_err!(
                    "a pattern of LIKE ends with its escape character; write the character twice to match it literally"
                ));
            };
            escaped
        } else if c == BACKSLASH {
            c
        } else {
            written.push(c);
            continue;
        };
        if matches!(literal, '%' | '_' | BACKSLASH) {
            written.push(BACKSLASH);
        }
        written.push(literal);
    }
    Ok(written)
}

/// The function that rewrites a LIKE pattern with `\` as its escape character.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LikePattern {
    signature: Signature,
}

/// Creates the function `like_pattern(pattern, escape)`.
pub(super) fn like_pattern() -> Arc<ScalarUDF> {
    let texts = TypeSignature::Coercible(vec![text_argument(), text_argument()]);
    let signature = Signature::new(texts, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(LikePattern { signature }))
}

fn text_argument() -> datafusion::logical_expr::Coercion {
    use datafusion::common::types::logical_string;
    use datafusion::logical_expr::{Coercion, TypeSignatureClass};
    Coercion::new_exact(TypeSignatureClass::Native(logical_string()))
}

impl ScalarUDFImpl for LikePattern {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let texts = |place: usize| -> Result<ArrayRef> {
            let array = args.args[place].to_array(rows)?;
            Ok(arrow::compute::cast(&array, &DataType::Utf8View)?)
        };
        let patterns = texts(0)?;
        let escapes = texts(1)?;
        let mut written = StringViewBuilder::with_capacity(rows);
        for (pattern, escape) in patterns.as_string_view().iter().zip(escapes.as_string_view()) {
            match (pattern, escape) {
                (Some(pattern), Some(escape)) => {
                    written.append_value(translate(pattern, one_char(escape)?)?)
                }
                _ => written.append_null(),
            }
        }
        let written: ArrayRef = Arc::new(written.finish());
        if scalar {
            Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&written, 0)?))
        } else {
            Ok(ColumnarValue::Array(written))
        }
    }
}

fn one_char(escape: &str) -> Result<Option<char>, DataFusionError> {
    let mut chars = escape.chars();
    match (chars.next(), chars.next()) {
        (escape, None) => Ok(escape),
        _ => exec_err!(
            "an escape character of LIKE has {} characters; expected one, or none",
            escape.chars().count()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_rewritten_with_a_backslash() {
        for (pattern, escape, written) in [
            ("a!%b", Some('!'), r"a\%b"),
            ("a!!b", Some('!'), "a!b"),
            ("!a", Some('!'), "a"),
            (r"a\b%", Some('!'), r"a\\b%"),
            (r"a!\b", Some('!'), r"a\\b"),
            (r"a\%b", None, r"a\\%b"),
            (r"a\%b\\", Some('\\'), r"a\%b\\"),
            (r"\a", Some('\\'), "a"),
            ("é%%é_", Some('é'), r"\%%\_"),
            ("%%", Some('%'), r"\%"),
        ] {
            assert_eq!(translate(pattern, escape).unwrap(), written, "{pattern} escape {escape:?}");
        }
        for (pattern, escape) in [("a!", '!'), (r"a\", '\\'), (r"a\\\", '\\')] {
            let error = translate(pattern, Some(escape)).unwrap_err().to_string();
            assert!(error.contains("ends with its escape character"), "{error}");
        }
    }
}
