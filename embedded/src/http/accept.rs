//! What a client wants to be answered with: the `Accept` header.

use http::{HeaderMap, header};

use crate::status::ApiError;

/// The shape of objects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Full,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata(List)`.
    Metadata,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`.
    Discovery,
}

/// The notation of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    Json,
    Yaml,
}

impl Notation {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// A form in a notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) form: Form,
    pub(super) notation: Notation,
}

const SUPPORTED: [&str; 2] = ["application/json", "application/yaml"];

/// Picks the first of the client's preferences that can be produced. `forms` are the ones that the address offers
/// besides the full one.
pub(super) fn negotiate(headers: &HeaderMap, forms: &[Form]) -> Result<Wanted, ApiError> {
    let full = Wanted {
        form: Form::Full,
        notation: Notation::Json,
    };
    let mut ranges: Vec<(f32, &str)> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .map(|range| (quality(range), range))
        .collect();
    if ranges.is_empty() {
        return Ok(full);
    }
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranges
        .into_iter()
        .filter(|(quality, _)| *quality > 0.0)
        .find_map(|(_, range)| understand(range, forms))
        .ok_or_else(|| ApiError::not_acceptable(&SUPPORTED))
}

fn parameters(range: &str) -> impl Iterator<Item = (&str, &str)> {
    range
        .split(';')
        .skip(1)
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.trim(), v.trim().trim_matches('"')))
}

fn quality(range: &str) -> f32 {
    parameters(range)
        .find(|(key, _)| *key == "q")
        .and_then(|(_, q)| q.parse().ok())
        .unwrap_or(1.0)
}

fn understand(range: &str, forms: &[Form]) -> Option<Wanted> {
    let kind = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let notation = match kind.as_str() {
        "application/json" | "application/*" | "*/*" => Notation::Json,
        "application/yaml" => Notation::Yaml,
        _ => return None,
    };
    let (mut shape, mut group, mut version) = ("", "", "");
    for (key, value) in parameters(range) {
        match key {
            "as" => shape = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let form = match (shape, group, version) {
        ("", ..) => Form::Full,
        ("Table", "meta.k8s.io", "v1") => Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Form::Metadata,
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::Discovery,
        _ => return None,
    };
    (form == Form::Full || forms.contains(&form)).then_some(Wanted { form, notation })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(accept: &str) -> Result<(Form, Notation), u16> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        negotiate(&headers, &[Form::Table, Form::Metadata])
            .map(|w| (w.form, w.notation))
            .map_err(|e| e.code.as_u16())
    }

    #[test]
    fn preferences() {
        let json = |form| Ok((form, Notation::Json));
        assert_eq!(wanted("application/json"), json(Form::Full));
        assert_eq!(wanted("*/*"), json(Form::Full));
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(wanted(kubectl), json(Form::Table));
        assert_eq!(
            wanted("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            json(Form::Metadata)
        );
        assert_eq!(
            wanted("application/vnd.kubernetes.protobuf,application/json"),
            json(Form::Full)
        );
        assert_eq!(
            wanted("application/json;q=0.1, application/yaml"),
            Ok((Form::Full, Notation::Yaml))
        );
        assert_eq!(wanted("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(
            wanted("application/json;as=APIGroupDiscoveryList;g=apidiscovery.k8s.io;v=v2"),
            Err(406)
        );
        assert_eq!(wanted("application/json;q=0"), Err(406));
        assert_eq!(negotiate(&HeaderMap::new(), &[]).unwrap().form, Form::Full);
    }
}
