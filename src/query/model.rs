//! The SQL function `canonical_model(ai_org, ai_model)`: the canonical name of a model, one for all
//! spellings.
//!
//! It is a function rather than a stored column: old records have the name too, it follows changes
//! of the rules, and the format of exports stays the same.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::ingest::names::canonical_model;

/// Creates the function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(CanonicalModel {
        signature: Signature::string(2, Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CanonicalModel {
    signature: Signature,
}

impl ScalarUDFImpl for CanonicalModel {
    fn name(&self) -> &str {
        "canonical_model"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let columns: Vec<ArrayRef> = columns
            .iter()
            .map(|column| Ok(cast(column, &DataType::Utf8View)?))
            .collect::<Result<_>>()?;
        let [providers, models] = columns.as_slice() else {
            return datafusion::common::exec_err!("canonical_model takes a provider and a model");
        };
        let names: ArrayRef =
            Arc::new(canonical(providers.as_string_view(), models.as_string_view()));
        if is_one {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&names, 0)?));
        }
        Ok(ColumnarValue::Array(names))
    }
}

/// Returns the canonical names of models, row by row. A batch has few distinct models, so each is
/// computed once.
fn canonical(providers: &StringViewArray, models: &StringViewArray) -> StringViewArray {
    let mut known: HashMap<(Option<&str>, &str), String> = HashMap::new();
    for (provider, model) in providers.iter().zip(models.iter()) {
        if let Some(model) = model {
            known.entry((provider, model)).or_insert_with(|| canonical_model(provider, model));
        }
    }
    providers
        .iter()
        .zip(models.iter())
        .map(|(provider, model)| known.get(&(provider, model?)))
        .collect()
}
