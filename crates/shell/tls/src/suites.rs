//! Versions and cipher suites by name.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

use crate::info::{TlsError, TlsInfo};

/// Suites that Go knows and this library does: those of TLS 1.2 with an AEAD and forward secrecy.
const KNOWN: [(&str, CipherSuite); 8] = [
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites of TLS 1.3. A list may name them, but there is no choice among them.
const ALWAYS: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Suites that Go knows and this library does not: without an AEAD or without forward secrecy.
//= go 1.26: src/crypto/tls/cipher_suites.go#CipherSuites, #InsecureCipherSuites
const LACKING: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// All suites, the preferred ones first: AES is what processors compute by themselves, and 128 bits
/// are less work than 256.
//= go 1.26: src/crypto/tls/cipher_suites.go#cipherSuitesPreferenceOrder
const PREFERRED: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Suites one of which HTTP/2 wants.
const HTTP2: [&str; 2] =
    ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];

/// Why a list of suites cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSuite {
    /// Go does not know it either.
    Unknown(String),
    /// Go knows it.
    Lacking(String),
}

impl std::fmt::Display for BadSuite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unexpected TLS cipher suite {name:?}"),
            Self::Lacking(name) => write!(
                f,
                "TLS cipher suite {name:?} is not implemented in Quorate: it has no forward \
                 secrecy or no authenticated encryption"
            ),
        }
    }
}

/// Looks at the names of suites.
///
/// # Errors
/// The first that cannot be had.
pub fn check_suites(names: &[String]) -> Result<(), BadSuite> {
    // What nobody knows is told first, as etcd would.
    let known =
        |name: &str| KNOWN.iter().any(|(known, _)| *known == name) || ALWAYS.contains(&name);
    if let Some(unknown) = names.iter().find(|n| !known(n) && !LACKING.contains(&n.as_str())) {
        return Err(BadSuite::Unknown(unknown.clone()));
    }
    match names.iter().find(|name| !known(name)) {
        Some(lacking) => Err(BadSuite::Lacking(lacking.clone())),
        None => Ok(()),
    }
}

/// Whether HTTP/2 can be spoken with these suites, of which none is all there are.
///
/// # Errors
/// It cannot; says why as Go does.
//= golang.org/x/net: http2/server.go#ConfigureServer
pub fn check_http2(info: &TlsInfo) -> Result<(), TlsError> {
    let has = info.cipher_suites.iter().any(|name| HTTP2.contains(&name.as_str()));
    if has || info.cipher_suites.is_empty() || info.min_version == "TLS1.3" {
        return Ok(());
    }
    Err(TlsError(
        "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher \
         (need at least one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or \
         TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
            .to_owned(),
    ))
}

/// Cryptography with the suites that are asked for.
pub(crate) fn provider(info: &TlsInfo) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = PREFERRED.to_vec();
    if !info.cipher_suites.is_empty() {
        check_suites(&info.cipher_suites).map_err(|bad| TlsError(bad.to_string()))?;
        let wanted = |suite: &SupportedCipherSuite| {
            suite.tls13().is_some()
                || info.cipher_suites.iter().any(|name| {
                    KNOWN.iter().any(|(known, which)| known == name && *which == suite.suite())
                })
        };
        provider.cipher_suites.retain(wanted);
    }
    Ok(Arc::new(provider))
}

/// The versions that are spoken.
pub(crate) fn versions(info: &TlsInfo) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let number = |text: &str, default| match text {
        "" => Ok(default),
        "TLS1.2" => Ok(12),
        "TLS1.3" => Ok(13),
        other => Err(TlsError(format!(
            "unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"
        ))),
    };
    let spoken = number(&info.min_version, 12)?..=number(&info.max_version, 13)?;
    let all = [(12, &TLS12), (13, &TLS13)];
    Ok(all.into_iter().filter(|(n, _)| spoken.contains(n)).map(|(_, version)| version).collect())
}
