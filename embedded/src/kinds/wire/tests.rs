#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::decode_protobuf;

/// Bodies as kubectl 1.33 sends them.
#[test]
fn bodies_of_kubectl_are_read() {
    let cases = [
        (
            "create secret generic s1 --from-literal=a=b --from-literal=c=d",
            "6b3873000a0c0a027631120653656372657412260a120a02733112001a0022002a0032003800420012060a016112016212060a01631201641a00\
             1a002200",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s1"}, "data": {"a": "Yg==", "c": "ZA=="}}),
        ),
        (
            "create configmap c1 --from-literal=x=y",
            "6b3873000a0f0a0276311209436f6e6669674d6170121c0a120a02633112001a0022002a0032003800420012060a01781201791a002200",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c1"}, "data": {"x": "y"}}),
        ),
        (
            "create namespace n1",
            "6b3873000a0f0a02763112094e616d657370616365121a0a120a026e3112001a0022002a0032003800420012001a020a001a002200",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n1"}}),
        ),
        (
            "create serviceaccount sa1",
            "6b3873000a140a027631120e536572766963654163636f756e7412150a130a0373613112001a0022002a003200380042001a002200",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa1"}}),
        ),
        (
            "auth can-i --list -n foo",
            "6b3873000a310a17617574686f72697a6174696f6e2e6b38732e696f2f7631121653656c665375626a65637452756c6573526576696577121f0a\
             100a0012001a0022002a0032003800420012050a03666f6f1a04180022001a002200",
            json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "foo"},
            }),
        ),
        (
            "auth whoami",
            "6b3873000a2d0a1861757468656e7469636174696f6e2e6b38732e696f2f7631121153656c665375626a656374526576696577121a0a100a0012\
             001a0022002a0032003800420012060a040a0012001a002200",
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
        ),
        (
            "auth can-i create graphs.graphplane.dev/status",
            "6b3873000a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a6563744163636573735265766965771256\
             0a100a0012001a0022002a0032003800420012380a360a0764656661756c7412066372656174651a0022002a156772617068732e677261706870\
             6c616e652e64657632003a067374617475731a08080012001a0020001a002200",
            json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes":
                    {"namespace": "default", "verb": "create", "resource": "graphs.graphplane.dev", "name": "status"}},
            }),
        ),
        (
            "auth can-i get /healthz",
            "6b3873000a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a656374416363657373526576696577122f\
             0a100a0012001a0022002a003200380042001211120f0a082f6865616c74687a12036765741a08080012001a0020001a002200",
            json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"nonResourceAttributes": {"path": "/healthz", "verb": "get"}},
            }),
        ),
    ];
    for (command, text, expected) in cases {
        assert_eq!(decode_protobuf(&hex::decode(text).unwrap()), Ok(expected), "{command}");
    }
}

/// Writes protobuf by hand: numbers as varints, everything else with its length.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint((field << 3) | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, message: Writer) -> Self {
        self.bytes(field, &message.0)
    }
}

fn envelope(api_version: &str, kind: &str, object: Writer) -> Vec<u8> {
    let type_meta = Writer::default()
        .bytes(1, api_version.as_bytes())
        .bytes(2, kind.as_bytes());
    let body = Writer::default().message(1, type_meta).message(2, object);
    [b"k8s\0".as_slice(), &body.0].concat()
}

#[test]
fn every_type_of_field_is_read() {
    let time = |seconds: i64, nanos: i64| Writer::default().number(1, seconds).number(2, nanos);
    let map = |key: &str, value: &[u8]| Writer::default().bytes(1, key.as_bytes()).bytes(2, value);
    let owner = Writer::default().bytes(3, b"o").number(6, 0).number(7, 1);
    let fields = Writer::default().bytes(1, br#"{"f:spec":{}}"#);
    let managed = Writer::default()
        .bytes(1, b"m")
        .message(4, time(1_784_887_200, 0))
        .message(7, fields);
    let metadata = Writer::default()
        .bytes(1, b"x")
        .number(7, 3)
        .message(8, time(1_784_887_200, 0))
        .message(9, Writer::default())
        .number(10, 0)
        .message(11, map("a", b"1"))
        .message(11, map("b", b"2"))
        .message(13, owner)
        .bytes(14, b"f1")
        .bytes(14, b"f2")
        .message(17, managed)
        .bytes(99, b"unknown");
    let spec = Writer::default()
        .bytes(1, b"me")
        .number(2, 15)
        .message(4, time(1_784_887_200, 123_456_789))
        .number(5, 0);
    let lease = Writer::default().message(1, metadata).message(2, spec);
    assert_eq!(
        decode_protobuf(&envelope("coordination.k8s.io/v1", "Lease", lease)),
        Ok(json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": "x", "generation": 3, "creationTimestamp": "2026-07-24T10:00:00Z", "deletionGracePeriodSeconds": 0,
                "labels": {"a": "1", "b": "2"},
                "ownerReferences": [{"name": "o", "controller": false, "blockOwnerDeletion": true}],
                "finalizers": ["f1", "f2"],
                "managedFields": [{"manager": "m", "time": "2026-07-24T10:00:00Z", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-07-24T10:00:00.123456Z",
                "leaseTransitions": 0,
            },
        }))
    );
    let secret = Writer::default()
        .message(2, map("k", &[0, 255]))
        .message(4, map("s", b"text"))
        .number(5, 0);
    assert_eq!(
        decode_protobuf(&envelope("v1", "Secret", secret)),
        Ok(json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"k": "AP8="}, "stringData": {"s": "text"}, "immutable": false,
        }))
    );
    let options = Writer::default().number(1, 0).bytes(4, b"Foreground").bytes(5, b"All");
    assert_eq!(
        decode_protobuf(&envelope("v1", "DeleteOptions", options)),
        Ok(json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Foreground",
            "dryRun": ["All"],
        }))
    );
}

#[test]
fn other_bodies_are_refused_in_words() {
    let cut = envelope("v1", "Secret", Writer::default().bytes(3, b"Opaque"))[..20].to_vec();
    let cases: [(Vec<u8>, &str); 6] = [
        (Vec::new(), "its prefix is missing"),
        (b"{}".to_vec(), "its prefix is missing"),
        (
            envelope("graphplane.dev/v1alpha1", "Graph", Writer::default()),
            "has no protobuf form here; send JSON",
        ),
        (cut, "ends inside a field"),
        (
            envelope("v1", "Secret", Writer::default().number(3, 1)),
            "has the wrong type",
        ),
        (
            envelope("v1", "Secret", Writer::default().bytes(3, &[0xFF])),
            "not UTF-8",
        ),
    ];
    for (body, expected) in cases {
        let problem = decode_protobuf(&body).unwrap_err();
        assert!(problem.contains(expected), "{problem}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0..4_usize) {
        let kind = ["Secret", "Event", "Namespace", "DeleteOptions"][kind];
        let _ = decode_protobuf(&envelope("v1", kind, Writer(bytes.clone())));
        let _ = decode_protobuf(&[b"k8s\0".as_slice(), &bytes].concat());
    }
}
