//! The reference model: every version of every key, never thrown away.
//!
//! Invariants: `log` has the changes of every revision above the start in the order of their
//! sub-revisions; a key hangs on the lease that its live version names, and on no other; what a
//! mark remembers can be gone back to.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use api::error::ApiError;
use api::etcdserverpb::{
    CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantResponse,
    LeaseRevokeResponse, PutRequest, PutResponse,
};
use api::mvccpb::{Event, KeyValue, event::EventType};
use bytes::Bytes;

use crate::answer::{Answer, header};
use crate::history::Request;
use crate::validate;

/// Longest time to live of a lease, in seconds.
const MAX_TTL_SECS: i64 = 9_000_000_000;

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Its revision.
    pub main: i64,
    /// The revision of the key's creation; 0 for a tombstone.
    pub create: i64,
    /// Changes since creation, from 1; 0 for a tombstone.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease, or 0.
    pub lease: i64,
    /// Whether the key was deleted here.
    pub tombstone: bool,
}

/// One change of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// What became of it.
    pub version: Version,
}

impl Change {
    /// The event that watches deliver for this change, without the state before it.
    #[must_use]
    pub fn event(&self) -> Event {
        let v = &self.version;
        if v.tombstone {
            let (key, mod_revision) = (self.key.clone(), v.main);
            let kv = KeyValue { key, mod_revision, ..KeyValue::default() };
            return Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None };
        }
        Event { r#type: EventType::Put as i32, kv: Some(kv(&self.key, v)), prev_kv: None }
    }
}

pub(crate) fn kv(key: &Bytes, v: &Version) -> KeyValue {
    KeyValue {
        key: key.clone(),
        create_revision: v.create,
        mod_revision: v.main,
        version: v.version,
        value: v.value.clone(),
        lease: v.lease,
    }
}

/// Keys, leases and revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) keys: BTreeMap<Bytes, Vec<Version>>,
    pub(crate) log: BTreeMap<i64, Vec<Change>>,
    pub(crate) revision: i64,
    pub(crate) compact: i64,
    pub(crate) leases: BTreeMap<i64, i64>,
    /// What grants and revokes replaced, for going back.
    pub(crate) lease_journal: Vec<(i64, Option<i64>)>,
    /// Leases never end: when they do is not part of the question, only what goes with them.
    pub(crate) endless_leases: bool,
    pub(crate) fingerprint: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            log: BTreeMap::new(),
            revision: 1,
            compact: -1,
            leases: BTreeMap::new(),
            lease_journal: Vec::new(),
            endless_leases: false,
            fingerprint: 0,
        }
    }
}

/// A state that can be gone back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    revision: i64,
    compact: i64,
    journal: usize,
    fingerprint: u64,
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl State {
    /// A store that was read as a whole at `revision`, for histories that begin in its midst.
    #[must_use]
    pub fn of_snapshot(kvs: &[KeyValue], leases: &[(i64, i64)], revision: i64) -> Self {
        let mut state = Self { revision, compact: revision, ..Self::default() };
        for kv in kvs {
            let version = Version {
                main: kv.mod_revision,
                create: kv.create_revision,
                version: kv.version,
                value: kv.value.clone(),
                lease: kv.lease,
                tombstone: false,
            };
            state.keys.insert(kv.key.clone(), vec![version]);
        }
        state.leases = leases.iter().copied().collect();
        state
    }

    /// The newest revision; 1 in an empty store.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The oldest revision that can be read; -1 before the first compaction.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.compact
    }

    /// The leases and their granted seconds.
    #[must_use]
    pub fn leases(&self) -> &BTreeMap<i64, i64> {
        &self.leases
    }

    /// The changes of a revision, in order; none if it is not above the start.
    #[must_use]
    pub fn changes(&self, revision: i64) -> &[Change] {
        self.log.get(&revision).map_or(&[], |changes| changes)
    }

    /// Whether a later change of the same revision replaced the change at a place: a compaction to
    /// exactly that revision removes it, and watches that begin there then miss it (semantics E4).
    #[must_use]
    pub fn is_replaced(&self, revision: i64, place: usize) -> bool {
        let changes = self.changes(revision);
        let key = changes.get(place).map(|change| &change.key);
        changes.iter().skip(place + 1).any(|later| Some(&later.key) == key)
    }

    /// A number that differs for states that differ, but for chance.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint ^ hash_of(&("compact", self.compact))
    }

    /// The newest version of a key at a revision, tombstones included.
    #[must_use]
    pub fn version(&self, key: &[u8], at: i64) -> Option<&Version> {
        self.keys.get(key)?.iter().rev().find(|v| v.main <= at)
    }

    /// A live key at a revision.
    #[must_use]
    pub fn kv(&self, key: &[u8], at: i64) -> Option<KeyValue> {
        let (key, history) = self.keys.get_key_value(key)?;
        let found = history.iter().rev().find(|v| v.main <= at).filter(|v| !v.tombstone)?;
        Some(kv(key, found))
    }

    /// Remembers this state.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let (revision, compact) = (self.revision, self.compact);
        Mark { revision, compact, journal: self.lease_journal.len(), fingerprint: self.fingerprint }
    }

    /// Goes back to a state that this one came from.
    pub fn go_back(&mut self, mark: Mark) {
        while let Some((&revision, _)) = self.log.last_key_value() {
            if revision <= mark.revision {
                break;
            }
            let changes = self.log.remove(&revision).unwrap_or_default();
            for change in changes {
                let history = self.keys.get_mut(&change.key).expect("a changed key has versions");
                history.pop();
                if history.is_empty() {
                    self.keys.remove(&change.key);
                }
            }
        }
        for (id, before) in self.lease_journal.drain(mark.journal..).rev() {
            match before {
                Some(ttl) => self.leases.insert(id, ttl),
                None => self.leases.remove(&id),
            };
        }
        (self.revision, self.compact) = (mark.revision, mark.compact);
        self.fingerprint = mark.fingerprint;
    }

    /// Does what a request asks and answers it. A refused request changes nothing. Keep-alives and
    /// hashes are not the model's business: they are `None`.
    ///
    /// # Errors
    /// etcd's.
    pub fn apply(&mut self, request: &Request) -> Result<Option<Answer>, ApiError> {
        Ok(Some(match request {
            Request::Range(r) => {
                validate::range(r)?;
                Answer::Range(self.range(r)?)
            }
            Request::Put(r) => {
                validate::put(r)?;
                self.check_put(r)?;
                let new = self.revision + 1;
                Answer::Put(self.put_at(r, new))
            }
            Request::DeleteRange(r) => {
                if r.key.is_empty() {
                    return Err(ApiError::EmptyKey);
                }
                let new = self.revision + 1;
                Answer::DeleteRange(self.delete_at(r, new))
            }
            Request::Txn(r) => {
                validate::txn(r)?;
                Answer::Txn(self.txn(r)?)
            }
            Request::Compact(r) => {
                if r.revision <= self.compact {
                    return Err(ApiError::Compacted);
                }
                if r.revision > self.revision {
                    return Err(ApiError::FutureRevision);
                }
                self.compact = r.revision;
                Answer::Compact(CompactionResponse { header: header(self.revision) })
            }
            Request::LeaseGrant(r) => {
                if r.ttl > MAX_TTL_SECS {
                    return Err(ApiError::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(&r.id) {
                    return Err(ApiError::LeaseExists);
                }
                self.set_lease(r.id, Some(r.ttl));
                Answer::LeaseGrant(LeaseGrantResponse {
                    header: header(self.revision),
                    id: r.id,
                    ttl: r.ttl,
                    error: String::new(),
                })
            }
            Request::LeaseRevoke(r) => Answer::LeaseRevoke(self.end_lease(r.id)?),
            Request::LeaseExpire(id) => Answer::LeaseRevoke(self.end_lease(*id)?),
            Request::LeaseKeepAlive(_) | Request::HashKv(_) => return Ok(None),
        }))
    }

    fn set_lease(&mut self, id: i64, ttl: Option<i64>) {
        let before = match ttl {
            Some(ttl) => self.leases.insert(id, ttl),
            None => self.leases.remove(&id),
        };
        self.lease_journal.push((id, before));
        // Which leases there are, in whatever order they came.
        for side in [before, ttl].into_iter().flatten() {
            self.fingerprint ^= hash_of(&("lease", id, side));
        }
    }

    /// Ends a lease: its keys go in one revision, ascending (semantics G13).
    fn end_lease(&mut self, id: i64) -> Result<LeaseRevokeResponse, ApiError> {
        if !self.leases.contains_key(&id) {
            return Err(ApiError::LeaseNotFound);
        }
        if !self.endless_leases {
            self.set_lease(id, None);
        }
        let new = self.revision + 1;
        for key in self.attached(id) {
            self.delete_key(&key, new);
        }
        Ok(LeaseRevokeResponse { header: header(self.revision) })
    }

    /// The keys that hang on a lease, ascending.
    #[must_use]
    pub fn attached(&self, id: i64) -> Vec<Bytes> {
        let hangs = |history: &Vec<Version>| {
            history.last().is_some_and(|v| !v.tombstone && v.lease == id && id != 0)
        };
        self.keys.iter().filter(|(_, h)| hangs(h)).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn check_put(&self, r: &PutRequest) -> Result<(), ApiError> {
        if r.lease != 0 && !self.leases.contains_key(&r.lease) {
            return Err(ApiError::LeaseNotFound);
        }
        let keeps = r.ignore_value || r.ignore_lease;
        if keeps && self.kv(&r.key, self.revision).is_none() {
            return Err(ApiError::KeyNotFound);
        }
        Ok(())
    }

    fn push(&mut self, key: Bytes, version: Version) {
        self.revision = version.main;
        let place = self.log.get(&version.main).map_or(0, Vec::len);
        let change = Change { key, version };
        self.fingerprint ^= hash_of(&("change", place, &change));
        self.keys.entry(change.key.clone()).or_default().push(change.version.clone());
        self.log.entry(change.version.main).or_default().push(change);
    }

    /// Puts a key at revision `new`, the next one or the one that a transaction has begun.
    pub(crate) fn put_at(&mut self, r: &PutRequest, new: i64) -> PutResponse {
        let old = self.kv(&r.key, new);
        let keeps = r.ignore_value || r.ignore_lease;
        if keeps && old.is_none() {
            // Only behind a delete of the same transaction, which the gateway refuses.
            return PutResponse { header: header(self.revision), prev_kv: None };
        }
        let before = old.as_ref();
        let kept = |ignore: bool| before.filter(|_| ignore);
        let version = Version {
            main: new,
            create: before.map_or(new, |kv| kv.create_revision),
            version: before.map_or(1, |kv| kv.version + 1),
            value: kept(r.ignore_value).map_or_else(|| r.value.clone(), |kv| kv.value.clone()),
            lease: kept(r.ignore_lease).map_or(r.lease, |kv| kv.lease),
            tombstone: false,
        };
        self.push(r.key.clone(), version);
        PutResponse { header: header(self.revision), prev_kv: old.filter(|_| r.prev_kv) }
    }

    /// Deletes a range at revision `new`.
    pub(crate) fn delete_at(&mut self, r: &DeleteRangeRequest, new: i64) -> DeleteRangeResponse {
        let found = self.live(&r.key, &r.range_end, new);
        for kv in &found {
            self.delete_key(&kv.key, new);
        }
        DeleteRangeResponse {
            header: header(self.revision),
            deleted: found.len() as i64,
            prev_kvs: if r.prev_kv { found } else { Vec::new() },
        }
    }

    fn delete_key(&mut self, key: &Bytes, new: i64) {
        let tombstone = Version {
            main: new,
            create: 0,
            version: 0,
            value: Bytes::new(),
            lease: 0,
            tombstone: true,
        };
        self.push(key.clone(), tombstone);
    }
}
