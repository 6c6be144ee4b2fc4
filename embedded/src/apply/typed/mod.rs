//! Walking objects along their schema: everything that has to know which lists are keyed, which maps are one unit and
//! which fields are declared.
//!
//! Only [`validate`] refuses anything. The other walks are total: an object that was stored under an older schema must
//! not become impossible to change, so what does not fit its declared type is taken as one opaque value.

mod compare;
mod fields;
mod merge;
mod metadata;
mod reconcile;
mod remove;
mod schema;
mod validate;

pub(crate) use compare::{Comparison, compare};
pub(crate) use fields::{field_set, with_named_fields};
pub(crate) use merge::merge;
pub(crate) use reconcile::reconcile;
pub(crate) use remove::remove;
pub(crate) use schema::Type;
pub(crate) use validate::{joined, validate};

#[cfg(test)]
mod tests;
