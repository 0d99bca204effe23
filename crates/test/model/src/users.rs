//! Users and roles, and who may do what, as plainly as it can be said.
//!
//! A request is the list of all that it could do, whichever branch it takes; it is permitted if each
//! of these is. Nothing here is shared with the product or merged ahead: a range is permitted if the
//! user's permissions hold at its first key and wherever one of them ends within it.

use std::collections::{BTreeMap, BTreeSet};

use api::authpb::permission::Type;
use api::error::ApiError;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;

use crate::state::State;

/// The user and the role that permit everything.
const ROOT: &str = "root";

/// What somebody needs to do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To read them.
    Read,
    /// To write them.
    Write,
}

/// Something that a request may do: the keys as in a request of etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether they are read or written.
    pub need: Need,
    /// The first key.
    pub key: Bytes,
    /// Empty for one key, a zero byte for all from the first on, else where it ends.
    pub end: Bytes,
    /// Whether it is wanted only because the key hangs on a lease. Root's right to leases does not
    /// depend on when it was known.
    //= etcd 3.7.3: server/etcdserver/apply/auth.go#checkLeasePutsKeys
    pub by_lease: bool,
}

impl Access {
    fn new(need: Need, key: &Bytes, end: &Bytes) -> Self {
        Self { need, key: key.clone(), end: end.clone(), by_lease: false }
    }

    /// Reading a range.
    #[must_use]
    pub fn read(key: &Bytes, end: &Bytes) -> Self {
        Self::new(Need::Read, key, end)
    }

    fn one(need: Need, key: &Bytes) -> Self {
        Self::new(need, key, &Bytes::new())
    }
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is nobody.
    Nobody,
    /// It is known by users and roles that have changed since.
    Old,
    /// There is no such user, or none of its roles permits it.
    Denied,
}

/// Everything that a put may do. Who attaches a key to a lease may end its other keys.
pub fn of_put(put: &PutRequest, state: &State, all: &mut Vec<Access>) {
    all.push(Access::one(Need::Write, &put.key));
    if put.prev_kv {
        all.push(Access::one(Need::Read, &put.key));
    }
    all.extend(of_lease(put.lease, Need::Write, state));
}

/// Everything that a delete may do.
pub fn of_delete(delete: &DeleteRangeRequest, all: &mut Vec<Access>) {
    all.push(Access::new(Need::Write, &delete.key, &delete.range_end));
    if delete.prev_kv {
        all.push(Access::read(&delete.key, &delete.range_end));
    }
}

/// Everything that a transaction may do, with those within it.
pub fn of_txn(txn: &TxnRequest, state: &State, all: &mut Vec<Access>) {
    all.extend(txn.compare.iter().map(|c| Access::read(&c.key, &c.range_end)));
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(Op::RequestRange(r)) => all.push(Access::read(&r.key, &r.range_end)),
            Some(Op::RequestPut(r)) => of_put(r, state, all),
            Some(Op::RequestDeleteRange(r)) => of_delete(r, all),
            Some(Op::RequestTxn(r)) => of_txn(r, state, all),
            None => {}
        }
    }
}

/// The keys of a lease, each for itself.
#[must_use]
pub fn of_lease(lease: i64, need: Need, state: &State) -> Vec<Access> {
    let one = |key| Access { by_lease: true, ..Access::one(need, key) };
    state.attached(lease).iter().map(one).collect()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct User {
    roles: BTreeSet<String>,
    /// As the log has it.
    hash: String,
}

/// Users and roles after some entry of the log. A role has one permission on the same keys, and none
/// with the same key and another end: whoever draws permissions sees to that, for of those etcd
/// compares the first only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    /// By name: the kind of each permission, by its keys.
    roles: BTreeMap<String, BTreeMap<(Bytes, Bytes), i32>>,
}

impl Default for Users {
    fn default() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

/// What a permission gives on a key: whether that is among its keys.
fn holds((from, end): &(Bytes, Bytes), key: &[u8]) -> bool {
    match &end[..] {
        [] => key == from,
        [0] => key >= &from[..],
        end => key >= &from[..] && key < end,
    }
}

/// Where a permission ends, if it does.
fn end_of((from, end): &(Bytes, Bytes)) -> Option<Vec<u8>> {
    match &end[..] {
        [] => Some([&from[..], &[0]].concat()),
        [0] => None,
        end => Some(end.to_vec()),
    }
}

impl Users {
    /// Whether callers must say who they are.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// How often they have changed, from 1.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The hash of a user's password.
    #[must_use]
    pub fn hash(&self, user: &str) -> Option<&str> {
        self.users.get(user).map(|user| &user.hash[..])
    }

    /// Who there is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(|name| &name[..])
    }

    /// Whether a user has a role.
    #[must_use]
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.contains(role))
    }

    /// Whether a user may change users, roles and members.
    #[must_use]
    pub fn is_root(&self, user: &str) -> bool {
        self.has_role(user, ROOT)
    }

    /// Whether `user`, known as of the auth revision `known`, may do all of this.
    ///
    /// # Errors
    /// Why it may not.
    pub fn permit(&self, user: &str, known: u64, all: &[Access]) -> Result<(), Refusal> {
        let is_root = self.is_root(user);
        if !self.enabled || all.iter().all(|access| access.by_lease && is_root) {
            return Ok(());
        }
        if known == 0 {
            return Err(Refusal::Nobody);
        }
        if known < self.revision {
            return Err(Refusal::Old);
        }
        let may = |access: &Access| is_root || self.covers(user, access);
        let exists = self.users.contains_key(user);
        if exists && all.iter().all(may) { Ok(()) } else { Err(Refusal::Denied) }
    }

    /// Whether the roles of a user hold on all keys of an access.
    fn covers(&self, user: &str, access: &Access) -> bool {
        let Some(user) = self.users.get(user) else { return false };
        let of_roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        let held: Vec<&(Bytes, Bytes)> = of_roles
            .flatten()
            .filter(|(_, kind)| match (Type::try_from(**kind), access.need) {
                (Ok(Type::Readwrite), _)
                | (Ok(Type::Read), Need::Read)
                | (Ok(Type::Write), Need::Write) => true,
                (Ok(Type::Read), Need::Write) | (Ok(Type::Write), Need::Read) | (Err(_), _) => {
                    false
                }
            })
            .map(|(keys, _)| keys)
            .collect();
        let asked = (access.key.clone(), access.end.clone());
        // Of a range that ends before it begins the first key counts.
        let is_within = |point: &Vec<u8>| holds(&asked, point);
        let ends = held.iter().filter_map(|keys| end_of(keys)).filter(is_within);
        let mut points = ends.chain([access.key.to_vec()]);
        points.all(|point| held.iter().any(|keys| holds(keys, &point)))
    }

    fn role(&mut self, name: &str) -> Result<&mut BTreeMap<(Bytes, Bytes), i32>, ApiError> {
        self.roles.get_mut(name).ok_or(ApiError::RoleNotFound)
    }

    fn user(&mut self, name: &str) -> Result<&mut User, ApiError> {
        self.users.get_mut(name).ok_or(ApiError::UserNotFound)
    }

    /// Does what a request of the Auth service asks for, whoever signed it; `None` if it is none that
    /// changes anything.
    //= etcd 3.7.3: server/auth/store.go
    pub fn apply(&mut self, request: &InternalRaftRequest) -> Option<Result<(), ApiError>> {
        let changed = self.change(request)?;
        self.revision += u64::from(changed == Ok(true));
        Some(changed.map(drop))
    }

    /// As [`Users::apply`]: whether something changed that counts.
    fn change(&mut self, request: &InternalRaftRequest) -> Option<Result<bool, ApiError>> {
        let r = request;
        Some(if r.auth_enable.is_some() {
            self.enable()
        } else if r.auth_disable.is_some() {
            Ok(std::mem::take(&mut self.enabled))
        } else if let Some(r) = &r.auth_user_add {
            let user = User { roles: BTreeSet::new(), hash: r.hashed_password.clone() };
            if self.users.contains_key(&r.name) {
                Err(ApiError::UserAlreadyExist)
            } else {
                self.users.insert(r.name.clone(), user);
                Ok(true)
            }
        } else if let Some(r) = &r.auth_user_delete {
            if self.enabled && r.name == ROOT {
                Err(ApiError::InvalidAuthManagement)
            } else {
                self.users.remove(&r.name).map(|_| true).ok_or(ApiError::UserNotFound)
            }
        } else if let Some(r) = &r.auth_user_change_password {
            self.user(&r.name).map(|user| {
                user.hash.clone_from(&r.hashed_password);
                true
            })
        } else if let Some(r) = &r.auth_user_grant_role {
            let is_known = r.role == ROOT || self.roles.contains_key(&r.role);
            let user = self.user(&r.user);
            user.and_then(|user| match is_known {
                true => Ok(user.roles.insert(r.role.clone())),
                false => Err(ApiError::RoleNotFound),
            })
        } else if let Some(r) = &r.auth_user_revoke_role {
            self.revoke(&r.name, &r.role)
        } else {
            return self.change_role(request);
        })
    }

    fn change_role(&mut self, request: &InternalRaftRequest) -> Option<Result<bool, ApiError>> {
        let r = request;
        Some(if let Some(r) = &r.auth_role_add {
            if self.roles.contains_key(&r.name) {
                Err(ApiError::RoleAlreadyExist)
            } else {
                self.roles.insert(r.name.clone(), BTreeMap::new());
                Ok(true)
            }
        } else if let Some(r) = &r.auth_role_delete {
            self.delete_role(&r.role)
        } else if let Some(r) = &r.auth_role_grant_permission {
            match &r.perm {
                None => Err(ApiError::PermissionNotGiven),
                Some(perm) => self.role(&r.name).map(|role| {
                    role.insert((perm.key.clone(), perm.range_end.clone()), perm.perm_type);
                    true
                }),
            }
        } else if let Some(r) = &r.auth_role_revoke_permission {
            let keys = (r.key.clone(), r.range_end.clone());
            self.role(&r.role).and_then(|role| {
                role.remove(&keys).map(|_| true).ok_or(ApiError::PermissionNotGranted)
            })
        } else {
            return None;
        })
    }

    fn enable(&mut self) -> Result<bool, ApiError> {
        if !self.enabled {
            if !self.users.contains_key(ROOT) {
                return Err(ApiError::RootUserNotExist);
            }
            if !self.is_root(ROOT) {
                return Err(ApiError::RootRoleNotExist);
            }
            self.enabled = true;
        }
        // It does not count as a change (semantics H1).
        Ok(false)
    }

    fn revoke(&mut self, name: &str, role: &str) -> Result<bool, ApiError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        let user = self.user(name)?;
        if user.roles.remove(role) { Ok(true) } else { Err(ApiError::RoleNotGranted) }
    }

    fn delete_role(&mut self, role: &str) -> Result<bool, ApiError> {
        if self.enabled && role == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        self.roles.remove(role).ok_or(ApiError::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(role);
        }
        Ok(true)
    }
}
