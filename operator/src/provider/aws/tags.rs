//! Tags that say whose a thing on AWS is.

use std::collections::BTreeMap;

/// What every tag of ours begins with.
pub(super) const PREFIX: &str = "graphplane.dev/";
/// Tag with the identity of the cluster: whatever carries another one is not ours.
pub(super) const CLUSTER: &str = "graphplane.dev/cluster";
/// Tag with the kind of the object that a thing is for.
pub(super) const KIND: &str = "graphplane.dev/kind";
/// Tag with its name; `<namespace>.<name>` of a namespaced object.
pub(super) const NAME: &str = "graphplane.dev/name";

/// Tag with the token of a snapshot.
pub(super) const TOKEN: &str = "graphplane.dev/token";
/// Bare name of the tag of what is kept though its object is gone, with the time since when.
pub(super) const RETAINED: &str = "retained";

/// Tags as AWS has them, from bare names.
pub(super) fn prefixed(tags: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> + '_ {
    tags.iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), value.clone()))
}

/// Bare names, from tags as AWS has them; those of others are left out.
pub(super) fn bare<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let ours = tags
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    ours.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
