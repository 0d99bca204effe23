//! The questions that rustls asks about the other end's certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::certificate::{Certificate, Usage};
use crate::hostname;
use crate::info::TlsInfo;
use crate::trust::{Refusal, Trust};

/// Names one of which a certificate must have.
//= etcd 3.7.3: client/pkg/transport/listener.go#baseConfig (verifyCertificate)
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    /// There is no such rule.
    All,
    /// Common names.
    CommonNames(Vec<String>),
    /// Hosts.
    Hosts(Vec<String>),
}

impl Allowed {
    pub(crate) fn of(info: &TlsInfo) -> Self {
        if !info.allowed_cns.is_empty() {
            Self::CommonNames(info.allowed_cns.clone())
        } else if !info.allowed_hostnames.is_empty() {
            Self::Hosts(info.allowed_hostnames.clone())
        } else {
            Self::All
        }
    }

    fn check(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let allowed = match self {
            Self::All => true,
            Self::CommonNames(names) => names.contains(&certificate.common_name),
            Self::Hosts(hosts) => hosts.iter().any(|h| hostname::check(certificate, h).is_ok()),
        };
        let refused = || Refusal::Other("client certificate authentication failed".to_owned());
        if allowed { Ok(()) } else { Err(refused()) }
    }
}

/// An error that is sent as `bad_certificate` and keeps its text: of all that become that alert it
/// is the only one that has room for one.
fn bad_certificate(text: String) -> Error {
    let expected = ServerName::IpAddress(IpAddr::from(Ipv4Addr::UNSPECIFIED).into());
    CertificateError::NotValidForNameContext { expected, presented: vec![text] }.into()
}

/// The text of [`bad_certificate`].
pub(crate) fn text_of(error: &CertificateError) -> Option<&str> {
    match error {
        CertificateError::NotValidForNameContext { presented, .. } => {
            presented.first().map(String::as_str)
        }
        _ => None,
    }
}

fn malformed() -> Error {
    bad_certificate("tls: failed to parse certificate: x509: malformed certificate".to_owned())
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Asks clients for certificates.
#[derive(Debug)]
pub(crate) struct Clients {
    trust: Arc<Trust>,
    allowed: Allowed,
    hints: Vec<DistinguishedName>,
}

impl Clients {
    pub(crate) fn new(trust: Arc<Trust>, allowed: Allowed) -> Self {
        // Whom the system trusts is too many to be told, and Go does not.
        let told = trust.subjects().filter(|_| !trust.is_the_systems());
        let hints = told.map(DistinguishedName::in_sequence).collect();
        Self { trust, allowed, hints }
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    //= go 1.26: src/crypto/tls/handshake_server.go#processCertsFromClient
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let certificate = Certificate::read(end_entity).ok_or_else(malformed)?;
        let checked =
            certificate.check_time(seconds(now)).map_err(Refusal::Expired).and_then(|()| {
                self.trust.vouches(end_entity, &certificate, intermediates, Usage::Client, now)
            });
        checked.map_err(|refusal| match refusal {
            Refusal::UnknownAuthority => CertificateError::UnknownIssuer.into(),
            Refusal::Expired(_) if seconds(now) < certificate.not_before => {
                CertificateError::NotValidYetContext {
                    time: now,
                    not_before: instant(certificate.not_before),
                }
                .into()
            }
            Refusal::Expired(_) => CertificateError::ExpiredContext {
                time: now,
                not_after: instant(certificate.not_after),
            }
            .into(),
            Refusal::Other(text) => {
                bad_certificate(format!("tls: failed to verify certificate: {text}"))
            }
        })?;
        let allowed = self.allowed.check(&certificate);
        allowed.map_err(|refusal| bad_certificate(refusal.to_string()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.trust.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.trust.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms().supported_schemes()
    }
}

fn instant(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.max(0).unsigned_abs()))
}

/// Looks at the certificates of servers.
#[derive(Debug)]
pub(crate) struct Servers {
    /// `None` believes everything.
    trust: Option<Arc<Trust>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The name to look for instead of the dialed host's; empty looks for that.
    name: String,
    allowed: Allowed,
}

impl Servers {
    pub(crate) fn new(
        trust: Option<Arc<Trust>>,
        algorithms: WebPkiSupportedAlgorithms,
        name: String,
        allowed: Allowed,
    ) -> Self {
        Self { trust, algorithms, name, allowed }
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialed: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = Certificate::read(end_entity).ok_or_else(malformed)?;
        let Some(trust) = &self.trust else {
            // Nothing was verified, so that nobody can be allowed by name.
            return match &self.allowed {
                Allowed::All => Ok(()),
                _ => Err(bad_certificate("client certificate authentication failed".to_owned())),
            };
        };
        let host = if self.name.is_empty() { dialed.to_str() } else { self.name.as_str().into() };
        let checked = certificate.check_time(seconds(now)).map_err(Refusal::Expired);
        let checked = checked
            .and_then(|()| hostname::check(&certificate, &host).map_err(Refusal::Other))
            .and_then(|()| {
                trust.vouches(end_entity, &certificate, intermediates, Usage::Server, now)
            });
        checked.map_err(|refusal| {
            bad_certificate(format!("tls: failed to verify certificate: {refusal}"))
        })?;
        self.allowed.check(&certificate).map_err(|refusal| bad_certificate(refusal.to_string()))
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
