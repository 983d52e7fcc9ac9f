//! Descriptions of graphs and groups for the API documentation, derived from their tables and from
//! the headers of their files.

use super::graphs::{Empty, Field, GRAPHS, Points};
use super::groups::GROUPS;
use super::sql_files::{CACHE_SUMMARY, header};
use crate::error::Result;
use crate::reports::{Report, ReportColumn};

/// A figure in a response.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name in JSON.
    pub name: &'static str,
    /// Column of the query.
    pub column: ReportColumn,
    /// True if it can be null.
    pub nullable: bool,
}

/// Description of a graph.
#[derive(Clone, Debug)]
pub struct GraphFacts {
    /// Paths below `/v1/analytics/graphs/`, the usual one first.
    pub paths: &'static [&'static str],
    /// Description in one line.
    pub purpose: &'static str,
    /// Figures of the summary.
    pub summary: Vec<Figure>,
    /// Figures of a point.
    pub points: Vec<Figure>,
    /// List within each point: its name and the figures of its items.
    pub list: Option<(&'static str, Vec<Figure>)>,
    /// True if there is a point for each time bucket.
    pub bucketed: bool,
}

/// Description of a grouping.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// Path below `/v1/analytics/groups/`, with `KEY` for a metadata key.
    pub path: &'static str,
    /// Description in one line.
    pub purpose: &'static str,
    /// Name of the grouping key in responses.
    pub key: &'static str,
    /// Columns that can be requested, the grouping key first.
    pub columns: Vec<ReportColumn>,
    /// True if figures are encoded as texts.
    pub texts: bool,
}

/// Returns the descriptions of all graphs.
pub fn graphs() -> Result<Vec<GraphFacts>> {
    let facts = GRAPHS.iter().map(|graph| {
        let report = header(graph.file)?;
        let figures = |fields: &[Field]| figures(&report, fields);
        let (points, list, bucketed) = match &graph.points {
            Points::Buckets(fields) => (figures(fields), None, true),
            Points::Lists(name, items, beside) => {
                (figures(beside), Some((*name, figures(items))), true)
            }
            Points::Rows(fields) => (figures(fields), None, false),
        };
        let summary = figures(graph.summary);
        Ok(GraphFacts {
            paths: graph.paths,
            purpose: report.purpose,
            summary,
            points,
            list,
            bucketed,
        })
    });
    facts.collect()
}

/// Returns the descriptions of all groupings.
pub fn groups() -> Result<Vec<GroupFacts>> {
    let facts = GROUPS.iter().map(|group| {
        let Report { purpose, columns, .. } = header(group.file)?;
        Ok(GroupFacts { path: group.path, purpose, key: group.name, columns, texts: group.texts })
    });
    facts.collect()
}

/// Returns the header of the cache summary.
pub fn cache_facts() -> Result<Report> {
    header(CACHE_SUMMARY)
}

fn figures(report: &Report, fields: &[Field]) -> Vec<Figure> {
    let figure = |field: &Field| {
        let column = *report.columns.iter().find(|column| column.name == field.column)?;
        Some(Figure { name: field.name, column, nullable: field.empty == Empty::Null })
    };
    fields.iter().filter_map(figure).collect()
}
