//! Why a connection failed, in Go's words.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::certificate::Certificate;
use crate::verifier;

/// What is said of a client that offers no protocol that is spoken, before they are listed.
pub(crate) const UNSUPPORTED_PROTOCOLS: &str =
    "tls: client requested unsupported application protocols";
/// What is said of a connection that does not begin with TLS.
pub(crate) const NOT_TLS: &str = "tls: first record does not look like a TLS handshake";

/// The text that Go gives an error of a TLS connection; that of any other is the system's.
#[must_use]
pub fn error_text(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(error) => tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => osenv::error_text(error),
    }
}

fn tls(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("remote error: tls: {}", self::alert(*alert)),
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::NoApplicationProtocol => UNSUPPORTED_PROTOCOLS.to_owned(),
        Error::PeerIncompatible(incompatible) => incompatibility(incompatible),
        Error::InvalidMessage(_) => NOT_TLS.to_owned(),
        Error::DecryptError => "tls: bad record MAC".to_owned(),
        other => format!("tls: {other}"),
    }
}

fn incompatibility(incompatible: &PeerIncompatible) -> String {
    match incompatible {
        PeerIncompatible::NoCipherSuitesInCommon => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "tls: server selected unsupported protocol version".to_owned()
        }
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        // Which those of 1.2 and later send.
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOfferedOrEnabled => {
            "tls: client offered only unsupported versions".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon => {
            "tls: peer doesn't support any of the certificate's signature algorithms".to_owned()
        }
        other => format!("tls: {other:?}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    if let Some(text) = verifier::text_of(error) {
        return text.to_owned();
    }
    let seconds = |time: &pki_types::UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let why = match error {
        CertificateError::UnknownIssuer => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let range = Certificate { not_after: seconds(not_after), ..Certificate::default() };
            range.check_time(seconds(time)).err().unwrap_or_default()
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let not_before = seconds(not_before);
            let range = Certificate { not_before, not_after: not_before, ..Certificate::default() };
            range.check_time(seconds(time)).err().unwrap_or_default()
        }
        CertificateError::BadSignature => {
            return "tls: invalid signature by the client certificate".to_owned();
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: {why}")
}

//= go 1.26: src/crypto/tls/alert.go#alertText
fn alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let text = match alert {
        A::CloseNotify => "close notify",
        A::UnexpectedMessage => "unexpected message",
        A::BadRecordMac => "bad record MAC",
        A::DecryptionFailed => "decryption failed",
        A::RecordOverflow => "record overflow",
        A::DecompressionFailure => "decompression failure",
        A::HandshakeFailure => "handshake failure",
        A::BadCertificate => "bad certificate",
        A::UnsupportedCertificate => "unsupported certificate",
        A::CertificateRevoked => "revoked certificate",
        A::CertificateExpired => "expired certificate",
        A::CertificateUnknown => "unknown certificate",
        A::IllegalParameter => "illegal parameter",
        A::UnknownCA => "unknown certificate authority",
        A::AccessDenied => "access denied",
        A::DecodeError => "error decoding message",
        A::DecryptError => "error decrypting message",
        A::ExportRestriction => "export restriction",
        A::ProtocolVersion => "protocol version not supported",
        A::InsufficientSecurity => "insufficient security level",
        A::InternalError => "internal error",
        A::InappropriateFallback => "inappropriate fallback",
        A::UserCanceled => "user canceled",
        A::NoRenegotiation => "no renegotiation",
        A::MissingExtension => "missing extension",
        A::UnsupportedExtension => "unsupported extension",
        A::CertificateUnobtainable => "certificate unobtainable",
        A::UnrecognisedName => "unrecognized name",
        A::BadCertificateStatusResponse => "bad certificate status response",
        A::BadCertificateHashValue => "bad certificate hash value",
        A::UnknownPSKIdentity => "unknown PSK identity",
        A::CertificateRequired => "certificate required",
        A::NoApplicationProtocol => "no application protocol",
        A::EncryptedClientHelloRequired => "encrypted client hello required",
        other => return format!("alert({})", u8::from(other)),
    };
    text.to_owned()
}
