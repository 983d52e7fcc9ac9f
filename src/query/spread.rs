//! Counts the tables that a statement names after its WITH queries are inlined everywhere.
//!
//! `with a as (…), b as (select … from a, a), c as (select … from b, b)` doubles with each query,
//! so a statement of two kilobytes can result in a billion tables. The planner visits all of them
//! and cannot be stopped.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit, Visitor};

/// Maximum number of tables of one statement.
const MAX_TABLES: u64 = 2_000;

/// Returns an error for a statement that names too many tables.
pub(super) fn check(statement: &Statement) -> Result<()> {
    let mut spread = Spread { tables: vec![0], ..Spread::default() };
    let _ = statement.visit(&mut spread);
    if spread.tables.iter().sum::<u64>() > MAX_TABLES {
        plan_err!(
            "the statement names more than {MAX_TABLES} tables once its WITH queries are written out"
        )
    } else {
        Ok(())
    }
}

#[derive(Default)]
struct Spread {
    /// Tables of the queries that are being visited, the innermost last.
    tables: Vec<u64>,
    /// Names of WITH queries, by the address of the query.
    names: HashMap<*const Query, String>,
    /// Number of tables of each WITH query.
    known: HashMap<String, u64>,
}

impl Visitor for Spread {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for named in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names
                .insert(std::ptr::from_ref(&*named.query), named.alias.name.value.to_lowercase());
        }
        self.tables.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = self.tables.pop().unwrap_or_default();
        match self.names.get(&std::ptr::from_ref(query)) {
            // A query that is never named is planned, too.
            Some(name) => {
                let known = self.known.entry(name.clone()).or_default();
                *known = (*known).max(tables.max(1));
            }
            None => self.add(tables),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let tables = self.known.get(&name.to_string().to_lowercase()).copied().unwrap_or(1);
        self.add(tables);
        ControlFlow::Continue(())
    }
}

impl Spread {
    fn add(&mut self, tables: u64) {
        if let Some(sum) = self.tables.last_mut() {
            *sum = sum.saturating_add(tables);
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn tables(text: &str) -> u64 {
        let statement = Parser::parse_sql(&GenericDialect, text).unwrap().remove(0);
        let mut spread = Spread { tables: vec![0], ..Spread::default() };
        let _ = statement.visit(&mut spread);
        spread.tables.iter().sum()
    }

    #[test]
    fn with_queries_count_wherever_they_are_named() {
        assert_eq!(tables("select 1"), 0);
        assert_eq!(tables("select 1 from a, b where x in (select y from c)"), 3);
        assert_eq!(
            tables(
                "with t as (select 1 from a, b) select 1 from t, T x where exists (select 1 from t)"
            ),
            6
        );
        assert_eq!(
            tables("with t as (select 1 from a), u as (select 1 from t, t) select 1 from u, u, u"),
            6
        );
        assert_eq!(
            tables("select 1 from (with t as (select 1 from a, b, c) select 1 from t, t) as s"),
            6
        );
        let doubled = (1..60).fold("with t0 as (select 1 as v)".to_owned(), |text, level| {
            format!("{text}, t{level} as (select 1 as v from t{0} as x, t{0} as y)", level - 1)
        });
        assert_eq!(tables(&format!("{doubled} select 1 from t59")), 1 << 59);
    }
}
