//! What graphs and groups answer with, as plain data for whoever documents the API: read from their
//! tables and from the headers of their files.

use super::graphs::{Empty, Field, GRAPHS, Points};
use super::groups::GROUPS;
use super::{CACHE_SUMMARY, header};
use crate::error::Result;
use crate::reports::{Report, ReportColumn};

/// A figure of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// The column that it comes from.
    pub column: ReportColumn,
    /// True if it can be null.
    pub nullable: bool,
}

/// A graph.
#[derive(Clone, Debug)]
pub struct GraphFacts {
    /// Its paths below `/v1/analytics/graphs/`, the usual one first.
    pub paths: &'static [&'static str],
    /// What it tells, in one line.
    pub purpose: &'static str,
    /// The figures of its summary.
    pub summary: Vec<Figure>,
    /// The figures of a point.
    pub points: Vec<Figure>,
    /// A list within each point: its name and the figures of its items.
    pub list: Option<(&'static str, Vec<Figure>)>,
    /// True if there is a point for each bucket of time.
    pub bucketed: bool,
}

/// A way to group calls.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// Its path below `/v1/analytics/groups/`; `KEY` stands for a key of the metadata.
    pub path: &'static str,
    /// What it tells, in one line.
    pub purpose: &'static str,
    /// What calls are grouped by, as answers name it.
    pub key: &'static str,
    /// The columns that can be asked for, that of the key first.
    pub columns: Vec<ReportColumn>,
    /// True if figures are texts.
    pub texts: bool,
}

/// Every graph.
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

/// Every way to group calls.
pub fn groups() -> Result<Vec<GroupFacts>> {
    let facts = GROUPS.iter().map(|group| {
        let Report { purpose, columns, .. } = header(group.file)?;
        Ok(GroupFacts { path: group.path, purpose, key: group.name, columns, texts: group.texts })
    });
    facts.collect()
}

/// The summary of the cache.
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
