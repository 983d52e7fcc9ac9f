//! The dialect of statements: PostgreSQL's precedence of operators.
//!
//! DataFusion's generic dialect accepts more SQL than its PostgreSQL dialect, but some operators
//! have another precedence: `a ->> 'b' = 'c'` is parsed as `a ->> ('b' = 'c')`, and `a is distinct
//! from b and c` as `a is distinct from (b and c)`. [`PostgresPrecedence`] accepts the same SQL as
//! the generic dialect, with the precedence of PostgreSQL:
//!
//! ```text
//! ::   [ ]   unary -   at time zone   ^   * / %   + -   any other operator (|| -> ->> ~ ? & | # << >>)
//! between in like   < > = <> <= >=   is   not   and   or
//! ```

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::workarounds::{Workaround, is_off};

/// The generic dialect with PostgreSQL's precedence.
#[derive(Debug)]
pub(super) struct PostgresPrecedence;

/// Delegates methods to the generic dialect.
macro_rules! as_generic {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { GenericDialect.$name() })* };
}

impl Dialect for PostgresPrecedence {
    /// The parser recognises the generic dialect by its type for some features.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    as_generic! {
        supports_unicode_string_literal supports_partition_by_after_order_by
        supports_array_join_syntax supports_group_by_expr supports_group_by_with_modifier
        supports_left_associative_joins_without_parens supports_connect_by supports_match_recognize
        supports_pipe_operator supports_start_transaction_modifier
        supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_parenthesized_set_variables
        supports_select_wildcard_except support_map_literal_syntax allow_extract_custom
        allow_extract_single_quotes supports_extract_comma_syntax
        supports_create_view_comment_syntax supports_parens_around_table_factor
        supports_values_as_table_factor supports_create_index_with_clause
        supports_explain_with_utility_options supports_limit_comma supports_update_order_by
        supports_from_first_select supports_projection_trailing_commas
        supports_asc_desc_in_column_definition supports_try_convert supports_bitwise_shift_operators
        supports_comment_on supports_load_extension supports_named_fn_args_with_assignment_operator
        supports_struct_literal supports_empty_projections supports_nested_comments
        supports_multiline_comment_hints supports_user_host_grantee supports_string_escape_constant
        supports_array_typedef_with_brackets supports_match_against supports_set_names
        supports_comma_separated_set_assignments supports_filter_during_aggregation
        supports_select_wildcard_exclude supports_data_type_signed_suffix supports_interval_options
        supports_quote_delimited_string supports_select_wildcard_replace
        supports_select_wildcard_ilike supports_select_wildcard_rename supports_optimize_table
        supports_install supports_detach supports_prewhere supports_with_fill supports_limit_by
        supports_interpolate supports_settings supports_select_format
        supports_comment_optimizer_hint supports_constraint_keyword_without_name
        supports_key_column_option supports_comma_separated_trim supports_cte_without_as
        supports_select_item_multi_column_alias supports_xml_expressions
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        if is_off(Workaround::Precedence) {
            GenericDialect.prec_value(precedence)
        } else {
            PostgreSqlDialect {}.prec_value(precedence)
        }
    }

    /// Ranks operators that have no precedence of their own in PostgreSQL. The parser ranks them by
    /// name.
    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        if is_off(Workaround::Precedence) {
            return None;
        }
        let other = match &parser.peek_token_ref().token {
            Token::Word(word) => word.keyword == Keyword::OPERATOR,
            token => matches!(
                token,
                Token::StringConcat
                    | Token::Tilde
                    | Token::TildeAsterisk
                    | Token::ExclamationMarkTilde
                    | Token::ExclamationMarkTildeAsterisk
                    | Token::DoubleTilde
                    | Token::DoubleTildeAsterisk
                    | Token::ExclamationMarkDoubleTilde
                    | Token::ExclamationMarkDoubleTildeAsterisk
                    | Token::Sharp
                    | Token::ShiftLeft
                    | Token::ShiftRight
                    | Token::CaretAt
            ),
        };
        other.then(|| Ok(self.prec_value(Precedence::PgOther)))
    }

    /// Parses `not` before `exists` as before any other expression. The parser takes `not exists`
    /// as one operator with the highest precedence.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let words = [&parser.peek_nth_token_ref(0).token, &parser.peek_nth_token_ref(1).token];
        let is =
            |token: &Token, keyword| matches!(token, Token::Word(word) if word.keyword == keyword);
        if is_off(Workaround::NotExists)
            || !is(words[0], Keyword::NOT)
            || !is(words[1], Keyword::EXISTS)
        {
            return None;
        }
        parser.advance_token();
        let negated = parser.parse_subexpr(self.prec_value(Precedence::UnaryNot));
        Some(negated.map(|expr| match expr {
            Expr::Exists { subquery, negated } => Expr::Exists { subquery, negated: !negated },
            other => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(other) },
        }))
    }

    /// Parses the right side of `is [not] distinct from` up to the next operator that binds no
    /// tighter than `is`.
    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        use Keyword::{DISTINCT, FROM, IS, NOT};
        if is_off(Workaround::DistinctFrom) {
            return None;
        }
        let form: fn(Box<Expr>, Box<Expr>) -> Expr = if parser.parse_keywords(&[IS, DISTINCT, FROM])
        {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&[IS, NOT, DISTINCT, FROM]) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        let right = parser.parse_subexpr(precedence);
        Some(right.map(|right| form(Box::new(left.clone()), Box::new(right))))
    }
}
