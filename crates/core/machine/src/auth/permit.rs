//! The decision who may do what: one function, asked before a request is proposed or read, and
//! again when its entry is applied (ARCHITECTURE.md, "Who calls travels with the call").
//!
//! Default deny: what no arm allows is refused.

use api::error::ApiError;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use types::LeaseId;

use super::{Auth, User};
use crate::leases::Leases;

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// The user; empty for nobody.
    pub user: &'a str,
    /// The auth revision at which the user was identified; 0 for nobody.
    pub revision: u64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// What only a user with the role root may do.
    Root,
    /// Reading a key (`range_end` empty) or a range.
    Read {
        /// The first key.
        key: &'a [u8],
        /// As in a range request.
        range_end: &'a [u8],
    },
    /// A put.
    Put(&'a PutRequest),
    /// A delete.
    Delete(&'a DeleteRangeRequest),
    /// A transaction, with all that is in it, whichever branch it will take.
    Txn(&'a TxnRequest),
    /// Changing a lease, and so perhaps deleting its keys.
    ChangeLease(LeaseId),
    /// Seeing the keys of a lease.
    ReadLease(LeaseId),
    /// Seeing which leases there are.
    ReadAllLeases,
    /// Seeing a user's roles.
    SeeUser(&'a str),
    /// Seeing a role's permissions.
    SeeRole(&'a str),
}

/// The keys attached to leases, which some decisions depend on.
#[derive(Clone, Copy, Debug)]
pub enum Attached<'a> {
    /// This is the table.
    Known(&'a Leases),
    /// Nobody knows here: what depends on them is decided when the entry is applied. Only a
    /// request that goes through the log may be asked about in this way.
    AtApply,
}

impl Auth {
    /// Whether `who` may do what it wants. Without authentication everybody may everything.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `AuthOldRevision`, `PermissionDenied`: the caller is at fault.
    //= etcd 3.7.3: server/etcdserver/apply/auth.go, server/auth/store.go#isOpPermitted
    pub fn permit(&self, who: Who<'_>, want: Want<'_>, on: Attached<'_>) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        match want {
            Want::Root => self.root(who),
            Want::Read { key, range_end } => self.read(who, key, range_end),
            Want::Put(put) => self.put(who, put, on),
            Want::Delete(delete) => self.delete(who, delete),
            Want::Txn(txn) => self.txn(who, txn, on),
            Want::ChangeLease(lease) => self.change_lease(who, lease, on),
            Want::ReadLease(lease) => self.read_lease(who, lease, on),
            Want::ReadAllLeases => self.read_all_leases(who, on),
            Want::SeeUser(user) => {
                self.root(who).or_else(|e| if user == who.user { Ok(()) } else { Err(e) })
            }
            Want::SeeRole(role) => {
                let held = |user: &User| user.stored.roles.iter().any(|name| name == role);
                let holds = self.users.get(who.user.as_bytes()).is_some_and(|user| held(user));
                self.root(who).or_else(|e| if holds { Ok(()) } else { Err(e) })
            }
        }
    }

    //= etcd 3.7.3: server/auth/store.go#IsAdminPermitted
    fn root(&self, who: Who<'_>) -> Result<(), ApiError> {
        if who.user.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        let user = self.users.get(who.user.as_bytes()).ok_or(ApiError::UserNotFound)?;
        if user.is_root { Ok(()) } else { Err(ApiError::PermissionDenied) }
    }

    /// The user, if it was identified by what is known of it now.
    fn current(&self, who: Who<'_>) -> Result<&User, ApiError> {
        if who.revision == 0 {
            return Err(ApiError::UserEmpty);
        }
        if who.revision < self.revision {
            return Err(ApiError::AuthOldRevision);
        }
        let user = self.users.get(who.user.as_bytes()).ok_or(ApiError::PermissionDenied)?;
        Ok(user)
    }

    fn read(&self, who: Who<'_>, key: &[u8], range_end: &[u8]) -> Result<(), ApiError> {
        let user = self.current(who)?;
        let may = user.is_root || user.read.cover(key, range_end);
        if may { Ok(()) } else { Err(ApiError::PermissionDenied) }
    }

    fn write(&self, who: Who<'_>, key: &[u8], range_end: &[u8]) -> Result<(), ApiError> {
        let user = self.current(who)?;
        let may = user.is_root || user.write.cover(key, range_end);
        if may { Ok(()) } else { Err(ApiError::PermissionDenied) }
    }

    /// Who may not end a lease may not attach a key to it either.
    fn put(&self, who: Who<'_>, put: &PutRequest, on: Attached<'_>) -> Result<(), ApiError> {
        self.write(who, &put.key, &[])?;
        if put.lease != 0 {
            self.change_lease(who, LeaseId(put.lease), on)?;
        }
        if put.prev_kv { self.read(who, &put.key, &[]) } else { Ok(()) }
    }

    fn delete(&self, who: Who<'_>, delete: &DeleteRangeRequest) -> Result<(), ApiError> {
        self.write(who, &delete.key, &delete.range_end)?;
        if delete.prev_kv { self.read(who, &delete.key, &delete.range_end) } else { Ok(()) }
    }

    /// Its depth is bounded: by validation, or by what protobuf's decoder takes.
    fn txn(&self, who: Who<'_>, txn: &TxnRequest, on: Attached<'_>) -> Result<(), ApiError> {
        for Compare { key, range_end, .. } in &txn.compare {
            self.read(who, key, range_end)?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|op| self.op(who, op, on))
    }

    fn op(&self, who: Who<'_>, op: &RequestOp, on: Attached<'_>) -> Result<(), ApiError> {
        match &op.request {
            Some(Request::RequestRange(range)) => self.read(who, &range.key, &range.range_end),
            Some(Request::RequestPut(put)) => self.put(who, put, on),
            Some(Request::RequestDeleteRange(delete)) => self.delete(who, delete),
            Some(Request::RequestTxn(txn)) => self.txn(who, txn, on),
            // It does nothing.
            None => Ok(()),
        }
    }

    fn change_lease(&self, who: Who<'_>, id: LeaseId, on: Attached<'_>) -> Result<(), ApiError> {
        if self.root(who).is_ok() {
            return Ok(());
        }
        let Attached::Known(leases) = on else { return Ok(()) };
        let mut keys = leases.get(id).into_iter().flat_map(|lease| lease.keys());
        keys.try_for_each(|key| self.write(who, key, &[]))
    }

    fn read_lease(&self, who: Who<'_>, id: LeaseId, on: Attached<'_>) -> Result<(), ApiError> {
        if self.root(who).is_ok() {
            return Ok(());
        }
        let Attached::Known(leases) = on else { return Err(ApiError::PermissionDenied) };
        let mut keys = leases.get(id).into_iter().flat_map(|lease| lease.keys());
        keys.try_for_each(|key| self.read(who, key, &[]))
    }

    fn read_all_leases(&self, who: Who<'_>, on: Attached<'_>) -> Result<(), ApiError> {
        if self.root(who).is_ok() {
            return Ok(());
        }
        let Attached::Known(leases) = on else { return Err(ApiError::PermissionDenied) };
        let mut keys = leases.iter().flat_map(|(_, lease)| lease.keys());
        keys.try_for_each(|key| self.read(who, key, &[]))
    }
}
