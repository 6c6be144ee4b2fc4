//! Query parameters.

use std::time::Duration;

use http::Uri;

use crate::kinds::Resource;
use crate::status::{ApiError, Cause};
use crate::verbs::read::{Freshness, ListOptions};
use crate::verbs::{Validation, WriteOptions};

/// The query of a request.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|query| Self(query.0))
            .map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// The value of a parameter, empty when it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            "" | "false" | "False" | "0" | "f" | "F" | "FALSE" => Ok(false),
            "true" | "True" | "1" | "t" | "T" | "TRUE" => Ok(true),
            other => Err(ApiError::bad_request(format!(
                "invalid value for parameter {name}: {other:?} is no boolean"
            ))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("invalid value for parameter {name}: {text:?} is no number"))
            }),
        }
    }

    pub(super) fn dry_run(&self) -> Result<bool, ApiError> {
        dry_run(
            self.0
                .iter()
                .filter(|(key, _)| key == "dryRun")
                .map(|(_, value)| value.as_str()),
        )
    }

    /// How long a watch may last.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        Ok(self
            .number("timeoutSeconds")?
            .filter(|s| *s > 0)
            .map(Duration::from_secs))
    }

    /// The options of a write. `agent` names the manager when the request does not.
    pub(super) fn write_options(&self, resource: &Resource, agent: &str) -> Result<WriteOptions, ApiError> {
        let invalid = |cause| {
            Err(ApiError::invalid(
                "meta.k8s.io",
                "Options",
                &resource.plural,
                vec![cause],
            ))
        };
        let manager = self.text("fieldManager");
        if manager.chars().count() > 128 {
            return invalid(Cause::too_long("fieldManager", 128));
        }
        if let Some(bad) = manager.chars().find(|c| c.is_control()) {
            let detail = format!("should only contain printable characters, has {bad:?}");
            return invalid(Cause::invalid("fieldManager", &manager.into(), &detail));
        }
        let validation = match self.text("fieldValidation") {
            "" | "Warn" => Validation::Warn,
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            other => {
                let allowed = ["Ignore", "Warn", "Strict"];
                return invalid(Cause::not_supported("fieldValidation", &other.into(), &allowed));
            }
        };
        let manager = if manager.is_empty() { agent } else { manager };
        Ok(WriteOptions {
            manager: manager.to_owned(),
            dry_run: self.dry_run()?,
            validation,
            duplicates: Vec::new(),
        })
    }

    /// The state that a GET accepts.
    pub(super) fn freshness(&self) -> Result<Freshness, ApiError> {
        match self.revision()? {
            None | Some(0) => Ok(Freshness::Newest),
            Some(revision) => Ok(Freshness::NotOlderThan(revision)),
        }
    }

    /// `resourceVersion` as a number.
    pub(super) fn revision(&self) -> Result<Option<u64>, ApiError> {
        match self.text("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let cause = Cause::invalid("resourceVersion", &text.into(), "must be a number");
                ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
            }),
        }
    }

    /// The options of a LIST.
    pub(super) fn list_options(&self) -> Result<ListOptions, ApiError> {
        let limit = usize::try_from(self.number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX);
        let continue_token = self.text("continue").to_owned();
        let rule = self.text("resourceVersionMatch");
        let invalid = |cause| Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
        if !continue_token.is_empty() {
            if self.has("resourceVersion") && self.revision()? != Some(0) {
                let message = "specifying resource version is not allowed when using continue";
                return Err(ApiError::bad_request(message));
            }
            if !rule.is_empty() {
                let detail = "resourceVersionMatch is forbidden when continue is provided";
                return invalid(Cause::forbidden("resourceVersionMatch", detail));
            }
            return Ok(ListOptions {
                limit,
                continue_token,
                freshness: Freshness::Newest,
            });
        }
        let revision = self.revision()?;
        let freshness = match (rule, revision) {
            ("", None | Some(0)) | ("NotOlderThan", Some(0)) => Freshness::Newest,
            // A limit without a rule pages through the state at that revision.
            ("", Some(revision)) if limit > 0 => Freshness::Exactly(revision),
            ("" | "NotOlderThan", Some(revision)) => Freshness::NotOlderThan(revision),
            ("Exact", Some(0)) => {
                let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                return invalid(Cause::forbidden("resourceVersionMatch", detail));
            }
            ("Exact", Some(revision)) => Freshness::Exactly(revision),
            ("Exact" | "NotOlderThan", None) => {
                let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                return invalid(Cause::forbidden("resourceVersionMatch", detail));
            }
            (other, _) => {
                let allowed = ["Exact", "NotOlderThan", ""];
                return invalid(Cause::not_supported("resourceVersionMatch", &other.into(), &allowed));
            }
        };
        Ok(ListOptions {
            limit,
            continue_token,
            freshness,
        })
    }
}

/// Reads the values of `dryRun`.
pub(super) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            let cause = Cause::not_supported("dryRun", &value.into(), &["All"]);
            return Err(ApiError::invalid("meta.k8s.io", "Options", "", vec![cause]));
        }
        dry = true;
    }
    Ok(dry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn list(query: &str) -> Result<Freshness, u16> {
        let params = Params::of(&format!("/x?{query}").parse().unwrap()).unwrap();
        params.list_options().map(|o| o.freshness).map_err(|e| e.code.as_u16())
    }

    #[test]
    fn the_rules_of_resource_versions() {
        assert_eq!(list(""), Ok(Freshness::Newest));
        assert_eq!(list("resourceVersion=0"), Ok(Freshness::Newest));
        assert_eq!(
            list("resourceVersion=0&resourceVersionMatch=NotOlderThan"),
            Ok(Freshness::Newest)
        );
        assert_eq!(list("resourceVersion=7"), Ok(Freshness::NotOlderThan(7)));
        assert_eq!(list("resourceVersion=7&limit=5"), Ok(Freshness::Exactly(7)));
        assert_eq!(
            list("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan"),
            Ok(Freshness::NotOlderThan(7))
        );
        assert_eq!(
            list("resourceVersion=7&resourceVersionMatch=Exact"),
            Ok(Freshness::Exactly(7))
        );
        assert_eq!(list("resourceVersion=0&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(list("resourceVersionMatch=Exact"), Err(422));
        assert_eq!(list("resourceVersion=7&resourceVersionMatch=Other"), Err(422));
        assert_eq!(list("resourceVersion=x"), Err(422));
        assert_eq!(list("continue=x&resourceVersion=7"), Err(400));
        assert_eq!(list("limit=x"), Err(400));
    }

    #[test]
    fn dry_runs() {
        assert!(dry_run(["All"].into_iter()).unwrap());
        assert!(!dry_run([""].into_iter()).unwrap());
        assert!(dry_run(["Some"].into_iter()).is_err());
    }
}
