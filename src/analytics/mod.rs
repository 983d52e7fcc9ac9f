//! Portkey's analytics: the parameters of a request, the query, and the JSON of the response.
//!
//! A graph or grouping is one file of `sql/analytics`, with a header in the grammar of
//! [`crate::reports`]. It reads `calls`, the records of the time frame that pass every filter
//! (`calls.sql`). For feedback it reads `ratings`, or `rated` and `rated_once`, which join feedback
//! to its calls. The statement is composed of those files, of constant clauses of this module, and
//! of column names that are checked against a header; every value of the request is a typed
//! parameter. So no text of a request is ever SQL.
//!
//! One statement computes the summary and the points of a graph in one pass over the columns that
//! it needs: the row with `whole = 1` covers the whole time frame. A file that has only figures is
//! completed to do so ([`graphs`]). A second pass is needed only for calls that a fallback rescued,
//! since the failures are separate records, and for the feedback of groups by metadata. Times are
//! in UTC, money is in US cents, rates are percentages. A mean of nothing is null, a count of
//! nothing 0. The files are not reports: their parameters are Portkey's, and several have the name
//! of a report. This module runs no query.

mod filters;
mod graph_spec;
mod graphs;
mod groups;
mod shape;
mod sql_files;
mod time_range;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use datafusion::common::{ParamValues, ScalarValue};
use serde_json::Value;

use crate::error::Result;

pub use filters::AnalyticsRequest;
pub use graph_spec::{
    Figure, GraphFacts, GroupFacts, cache_facts, graphs as graph_facts, groups as group_facts,
};
use graphs::Graph;
use groups::Listing;
pub use groups::{MAX as MAX_GROUPS, PAGE as PAGE_GROUPS};
pub use shape::Figures;
use sql_files::{CACHE_SUMMARY, CALLS, RATED, RATED_ONCE, RATINGS, header};

/// A request that is ready to run.
#[derive(Debug)]
pub struct Query {
    file: (&'static str, &'static str),
    answer: AnswerShape,
    feedback: bool,
    asked: AnalyticsRequest,
}

#[derive(Debug)]
enum AnswerShape {
    Graph(&'static Graph),
    Group(Listing),
    Summary,
}

impl Query {
    /// Creates the query of a graph, by its path below `/v1/analytics/graphs/` in either SDK's
    /// spelling.
    pub fn graph(path: &str, asked: AnalyticsRequest) -> Result<Self> {
        let graph = graphs::find(path)?;
        Ok(Self {
            file: graph.file,
            answer: AnswerShape::Graph(graph),
            feedback: graph.feedback,
            asked,
        })
    }

    /// Creates the query of groups, by their path below `/v1/analytics/groups/` or
    /// `/v1/logs/groups/`. `metadata/KEY` groups by that metadata key.
    pub fn group(path: &str, asked: AnalyticsRequest) -> Result<Self> {
        let group = groups::find(path)?;
        let listing = Listing::new(group, path, &header(group.file)?, &asked)?;
        Ok(Self {
            file: group.file,
            answer: AnswerShape::Group(listing),
            feedback: group.feedback,
            asked,
        })
    }

    /// Creates the query of the cache summary.
    pub fn cache_summary(asked: AnalyticsRequest) -> Self {
        Self { file: CACHE_SUMMARY, answer: AnswerShape::Summary, feedback: false, asked }
    }

    /// Returns the query of the first page of the same groups. `None` if this is the first page, or
    /// not a query of groups.
    pub fn first_page(&self) -> Option<Self> {
        let AnswerShape::Group(listing) = &self.answer else { return None };
        let listing = listing.first_page()?;
        Some(Self {
            file: self.file,
            answer: AnswerShape::Group(listing),
            feedback: self.feedback,
            asked: self.asked.clone(),
        })
    }

    /// Returns the SQL statement.
    pub fn sql(&self) -> String {
        let mut tables = Vec::new();
        if let Some(logs) = self.asked.logs() {
            tables.push(format!("logs as (\n{logs}\n)"));
        }
        if self.feedback {
            tables.push(format!("ratings as (\n{}\n)", RATINGS.1));
        }
        let filters: String =
            self.asked.clauses().iter().map(|clause| format!("  and {clause}\n")).collect();
        let calls = format!("{}{filters}", CALLS.1);
        tables.push(match &self.answer {
            AnswerShape::Group(listing) => {
                format!(
                    "calls as (\nselect *, {} as group_key from (\n{calls})\n)",
                    listing.group.key
                )
            }
            AnswerShape::Graph(_) | AnswerShape::Summary => format!("calls as (\n{calls})"),
        });
        if self.feedback {
            tables.push(format!("rated as (\n{}\n)", RATED.1));
            tables.push(format!("rated_once as (\n{}\n)", RATED_ONCE.1));
        }
        let query = match &self.answer {
            AnswerShape::Group(listing) => listing.page_of(self.file.1),
            AnswerShape::Graph(graph) => format!("(\n{}\n)", graph.sql()),
            AnswerShape::Summary => format!("(\n{}\n)", self.file.1),
        };
        format!("with\n{}\n{query}", tables.join(",\n"))
    }

    /// Returns the columns that the filters read.
    pub fn filtered(&self) -> &[String] {
        self.asked.filtered()
    }

    /// Returns the values of the statement's placeholders.
    pub(crate) fn params(&self) -> ParamValues {
        let mut params: Vec<(String, ScalarValue)> = self.asked.params();
        if let AnswerShape::Group(listing) = &self.answer {
            params.extend(listing.params());
        }
        ParamValues::from(params)
    }

    /// Returns the title of the request, for messages.
    pub fn title(&self) -> String {
        match &self.answer {
            AnswerShape::Graph(graph) => format!("graph `{}`", graph.paths[0]),
            AnswerShape::Group(listing) => format!("group `{}`", listing.group.path),
            AnswerShape::Summary => "the summary of the cache".to_owned(),
        }
    }

    /// Returns the withheld columns that make the request fail: those of all figures if every
    /// figure is withheld, or those of a withheld figure that the request names. `None` if the
    /// response is still useful.
    pub fn refused(&self, withheld: &Figures) -> Option<BTreeSet<String>> {
        let named = |column: &&str| withheld.contains_key(*column);
        let refused: Vec<&str> = match &self.answer {
            AnswerShape::Graph(graph) => {
                let figures = graph.figures();
                if figures.iter().all(&named) { figures } else { Vec::new() }
            }
            AnswerShape::Group(listing) => listing.named.iter().copied().filter(named).collect(),
            AnswerShape::Summary => Vec::new(),
        };
        let columns: BTreeSet<String> = refused
            .into_iter()
            .filter_map(|figure| withheld.get(figure))
            .flatten()
            .cloned()
            .collect();
        (!columns.is_empty()).then_some(columns)
    }

    /// Returns the response in Portkey's format.
    pub fn json(&self, batches: &[RecordBatch]) -> Result<Value> {
        self.json_without(batches, &Figures::new())
    }

    /// Returns the response with null for withheld figures, and with their names.
    pub fn json_without(&self, batches: &[RecordBatch], withheld: &Figures) -> Result<Value> {
        let mut rows = shape::rows(batches)?;
        shape::withhold(&mut rows, withheld);
        let mut answer = match &self.answer {
            AnswerShape::Graph(graph) => shape::graph(graph, &self.asked.frame, &rows, withheld),
            AnswerShape::Group(listing) => listing.json(rows),
            AnswerShape::Summary => shape::summary(rows),
        };
        let columns: BTreeSet<&String> = withheld.values().flatten().collect();
        if let (Value::Object(answer), false) = (&mut answer, columns.is_empty()) {
            answer.insert("withheld".to_owned(), columns.into_iter().cloned().collect());
        }
        if let (Value::Object(answer), false) = (&mut answer, self.asked.ignored.is_empty()) {
            answer.insert("ignored_parameters".to_owned(), self.asked.ignored.clone().into());
        }
        Ok(answer)
    }

    /// Returns the total number of groups. `None` if there are no rows.
    pub fn groups(batches: &[RecordBatch]) -> Result<Option<u64>> {
        Ok(shape::rows(batches)?
            .first()
            .and_then(|row| row.get(groups::TOTAL))
            .and_then(Value::as_u64))
    }
}
