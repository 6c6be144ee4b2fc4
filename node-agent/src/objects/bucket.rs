//! Buckets that requests name: with whose credentials they are reached, and what lies in them.

use super::{
    SourceError,
    endpoint::{self, PublicOnly},
    glob::Pattern,
    source::{Bounds, MAX_PATTERN, Place, SourceFile, too_many},
};
use futures::TryStreamExt;
use graphplane_core::sources::SourceEndpoint;
use object_store::{
    ObjectStore, ObjectStoreExt,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as ObjectPath,
};
use serde::Deserialize;
use std::sync::Arc;

/// Longest credential that is taken.
const MAX_CREDENTIAL: usize = 8192;

/// Credentials of one request, as the contract's `s3_credentials`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Access key.
    pub aws_access_key_id: Option<String>,
    /// Secret key.
    pub aws_secret_access_key: Option<String>,
    /// Session token of temporary credentials.
    pub aws_session_token: Option<String>,
    /// Endpoint of the service, path-style.
    pub endpoint_url: Option<String>,
    /// Region.
    pub region: Option<String>,
}

// Secrets must never reach a log, so Debug is written by hand.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("endpoint_url", &self.endpoint_url)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// How the buckets of a request are reached.
pub(super) struct Access {
    client: AmazonS3Builder,
    /// Whether it is the node that is let in, and not the caller.
    own: bool,
}

// The client knows secrets.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Access {
    /// With the node's own credentials, at its own endpoint.
    pub(super) fn of_node() -> Self {
        Self {
            client: AmazonS3Builder::from_env(),
            own: true,
        }
    }

    /// With the credentials of a request, at the endpoint that it names or at the node's.
    pub(super) async fn of_request(given: &Credentials, named: &[SourceEndpoint]) -> Result<Self, SourceError> {
        let (Some(key), Some(secret)) = (&given.aws_access_key_id, &given.aws_secret_access_key) else {
            return Err(SourceError::Invalid(
                "s3_credentials: aws_access_key_id and aws_secret_access_key are required".into(),
            ));
        };
        // They go into headers, and the region into the name of a host.
        for (field, text) in [
            ("aws_access_key_id", Some(key)),
            ("aws_secret_access_key", Some(secret)),
            ("aws_session_token", given.aws_session_token.as_ref()),
        ] {
            let printable = |text: &String| text.bytes().all(|b| b.is_ascii_graphic()) && text.len() <= MAX_CREDENTIAL;
            if text.is_some_and(|text| text.is_empty() || !printable(text)) {
                return Err(SourceError::Invalid(format!(
                    "s3_credentials.{field}: expected 1 to {MAX_CREDENTIAL} printable characters without spaces"
                )));
            }
        }
        let environment = AmazonS3Builder::from_env();
        let own = |keys: [AmazonS3ConfigKey; 2]| keys.iter().find_map(|key| environment.get_config_value(key));
        let node = own([AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]);
        let region = match &given.region {
            Some(region) => region_of(region)?,
            None => own([AmazonS3ConfigKey::Region, AmazonS3ConfigKey::DefaultRegion])
                .unwrap_or_else(|| "us-east-1".to_owned()),
        };
        // Starts empty: the node's own credentials must never travel to an endpoint that a caller names.
        let mut client = AmazonS3Builder::new()
            .with_access_key_id(key)
            .with_secret_access_key(secret)
            .with_region(region);
        if let Some(token) = &given.aws_session_token {
            client = client.with_token(token);
        }
        client = match &given.endpoint_url {
            Some(text) => {
                let url = endpoint::parse(text)?;
                let client = client.with_endpoint(url.as_str().trim_end_matches('/'));
                if endpoint::is_known(&url, node.as_deref(), named) {
                    client
                } else {
                    client.with_http_connector(PublicOnly::check(&url).await?)
                }
            }
            None => match node {
                Some(node) => client.with_endpoint(node),
                None => client,
            },
        };
        Ok(Self { client, own: false })
    }

    /// Whether it is the node that is let in, and not the caller.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// A bucket, whose name was checked.
    pub(super) fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>, SourceError> {
        super::store::finish_s3(self.client.clone(), name).map_err(|error| SourceError::Store {
            uri: format!("s3://{name}"),
            message: error.to_string(),
        })
    }
}

fn region_of(text: &str) -> Result<String, SourceError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(100).collect();
    Err(SourceError::Invalid(format!(
        "s3_credentials.region: {shown:?} is not a region; expected lower-case letters, digits and `-`"
    )))
}

/// What a request names in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    /// The bucket's name.
    pub(super) bucket: String,
    pattern: Pattern,
    /// The object, or the folder that has to be listed: what is asked of the store.
    pub(super) path: ObjectPath,
}

impl Objects {
    /// Reads what stands behind `s3://`.
    pub(super) fn parse(rest: &str) -> Result<Self, String> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        // A name of dots alone would be a step in the path of the endpoint's address.
        if !bucket.starts_with(|c: char| c.is_ascii_alphanumeric()) || bucket.len() > 255 || !bucket.chars().all(plain)
        {
            return Err(format!("{bucket:?} is not the name of a bucket"));
        }
        if key.is_empty() || key.len() > MAX_PATTERN {
            return Err(format!(
                "expected a key of 1 to {MAX_PATTERN} characters after the bucket"
            ));
        }
        let pattern = Pattern::new(key);
        let path = match pattern.is_literal() {
            true => ObjectPath::parse(key),
            false => ObjectPath::parse(pattern.prefix()),
        };
        Ok(Self {
            bucket: bucket.to_owned(),
            path: path.map_err(|error| error.to_string())?,
            pattern,
        })
    }

    /// The objects that there are, by name. What is not `open` is not seen by a pattern.
    pub(super) async fn find(
        &self,
        store: &Arc<dyn ObjectStore>,
        open: impl Fn(&ObjectPath) -> bool,
        shown: &str,
        bounds: Bounds,
    ) -> Result<Vec<SourceFile>, SourceError> {
        let failed = |error: object_store::Error| match error {
            object_store::Error::NotFound { .. } => SourceError::NotFound(shown.to_owned()),
            error => SourceError::Store {
                uri: shown.to_owned(),
                message: error.to_string(),
            },
        };
        let file = |meta: object_store::ObjectMeta| SourceFile {
            uri: format!("s3://{}/{}", self.bucket, meta.location),
            size: meta.size,
            place: Place::Object {
                store: Arc::clone(store),
                key: meta.location,
            },
        };
        if self.pattern.is_literal() {
            return Ok(vec![file(store.head(&self.path).await.map_err(failed)?)]);
        }
        let mut listing = store.list((!self.path.as_ref().is_empty()).then_some(&self.path));
        let mut found = Vec::new();
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if self.pattern.matches(meta.location.as_ref()) && meta.size > 0 && open(&meta.location) {
                found.push(file(meta));
                if found.len() > bounds.files {
                    return Err(too_many(bounds));
                }
            }
        }
        found.sort_by(|a, b| a.uri.cmp(&b.uri));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn given() -> Credentials {
        Credentials {
            aws_access_key_id: Some("key".into()),
            aws_secret_access_key: Some("hush".into()),
            ..Credentials::default()
        }
    }

    #[tokio::test]
    async fn the_nodes_credentials_do_not_mix_with_a_callers() {
        let lonely_endpoint = Credentials {
            endpoint_url: Some("http://127.0.0.1:1".into()),
            ..Credentials::default()
        };
        let mut half = given();
        half.aws_secret_access_key = None;
        for incomplete in [lonely_endpoint, half, Credentials::default()] {
            let refused = Access::of_request(&incomplete, &[]).await;
            assert!(matches!(refused, Err(SourceError::Invalid(_))), "{incomplete:?}");
        }
        let access = Access::of_request(&given(), &[]).await.unwrap();
        assert!(!access.is_own() && Access::of_node().is_own());
        assert!(!format!("{access:?} {:?}", given()).contains("hush"));
    }

    #[tokio::test]
    async fn credentials_that_would_break_a_request_are_refused() {
        for wrong in [
            Credentials {
                aws_access_key_id: Some("a\nb".into()),
                ..given()
            },
            Credentials {
                aws_access_key_id: Some(String::new()),
                ..given()
            },
            Credentials {
                aws_session_token: Some("tokén".into()),
                ..given()
            },
            Credentials {
                aws_session_token: Some("x".repeat(MAX_CREDENTIAL + 1)),
                ..given()
            },
            Credentials {
                region: Some("evil.example/x#".into()),
                ..given()
            },
            Credentials {
                region: Some(String::new()),
                ..given()
            },
            Credentials {
                endpoint_url: Some("http://u@h".into()),
                ..given()
            },
            Credentials {
                endpoint_url: Some(String::new()),
                ..given()
            },
        ] {
            let refused = Access::of_request(&wrong, &[]).await;
            assert!(matches!(refused, Err(SourceError::Invalid(_))), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn endpoints_that_are_not_public_have_to_be_named() {
        let local = Credentials {
            endpoint_url: Some("http://127.0.0.1:9000".into()),
            ..given()
        };
        let refused = Access::of_request(&local, &[]).await;
        assert!(matches!(refused, Err(SourceError::Forbidden(_))));
        let named = ["http://127.0.0.1:9000".parse().unwrap()];
        Access::of_request(&local, &named).await.unwrap();
    }

    #[test]
    fn what_is_asked_of_the_store_is_plain() {
        for (text, bucket, path) in [
            ("b/a/x.parquet", "b", "a/x.parquet"),
            ("b//a/x.parquet", "b", "a/x.parquet"),
            ("b/a/*.parquet", "b", "a"),
            ("b/a/in*/x.parquet", "b", "a"),
            ("b/*", "b", ""),
            ("b/a%2F..%2Fc/x", "b", "a%2F..%2Fc/x"),
        ] {
            let objects = Objects::parse(text).unwrap();
            assert_eq!(
                (objects.bucket.as_str(), objects.path.as_ref()),
                (bucket, path),
                "{text}"
            );
        }
        for bad in [
            "", "b", "b/", "/x", "../x", "b?x/y", "b c/y", "b/a/../c", "b/./c", "b/a//c", "b/../*",
        ] {
            assert!(Objects::parse(bad).is_err(), "{bad}");
        }
    }
}
