//! Passwords: hashed and checked on the pool, a few at a time, never on a runtime.
//!
//! bcrypt is dear on purpose. So the password that was checked last against a stored hash is
//! remembered for a while, as a digest under a key that only this process knows: who logs in again
//! and again pays once. Whoever is not known, or gives a wrong password, always pays in full, and
//! so learns nothing from the time it takes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::error::{ApiError, Code, Status};
use bytes::Bytes;
use env::Instant;
use futures_channel::oneshot;
use ring::hmac;
use zeroize::Zeroizing;

use crate::credential::Provider;
use crate::jobs::JobDropped;
use crate::member::Member;

/// Calls that wait for their turn; more are refused.
const MAX_WAITING: usize = 1_024;
/// Passwords that are remembered.
const MAX_REMEMBERED: usize = 1_024;
/// For how long.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// Bytes of a password that bcrypt looks at.
const MAX_PASSWORD_BYTES: usize = 72;
/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// Letters of a simple token.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const TOKEN_LETTERS: usize = 16;

/// How users log in, and who does just now.
pub struct Logins {
    /// `--auth-token`.
    pub provider: Provider,
    /// `--client-cert-auth`: whether who sends no token is known by its certificate.
    pub client_cert_auth: bool,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// Hashes that are computed at once: some threads of the pool must be left for the rest.
    pub hashes_at_once: usize,
    key: hmac::Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: VecDeque<oneshot::Sender<()>>,
    /// By user: the hash that was checked, the digest of the password that fits, and until when.
    remembered: BTreeMap<String, (Bytes, hmac::Tag, Instant)>,
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("bcrypt_cost", &self.bcrypt_cost).finish_non_exhaustive()
    }
}

impl Logins {
    /// Nobody has logged in. `secret` keys the digests of passwords.
    #[must_use]
    pub fn new(
        provider: Provider,
        client_cert_auth: bool,
        bcrypt_cost: u32,
        secret: &[u8],
    ) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let state = Mutex::default();
        Self { provider, client_cert_auth, bcrypt_cost, hashes_at_once: 1, key, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is written within the lock is whole after each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_remembered(&self, user: &str, hash: &Bytes, password: &str, now: Instant) -> bool {
        let tag = match self.state().remembered.get(user) {
            Some((checked, tag, until)) if checked == hash && now < *until => *tag,
            _ => return false,
        };
        hmac::verify(&self.key, password.as_bytes(), tag.as_ref()).is_ok()
    }

    fn remember(&self, user: &str, hash: Bytes, password: &str, now: Instant) {
        let tag = hmac::sign(&self.key, password.as_bytes());
        let remembered = &mut self.state().remembered;
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, (.., until)| now < *until);
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(user.to_owned(), (hash, tag, now + REMEMBERED_FOR));
    }

    /// Gives the turn to the next that waits.
    fn give_back(&self) {
        let mut state = self.state();
        while let Some(next) = state.waiting.pop_front() {
            // Who has gone needs no turn.
            if next.send(()).is_ok() {
                return;
            }
        }
        state.running -= 1;
    }
}

/// The turn to compute a hash; dropping it gives it to the next.
struct Turn<'a>(&'a Logins);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Member {
    /// Waits for the turn to compute a hash.
    async fn turn(&self) -> Result<Turn<'_>, ApiError> {
        let logins = &self.shared.logins;
        let mut receiver = {
            let mut state = logins.state();
            if state.running < logins.hashes_at_once {
                state.running += 1;
                return Ok(Turn(logins));
            }
            if state.waiting.len() >= MAX_WAITING {
                state.waiting.retain(|waiting| !waiting.is_canceled());
            }
            if state.waiting.len() >= MAX_WAITING {
                return Err(ApiError::TooManyRequests);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            Passed { logins, receiver }
        };
        (&mut receiver.receiver).await.map_err(|_| ApiError::TooManyRequests)?;
        Ok(Turn(logins))
    }

    /// The bcrypt hash of a password, as it is stored.
    ///
    /// # Errors
    /// Go's text if it is too long; too many wait.
    pub(crate) async fn hash(&self, password: Zeroizing<String>) -> Result<String, Status> {
        if password.len() > MAX_PASSWORD_BYTES {
            let text = "bcrypt: password length exceeds 72 bytes";
            return Err(Status::new(Code::Unknown, text));
        }
        let mut salt = [0; SALT_BYTES];
        self.host.secret(&mut salt);
        let cost = self.shared.logins.bcrypt_cost;
        let turn = self.turn().await?;
        let hashing = self.run(move |_| bcrypt::hash_with_salt(&*password, cost, salt));
        let hash = hashing.await?;
        drop(turn);
        match hash {
            Ok(parts) => Ok(parts.format_for_version(bcrypt::Version::TwoA)),
            Err(e) => Err(Status::new(Code::Unknown, format!("bcrypt: {e}"))),
        }
    }

    /// Whether a password fits a stored hash (`None`: there is no such user).
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) async fn verify(
        &self,
        user: &str,
        hash: Option<Bytes>,
        password: &Zeroizing<String>,
    ) -> Result<bool, Status> {
        let logins = &self.shared.logins;
        if let Some(hash) = &hash
            && logins.is_remembered(user, hash, password, self.now())
        {
            return Ok(true);
        }
        let stored = hash.as_deref().and_then(|hash| std::str::from_utf8(hash).ok());
        // Empty or no hash at all: the time is spent all the same.
        let stored = stored.filter(|hash| is_hash(hash)).map(str::to_owned);
        let (cost, given) = (logins.bcrypt_cost, password.clone());
        let turn = self.turn().await?;
        let checking = self.run(move |_| match stored {
            Some(stored) => bcrypt::verify(&*given, &stored).unwrap_or(false),
            None => {
                let _ = bcrypt::hash_with_salt(&*given, cost, [0; SALT_BYTES]);
                false
            }
        });
        let fits = checking.await.map_err(|JobDropped| ApiError::TooManyRequests)?;
        drop(turn);
        if fits && let Some(hash) = hash {
            logins.remember(user, hash, password, self.now());
        }
        Ok(fits)
    }

    /// The random letters of a simple token.
    pub(crate) fn token_letters(&self) -> String {
        let mut letters = String::with_capacity(TOKEN_LETTERS);
        while letters.len() < TOKEN_LETTERS {
            let mut bytes = [0; TOKEN_LETTERS];
            self.host.secret(&mut bytes);
            // Without those that would make some letters likelier than others.
            let even = bytes.iter().filter(|byte| usize::from(**byte) < 4 * LETTERS.len());
            let drawn = even.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
            letters.extend(drawn.take(TOKEN_LETTERS - letters.len()));
        }
        letters
    }
}

/// Whether bcrypt can read it as a hash.
fn is_hash(text: &str) -> bool {
    text.parse::<bcrypt::HashParts>().is_ok()
}

/// Who waits for its turn. If it goes once the turn was passed to it, the next one gets it.
struct Passed<'a> {
    logins: &'a Logins,
    receiver: oneshot::Receiver<()>,
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        if let Ok(Some(())) = self.receiver.try_recv() {
            self.logins.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins() -> Logins {
        Logins::new(Provider::Nobody, false, 4, b"key")
    }

    #[test]
    fn a_password_is_remembered_for_its_hash_and_a_while() {
        let (logins, hash) = (logins(), Bytes::from_static(b"$2a$04$abc"));
        let now = Instant(0);
        logins.remember("u", hash.clone(), "right", now);
        let knows =
            |user, hash: &Bytes, password, at| logins.is_remembered(user, hash, password, at);
        assert!(knows("u", &hash, "right", now));
        assert!(!knows("u", &hash, "wrong", now));
        assert!(!knows("v", &hash, "right", now));
        assert!(!knows("u", &Bytes::from_static(b"$2a$04$new"), "right", now));
        assert!(!knows("u", &hash, "right", now + REMEMBERED_FOR));
    }

    #[test]
    fn few_are_remembered() {
        let logins = logins();
        for n in 0..3 * MAX_REMEMBERED {
            logins.remember(&n.to_string(), Bytes::new(), "p", Instant(0));
        }
        assert!(logins.state().remembered.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn gos_hashes_are_read() {
        // As golang.org/x/crypto/bcrypt made it of "p" at cost 4.
        assert!(is_hash("$2a$04$5NWEbuPjWgrSLiSN6UCvMOpk7oc8LYd3Rv9SEZvsVbYGr8uFd.9p."));
        assert!(!is_hash("") && !is_hash("plain"));
    }
}
