//! `/v1/admin/…`: organisations, plans, keys and erasures, as JSON.
//!
//! The operator's key manages all of them. An admin key that is bound to an organisation manages
//! only that organisation. Anything else gets the same error text as something that does not exist,
//! so the key learns nothing about it.

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

/// A response that no proxy caches.
pub(crate) type Answer<T> = (StatusCode, [(HeaderName, &'static str); 1], Json<T>);

/// Id at the end of a path.
pub(crate) type Id = Result<Path<String>, PathRejection>;

pub(super) fn answer<T>(status: StatusCode, value: T) -> Answer<T> {
    (status, [(CACHE_CONTROL, "no-store")], Json(value))
}

pub(super) fn list<T: Serialize>(data: &[T]) -> Answer<Value> {
    answer(StatusCode::OK, json!({ "object": "list", "total": data.len(), "data": data }))
}

pub(super) fn id(path: Id) -> Result<String, Failure> {
    path.map(|Path(id)| id).map_err(|_| {
        Failure::invalid("the last part of the path is not UTF-8; percent-encode it as UTF-8 (%XX)")
    })
}

/// Reads a JSON body with these fields.
pub(super) async fn read<T: DeserializeOwned>(body: Body, fields: &str) -> Result<T, Failure> {
    object(&read_small(body).await?, fields)
}

/// Limits the access of a list to the organisation in the query, if it names one.
fn asked(access: Access, query: Option<&str>) -> Result<Access, Failure> {
    let mut fields = Fields::decode(query)?;
    let organisation = fields.take("organisation");
    fields.finish("organisation")?;
    let organisation = within(&access, organisation)?;
    Ok(Access { organisation, ..access })
}

/// Returns the organisation that a request is about: the named one, or else that of the key.
fn within(access: &Access, named: Option<String>) -> Result<Option<String>> {
    match named {
        Some(named) if !access.reaches(&named) => Err(no_organisation(&named)),
        Some(named) => Ok(Some(named)),
        None => Ok(access.organisation.clone()),
    }
}

/// Returns the organisation of a request that must be about exactly one. `field` is the name of the
/// field to give it in.
pub(super) fn one(access: &Access, named: Option<String>, field: &str) -> Result<String> {
    within(access, named)?
        .ok_or_else(|| Error::invalid(format!("`{field}` is missing; name the organisation")))
}
