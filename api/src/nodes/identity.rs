//! The proof of a machine on AWS: its instance identity document, and whether AWS has signed it.
//!
//! A token of such a node is taken only from the machine that the operator started for it. A token that comes from
//! anywhere else was stolen, or an old machine still runs: it is refused, stays good for the right machine, and the node
//! gets an Event that says from where it came. What has to be in the document is decided in [`graphplane_core::identity`].

use super::secret::{self, Token};
use super::wire::RegisterRequest;
use crate::auth;
use crate::problem::{Problem, kind};
use crate::settings::AwsIdentity;
use crate::state::App;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graphplane_core::identity::{AwsMachine, Document, Doubt, Expected, Machine};
use graphplane_crds::GraphNode;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use ring::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use std::net::IpAddr;

/// A signature of 8,192 bits in base64, with line breaks.
const LONGEST_SIGNATURE: usize = 2048;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The text has a section that cannot be read.
    #[error("certificates of instance identity documents: {0}; expected PEM")]
    Pem(String),
    /// A section is no X.509 certificate.
    #[error("certificate {number} of instance identity documents: {reason}")]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// Why.
        reason: String,
    },
    /// A certificate of another kind of key.
    #[error(
        "certificate {number} of instance identity documents is not of an RSA key; take the one that AWS lists under RSA"
    )]
    NotRsa {
        /// Which one, from 1.
        number: usize,
    },
    /// There is none.
    #[error("there is no certificate of instance identity documents; expected PEM with at least one")]
    Empty,
}

/// The keys with which AWS signs instance identity documents, one or more of each region in use.
///
/// Each is trusted by itself, as AWS describes it: nobody else vouches for these certificates, and when they end is not
/// looked at.
#[derive(Clone, Debug)]
pub struct IdentityCertificates(Vec<Vec<u8>>);

impl IdentityCertificates {
    /// Reads certificates in PEM. Text between them is left alone.
    ///
    /// # Errors
    /// When there is none, or one cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let mut keys = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let number = index + 1;
            let certificate = certificate.map_err(|error| CertificateError::Pem(error.to_string()))?;
            let parsed = ParsedCertificate::try_from(&certificate).map_err(|error| CertificateError::Certificate {
                number,
                reason: error.to_string(),
            })?;
            let key = rsa_key(&parsed.subject_public_key_info()).map(<[u8]>::to_vec);
            keys.push(key.ok_or(CertificateError::NotRsa { number })?);
        }
        if keys.is_empty() {
            return Err(CertificateError::Empty);
        }
        Ok(Self(keys))
    }

    /// Whether one of the keys has signed a document. `signature` is in base64, as the metadata service gives it.
    fn have_signed(&self, document: &str, signature: &str) -> bool {
        if signature.len() > LONGEST_SIGNATURE {
            return false;
        }
        let signature: Vec<u8> = signature.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let Ok(signature) = STANDARD.decode(signature) else {
            return false;
        };
        // AWS signs these with keys of 1,024 bits. That is too little for secrets that are to last; here it is the second
        // lock: whoever has broken such a key still needs the token of a node that was just started.
        self.0.iter().any(|key| {
            UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, key)
                .verify(document.as_bytes(), &signature)
                .is_ok()
        })
    }
}

/// The `RSAPublicKey` in a `SubjectPublicKeyInfo`.
fn rsa_key(info: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    // rsaEncryption, without parameters.
    const ALGORITHM: &[u8] = &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let (content, _) = element(info, SEQUENCE)?;
    let (algorithm, rest) = element(content, SEQUENCE)?;
    let (key, _) = element(rest, BIT_STRING)?;
    // The first byte says that no bits are left over.
    key.strip_prefix(&[0u8]).filter(|_| algorithm == ALGORITHM)
}

/// The content of a DER element of up to 64 KiB, and what comes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der {
        [found, length @ 0..=0x7f, rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x81, length, rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x82, high, low, rest @ ..] if *found == tag => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Checks that a registration comes from the machine of its node; gives that machine, as `status.providerID` has it, or
/// nothing where machines prove nothing. The token was recognised.
pub(super) async fn prove(
    app: &App,
    source: IpAddr,
    node: &GraphNode,
    secret: &Secret,
    token: Token,
    request: &RegisterRequest,
) -> Result<Option<String>, Problem> {
    if let Machine::Aws(machine) = Machine::of(node) {
        let Some(trust) = &app.settings.aws_identity else {
            tracing::error!(
                node = node.name_any(),
                "a machine on AWS wants to register, and no certificates of instance identity documents are set"
            );
            let detail = "this control plane has no certificates of instance identity documents, so that no machine on AWS \
                          can register; set them";
            return Err(Problem::new(&kind::UNAVAILABLE, detail).retry_after(30));
        };
        let (claimed, verdict) = examine(trust, node, machine, request);
        if let Err(doubt) = verdict {
            return Err(misused(app, source, node, token, claimed, &doubt).await);
        }
    }
    if token != Token::Bootstrap {
        let bound = secret::machine(secret);
        belongs(node, bound).map_err(|problem| match problem.kind() == &kind::UNAUTHORIZED {
            // A disk that moved carries the credential of the machine before. That one is of no use to anybody.
            true => auth::refuse(
                app,
                source,
                "node",
                "the credential is that of another machine of this node",
            ),
            false => problem,
        })?;
    }
    match Machine::of(node) {
        Machine::Unproven => Ok(None),
        Machine::NotYetKnown => Err(not_yet_known(node)),
        Machine::Aws(machine) => Ok(Some(machine.provider_id.to_owned())),
    }
}

/// Whether a credential that was given to the machine `bound` is good for the node as it is now.
pub(super) fn belongs(node: &GraphNode, bound: Option<&str>) -> Result<(), Problem> {
    match Machine::of(node) {
        Machine::Unproven => Ok(()),
        Machine::NotYetKnown => Err(not_yet_known(node)),
        Machine::Aws(machine) if bound == Some(machine.provider_id) => Ok(()),
        Machine::Aws(_) => {
            let detail = format!(
                "the credential was given to another machine than that of node `{}`; register again",
                node.name_any()
            );
            Err(Problem::new(&kind::UNAUTHORIZED, detail))
        }
    }
}

fn not_yet_known(node: &GraphNode) -> Problem {
    let detail = format!(
        "the machine of node `{}` is not noted yet; the operator does it once it is started",
        node.name_any()
    );
    Problem::new(&kind::UNAVAILABLE, detail).retry_after(1)
}

/// The machine that a registration says it comes from, and whether that is believed.
fn examine(
    trust: &AwsIdentity,
    node: &GraphNode,
    machine: AwsMachine<'_>,
    request: &RegisterRequest,
) -> (Option<String>, Result<(), Doubt>) {
    let Some(proof) = &request.identity else {
        return (None, Err(Doubt::Absent));
    };
    let document = match Document::parse(&proof.document) {
        Ok(document) => document,
        Err(doubt) => return (None, Err(doubt)),
    };
    let claimed = Some(document.instance_id.clone());
    if !trust.certificates.have_signed(&proof.document, &proof.signature) {
        return (claimed, Err(Doubt::Signature));
    }
    let url = url::Url::parse(&request.address).ok();
    let verdict = document.check(&Expected {
        machine,
        account: trust.account.as_deref(),
        host: url.as_ref().and_then(url::Url::host_str).unwrap_or_default(),
        made: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
        now: jiff::Timestamp::now(),
    });
    (claimed, verdict)
}

/// A good token came from the wrong machine.
async fn misused(
    app: &App,
    source: IpAddr,
    node: &GraphNode,
    token: Token,
    claimed: Option<String>,
    doubt: &Doubt,
) -> Problem {
    app.metrics.misused_token(doubt.label());
    let claimed = claimed.as_deref().unwrap_or("none");
    tracing::warn!(node = node.name_any(), %source, claimed, %doubt, "a node's token was used from elsewhere");
    let note = format!("from {source}, claiming to be instance {claimed}: {doubt}");
    app.misuses.tell(node, token, note).await;
    // Not more than the caller knows: it may be anybody.
    let detail = "the token is not taken from this machine; register from the machine that was started for the node";
    auth::refuse_as(&kind::FORBIDDEN, app, source, "machine", detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DOCUMENT: &str = include_str!("../../tests/identity/document.json");
    const SIGNATURE: &str = include_str!("../../tests/identity/signature");
    /// Of 1,024 bits, as those of AWS.
    const CERTIFICATE: &str = include_str!("../../tests/identity/certificate-1024.pem");
    const OTHER: &str = include_str!("../../tests/identity/test-certificate.pem");

    #[test]
    fn a_signature_is_good_for_its_document_and_key_alone() {
        let trust = |pem: &str| IdentityCertificates::from_pem(pem.as_bytes()).unwrap();
        let ours = trust(CERTIFICATE);
        assert!(SIGNATURE.lines().count() > 1, "as the metadata service gives it");
        assert!(ours.have_signed(DOCUMENT, SIGNATURE));
        assert!(trust(&format!("of a region\n{OTHER}\nof another\n{CERTIFICATE}")).have_signed(DOCUMENT, SIGNATURE));
        assert!(!trust(OTHER).have_signed(DOCUMENT, SIGNATURE));
        assert!(!ours.have_signed(&DOCUMENT.replace("i-0", "i-1"), SIGNATURE));
        assert!(!ours.have_signed(&format!("{DOCUMENT} "), SIGNATURE));
        let mut changed = STANDARD.decode(SIGNATURE.replace('\n', "")).unwrap();
        changed[7] ^= 1;
        for signature in [STANDARD.encode(changed), String::new(), "?".into(), "A".repeat(1 << 20)] {
            assert!(!ours.have_signed(DOCUMENT, &signature));
        }
    }

    #[test]
    fn what_is_no_certificate_of_an_rsa_key_is_named() {
        let told = |pem: &str| IdentityCertificates::from_pem(pem.as_bytes()).unwrap_err().to_string();
        assert!(told("").contains("at least one"));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(told(&format!("{CERTIFICATE}{nonsense}")).contains("certificate 2"));
        let elliptic = include_str!("../../tests/identity/certificate-p256.pem");
        assert!(told(elliptic).contains("RSA"));
    }

    #[test]
    fn an_element_ends_where_it_says() {
        assert_eq!(element(&[0x30, 2, 1, 2, 3], 0x30), Some((&[1, 2][..], &[3][..])));
        assert_eq!(element(&[0x30, 0x81, 1, 9], 0x30), Some((&[9][..], &[][..])));
        assert_eq!(element(&[0x30, 0x82, 0, 1, 9], 0x30), Some((&[9][..], &[][..])));
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x31, 0],
            &[0x30, 0x80],
            &[0x30, 0x83, 0, 0, 0],
        ] {
            assert_eq!(element(wrong, 0x30), None, "{wrong:?}");
        }
    }
}
