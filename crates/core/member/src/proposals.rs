//! This member's proposals in flight.
//!
//! Invariants: a token is answered once; a proposal that was handed to raft and times out may
//! still be applied (semantics J9), so nobody retries it (invariant 15).

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use env::Instant;
use types::{ReplyToken, RequestId};

/// Request ids are counters: spreading them is enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

#[expect(clippy::disallowed_types, reason = "ids are counted here, by no stranger; never iterated")]
type ById<T> = std::collections::HashMap<RequestId, T, BuildHasherDefault<IdHasher>>;

/// Who waits for which proposal, and since when.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    tokens: ById<ReplyToken>,
    since: VecDeque<(Instant, RequestId)>,
}

impl InFlight {
    pub(crate) fn insert(&mut self, now: Instant, id: RequestId, token: ReplyToken) {
        self.tokens.insert(id, token);
        self.since.push_back((now, id));
    }

    /// Takes the token of a proposal that was committed or refused.
    pub(crate) fn take(&mut self, id: RequestId) -> Option<ReplyToken> {
        self.tokens.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Takes the tokens of proposals made at or before `until`, with when they were made.
    pub(crate) fn take_older(&mut self, until: Instant) -> Vec<(Instant, ReplyToken)> {
        let mut late = Vec::new();
        while let Some((at, id)) = self.since.front().copied() {
            // Those answered meanwhile are dropped here too, so the queue stays short.
            if at > until && self.tokens.contains_key(&id) {
                break;
            }
            self.since.pop_front();
            late.extend(self.tokens.remove(&id).map(|token| (at, token)));
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_is_old_times_out() {
        let at = |secs| Instant(0) + Duration::from_secs(secs);
        let mut waiting = InFlight::default();
        for n in 0..4 {
            waiting.insert(at(n), RequestId(n), ReplyToken(n));
        }
        waiting.take(RequestId(0));
        assert_eq!(waiting.take_older(at(1)), [(at(1), ReplyToken(1))]);
        assert_eq!(waiting.take(RequestId(3)), Some(ReplyToken(3)));
    }
}
