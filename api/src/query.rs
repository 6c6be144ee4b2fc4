//! Parameters of the URL.

use crate::problem::Problem;
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::collections::HashMap;
use std::convert::Infallible;

/// The parameters of a request's URL; of a repeated one the last counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct UrlQuery(HashMap<String, String>);

impl UrlQuery {
    /// The parameters of a query string.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(
            url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `dryRun=All`: everything is checked, nothing is written.
    pub(crate) fn dry_run(&self) -> Result<bool, Problem> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Problem::parameter("dryRun", "the only value is `All`", other)),
        }
    }

    /// A whole number within a range.
    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<u32>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let detail = format!("expected a whole number from {} to {}", range.start(), range.end());
                Err(Problem::parameter(name, detail, text))
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for UrlQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let query = UrlQuery::parse(Some("limit=0&dryRun=all&x=%C3%BC"));
        assert!(query.number("limit", 1..=500).is_err());
        assert!(query.dry_run().is_err());
        assert_eq!(query.get("x"), Some("ü"));
        assert_eq!(
            UrlQuery::parse(Some("limit=7")).number("limit", 1..=500).unwrap(),
            Some(7)
        );
        assert!(!UrlQuery::parse(None).dry_run().unwrap());
        assert!(UrlQuery::parse(Some("dryRun=All")).dry_run().unwrap());
    }
}
