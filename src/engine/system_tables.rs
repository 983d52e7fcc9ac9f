//! The small tables that SQL has beside `logs`: `organisations`, `plans`, `usage` and `partitions`.
//!
//! They are built from memory when a statement names them. A key that is bound to an organisation
//! sees its own rows in them: its organisation, its plan and its counts. It sees no partitions,
//! since files are shared. `partitions` covers both tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use chrono::NaiveDate;

use crate::catalog::{Access, Organisation, State};
use crate::config::{Over, Plan};
use crate::error::{Error, Result};
use crate::query::SystemTables;
use crate::record::Rows;
use crate::table::{DataFile, FileIndex};
use crate::usage::Usage;

const NAMES: [&str; 4] = ["organisations", "plans", "usage", "partitions"];

/// Sources of the tables.
#[derive(Debug)]
pub(super) struct SystemTable {
    state: Arc<State>,
    usage: Usage,
    files: [(Rows, Arc<FileIndex>); 2],
    access: Access,
}

impl SystemTable {
    pub(super) fn new(
        state: Arc<State>,
        usage: Usage,
        files: [(Rows, Arc<FileIndex>); 2],
        access: Access,
    ) -> Self {
        Self { state, usage, files, access }
    }

    fn bound_to(&self) -> Option<&str> {
        self.access.organisation.as_deref()
    }

    /// Returns the existing organisations that the key may see.
    fn reached(&self) -> Vec<(&str, &Organisation)> {
        let ours = |id: &str| self.bound_to().is_none_or(|bound| bound == id);
        let all = self.state.document.organisations.iter();
        let all = all.filter(|(id, of)| of.deleted_at.is_none() && ours(id));
        all.map(|(id, of)| (id.as_str(), of)).collect()
    }

    fn organisations(&self) -> Result<RecordBatch> {
        let rows = self.reached();
        let created = rows.iter().map(|(_, of)| Some(of.created_at.timestamp_micros()));
        batch(vec![
            ("organisation_id", texts(rows.iter().map(|(id, _)| Some(*id)))),
            ("name", texts(rows.iter().map(|(_, of)| of.name.as_deref()))),
            ("plan", texts(rows.iter().map(|(_, of)| Some(of.plan.as_str())))),
            (
                "retention_days",
                days(rows.iter().map(|(id, _)| Some(self.state.rules.retention_days(id)))),
            ),
            (
                "created_at",
                Arc::new(created.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            ),
        ])
    }

    fn plans(&self) -> Result<RecordBatch> {
        let mut plans = self.state.document.all_plans();
        if self.bound_to().is_some() {
            let reached = self.reached();
            plans.retain(|name, _| reached.iter().any(|(_, of)| of.plan == *name));
        }
        let rows: Vec<(&str, &Plan)> =
            plans.iter().map(|(name, plan)| (name.as_str(), plan)).collect();
        let over = |plan: &Plan| match plan.over {
            Over::Stop => "stop",
            Over::Bill => "bill",
        };
        batch(vec![
            ("plan", texts(rows.iter().map(|(name, _)| Some(*name)))),
            ("retention_days", days(rows.iter().map(|(_, plan)| Some(plan.retention_days)))),
            ("included", numbers(rows.iter().map(|(_, plan)| plan.included))),
            ("over", texts(rows.iter().map(|(_, plan)| Some(over(plan))))),
            ("block_records", numbers(rows.iter().map(|(_, plan)| Some(plan.block_records)))),
            ("block_cents", numbers(rows.iter().map(|(_, plan)| Some(plan.block_cents)))),
            ("export_days", days(rows.iter().map(|(_, plan)| plan.export_days))),
            ("export_rows", numbers(rows.iter().map(|(_, plan)| plan.export_rows))),
        ])
    }

    fn usage(&self) -> Result<RecordBatch> {
        let rows = self.usage.list(self.bound_to());
        let month = |first: Option<NaiveDate>| {
            first.map(|day| day.signed_duration_since(NaiveDate::default()))
        };
        let months =
            rows.iter().map(|used| i32::try_from(month(used.month.first_day())?.num_days()).ok());
        batch(vec![
            ("organisation_id", texts(rows.iter().map(|used| Some(used.organisation.as_str())))),
            ("month", Arc::new(months.collect::<Date32Array>())),
            ("records", numbers(rows.iter().map(|used| Some(used.records)))),
            ("not_stored", numbers(rows.iter().map(|used| Some(used.not_stored)))),
        ])
    }

    fn partitions(&self) -> Result<RecordBatch> {
        let tables = self.files.iter().filter(|_| self.bound_to().is_none());
        let rows = tables
            .flat_map(|(rows, files)| files.partitions().map(|(of, files)| (*rows, of, files)));
        let rows: Vec<_> = rows.collect();
        let sum = |of: fn(&DataFile) -> u64| {
            numbers(rows.iter().map(|(_, _, files)| Some(files.iter().map(|file| of(file)).sum())))
        };
        batch(vec![
            ("table_name", texts(rows.iter().map(|(rows, ..)| Some(rows.folder())))),
            ("retention_days", days(rows.iter().map(|(_, (_, days), _)| Some(*days)))),
            (
                "date",
                Arc::new(rows.iter().map(|(_, (date, _), _)| Some(*date)).collect::<Date32Array>()),
            ),
            ("files", sum(|_| 1)),
            ("rows", sum(|file| file.rows)),
            ("bytes", sum(|file| file.bytes)),
        ])
    }
}

impl SystemTables for SystemTable {
    fn names(&self) -> &'static [&'static str] {
        &NAMES
    }

    fn rows(&self, name: &str) -> Result<RecordBatch> {
        match name {
            "organisations" => self.organisations(),
            "plans" => self.plans(),
            "usage" => self.usage(),
            "partitions" => self.partitions(),
            _ => Err(Error::not_found(format!("table `{name}` does not exist"))),
        }
    }
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringViewArray>())
}

fn numbers(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    let values = values.map(|value| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)));
    Arc::new(values.collect::<Int64Array>())
}

fn days(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Int32Array>())
}

fn batch(columns: Vec<(&'static str, ArrayRef)>) -> Result<RecordBatch> {
    let field = |(name, array): &(&'static str, ArrayRef)| {
        Field::new(*name, array.data_type().clone(), true)
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect())
        .map_err(|cause| Error::internal("a system table cannot be built").with_source(cause))
}
