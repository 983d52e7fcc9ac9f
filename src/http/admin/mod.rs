//! `/v1/admin/…`: organisations, plans, keys and erasures, as JSON.
//!
//! The operator's key reaches all of them. An admin key that is bound to an organisation manages what belongs to it and learns
//! nothing else: what is not its own does not exist for it, in the same words as what nobody has.

pub(crate) mod erasures;
pub(crate) mod keys;
pub(crate) mod maintain;
pub(crate) mod organisations;
pub(crate) mod plans;
pub(crate) mod providers;

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::body::{object, read_small};
use super::error::Failure;
use super::input::Fields;
use crate::catalog::{Access, no_organisation};
use crate::error::{Error, Result};

/// An answer that no proxy keeps.
pub(crate) type Answer<T> = (StatusCode, [(HeaderName, &'static str); 1], Json<T>);

/// The id at the end of a path.
pub(crate) type Id = Result<Path<String>, PathRejection>;

pub(super) fn answer<T>(status: StatusCode, value: T) -> Answer<T> {
    (status, [(CACHE_CONTROL, "no-store")], Json(value))
}

pub(super) fn list<T: Serialize>(data: &[T]) -> Answer<Value> {
    answer(StatusCode::OK, json!({ "object": "list", "total": data.len(), "data": data }))
}

pub(super) fn id(path: Id) -> Result<String, Failure> {
    path.map(|Path(id)| id)
        .map_err(|_| Failure::invalid("the end of the path is not UTF-8 text; escape its bytes as %XX"))
}

/// Reads a body of these fields.
pub(super) async fn read<T: DeserializeOwned>(body: Body, fields: &str) -> Result<T, Failure> {
    object(&read_small(body).await?, fields)
}

/// What a list is asked for: all that the key reaches, or one organisation's.
fn asked(access: Access, query: Option<&str>) -> Result<Access, Failure> {
    let mut fields = Fields::decode(query)?;
    let organisation = fields.take("organisation");
    fields.finish("organisation")?;
    let organisation = within(&access, organisation)?;
    Ok(Access { organisation, ..access })
}

/// The organisation that a request is about: the key's own where it names none.
fn within(access: &Access, named: Option<String>) -> Result<Option<String>> {
    match named {
        Some(named) if !access.reaches(&named) => Err(no_organisation(&named)),
        Some(named) => Ok(Some(named)),
        None => Ok(access.organisation.clone()),
    }
}

/// The same where it can be about one only, which `field` names.
pub(super) fn one(access: &Access, named: Option<String>, field: &str) -> Result<String> {
    within(access, named)?
        .ok_or_else(|| Error::invalid(format!("`{field}` is missing; name the organisation that is meant")))
}
