//! The tokens of those who logged in.
//!
//! Every member assigns the same tokens when it applies a login, but each keeps them in memory and
//! by its own clock: they are no replicated state, and a restart forgets them (semantics H25). One
//! is valid for some time after its last use. Applier's thread assigns and ends them, the runtimes
//! look them up.
//!
//! A caller may keep what [`Tokens::find`] gave, and ask that ([`Token::touch`]) without the lock.
//!
//! //= etcd 3.7.3: server/auth/simple_token.go

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use env::Instant;
use types::limits::MAX_TOKENS;

/// Tokens beside which those that ran out are looked for.
const FEW: usize = 1_024;

/// Milliseconds between two uses of a token that are told apart; etcd ends it up to 1 s late.
const TOUCH_MS: u64 = 100;

/// A token.
pub struct Token {
    user: Arc<str>,
    /// When it was used last, in milliseconds of this member's clock.
    used_ms: AtomicU64,
    has_ended: AtomicBool,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Token {
    /// The user that it stands for, if it is valid; its time begins anew.
    #[must_use]
    pub fn touch(&self, tokens: &Tokens, now: Instant) -> Option<&Arc<str>> {
        let now_ms = millis(now);
        if self.has_ended.load(Ordering::Acquire) || self.is_over(tokens.ttl_ms, now_ms) {
            return None;
        }
        // Not at each use: threads would take the memory from each other.
        if now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed)) >= TOUCH_MS {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
        Some(&self.user)
    }

    fn is_over(&self, ttl_ms: u64, now_ms: u64) -> bool {
        self.used_ms.load(Ordering::Relaxed).saturating_add(ttl_ms + TOUCH_MS) < now_ms
    }
}

fn millis(at: Instant) -> u64 {
    u64::try_from(at.since(Instant(0)).as_millis()).unwrap_or(u64::MAX)
}

/// The tokens by their text, and when the next search for those that ran out is due.
#[derive(Debug, Default)]
struct Table {
    tokens: BTreeMap<Box<str>, Arc<Token>>,
    search_at: usize,
}

/// The tokens that are valid on this member. The default keeps none.
#[derive(Default)]
pub struct Tokens {
    /// For how long a token is valid after its last use, in milliseconds; 0 if none are kept.
    ttl_ms: u64,
    table: Mutex<Table>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("ttl_ms", &self.ttl_ms).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens that are valid for this long after their last use.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { ttl_ms: ttl_ms.min(u64::MAX - TOUCH_MS), ..Self::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What is written within the lock is whole after each step.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user logged in.
    pub(crate) fn assign(&self, now: Instant, user: &str, token: &str) {
        if self.ttl_ms == 0 {
            return;
        }
        let now_ms = millis(now);
        let mut table = self.table();
        if table.tokens.len() >= table.search_at.max(FEW) {
            table.tokens.retain(|_, token| !token.is_over(self.ttl_ms, now_ms));
            table.search_at = table.tokens.len().saturating_mul(2);
        }
        if table.tokens.len() >= MAX_TOKENS {
            // Whoever had it logs in again.
            let gone = table.tokens.pop_first();
            gone.into_iter().for_each(|(_, token)| token.has_ended.store(true, Ordering::Release));
        }
        let assigned = Token {
            user: user.into(),
            used_ms: AtomicU64::new(now_ms),
            has_ended: AtomicBool::new(false),
        };
        table.tokens.insert(token.into(), Arc::new(assigned));
    }

    /// The tokens of a user end.
    pub(crate) fn end_of_user(&self, user: &str) {
        self.table().tokens.retain(|_, token| {
            let ends = &*token.user == user;
            token.has_ended.fetch_or(ends, Ordering::Release);
            !ends
        });
    }

    /// All tokens end.
    pub(crate) fn end_all(&self) {
        for token in std::mem::take(&mut *self.table()).tokens.into_values() {
            token.has_ended.store(true, Ordering::Release);
        }
    }

    /// The token with this text. It may have run out.
    #[must_use]
    pub fn find(&self, token: &str) -> Option<Arc<Token>> {
        self.table().tokens.get(token).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant(0) + Duration::from_secs(secs)
    }

    fn user(tokens: &Tokens, token: &Arc<Token>, secs: u64) -> Option<String> {
        token.touch(tokens, at(secs)).map(|user| user.to_string())
    }

    #[test]
    fn a_token_is_valid_for_its_time_after_each_use() {
        let tokens = Tokens::new(Duration::from_secs(10));
        tokens.assign(at(0), "alice", "t.1");
        let token = tokens.find("t.1").unwrap();
        assert_eq!(user(&tokens, &token, 10).as_deref(), Some("alice"));
        assert_eq!(user(&tokens, &token, 20).as_deref(), Some("alice"));
        assert_eq!(user(&tokens, &token, 31), None);
        assert_eq!(user(&tokens, &token, 31), None, "asking for it does not revive it");
        assert!(tokens.find("t.2").is_none());
    }

    #[test]
    fn tokens_end_with_their_user_and_all_at_once() {
        let tokens = Tokens::new(Duration::from_secs(10));
        for (name, token) in [("alice", "a.1"), ("bob", "b.2"), ("alice", "c.3")] {
            tokens.assign(at(0), name, token);
        }
        let (alice, bob) = (tokens.find("a.1").unwrap(), tokens.find("b.2").unwrap());
        tokens.end_of_user("alice");
        assert!(tokens.find("a.1").is_none() && tokens.find("c.3").is_none());
        assert_eq!(user(&tokens, &alice, 1), None, "also for who kept it");
        assert_eq!(user(&tokens, &bob, 1).as_deref(), Some("bob"));
        tokens.end_all();
        assert_eq!(user(&tokens, &bob, 1), None);
    }

    #[test]
    fn what_ran_out_is_let_go_of() {
        let tokens = Tokens::new(Duration::from_secs(10));
        for n in 0..10 * FEW {
            let now = at(n as u64);
            tokens.assign(now, "alice", &format!("t.{n}"));
        }
        assert!(tokens.table().tokens.len() <= FEW + 12);
    }

    #[test]
    fn none_are_kept_by_default() {
        let tokens = Tokens::default();
        tokens.assign(at(0), "alice", "t.1");
        assert!(tokens.find("t.1").is_none());
    }
}
