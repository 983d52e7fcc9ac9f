//! The organisation that a request is about: the one that it names, or that of its key.

use crate::catalog::{Access, no_organisation};
use crate::error::{Error, Result};
use crate::http::error::Failure;
use crate::http::input::Fields;

/// Limits the access of a list to the organisation in the query, if it names one.
pub(crate) fn asked(access: Access, query: Option<&str>) -> Result<Access, Failure> {
    let mut fields = Fields::decode(query)?;
    let organisation = fields.take("organisation");
    fields.finish("organisation")?;
    let organisation = within(&access, organisation)?;
    Ok(Access { organisation, ..access })
}

/// Returns the organisation that a request is about: the named one, or else that of the key.
pub(crate) fn within(access: &Access, named: Option<String>) -> Result<Option<String>> {
    match named {
        Some(named) if !access.reaches(&named) => Err(no_organisation(&named)),
        Some(named) => Ok(Some(named)),
        None => Ok(access.organisation.clone()),
    }
}

/// Returns the organisation of a request that must be about exactly one. `field` is the name of the
/// field to give it in.
pub(crate) fn one(access: &Access, named: Option<String>, field: &str) -> Result<String> {
    within(access, named)?
        .ok_or_else(|| Error::invalid(format!("`{field}` is missing; name the organisation")))
}
