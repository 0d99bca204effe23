//! Certificates that were taken back.
//!
//! A list counts only if one of those who are trusted signed it, and then only for certificates of
//! the same issuer. One that cannot be read, or that somebody else signed, is an error: to ignore it
//! would let in whom its owner wants to be kept out.

use std::collections::HashSet;

use rustls::crypto::WebPkiSupportedAlgorithms;
use x509_parser::asn1_rs::Sequence;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::certificate::{Certificate, without_zeros};
use crate::info::TlsError;
use crate::pem;
use crate::trust::Trust;

/// Numbers of certificates by their issuers.
#[derive(Debug, Default)]
pub(crate) struct Revoked(HashSet<(Vec<u8>, Vec<u8>)>);

impl Revoked {
    /// Reads a file with a list in DER, or lists in PEM.
    ///
    /// # Errors
    /// It cannot be read, or a list is not of somebody who is trusted.
    pub(crate) fn load(path: &str, trust: &Trust) -> Result<Self, TlsError> {
        let bytes = pem::read(path)?;
        let mut lists = pem::revocation_lists(&bytes);
        if lists.is_empty() {
            lists.push(bytes);
        }
        let mut revoked = Self::default();
        for list in lists {
            revoked.add(&list, trust).map_err(|why| TlsError(format!("{path}: {why}")))?;
        }
        Ok(revoked)
    }

    fn add(&mut self, der: &[u8], trust: &Trust) -> Result<(), String> {
        let malformed = || "x509: malformed crl".to_owned();
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        // Partial lists say so in an extension that must be understood.
        if list.extensions().iter().any(|extension| extension.critical) {
            return Err("x509: unhandled critical extension of a crl".to_owned());
        }
        let issuer = list.issuer().as_raw();
        let mut signers = trust.named(issuer).peekable();
        if signers.peek().is_none() {
            return Err(format!("crl of an issuer that is not trusted: {}", list.issuer()));
        }
        if !signers.any(|signer| is_signed_by(der, &list, signer, &trust.algorithms())) {
            return Err(format!("crl whose signature is not its issuer's: {}", list.issuer()));
        }
        for entry in list.iter_revoked_certificates() {
            let serial = entry.user_certificate.to_bytes_be();
            self.0.insert((issuer.to_vec(), without_zeros(&serial).to_vec()));
        }
        Ok(())
    }

    /// Whether one of the certificates of a chain was taken back.
    ///
    /// # Errors
    /// One was; says which as etcd does.
    //= etcd 3.7.3: client/pkg/transport/listener_tls.go#checkCRL
    pub(crate) fn check<'a>(
        &self,
        chain: impl IntoIterator<Item = &'a Certificate>,
    ) -> Result<(), String> {
        for Certificate { issuer, serial, .. } in chain {
            if self.0.contains(&(issuer.clone(), serial.clone())) {
                let serial = data_encoding::HEXLOWER.encode(serial);
                return Err(format!("transport: certificate serial {serial} revoked"));
            }
        }
        Ok(())
    }
}

fn is_signed_by(
    der: &[u8],
    list: &CertificateRevocationList<'_>,
    signer: &[u8],
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok((_, signer)) = X509Certificate::from_der(signer) else { return false };
    let may_sign = signer.key_usage().is_ok_and(|usage| usage.is_none_or(|u| u.value.crl_sign()));
    let Some(signature_algorithm) = signature_algorithm(der) else { return false };
    let Some(key_algorithm) = first_sequence(signer.public_key().raw) else { return false };
    let (message, signature) = (list.tbs_cert_list.as_ref(), list.signature_value.data.as_ref());
    let key = signer.public_key().subject_public_key.data.as_ref();
    may_sign
        && algorithms.all.iter().any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == signature_algorithm
                && algorithm.public_key_alg_id().as_ref() == key_algorithm
                && algorithm.verify_signature(key, message, signature).is_ok()
        })
}

/// The algorithm with which a signed structure is signed: what follows what is signed.
fn signature_algorithm(der: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Sequence::from_der(der).ok()?;
    let content = borrowed(der, outer.content.len())?;
    let (rest, _) = Sequence::from_der(content).ok()?;
    let (after, algorithm) = Sequence::from_der(rest).ok()?;
    let end = rest.len() - after.len();
    rest.get(end - algorithm.content.len()..end)
}

/// The content of the sequence with which a sequence begins.
fn first_sequence(der: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Sequence::from_der(der).ok()?;
    let content = borrowed(der, outer.content.len())?;
    let (rest, inner) = Sequence::from_der(content).ok()?;
    let end = content.len() - rest.len();
    content.get(end - inner.content.len()..end)
}

/// The last `length` bytes, which are a sequence's content.
fn borrowed(der: &[u8], length: usize) -> Option<&[u8]> {
    der.len().checked_sub(length).map(|start| &der[start..])
}
