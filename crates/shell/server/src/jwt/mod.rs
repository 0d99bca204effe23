//! Tokens with a signature: JSON Web Tokens (RFC 7519), `--auth-token=jwt,…`.
//!
//! Claims are etcd's: `username`, `revision` of users and roles, `exp`. A token is good for any
//! member that has the public key, also for one of etcd. When a key's file changes, the new one is
//! taken; one that cannot be used is told, and the old one kept.
//!
//! //= etcd 3.7.3: server/auth/jwt.go, options.go

mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use calls::{Signer, Verified};
use env::WallTime;
use observe::{Log, log_line};
use serde_json::Value;

use crate::config::value::FlagValue;
use keys::{Keys, Method};

const INVALID: &str = "auth: invalid auth options";
const VERIFY_ONLY: &str = "auth: token signing attempted with verify-only key";
const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// Options that are known.
const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];
/// Time between two looks at the files of keys.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Tokens whose signature is known to be good; a client that compresses no headers sends its token
/// anew with each call.
const MAX_VERIFIED: usize = 1_024;

/// The files of the keys.
#[derive(Clone, Debug, Default)]
struct Files {
    public: Option<PathBuf>,
    private: Option<PathBuf>,
}

impl Files {
    fn read(&self) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let read = |file: &Option<PathBuf>| file.as_ref().map_or(Ok(Vec::new()), std::fs::read);
        Ok((read(&self.public)?, read(&self.private)?))
    }

    /// What changes when they do.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.public, &self.private].map(|file| {
            let metadata = std::fs::metadata(file.as_ref()?).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// Signs and verifies tokens.
pub(crate) struct Jwt {
    method: Method,
    ttl: Duration,
    files: Files,
    keys: Mutex<Arc<Keys>>,
    generation: AtomicU64,
    verified: Mutex<BTreeMap<Box<str>, Verified>>,
}

impl Jwt {
    /// As the options of `--auth-token` say.
    ///
    /// # Errors
    /// etcd's text.
    pub(crate) fn new(log: &Arc<Log>, options: &BTreeMap<&str, &str>) -> Result<Arc<Self>, String> {
        let stated = |name: &str| options.get(name).copied().filter(|text| !text.is_empty());
        let invalid = |why: String| {
            log_line!(log, Error, "problem loading JWT options", "error" = why);
            INVALID.to_owned()
        };
        let ttl = match stated("ttl") {
            Some(text) => Duration::from_text(text).map_err(invalid)?,
            None => DEFAULT_TTL,
        };
        let files = Files {
            public: stated("pub-key").map(PathBuf::from),
            private: stated("priv-key").map(PathBuf::from),
        };
        let stamp = files.stamp();
        let contents = files.read().map_err(|e| invalid(osenv::error_text(&e)))?;
        let method = Method::of(stated("sign-method").unwrap_or_default());
        let method = method.ok_or("auth: invalid auth signature method");
        let method = method.map_err(|why| invalid(why.to_owned()))?;
        let unknown: Vec<_> =
            options.keys().filter(|name| !KNOWN.contains(name)).copied().collect();
        if !unknown.is_empty() {
            log_line!(log, Warn, "unknown JWT options", "keys" = unknown.join(","));
        }
        let keys = Keys::of(method, &contents.0, &contents.1)?;
        let jwt = Arc::new(Self {
            method,
            ttl,
            files,
            keys: Mutex::new(Arc::new(keys)),
            generation: AtomicU64::new(0),
            verified: Mutex::default(),
        });
        let (watched, log) = (Arc::downgrade(&jwt), Arc::clone(log));
        let watch = move || watch(&watched, &log, stamp);
        let spawned = std::thread::Builder::new().name("jwt-keys".to_owned()).spawn(watch);
        spawned.map_err(|e| format!("auth: {}", osenv::error_text(&e)))?;
        Ok(jwt)
    }

    fn current(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the keys anew from their files.
    fn reload(&self) -> Result<(), String> {
        let (public, private) = self.files.read().map_err(|e| osenv::error_text(&e))?;
        let keys = Keys::of(self.method, &public, &private)?;
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.generation.fetch_add(1, Ordering::Release);
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// What a token says, if its signature is good.
    fn read(&self, token: &str) -> Option<Verified> {
        let mut parts = token.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header.get("alg")?.as_str()? != self.method.name() {
            return None;
        }
        let signed = &token[..token.len() - signature.len() - 1];
        if !self.current().verify(signed.as_bytes(), &decode(signature)?) {
            return None;
        }
        let claims: Value = serde_json::from_slice(&decode(claims)?).ok()?;
        let time = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(at) => at.as_f64().filter(|at| at.is_finite()).map(|at| Some(at as u64)),
        };
        Some(Verified {
            user: claims.get("username")?.as_str()?.to_owned(),
            revision: claims.get("revision")?.as_f64()? as u64,
            expires_secs: time("exp")?,
            begins_secs: time("nbf")?,
        })
    }
}

impl Signer for Jwt {
    fn sign(&self, user: &str, revision: u64, now: WallTime) -> Result<String, String> {
        let keys = self.current();
        if !keys.can_sign() {
            return Err(VERIFY_ONLY.to_owned());
        }
        // Names in Go's order.
        let header = serde_json::json!({ "alg": self.method.name(), "typ": "JWT" });
        let expires = now.unix_secs().saturating_add(self.ttl.as_secs());
        let claims = serde_json::json!({ "exp": expires, "revision": revision, "username": user });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(header), encode(claims));
        let signature = keys.sign(token.as_bytes()).ok_or("key is invalid")?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn verify(&self, token: &str) -> Option<Verified> {
        let known = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = known().get(token) {
            return Some(verified.clone());
        }
        let generation = self.keys();
        let verified = self.read(token)?;
        let mut known = known();
        if known.len() >= MAX_VERIFIED {
            known.clear();
        }
        // Under keys that were just replaced it may be good no more.
        if generation == self.keys() {
            known.insert(token.into(), verified.clone());
        }
        Some(verified)
    }

    fn keys(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Looks whether the files change, for as long as somebody signs with them.
fn watch(jwt: &Weak<Jwt>, log: &Log, mut stamp: [Option<(SystemTime, u64)>; 2]) {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(jwt) = jwt.upgrade() else { return };
        let found = jwt.files.stamp();
        if found == stamp {
            continue;
        }
        stamp = found;
        match jwt.reload() {
            Ok(()) => log_line!(log, Info, "loaded new JWT keys"),
            Err(why) => {
                log_line!(
                    log,
                    Error,
                    "kept the old JWT keys: the new ones cannot be used",
                    "error" = why
                );
            }
        }
    }
}
