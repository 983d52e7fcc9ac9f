//! `metadata.key` and `metadata.value` in SQL: the lists of keys and of values, as in exports and
//! records.
//!
//! The value of one key is `metadata['team']`, or `metadata.team`. Without this file `metadata.key`
//! would be the value of a key named `key`, which is null for most records.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, Result, TableReference};
use datafusion::functions_nested::map_keys::map_keys_udf;
use datafusion::functions_nested::map_values::map_values_udf;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};

/// Planner of the two names.
#[derive(Debug)]
pub(super) struct TagLists;

impl ExprPlanner for TagLists {
    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let is_map = matches!(field.data_type(), DataType::Map(..));
        let list = match nested_names {
            [name] if is_map && name == "key" => map_keys_udf(),
            [name] if is_map && name == "value" => map_values_udf(),
            _ => return Ok(PlannerResult::Original(Vec::new())),
        };
        Ok(PlannerResult::Planned(list.call(vec![Expr::Column(Column::from((qualifier, field)))])))
    }
}
