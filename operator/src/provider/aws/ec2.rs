//! What requests to EC2 are made of.

use super::tags;
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};
use aws_smithy_types::DateTime;
use graphplane_crds::quantities::GiB;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Things whose tag has one of these values, by the tag's whole name.
pub(super) fn tagged<'a>(tag: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    filter(&format!("tag:{tag}"), values)
}

/// Things of which `name` is one of these values.
pub(super) fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    let values = values.into_iter().map(str::to_owned).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// Tags of a thing that is made, from bare names.
pub(super) fn specification(of: ResourceType, bare: &BTreeMap<String, String>) -> TagSpecification {
    let tags = tags::prefixed(bare).map(|(key, value)| Tag::builder().key(key).value(value).build());
    TagSpecification::builder()
        .resource_type(of)
        .set_tags(Some(tags.collect()))
        .build()
}

/// Bare names of our tags, from those that EC2 lists.
pub(super) fn bare(listed: &[Tag]) -> BTreeMap<String, String> {
    tags::bare(listed.iter().filter_map(|tag| Some((tag.key()?, tag.value()?))))
}

/// A time of AWS, in whole seconds.
pub(super) fn time(of: Option<&DateTime>) -> Option<Timestamp> {
    Timestamp::from_second(of?.secs()).ok()
}

/// A size, as EC2 counts.
pub(super) fn from_gib(size: GiB) -> i32 {
    int(size.0)
}

/// A size that EC2 says.
pub(super) fn to_gib(size: Option<i32>) -> Option<GiB> {
    u32::try_from(size?).ok().map(GiB)
}

/// A figure, as EC2 counts.
pub(super) fn int(figure: u32) -> i32 {
    i32::try_from(figure).unwrap_or(i32::MAX)
}
