//! Certificates that a member makes for itself (`--auto-tls`, `--peer-auto-tls`).
//!
//! Files, names, key type and usages are etcd's, so that either program takes over what the other
//! made.
//!
//= etcd 3.7.3: client/pkg/transport/listener.go#SelfCert

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair};
use pki_types::PrivatePkcs8KeyDer;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::info::{TlsError, TlsInfo};
use crate::pem;

/// Days of a year of validity.
const YEAR_DAYS: i64 = 365;
/// Years beyond which no certificate has a date.
const MOST_YEARS: u32 = 5_000;

/// A pair of files and whether they were there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfCert {
    /// What to serve and dial with.
    pub info: TlsInfo,
    /// What was made; `None` if the files were there.
    pub made: Option<Made>,
}

/// A certificate that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The last second of its validity, since 1970.
    pub not_after: i64,
}

impl Made {
    /// The end of its validity as a log has it.
    #[must_use]
    pub fn not_after_text(&self) -> String {
        crate::certificate::rfc3339(self.not_after)
    }
}

/// Takes over the pair in a directory, or makes one for the hosts (`host:port`), valid for so many
/// years.
///
/// # Errors
/// No year, or the files cannot be written.
pub fn self_cert(dir: &Path, hosts: &[String], years: u32) -> Result<SelfCert, TlsError> {
    if years == 0 {
        return Err(TlsError(
            "selfSignedCertValidity is invalid,it should be greater than 0".to_owned(),
        ));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| failed("mkdir", dir, &e))?;
    let (cert, key) = (absolute(dir, "cert.pem")?, absolute(dir, "key.pem")?);
    let made =
        if cert.exists() && key.exists() { None } else { Some(make(&cert, &key, hosts, years)?) };
    let (cert, key) = (cert.to_string_lossy().into_owned(), key.to_string_lossy().into_owned());
    let info = TlsInfo {
        cert_file: cert.clone(),
        key_file: key.clone(),
        client_cert_file: cert,
        client_key_file: key,
        self_made: true,
        ..TlsInfo::default()
    };
    Ok(SelfCert { info, made })
}

fn absolute(dir: &Path, name: &str) -> Result<PathBuf, TlsError> {
    let path = dir.join(name);
    std::path::absolute(&path).map_err(|e| failed("getwd", &path, &e))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> TlsError {
    TlsError(format!("{what} {}: {}", path.display(), osenv::error_text(error)))
}

fn make(cert: &Path, key: &Path, hosts: &[String], years: u32) -> Result<Made, TlsError> {
    let cannot = |e: &dyn std::fmt::Display| TlsError(format!("cannot make a certificate: {e}"));
    let algorithm = &ECDSA_P521_SHA512_ASN1_SIGNING;
    let pair = EcdsaKeyPair::generate(algorithm).map_err(|e| cannot(&e))?;
    let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().map_err(|e| cannot(&e))?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|e| cannot(&e))?;
    let signer = KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8.as_ref()),
        &rcgen::PKCS_ECDSA_P521_SHA512,
    );
    let signer = signer.map_err(|e| cannot(&e))?;
    let params = params(hosts, years)?;
    let made = Made { not_after: params.not_after.unix_timestamp() };
    let der = params.self_signed(&signer).map_err(|e| cannot(&e))?;
    write(cert, 0o666, &pem::encode("CERTIFICATE", der.der()))?;
    write(key, 0o600, &pem::encode("EC PRIVATE KEY", sec1.as_ref()))?;
    Ok(made)
}

fn params(hosts: &[String], years: u32) -> Result<CertificateParams, TlsError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|e| TlsError(e.to_string()))?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.not_before = OffsetDateTime::now_utc();
    params.not_after =
        params.not_before + Duration::days(YEAR_DAYS * i64::from(years.min(MOST_YEARS)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = hosts.iter().filter_map(|host| name(host)).collect();
    Ok(params)
}

/// The name of a host and its port.
fn name(host: &str) -> Option<SanType> {
    let (host, _) = host.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) if bare.is_empty() => None,
        Err(_) => bare.try_into().ok().map(SanType::DnsName),
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let mut file = open.map_err(|e| failed("open", path, &e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed("write", path, &e))
}
