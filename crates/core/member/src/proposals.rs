//! Proposals of this member that are on their way through the log.
//!
//! Invariants: a token is answered once; a proposal that was handed to raft and times out may
//! still be applied (semantics J9), so nobody retries it (invariant 15).

use std::collections::{HashMap, VecDeque};
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

/// Who waits for which proposal, and since when. The map is never iterated.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    tokens: HashMap<RequestId, ReplyToken, BuildHasherDefault<IdHasher>>,
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

/// The request id in an encoded `InternalRaftRequest`: that of its header (field 100), else the
/// deprecated one (field 1). Skips over everything else; `None` if the bytes are not protobuf.
//= etcd 3.7.1: server/etcdserver/apply.go (raftReq.Header.ID, raftReq.ID)
#[must_use]
pub fn request_id(data: &[u8]) -> Option<RequestId> {
    let (mut old, mut id) = (0, None);
    let mut rest = data;
    while !rest.is_empty() {
        let (field, wire, after) = key(rest)?;
        rest = after;
        match (field, wire) {
            (1, 0) => (old, rest) = varint(rest)?,
            (100, 2) => {
                let (len, after) = varint(rest)?;
                let (header, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
                id = id.or(header_id(header)?);
                rest = after;
            }
            _ => rest = skip(wire, rest)?,
        }
    }
    Some(RequestId(id.unwrap_or(old)))
}

fn header_id(mut header: &[u8]) -> Option<Option<u64>> {
    let mut id = 0;
    while !header.is_empty() {
        let (field, wire, after) = key(header)?;
        header = after;
        if (field, wire) == (1, 0) {
            (id, header) = varint(header)?;
        } else {
            header = skip(wire, header)?;
        }
    }
    Some(Some(id))
}

fn key(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (key, rest) = varint(bytes)?;
    Some((key >> 3, key & 7, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

fn skip(wire: u64, bytes: &[u8]) -> Option<&[u8]> {
    match wire {
        0 => varint(bytes).map(|(_, rest)| rest),
        1 => bytes.get(8..),
        2 => {
            let (len, rest) = varint(bytes)?;
            rest.get(usize::try_from(len).ok()?..)
        }
        5 => bytes.get(4..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
    use env::SplitMix;
    use prost::Message;
    use std::time::Duration;

    #[test]
    fn the_id_is_found_without_decoding_the_body() {
        let mut request = InternalRaftRequest {
            put: Some(PutRequest { value: vec![9; 300].into(), ..Default::default() }),
            header: Some(RequestHeader { id: 1 << 60 | 77, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(request_id(&request.encode_to_vec()), Some(RequestId(1 << 60 | 77)));
        request.header = None;
        request.id = 5;
        assert_eq!(request_id(&request.encode_to_vec()), Some(RequestId(5)));
        assert_eq!(request_id(&[]), Some(RequestId(0)));
    }

    #[test]
    fn any_bytes_are_looked_at_without_panic() {
        use env::Entropy;
        let mut entropy = SplitMix::new(1);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..entropy.below(24)).map(|_| entropy.next_u64() as u8).collect();
            let _ = request_id(&bytes);
        }
    }

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
