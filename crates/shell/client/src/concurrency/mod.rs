//! Locks and elections of keys that leases hold: each caller puts a key under a common prefix, and
//! the oldest of them has the lock, or leads.
//!
//! Every client of etcd makes the same keys, so that they exclude each other whatever they are
//! written in: `NAME/LEASE`, the lease in hexadecimal.

mod election;
mod mutex;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseGrantResponse, PutRequest, RangeRequest, RangeResponse,
    RequestOp, WatchCreateRequest,
};
use api::method::Method;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use election::Election;
pub use mutex::Mutex;

use crate::call::{Client, Leader};
use crate::error::Error;
use crate::lease;
use crate::watches::{self, Told, Watches};

/// Seconds that a session lives without its client, if nothing else is asked for.
pub const DEFAULT_TTL: i64 = 60;

/// Why there is no lock, or no leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockError {
    /// A call failed.
    Client(Error),
    /// The session's key is gone: its lease has ended.
    SessionExpired,
    /// Another session leads.
    NotLeader,
    /// The lock is not held.
    Released,
    /// The server gave up the watch for the key before; why.
    WatchLost(String),
    /// The server's answer does not fit the question.
    Malformed,
}

impl fmt::Display for LockError {
    //= etcd 3.7.3: client/v3/concurrency/mutex.go#ErrSessionExpired
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Client(error) => error.fmt(f),
            LockError::SessionExpired => write!(f, "mutex: session is expired"),
            LockError::NotLeader => write!(f, "election: not leader"),
            LockError::Released => write!(f, "mutex: lock has already been released"),
            LockError::WatchLost(why) => f.write_str(why),
            LockError::Malformed => write!(f, "the server's answer does not fit its question"),
        }
    }
}

impl std::error::Error for LockError {}

impl From<Error> for LockError {
    fn from(error: Error) -> Self {
        LockError::Client(error)
    }
}

/// A lease that is kept alive while this value lives. It is not revoked when it is dropped: what it
/// holds stays for as long as the lease lives without its client.
#[derive(Debug)]
pub struct Session {
    client: Arc<Client>,
    lease: i64,
    keeping: JoinHandle<()>,
    /// Its sender is gone when the lease is lost.
    kept: watch::Receiver<()>,
}

impl Session {
    /// Gets a lease of `ttl` seconds and keeps it alive on the current runtime. Its first answer
    /// must come within `first`.
    ///
    /// # Errors
    /// The lease is not granted.
    //= etcd 3.7.3: client/v3/concurrency/session.go#NewSession
    pub async fn open(client: Arc<Client>, ttl: i64, first: Duration) -> Result<Self, Error> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let granted: LeaseGrantResponse = client.call(Method::LeaseGrant, &request, None).await?;
        let lease = granted.id;
        let (alive, kept) = watch::channel(());
        let keeper = Arc::clone(&client);
        let keeping = tokio::spawn(async move {
            lease::keep_alive(&keeper, lease, first).await;
            drop(alive);
        });
        Ok(Self { client, lease, keeping, kept })
    }

    /// The id of the lease.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when the lease is lost.
    pub async fn lost(&self) {
        let mut kept = self.kept.clone();
        while kept.changed().await.is_ok() {}
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// The key of a session under a prefix.
fn own_key(prefix: &str, lease: i64) -> Bytes {
    // Go shows the sign of a number in front of its digits.
    let sign = if lease < 0 { "-" } else { "" };
    Bytes::from(format!("{prefix}{sign}{:x}", lease.unsigned_abs()))
}

/// The comparison that a key was created by this revision; 0 means that there is none.
fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn get(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

fn put(key: &Bytes, value: Bytes, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn range(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(request)) }
}

/// The oldest key, or the newest, of all that begin with a prefix.
fn one_by_creation(prefix: &str, order: SortOrder) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: watches::prefix_end(prefix.as_bytes()),
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

/// Waits until no key under the prefix is left that was created at `max_create_revision` or before.
//= etcd 3.7.3: client/v3/concurrency/key.go#waitDeletes
async fn wait_for_older(
    client: &Client,
    prefix: &str,
    max_create_revision: i64,
) -> Result<(), LockError> {
    loop {
        let newest = one_by_creation(prefix, SortOrder::Descend);
        let request = RangeRequest { max_create_revision, ..newest };
        let found: RangeResponse = client.call(Method::Range, &request, None).await?;
        let Some(last) = found.kvs.first() else { return Ok(()) };
        let revision = found.header.map_or(0, |h| h.revision);
        wait_for_delete(client, last.key.clone(), revision).await?;
    }
}

async fn wait_for_delete(client: &Client, key: Bytes, revision: i64) -> Result<(), LockError> {
    let mut watches = Watches::new(client, Leader::Awaited);
    let request =
        WatchCreateRequest { key, start_revision: revision, ..WatchCreateRequest::default() };
    watches.add(request);
    loop {
        match watches.next().await {
            Told::Response(_, response) => {
                if response.events.iter().any(watches::is_delete) {
                    return Ok(());
                }
                if response.canceled {
                    return Err(LockError::WatchLost(watches::why_canceled(&response)));
                }
            }
            Told::Ended(_, error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_other_clients() {
        assert_eq!(own_key("a/", 0x694d_77aa_9e38_260f), "a/694d77aa9e38260f");
        assert_eq!(own_key("a/", 10), "a/a");
        assert_eq!(own_key("a/", -16), "a/-10");
    }

    #[test]
    fn the_oldest_key_of_a_prefix_is_asked_for() {
        let request = one_by_creation("a/", SortOrder::Ascend);
        assert_eq!((request.key, request.range_end), ("a/".into(), "a0".into()));
        assert_eq!((request.limit, request.sort_target, request.sort_order), (1, 2, 1));
    }
}
