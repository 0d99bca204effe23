//! Tokens of every method, with keys in every form.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::engine::general_purpose::STANDARD;

use super::*;

fn pem(kind: &str, der: &[u8]) -> Vec<u8> {
    let digits = STANDARD.encode(der);
    let lines: Vec<_> = digits.as_bytes().chunks(64).map(|l| String::from_utf8_lossy(l)).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n")).into_bytes()
}

/// A private key and its public one, in PEM.
fn pair(name: &str) -> (Vec<u8>, Vec<u8>) {
    let (private, public) = match name {
        "EdDSA" => {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (pkcs8.as_ref().to_vec(), public.as_ref().to_vec())
        }
        "ES256" | "ES384" | "ES512" => {
            let algorithm = match name {
                "ES256" => &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
                "ES384" => &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
                _ => &sig::ECDSA_P521_SHA512_FIXED_SIGNING,
            };
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public.as_ref().to_vec())
        }
        _ => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (private.as_ref().to_vec(), public.as_ref().to_vec())
        }
    };
    (pem("PRIVATE KEY", &private), pem("PUBLIC KEY", &public))
}

fn jwt(name: &str, public: &[u8], private: &[u8]) -> Result<Jwt, String> {
    let method = Method::of(name).unwrap();
    Ok(Jwt {
        method,
        ttl: Duration::from_secs(60),
        files: Files::default(),
        keys: Mutex::new(Arc::new(Keys::of(method, public, private)?)),
        generation: AtomicU64::new(0),
        verified: Mutex::default(),
    })
}

const NOW: WallTime = WallTime(1_000_000_000_000);

#[test]
fn every_method_signs_and_verifies_and_takes_no_other_key() {
    for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
        .into_iter()
        .chain(["ES256", "ES384", "ES512", "EdDSA"])
    {
        let (private, public) = pair(name);
        let both = jwt(name, &public, &private).unwrap();
        let only_public = jwt(name, &public, b"").unwrap();
        let token = both.sign("alice", 7, NOW).unwrap();
        let expected = Verified {
            user: "alice".to_owned(),
            revision: 7,
            expires_secs: Some(1_060),
            begins_secs: None,
        };
        for verifier in [&both, &only_public, &jwt(name, b"", &private).unwrap()] {
            assert_eq!(verifier.verify(&token), Some(expected.clone()), "{name}");
        }
        assert_eq!(only_public.sign("alice", 7, NOW), Err(VERIFY_ONLY.to_owned()));
        let (other, _) = pair(name);
        assert_eq!(jwt(name, b"", &other).unwrap().verify(&token), None, "{name}");
        assert_eq!(
            jwt(name, &public, &other).err().as_deref(),
            Some("auth: public and private keys don't match")
        );
    }
}

#[test]
fn a_shared_secret_signs() {
    for name in ["HS256", "HS384", "HS512"] {
        let secret = jwt(name, b"", b"secret").unwrap();
        let token = secret.sign("bob", 3, NOW).unwrap();
        assert_eq!(secret.verify(&token).unwrap().user, "bob");
        assert_eq!(jwt(name, b"", b"other").unwrap().verify(&token), None);
    }
    assert_eq!(jwt("HS256", b"public", b"").err().as_deref(), Some("auth: missing key data"));
}

#[test]
fn a_token_of_another_algorithm_or_form_is_none() {
    let secret = jwt("HS256", b"", b"secret").unwrap();
    let token = jwt("HS512", b"", b"secret").unwrap().sign("bob", 3, NOW).unwrap();
    assert_eq!(secret.verify(&token), None);
    // Header {"alg":"none"}, and no signature.
    assert_eq!(secret.verify("eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QifQ."), None);
    for wrong in ["", ".", "..", "a.b.c", "a.b.c.d"] {
        assert_eq!(secret.verify(wrong), None, "{wrong}");
    }
    let good = secret.sign("bob", 3, NOW).unwrap();
    assert_eq!(secret.verify(&format!("{good}A")), None);
}

#[test]
fn a_token_of_gos_library_is_read() {
    // golang-jwt 5.3, HS256 with the key "secret": exp 1060, revision 12, username "root".
    let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1060,"revision":12,"username":"root"}"#);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let own = jwt("HS256", b"", b"secret").unwrap().sign("root", 12, NOW).unwrap();
    assert!(own.starts_with(&format!("{header}.{claims}.")), "the same names in the same order");
}

#[test]
fn keys_of_another_kind_are_refused() {
    let (rsa, _) = pair("RS256");
    let (ecdsa, _) = pair("ES256");
    let why = |name, key: &[u8]| jwt(name, b"", key).err().unwrap();
    assert_eq!(why("RS256", &ecdsa), "key is not a valid RSA private key");
    assert_eq!(why("ES256", &rsa), "key is not a valid ECDSA private key");
    assert_eq!(why("EdDSA", &rsa), "key is not a valid Ed25519 private key");
    assert_eq!(
        why("RS256", b"nonsense"),
        "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"
    );
    assert_eq!(jwt("RS256", b"", b"").err().unwrap(), "auth: missing key data");
    assert!(Method::of("none").is_none() && Method::of("").is_none());
}
