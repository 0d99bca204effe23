//! Leases and the keys attached to them.
//!
//! The table is replicated state: which leases exist, their granted time to live, and the keys
//! attached to them. It holds no deadlines; only the leader's Node has those. Invariant: a key is
//! attached to at most one lease.

use std::collections::{BTreeMap, BTreeSet};

use api::error::ApiError;
use api::leasepb;
use bytes::Bytes;
use env::{HashSeed, KeyMap};
use prost::Message;
use store::{Bucket, Op};
use types::LeaseId;
use types::limits::MAX_LEASE_TTL_SECS;

/// A lease.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Granted time to live in seconds.
    pub ttl: i64,
    /// Remaining time to live at the last checkpoint in seconds; 0 without one.
    pub remaining: i64,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// The keys attached, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter()
    }
}

/// The table of leases and of the keys attached to them.
#[derive(Clone, Debug)]
pub struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    /// The lease that each key is attached to. Looked up, never iterated.
    by_key: KeyMap<Bytes, LeaseId>,
}

fn key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&(id.0 as u64).to_be_bytes())
}

fn stored(id: LeaseId, lease: &Lease) -> Op {
    let value =
        leasepb::Lease { id: id.0, ttl: lease.ttl, remaining_ttl: lease.remaining }.encode_to_vec();
    Op { bucket: Bucket::Lease, key: key(id), value: Some(value.into()) }
}

impl Leases {
    /// An empty table; `seed` is for the hash map of keys.
    #[must_use]
    pub fn new(seed: HashSeed) -> Self {
        Self { leases: BTreeMap::new(), by_key: KeyMap::with_hasher(seed) }
    }

    /// Restores a stored lease; a time to live below `min_ttl` seconds is raised to it, as in etcd.
    pub fn insert_stored(&mut self, lease: &leasepb::Lease, min_ttl: i64) {
        let ttl = lease.ttl.max(min_ttl);
        let lease_ = Lease { ttl, remaining: lease.remaining_ttl, keys: BTreeSet::new() };
        self.leases.insert(LeaseId(lease.id), lease_);
    }

    /// A lease by id.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All leases by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// The lease that a key is attached to.
    #[must_use]
    pub fn of_key(&self, key: &[u8]) -> Option<LeaseId> {
        self.by_key.get(key).copied()
    }

    /// Grants a lease. Returns its time to live in seconds and the write that stores it.
    ///
    /// # Errors
    /// `too large lease TTL` (checked first), `lease already exists`; `requested lease not found`
    /// for id 0, which the gateway replaces before.
    //= etcd 3.7.1: server/lease/lessor.go#Grant
    pub fn grant(&mut self, id: LeaseId, ttl: i64, min_ttl: i64) -> Result<(i64, Op), ApiError> {
        if id == LeaseId(0) {
            return Err(ApiError::LeaseNotFound);
        }
        if ttl > MAX_LEASE_TTL_SECS {
            return Err(ApiError::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(ApiError::LeaseExists);
        }
        let lease = Lease { ttl: ttl.max(min_ttl), ..Lease::default() };
        let op = stored(id, &lease);
        let ttl = lease.ttl;
        self.leases.insert(id, lease);
        Ok((ttl, op))
    }

    /// Removes a lease. Returns its keys, which must be deleted in this order in one transaction,
    /// and the write that removes the lease.
    ///
    /// # Errors
    /// `requested lease not found`.
    pub fn revoke(&mut self, id: LeaseId) -> Result<(Vec<Bytes>, Op), ApiError> {
        let lease = self.leases.remove(&id).ok_or(ApiError::LeaseNotFound)?;
        for key in &lease.keys {
            self.by_key.remove(key);
        }
        let op = Op { bucket: Bucket::Lease, key: key(id), value: None };
        Ok((lease.keys.into_iter().collect(), op))
    }

    /// Sets a lease's checkpoint; returns the write that stores it if `persist`.
    pub fn checkpoint(&mut self, id: LeaseId, remaining: i64, persist: bool) -> Option<Op> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining = remaining;
        persist.then(|| stored(id, lease))
    }

    /// Attaches a key to a lease, or to none (id 0), instead of the one before. Returns
    /// whether the lease exists.
    pub fn attach(&mut self, key: &[u8], id: LeaseId) -> bool {
        if let Some(old) = self.by_key.get(key).copied() {
            if old == id {
                return true;
            }
            self.detach(key);
        }
        if id == LeaseId(0) {
            return true;
        }
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        let key = Bytes::copy_from_slice(key);
        lease.keys.insert(key.clone());
        self.by_key.insert(key, id);
        true
    }

    /// Detaches a key from its lease, as deleting the key does.
    pub fn detach(&mut self, key: &[u8]) {
        if self.by_key.is_empty() {
            return;
        }
        if let Some(lease) = self.by_key.remove(key).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hangs_on_one_lease() {
        let mut leases = Leases::new(HashSeed::draw(&mut env::SplitMix::new(1)));
        leases.grant(LeaseId(1), 10, 2).unwrap();
        leases.grant(LeaseId(-2), 1, 2).unwrap();
        assert!(leases.attach(b"k", LeaseId(1)) && leases.attach(b"k", LeaseId(-2)));
        assert_eq!(leases.get(LeaseId(1)).unwrap().keys().count(), 0);
        assert!(!leases.attach(b"k", LeaseId(9)), "a missing lease is told");
        assert_eq!(leases.of_key(b"k"), None);
        leases.attach(b"b", LeaseId(-2));
        leases.attach(b"a", LeaseId(-2));
        let (keys, _) = leases.revoke(LeaseId(-2)).unwrap();
        assert_eq!(keys, [&b"a"[..], b"b"]);
        assert_eq!(leases.revoke(LeaseId(-2)).unwrap_err(), ApiError::LeaseNotFound);
    }

    #[test]
    fn grants_are_checked_in_etcds_order() {
        let mut leases = Leases::new(HashSeed::draw(&mut env::SplitMix::new(1)));
        assert_eq!(leases.grant(LeaseId(1), -5, 2).unwrap().0, 2, "raised to the minimum");
        let too_large = leases.grant(LeaseId(1), MAX_LEASE_TTL_SECS + 1, 2).unwrap_err();
        assert_eq!(too_large, ApiError::LeaseTtlTooLarge);
        assert_eq!(leases.grant(LeaseId(1), 5, 2).unwrap_err(), ApiError::LeaseExists);
        assert!(leases.grant(LeaseId(i64::MIN), 5, 2).is_ok());
    }
}
