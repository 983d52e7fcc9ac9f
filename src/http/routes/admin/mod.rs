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
