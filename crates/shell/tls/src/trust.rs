//! Whom an end trusts, and whether that vouches for a certificate.
//!
//! Chains are built by webpki. What differs from Go's crypto/x509 where users would see it is put
//! right here: a trusted certificate may be shown itself, trusted certificates expire, too, and the
//! usage "any" is a usage.

use std::fmt;

use pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::crypto::WebPkiSupportedAlgorithms;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use crate::certificate::{Certificate, Usage};
use crate::info::{TlsError, TlsInfo};
use crate::pem;

/// The certificates that are trusted.
pub(crate) struct Trust {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    is_the_systems: bool,
}

/// A trusted certificate. Its anchor has the same place in its list.
struct Root {
    der: CertificateDer<'static>,
    certificate: Certificate,
}

/// Why nobody vouches for a certificate, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No chain leads to somebody who is trusted.
    UnknownAuthority,
    /// It is too old or too new.
    Expired(String),
    /// All else.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAuthority => f.write_str("x509: certificate signed by unknown authority"),
            Self::Expired(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Whom the bundle says, or the system if none is given.
    //= etcd 3.7.3: client/pkg/tlsutil/tlsutil.go#NewCertPool
    pub(crate) fn load(
        info: &TlsInfo,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, TlsError> {
        let is_the_systems = info.trusted_ca_file.is_empty();
        let (roots, anchors) = (Vec::new(), Vec::new());
        let mut trust = Self { roots, anchors, algorithms, is_the_systems };
        if is_the_systems {
            // What the system has and cannot be read is no reason to trust nobody.
            for der in rustls_native_certs::load_native_certs().certs {
                let _ = trust.add(der);
            }
            return Ok(trust);
        }
        for der in pem::certificates(&pem::read(&info.trusted_ca_file)?) {
            let malformed = || TlsError("x509: malformed certificate".to_owned());
            trust.add(der).ok_or_else(malformed)?;
        }
        Ok(trust)
    }

    fn add(&mut self, der: CertificateDer<'static>) -> Option<()> {
        let certificate = Certificate::read(&der)?;
        let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
        self.anchors.push(anchor);
        self.roots.push(Root { der, certificate });
        Some(())
    }

    /// Whether nobody was named, and the system says whom to trust.
    pub(crate) fn is_the_systems(&self) -> bool {
        self.is_the_systems
    }

    /// The names of those who are trusted.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.subject.as_ref())
    }

    /// The trusted certificates with a name, as it is encoded.
    pub(crate) fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = self.roots.iter().filter(move |root| root.certificate.subject == name);
        named.map(|root| root.der.as_ref())
    }

    /// Algorithms of signatures that count.
    pub(crate) fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.algorithms
    }

    /// Whether somebody who is trusted vouches for `certificate`, which `der` encodes.
    ///
    /// # Errors
    /// Nobody does, or it is not valid now, or not for this.
    pub(crate) fn vouches(
        &self,
        der: &CertificateDer<'_>,
        certificate: &Certificate,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        time: UnixTime,
    ) -> Result<(), Refusal> {
        // A trusted certificate needs nobody else, be it an authority's or not.
        //= go 1.26: src/crypto/x509/verify.go#Verify
        if self.roots.iter().any(|root| root.der == *der) {
            return if certificate.is_for(usage) { Ok(()) } else { Err(unfit()) };
        }
        let leaf = EndEntityCert::try_from(der).map_err(|e| refusal(&e))?;
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let root_counts = |path: &webpki::VerifiedPath<'_>| {
            let place = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
            let root = place.map(|place| &self.roots[place].certificate);
            match root {
                Some(root) if root.check_time(seconds).is_err() => {
                    Err(webpki::Error::UnknownIssuer)
                }
                Some(root) if root.is_for(usage) => Ok(()),
                _ => Err(webpki::Error::UnknownIssuer),
            }
        };
        let path = leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            time,
            Purpose(usage),
            None,
            Some(&root_counts),
        );
        path.map(|_| ()).map_err(|e| refusal(&e))
    }
}

fn unfit() -> Refusal {
    Refusal::Other("x509: certificate specifies an incompatible key usage".to_owned())
}

fn refusal(error: &webpki::Error) -> Refusal {
    use webpki::Error as E;
    match error {
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Refusal::UnknownAuthority,
        E::RequiredEkuNotFoundContext(_) => unfit(),
        // Of the leaf it was told before: this is about one above it.
        E::CertExpired { .. } | E::CertNotValidYet { .. } => Refusal::UnknownAuthority,
        E::CaUsedAsEndEntity => Refusal::Other(
            "x509: certificate of an authority, which is not trusted itself, is used by an end"
                .to_owned(),
        ),
        E::PathLenConstraintViolated => {
            Refusal::Other("x509: too many intermediates for path length constraint".to_owned())
        }
        E::NameConstraintViolation => Refusal::Other(
            "x509: a root or intermediate certificate is not authorized to sign for this name"
                .to_owned(),
        ),
        other => Refusal::Other(format!("x509: certificate is refused: {other}")),
    }
}

/// Wants a usage of every certificate that says what it is for.
//= go 1.26: src/crypto/x509/verify.go#checkChainForKeyUsage
struct Purpose(Usage);

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, iter: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const KEY_PURPOSES: [usize; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
        const ANY: [usize; 5] = [2, 5, 29, 37, 0];
        let mut present = Vec::new();
        for id in iter {
            let id = id?.to_decoded_oid();
            let own = id.strip_prefix(&KEY_PURPOSES).is_some_and(|rest| rest == [self.0.number()]);
            if own || id == ANY {
                return Ok(());
            }
            present.push(id);
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = match self.0 {
            Usage::Server => webpki::KeyUsage::server_auth(),
            Usage::Client => webpki::KeyUsage::client_auth(),
        };
        let context = webpki::RequiredEkuNotFoundContext { required, present };
        Err(webpki::Error::RequiredEkuNotFoundContext(context))
    }
}
