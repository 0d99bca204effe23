//! Authorities and certificates of every kind, in files: for tests of both ends of TLS.
//!
//! Whatever fails here fails the test, by a panic.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

/// Somebody who signs.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate in PEM.
    pub pem: String,
    /// What is shown behind certificates that it signed.
    above: String,
}

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params, KeyPair::generate().unwrap())
}

impl Authority {
    /// One that signs itself.
    #[must_use]
    pub fn root(name: &str) -> Self {
        let (params, key) = authority(name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, above: String::new() }
    }

    /// One that another vouches for.
    #[must_use]
    pub fn below(other: &Self, name: &str) -> Self {
        let (params, key) = authority(name);
        let pem = params.signed_by(&key, &other.issuer).unwrap().pem();
        Self { issuer: Issuer::new(params, key), above: pem.clone(), pem }
    }

    /// A list of certificates that are taken back, in DER.
    #[must_use]
    pub fn revokes(&self, serials: &[u64]) -> Vec<u8> {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// A certificate to be made.
#[derive(Debug)]
pub struct Wish {
    params: CertificateParams,
    key: KeyPair,
}

impl Wish {
    /// For hosts, by names or addresses, for a year, for servers and clients.
    #[must_use]
    pub fn new(common_name: &str, hosts: &[&str]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// With another kind of key.
    #[must_use]
    pub fn keyed(self, algorithm: &'static SignatureAlgorithm) -> Self {
        Self { key: KeyPair::generate_for(algorithm).unwrap(), ..self }
    }

    /// With anything else that certificates can have.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    /// For one use alone.
    #[must_use]
    pub fn only_for(self, usage: ExtendedKeyUsagePurpose) -> Self {
        self.with(|params| params.extended_key_usages = vec![usage])
    }

    /// Valid until yesterday.
    #[must_use]
    pub fn expired(self) -> Self {
        self.with(|params| {
            params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
            params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
        })
    }

    /// Valid from tomorrow on.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        self.with(|params| params.not_before = OffsetDateTime::now_utc() + Duration::days(1))
    }

    /// With this number.
    #[must_use]
    pub fn serial(self, serial: u64) -> Self {
        self.with(|params| params.serial_number = Some(SerialNumber::from(serial)))
    }

    /// Has it signed and writes it, with what stands between the authority and its root.
    pub fn by(self, authority: &Authority, dir: &Path, name: &str) -> Pair {
        let certificate = self.params.signed_by(&self.key, &authority.issuer).unwrap();
        let chain = certificate.pem() + &authority.above;
        Pair::write(dir, name, &chain, &self.key.serialize_pem())
    }
}

/// Files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, and what is shown behind it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    /// Writes `name.crt` and `name.key`.
    pub fn write(dir: &Path, name: &str, cert: &str, key: &str) -> Self {
        let pair =
            Self { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&pair.cert, cert).unwrap();
        std::fs::write(&pair.key, key).unwrap();
        pair
    }
}

/// A path as flags have it.
#[must_use]
pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
