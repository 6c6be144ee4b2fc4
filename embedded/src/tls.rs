//! The server's own certificate authority and the certificate that it signs for this machine.
//!
//! Both live in the `tls` folder of the data directory and survive restarts, so that a kubeconfig stays valid.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The names under which the server can be called.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CA_YEARS: i16 = 30;
const SERVER_YEARS: i16 = 2;
/// Age at which the server's certificate is replaced at a start.
const RENEW_AFTER: Duration = Duration::from_secs(300 * 24 * 3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the `tls` folder cannot be read or written.
    #[error("cannot use {path}: {source}; check its owner and permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key or certificate could not be made or read.
    #[error("cannot make or read a certificate in {folder}: {detail}; delete the folder to have new ones made")]
    Certificate {
        /// The folder of the key.
        folder: PathBuf,
        /// What the library says.
        detail: String,
    },
}

/// What a TLS listener needs.
pub(crate) struct Identity {
    pub(crate) config: Arc<rustls::ServerConfig>,
    /// The authority's certificate, which clients have to trust.
    pub(crate) ca_pem: String,
}

/// Loads the certificates in `folder`, or makes them.
pub(crate) fn load(folder: &Path) -> Result<Identity, TlsError> {
    create_private_dir(folder)?;
    let failed = |detail: String| TlsError::Certificate {
        folder: folder.to_path_buf(),
        detail,
    };
    let (ca_file, ca_key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
    if !(ca_file.exists() && ca_key_file.exists()) {
        let key = KeyPair::generate().map_err(|e| failed(e.to_string()))?;
        let certificate = authority().self_signed(&key).map_err(|e| failed(e.to_string()))?;
        write_private(&ca_key_file, key.serialize_pem().as_bytes())?;
        write_private(&ca_file, certificate.pem().as_bytes())?;
        // A certificate of an older authority is worthless now.
        remove(&folder.join("server.pem"))?;
    }
    let ca_pem = read(&ca_file)?;
    let (server_file, server_key_file) = (folder.join("server.pem"), folder.join("server.key"));
    if !server_key_file.exists() || !is_recent(&server_file) {
        let ca_key = KeyPair::from_pem(&read(&ca_key_file)?).map_err(|e| failed(e.to_string()))?;
        let issuer = Issuer::new(authority(), ca_key);
        let key = KeyPair::generate().map_err(|e| failed(e.to_string()))?;
        let certificate = server()
            .and_then(|params| params.signed_by(&key, &issuer))
            .map_err(|e| failed(e.to_string()))?;
        write_private(&server_key_file, key.serialize_pem().as_bytes())?;
        write_private(&server_file, certificate.pem().as_bytes())?;
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&server_file)
        .and_then(Iterator::collect)
        .map_err(|e| failed(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&server_key_file).map_err(|e| failed(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| failed(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Identity {
        config: Arc::new(config),
        ca_pem,
    })
}

/// The authority. Its name and rules are the same each time, so that its key is all that has to be kept to sign again.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "graphplane embedded authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_YEARS);
    params
}

fn server() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "graphplane embedded server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, SERVER_YEARS);
    Ok(params)
}

fn valid_for(params: &mut CertificateParams, years: i16) {
    // From yesterday on, for clients whose clock is behind.
    let from = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = from.yesterday().unwrap_or(from);
    let day = |extra: i16| {
        // The first 28 days exist in every month of every year.
        let (month, day) = (from.month().unsigned_abs(), from.day().clamp(1, 28).unsigned_abs());
        rcgen::date_time_ymd(i32::from(from.year() + extra), month, day)
    };
    params.not_before = day(0);
    params.not_after = day(years);
}

fn is_recent(file: &Path) -> bool {
    std::fs::metadata(file)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|time| time.elapsed().ok())
        .is_some_and(|age| age < RENEW_AFTER)
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> TlsError {
    let path = path.to_path_buf();
    move |source| TlsError::File {
        path: path.clone(),
        source,
    }
}

pub(crate) fn read(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(file_error(path))
}

fn remove(path: &Path) -> Result<(), TlsError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder that only its owner can enter.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), TlsError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(file_error(path))
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        file_error(path)(error)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn certificates_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tls");
        let first = load(&folder).unwrap();
        let server = read(&folder.join("server.pem")).unwrap();
        let second = load(&folder).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_eq!(server, read(&folder.join("server.pem")).unwrap());
        for name in ["ca.key", "server.key"] {
            let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        // Without its authority, the rest is replaced.
        std::fs::remove_file(folder.join("ca.key")).unwrap();
        assert_ne!(load(&folder).unwrap().ca_pem, first.ca_pem);
        assert_ne!(server, read(&folder.join("server.pem")).unwrap());
    }

    #[test]
    fn a_damaged_key_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path()).unwrap();
        std::fs::write(dir.path().join("server.key"), "x").unwrap();
        let error = load(dir.path()).err().unwrap().to_string();
        assert!(error.contains("delete the folder"), "{error}");
    }
}
