//! The messages: numbers and names of their fields, as published in the `generated.proto` files of Kubernetes.

/// One field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether an empty value means something else than no value.
    pub(super) optional: bool,
}

/// The type of a field.
pub(super) enum Kind {
    Text,
    Integer,
    Flag,
    Texts,
    TextMap,
    /// Values appear in base64.
    BytesMap,
    /// With or without microseconds.
    Time {
        micros: bool,
    },
    /// JSON text inside a message.
    Json,
    Message(&'static [Field]),
    Messages(&'static [Field]),
}

impl Kind {
    /// Whether each occurrence of the field adds to the ones before.
    pub(super) fn repeats(&self) -> bool {
        matches!(self, Self::Texts | Self::Messages(_) | Self::TextMap | Self::BytesMap)
    }
}

const fn field(number: u64, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        optional: false,
    }
}

const fn text(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::Text)
}

const fn time(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::Time { micros: false })
}

const fn micro_time(number: u64, name: &'static str) -> Field {
    field(number, name, Kind::Time { micros: true })
}

const fn optional(number: u64, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        optional: true,
    }
}

/// The fields of a kind; `None` if it has no protobuf form here.
pub(super) fn of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "Secret") => SECRET,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "Event") => EVENT,
        ("events.k8s.io/v1", "Event") => NEW_EVENT,
        ("coordination.k8s.io/v1", "Lease") => LEASE,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES_REVIEW,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SUBJECT_REVIEW,
        // Every group registers the options under its own version.
        (_, "DeleteOptions") => DELETE_OPTIONS,
        _ => return None,
    })
}

const METADATA: Field = field(1, "metadata", Kind::Message(OBJECT_META));

const OBJECT_META: &[Field] = &[
    text(1, "name"),
    text(2, "generateName"),
    text(3, "namespace"),
    text(4, "selfLink"),
    text(5, "uid"),
    text(6, "resourceVersion"),
    field(7, "generation", Kind::Integer),
    time(8, "creationTimestamp"),
    time(9, "deletionTimestamp"),
    optional(10, "deletionGracePeriodSeconds", Kind::Integer),
    field(11, "labels", Kind::TextMap),
    field(12, "annotations", Kind::TextMap),
    field(13, "ownerReferences", Kind::Messages(OWNER_REFERENCE)),
    field(14, "finalizers", Kind::Texts),
    field(17, "managedFields", Kind::Messages(MANAGED_FIELDS)),
];

const OWNER_REFERENCE: &[Field] = &[
    text(1, "kind"),
    text(3, "name"),
    text(4, "uid"),
    text(5, "apiVersion"),
    optional(6, "controller", Kind::Flag),
    optional(7, "blockOwnerDeletion", Kind::Flag),
];

const MANAGED_FIELDS: &[Field] = &[
    text(1, "manager"),
    text(2, "operation"),
    text(3, "apiVersion"),
    time(4, "time"),
    text(6, "fieldsType"),
    optional(7, "fieldsV1", Kind::Json),
    text(8, "subresource"),
];

const NAMESPACE: &[Field] = &[
    METADATA,
    field(2, "spec", Kind::Message(&[field(1, "finalizers", Kind::Texts)])),
    field(
        3,
        "status",
        Kind::Message(&[text(1, "phase"), field(2, "conditions", Kind::Messages(CONDITION))]),
    ),
];

const CONDITION: &[Field] = &[
    text(1, "type"),
    text(2, "status"),
    time(4, "lastTransitionTime"),
    text(5, "reason"),
    text(6, "message"),
];

const SECRET: &[Field] = &[
    METADATA,
    field(2, "data", Kind::BytesMap),
    text(3, "type"),
    field(4, "stringData", Kind::TextMap),
    optional(5, "immutable", Kind::Flag),
];

const CONFIG_MAP: &[Field] = &[
    METADATA,
    field(2, "data", Kind::TextMap),
    field(3, "binaryData", Kind::BytesMap),
    optional(4, "immutable", Kind::Flag),
];

const SERVICE_ACCOUNT: &[Field] = &[
    METADATA,
    field(2, "secrets", Kind::Messages(OBJECT_REFERENCE)),
    field(3, "imagePullSecrets", Kind::Messages(&[text(1, "name")])),
    optional(4, "automountServiceAccountToken", Kind::Flag),
];

const OBJECT_REFERENCE: &[Field] = &[
    text(1, "kind"),
    text(2, "namespace"),
    text(3, "name"),
    text(4, "uid"),
    text(5, "apiVersion"),
    text(6, "resourceVersion"),
    text(7, "fieldPath"),
];

const EVENT_SOURCE: &[Field] = &[text(1, "component"), text(2, "host")];

const EVENT_SERIES: &[Field] = &[field(1, "count", Kind::Integer), micro_time(2, "lastObservedTime")];

const EVENT: &[Field] = &[
    METADATA,
    optional(2, "involvedObject", Kind::Message(OBJECT_REFERENCE)),
    text(3, "reason"),
    text(4, "message"),
    field(5, "source", Kind::Message(EVENT_SOURCE)),
    time(6, "firstTimestamp"),
    time(7, "lastTimestamp"),
    field(8, "count", Kind::Integer),
    text(9, "type"),
    micro_time(10, "eventTime"),
    optional(11, "series", Kind::Message(EVENT_SERIES)),
    text(12, "action"),
    optional(13, "related", Kind::Message(OBJECT_REFERENCE)),
    text(14, "reportingComponent"),
    text(15, "reportingInstance"),
];

const NEW_EVENT: &[Field] = &[
    METADATA,
    micro_time(2, "eventTime"),
    optional(3, "series", Kind::Message(EVENT_SERIES)),
    text(4, "reportingController"),
    text(5, "reportingInstance"),
    text(6, "action"),
    text(7, "reason"),
    field(8, "regarding", Kind::Message(OBJECT_REFERENCE)),
    optional(9, "related", Kind::Message(OBJECT_REFERENCE)),
    text(10, "note"),
    text(11, "type"),
    field(12, "deprecatedSource", Kind::Message(EVENT_SOURCE)),
    time(13, "deprecatedFirstTimestamp"),
    time(14, "deprecatedLastTimestamp"),
    field(15, "deprecatedCount", Kind::Integer),
];

const LEASE: &[Field] = &[METADATA, field(2, "spec", Kind::Message(LEASE_SPEC))];

const LEASE_SPEC: &[Field] = &[
    optional(1, "holderIdentity", Kind::Text),
    optional(2, "leaseDurationSeconds", Kind::Integer),
    micro_time(3, "acquireTime"),
    micro_time(4, "renewTime"),
    optional(5, "leaseTransitions", Kind::Integer),
    optional(6, "strategy", Kind::Text),
    optional(7, "preferredHolder", Kind::Text),
];

/// Field and label selectors of access reviews have the same form.
const SELECTOR: &[Field] = &[
    text(1, "rawSelector"),
    field(2, "requirements", Kind::Messages(REQUIREMENT)),
];

const REQUIREMENT: &[Field] = &[text(1, "key"), text(2, "operator"), field(3, "values", Kind::Texts)];

const RESOURCE_ATTRIBUTES: &[Field] = &[
    text(1, "namespace"),
    text(2, "verb"),
    text(3, "group"),
    text(4, "version"),
    text(5, "resource"),
    text(6, "subresource"),
    text(7, "name"),
    optional(8, "fieldSelector", Kind::Message(SELECTOR)),
    optional(9, "labelSelector", Kind::Message(SELECTOR)),
];

const ACCESS_REVIEW_SPEC: &[Field] = &[
    optional(1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
    optional(
        2,
        "nonResourceAttributes",
        Kind::Message(&[text(1, "path"), text(2, "verb")]),
    ),
];

const ACCESS_REVIEW: &[Field] = &[METADATA, field(2, "spec", Kind::Message(ACCESS_REVIEW_SPEC))];

const RULES_REVIEW: &[Field] = &[METADATA, field(2, "spec", Kind::Message(&[text(1, "namespace")]))];

const SUBJECT_REVIEW: &[Field] = &[METADATA];

const DELETE_OPTIONS: &[Field] = &[
    optional(1, "gracePeriodSeconds", Kind::Integer),
    optional(2, "preconditions", Kind::Message(PRECONDITIONS)),
    optional(3, "orphanDependents", Kind::Flag),
    optional(4, "propagationPolicy", Kind::Text),
    field(5, "dryRun", Kind::Texts),
];

const PRECONDITIONS: &[Field] = &[
    optional(1, "uid", Kind::Text),
    optional(2, "resourceVersion", Kind::Text),
];
