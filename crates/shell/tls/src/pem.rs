//! Certificates and keys from files, with Go's words for what is wrong with them.

use std::sync::Arc;

use pki_types::pem::{PemObject, SectionKind};
use pki_types::{CertificateDer, PrivateKeyDer};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::info::TlsError;

/// Bytes of a file beyond which it is not read: bundles of all authorities there are have 300 KB.
const FILE_BYTES: u64 = 16 << 20;

/// Reads a whole file.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, TlsError> {
    let failed = |e: &std::io::Error| TlsError(format!("open {path}: {}", osenv::error_text(e)));
    let length = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if length > FILE_BYTES {
        return Err(TlsError(format!("open {path}: {length} bytes are too many for TLS")));
    }
    std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::IsADirectory => TlsError(format!("read {path}: is a directory")),
        _ => failed(&e),
    })
}

/// The blocks of a PEM text. What follows a broken one is not looked at.
fn blocks(text: &[u8]) -> impl Iterator<Item = (SectionKind, Vec<u8>)> + '_ {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text).map_while(Result::ok)
}

/// The certificates of a PEM text, in their order.
pub(crate) fn certificates(text: &[u8]) -> Vec<CertificateDer<'static>> {
    let blocks = blocks(text).filter(|(kind, _)| *kind == SectionKind::Certificate);
    blocks.map(|(_, der)| der.into()).collect()
}

/// The revocation lists of a PEM text.
pub(crate) fn revocation_lists(text: &[u8]) -> Vec<Vec<u8>> {
    let blocks = blocks(text).filter(|(kind, _)| *kind == SectionKind::Crl);
    blocks.map(|(_, der)| der).collect()
}

/// A certificate with its chain, and its key.
//= etcd 3.7.3: client/pkg/tlsutil/tlsutil.go#NewCert
pub(crate) fn pair(
    cert_file: &str,
    key_file: &str,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let (cert, key) = (read(cert_file)?, read(key_file)?);
    let chain = chain(&cert)?;
    let key = key_of(&key)?;
    let parsed = X509Certificate::from_der(&chain[0]);
    let (_, leaf) = parsed.map_err(|_| TlsError("x509: malformed certificate".into()))?;
    let kind = leaf.public_key().algorithm.algorithm.to_id_string();
    let signer = provider.key_provider.load_private_key(key);
    let signer = signer.map_err(|_| TlsError("tls: failed to parse private key".into()))?;
    if !is_of_kind(&kind, signer.algorithm()) {
        return Err(TlsError("tls: private key type does not match public key type".into()));
    }
    let certified = CertifiedKey::new(chain.clone(), signer);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsError("tls: private key does not match public key".into()))
        }
        Err(error) => Err(TlsError(format!("x509: malformed certificate: {error}"))),
    }
}

/// Whether a public key of this kind (an object identifier) belongs to keys that sign so.
fn is_of_kind(kind: &str, algorithm: SignatureAlgorithm) -> bool {
    match algorithm {
        SignatureAlgorithm::RSA => kind == "1.2.840.113549.1.1.1",
        SignatureAlgorithm::ECDSA => kind == "1.2.840.10045.2.1",
        SignatureAlgorithm::ED25519 => kind == "1.3.101.112",
        _ => false,
    }
}

//= go 1.26: src/crypto/tls/tls.go#X509KeyPair
fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = certificates(text);
    if !chain.is_empty() {
        return Ok(chain);
    }
    let skipped: Vec<&str> = blocks(text).map(|(kind, _)| name(kind)).collect();
    let text = match &skipped[..] {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a \
             private key; PEM inputs may have been switched"
                .to_owned()
        }
        all => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping \
             PEM blocks of the following types: [{}]",
            all.join(" ")
        ),
    };
    Err(TlsError(text))
}

fn key_of(text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mut skipped = Vec::new();
    for (kind, der) in blocks(text) {
        match kind {
            SectionKind::PrivateKey => return Ok(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey => return Ok(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => return Ok(PrivateKeyDer::Sec1(der.into())),
            other => skipped.push(name(other)),
        }
    }
    let text = match &skipped[..] {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        ["CERTIFICATE"] => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        all => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after \
             skipping PEM blocks of the following types: [{}]",
            all.join(" ")
        ),
    };
    Err(TlsError(text))
}

fn name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "CERTIFICATE",
        SectionKind::PublicKey => "PUBLIC KEY",
        SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
        SectionKind::PrivateKey => "PRIVATE KEY",
        SectionKind::EcPrivateKey => "EC PRIVATE KEY",
        SectionKind::Crl => "X509 CRL",
        SectionKind::Csr => "CERTIFICATE REQUEST",
        _ => "OTHER",
    }
}

/// A block of PEM, 64 characters a line.
pub(crate) fn encode(kind: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("it is ASCII")).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}
