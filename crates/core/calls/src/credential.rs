//! The token of a call, and whom it stands for.
//!
//! A transport keeps one [`Credential`] for as long as a client sends the same token on a
//! connection. Whom it stands for is remembered with it, and asked again only whether that still
//! holds: so a call with a token costs no look-up in anything that threads share.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use api::error::ApiError;
use env::{WallTime, sometimes};
use machine::Secret;
use member::{Token, Tokens};
use types::Index;

use crate::caller::{Caller, Known};
use crate::member::Member;
use crate::probes;

/// A token as it came with a call, and what was found of it.
pub struct Credential {
    token: Box<str>,
    found: RefCell<Option<Found>>,
}

/// Whom a token was found to stand for.
enum Found {
    Simple { token: Arc<Token>, user: Rc<str> },
    Signed { user: Rc<str>, verified: Verified, keys: u64 },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Credential {
    /// The token of a metadata value, which may have `Bearer ` before it.
    //= etcd 3.7.3: server/auth/store.go#AuthInfoFromCtx
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let value = value.strip_prefix(b"Bearer ").unwrap_or(value);
        // What is no text is no token.
        let token = String::from_utf8_lossy(value).into();
        Self { token, found: RefCell::default() }
    }

    /// The token, for another member.
    pub(crate) fn text(&self) -> Secret {
        Secret(self.token.as_ref().to_owned())
    }

    /// The entry of the log before that which made a token, by its own account; `None` if it is no simple token.
    //= etcd 3.7.3: server/auth/simple_token.go#isValidSimpleToken
    fn index(&self) -> Option<Index> {
        let (_, index) = self.token.split_once('.')?;
        let is_number = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
        index.parse().ok().filter(|_| is_number).map(Index)
    }
}

/// What a signed token says, once its signature was found to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub user: String,
    /// The auth revision when it was made.
    pub revision: u64,
    /// From when on it does not hold any more, if ever, in seconds since 1970.
    pub expires_secs: Option<u64>,
    /// Before when it does not hold yet, if ever, in seconds since 1970.
    pub begins_secs: Option<u64>,
}

impl Verified {
    /// Whether it holds at a time.
    #[must_use]
    pub fn holds(&self, now: WallTime) -> bool {
        let now = now.unix_secs();
        self.expires_secs.is_none_or(|at| now < at) && self.begins_secs.is_none_or(|at| now >= at)
    }
}

/// Makes and checks tokens that carry a signature.
pub trait Signer: Send + Sync {
    /// A token.
    ///
    /// # Errors
    /// Why there is none, in etcd's words.
    fn sign(&self, user: &str, revision: u64, now: WallTime) -> Result<String, String>;

    /// What a token says, if its signature is good.
    fn verify(&self, token: &str) -> Option<Verified>;

    /// Rises when the keys change: what was verified before is to be verified again.
    fn keys(&self) -> u64;
}

/// The kind of tokens that those get who log in (`--auth-token`).
pub enum Provider {
    /// Simple tokens: random letters.
    Simple(Arc<Tokens>),
    /// Tokens with a signature.
    Signed(Arc<dyn Signer>),
    /// None: nobody can log in.
    Nobody,
}

impl Member {
    /// Whom a token stands for.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub(crate) fn find(&self, credential: &Credential, revision: u64) -> Result<Known, ApiError> {
        let found = match &self.shared.logins.provider {
            Provider::Simple(tokens) => self.find_simple(credential, tokens, revision),
            Provider::Signed(signer) => self.find_signed(credential, &**signer),
            Provider::Nobody => None,
        };
        found.ok_or(ApiError::InvalidAuthToken)
    }

    fn find_simple(
        &self,
        credential: &Credential,
        tokens: &Tokens,
        revision: u64,
    ) -> Option<Known> {
        let now = self.now();
        if let Some(Found::Simple { token, user }) = &*credential.found.borrow()
            && token.touch(tokens, now).is_some()
        {
            return Some(Known { user: Rc::clone(user), revision });
        }
        let token = tokens.find(&credential.token)?;
        let user: Rc<str> = token.touch(tokens, now)?[..].into();
        let known = Known { user: Rc::clone(&user), revision };
        credential.found.replace(Some(Found::Simple { token, user }));
        Some(known)
    }

    fn find_signed(&self, credential: &Credential, signer: &dyn Signer) -> Option<Known> {
        let (now, current) = (self.host.wall(), signer.keys());
        if let Some(Found::Signed { user, verified, keys }) = &*credential.found.borrow()
            && *keys == current
        {
            let revision = verified.revision;
            return verified.holds(now).then(|| Known { user: Rc::clone(user), revision });
        }
        let verified = signer.verify(&credential.token).filter(|verified| verified.holds(now))?;
        let user: Rc<str> = verified.user.as_str().into();
        let known = Known { user: Rc::clone(&user), revision: verified.revision };
        credential.found.replace(Some(Found::Signed { user, verified, keys: current }));
        Some(known)
    }

    fn is_known(&self, credential: &Credential) -> bool {
        match &self.shared.logins.provider {
            Provider::Simple(tokens) => tokens.find(&credential.token).is_some(),
            Provider::Signed(_) | Provider::Nobody => true,
        }
    }

    /// Whether the login that made the caller's token is not applied here yet, as far as the token
    /// tells.
    pub(crate) fn is_behind(&self, caller: &Caller) -> bool {
        let Some(credential) = caller.credential() else { return false };
        if credential.found.borrow().is_some() {
            return false;
        }
        if !matches!(self.shared.logins.provider, Provider::Simple(_)) {
            return false;
        }
        let view = self.view();
        view.auth().is_enabled()
            && credential.index().is_some_and(|index| index >= view.applied_index())
            && !self.is_known(credential)
    }

    /// Waits until that is applied, or for as long as a request may take: a token may name any
    /// entry.
    pub(crate) async fn catch_up(&self, caller: &Caller) {
        let until = self.now() + self.shared.limits.request_timeout;
        sometimes!(self.shared.hooks, probes::LOGIN_AWAITED, self.is_behind(caller));
        while self.is_behind(caller) && self.now() < until {
            self.sleep(LOOK_AGAIN).await;
        }
    }
}

/// Time between two looks whether a login was applied.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_name_its_entry() {
        let index = |token: &str| Credential::of(token.as_bytes()).index();
        assert_eq!(index("abc.17"), Some(Index(17)));
        assert_eq!(index("Bearer abc.17"), Some(Index(17)));
        assert_eq!(index("abc.18446744073709551615"), Some(Index(u64::MAX)));
        for none in ["", "abc", "abc.", "abc.1.2", "abc.+1", "abc.-1", "abc.18446744073709551616"] {
            assert_eq!(index(none), None, "{none}");
        }
    }

    #[test]
    fn a_signed_token_holds_from_its_beginning_to_its_end() {
        let token = Verified {
            user: "u".into(),
            revision: 1,
            expires_secs: Some(20),
            begins_secs: Some(10),
        };
        let holds = |secs: u64| token.holds(WallTime(secs * 1_000_000_000));
        assert!(!holds(9) && holds(10) && holds(19) && !holds(20));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", Credential::of(b"secret.1")).contains("secret"));
    }
}
