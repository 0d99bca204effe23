//! Keys that sign tokens, from PEM as Go's libraries read it.
//!
//! //= golang-jwt 5: rsa_utils.go, ecdsa_utils.go, ed25519_utils.go

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ParsedPublicKey,
    RsaEncoding, RsaKeyPair, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const MISSING: &str = "auth: missing key data";
const MISMATCH: &str = "auth: public and private keys don't match";
const NOT_PEM: &str = "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key";

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(&'static Row);

#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    family: Family,
    bits: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Rsa,
    RsaPss,
    Ecdsa,
    Ed25519,
    Hmac,
}

const fn row(name: &'static str, family: Family, bits: u16) -> Row {
    Row { name, family, bits }
}

const METHODS: [Row; 13] = [
    row("RS256", Family::Rsa, 256),
    row("RS384", Family::Rsa, 384),
    row("RS512", Family::Rsa, 512),
    row("PS256", Family::RsaPss, 256),
    row("PS384", Family::RsaPss, 384),
    row("PS512", Family::RsaPss, 512),
    row("ES256", Family::Ecdsa, 256),
    row("ES384", Family::Ecdsa, 384),
    row("ES512", Family::Ecdsa, 512),
    row("HS256", Family::Hmac, 256),
    row("HS384", Family::Hmac, 384),
    row("HS512", Family::Hmac, 512),
    row("EdDSA", Family::Ed25519, 0),
];

impl Method {
    /// The method of this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        METHODS.iter().find(|row| row.name == name).map(Self)
    }

    pub(super) fn name(self) -> &'static str {
        self.0.name
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match (self.0.family, self.0.bits) {
            (Family::Rsa, 256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Family::Rsa, 384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Family::Rsa, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Family::RsaPss, 256) => &signature::RSA_PSS_2048_8192_SHA256,
            (Family::RsaPss, 384) => &signature::RSA_PSS_2048_8192_SHA384,
            (Family::RsaPss, _) => &signature::RSA_PSS_2048_8192_SHA512,
            (Family::Ecdsa, 256) => &signature::ECDSA_P256_SHA256_FIXED,
            (Family::Ecdsa, 384) => &signature::ECDSA_P384_SHA384_FIXED,
            (Family::Ecdsa, _) => &signature::ECDSA_P521_SHA512_FIXED,
            (Family::Ed25519 | Family::Hmac, _) => &signature::ED25519,
        }
    }

    fn rsa_encoding(self) -> &'static dyn RsaEncoding {
        match (self.0.family, self.0.bits) {
            (Family::RsaPss, 256) => &signature::RSA_PSS_SHA256,
            (Family::RsaPss, 384) => &signature::RSA_PSS_SHA384,
            (Family::RsaPss, _) => &signature::RSA_PSS_SHA512,
            (_, 256) => &signature::RSA_PKCS1_SHA256,
            (_, 384) => &signature::RSA_PKCS1_SHA384,
            _ => &signature::RSA_PKCS1_SHA512,
        }
    }

    fn ecdsa(self) -> &'static EcdsaSigningAlgorithm {
        match self.0.bits {
            256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self.0.bits {
            256 => hmac::HMAC_SHA256,
            384 => hmac::HMAC_SHA384,
            _ => hmac::HMAC_SHA512,
        }
    }
}

/// A key that signs.
enum Private {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The keys of one method.
enum Kind {
    Shared(Box<hmac::Key>),
    Pair { public: ParsedPublicKey, private: Option<Private> },
}

/// The keys of tokens.
pub(super) struct Keys(Kind);

impl Keys {
    /// The keys in these files, which are empty if there is none.
    ///
    /// # Errors
    /// etcd's text.
    pub(super) fn of(method: Method, public: &[u8], private: &[u8]) -> Result<Self, String> {
        if method.0.family == Family::Hmac {
            return match private {
                [] => Err(MISSING.to_owned()),
                secret => Ok(Self(Kind::Shared(Box::new(hmac::Key::new(method.hmac(), secret))))),
            };
        }
        let pair = (!private.is_empty()).then(|| private_key(method, private)).transpose()?;
        let public = (!public.is_empty()).then(|| public_key(method, public)).transpose()?;
        let (private, own) = pair.map_or((None, None), |(key, own)| (Some(key), Some(own)));
        let public = match (public, own) {
            (None, None) => return Err(MISSING.to_owned()),
            (Some(public), None) => public,
            (None, Some(own)) => own,
            (Some(public), Some(own)) if public.as_ref() == own.as_ref() => own,
            (Some(_), Some(_)) => return Err(MISMATCH.to_owned()),
        };
        Ok(Self(Kind::Pair { public, private }))
    }

    /// Whether there is more than a public key.
    pub(super) fn can_sign(&self) -> bool {
        !matches!(self.0, Kind::Pair { private: None, .. })
    }

    /// The signature of `message`; `None` if the key cannot make one.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.0 {
            Kind::Shared(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Kind::Pair { private: Some(Private::Rsa(pair, encoding)), .. } => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut out).ok()?;
                Some(out)
            }
            Kind::Pair { private: Some(Private::Ecdsa(pair)), .. } => {
                pair.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Kind::Pair { private: Some(Private::Ed25519(pair)), .. } => {
                Some(pair.sign(message).as_ref().to_vec())
            }
            Kind::Pair { private: None, .. } => None,
        }
    }

    /// Whether a signature is that of `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Shared(key) => hmac::verify(key, message, signature).is_ok(),
            Kind::Pair { public, .. } => public.verify_sig(message, signature).is_ok(),
        }
    }
}

/// A private key, and the public one that belongs to it.
fn private_key(method: Method, pem: &[u8]) -> Result<(Private, ParsedPublicKey), String> {
    let der = decode_pem(pem).ok_or(NOT_PEM)?;
    let refused = match method.0.family {
        Family::Ecdsa => "key is not a valid ECDSA private key",
        Family::Ed25519 => "key is not a valid Ed25519 private key",
        _ => "key is not a valid RSA private key",
    };
    let parsed = match method.0.family {
        Family::Ecdsa => {
            let pair = EcdsaKeyPair::from_private_key_der(method.ecdsa(), &der).ok();
            pair.map(|pair| (pair.public_key().as_ref().to_vec(), Private::Ecdsa(pair)))
        }
        Family::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok();
            pair.map(|pair| (pair.public_key().as_ref().to_vec(), Private::Ed25519(pair)))
        }
        _ => {
            let pair = RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).ok();
            let encoding = method.rsa_encoding();
            pair.map(|pair| (pair.public_key().as_ref().to_vec(), Private::Rsa(pair, encoding)))
        }
    };
    let (public, private) = parsed.ok_or(refused)?;
    let public = ParsedPublicKey::new(method.verification(), public);
    Ok((private, public.map_err(|_| refused)?))
}

fn public_key(method: Method, pem: &[u8]) -> Result<ParsedPublicKey, String> {
    let der = decode_pem(pem).ok_or(NOT_PEM)?;
    let refused = match method.0.family {
        Family::Ecdsa => "key is not a valid ECDSA public key",
        Family::Ed25519 => "key is not a valid Ed25519 public key",
        _ => "key is not a valid RSA public key",
    };
    // That of a certificate; else the key itself, in one of two forms.
    let info = of_certificate(&der).unwrap_or(&der);
    let parsed = ParsedPublicKey::new(method.verification(), info).or_else(|e| {
        // RSA's own form is within the general one.
        let inner = bits_of_info(info).ok_or(e)?;
        ParsedPublicKey::new(method.verification(), inner)
    });
    let parsed = parsed.map_err(|_| refused)?;
    let inner = bits_of_info(info).unwrap_or(info);
    // Both files give the key in the same form, so that they can be compared.
    ParsedPublicKey::new(method.verification(), inner).or(Ok(parsed))
}

/// The content of the first block of PEM.
fn decode_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    // Headers, if any, stand before an empty line.
    let lines = || body.lines().map(str::trim);
    let skip = lines()
        .position(|line| line.contains(':'))
        .map_or(0, |_| lines().skip(1).position(str::is_empty).map_or(0, |at| at + 2));
    let digits: String = lines().skip(skip).collect();
    STANDARD.decode(digits).ok().filter(|der| !der.is_empty())
}

/// The tag, the content and what is behind the first value of DER.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let bytes = rest.get(..usize::from(long & 0x7f)).filter(|bytes| bytes.len() <= 4)?;
            let len = bytes.iter().fold(0usize, |len, byte| len << 8 | usize::from(*byte));
            (len, &rest[bytes.len()..])
        }
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// The SubjectPublicKeyInfo of a certificate (RFC 5280, 4.1).
fn of_certificate(der: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, certificate, _) = value(der)? else { return None };
    let (SEQUENCE, mut rest, _) = value(certificate)? else { return None };
    // The version, if it is there; then number, algorithm, issuer, validity and subject.
    let explicit = usize::from(*rest.first()? == 0xa0);
    for _ in 0..explicit + 5 {
        rest = value(rest)?.2;
    }
    let (tag, _, behind) = value(rest)?;
    (tag == SEQUENCE).then(|| &rest[..rest.len() - behind.len()])
}

/// The key within a SubjectPublicKeyInfo.
fn bits_of_info(der: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, info, _) = value(der)? else { return None };
    let (SEQUENCE, _, rest) = value(info)? else { return None };
    let (BIT_STRING, bits, _) = value(rest)? else { return None };
    bits.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}
