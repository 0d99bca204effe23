//! The commands that change users, roles and authentication itself.
//!
//! Each gives its reply and the writes that store it, or refuses and changes nothing. Whatever
//! succeeds raises the auth revision by one, but for what etcd leaves as it was: enabling, and
//! granting a role that is held already (semantics H1, H3).
//!
//! //= etcd 3.7.3: server/auth/store.go

use std::sync::Arc;

use api::authpb;
use api::error::ApiError;
use api::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserChangePasswordRequest,
    AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
    InternalAuthenticateRequest,
};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message;
use store::{Bucket, Op};

use super::{Auth, ROOT, enabled_op, ranges, revision_op};
use crate::command::Command;
use crate::outcome::AuthReply;

/// Writes that store a change.
type Ops = Vec<Op>;

/// What role root permits, as it is shown.
//= etcd 3.7.3: server/auth/store.go (rootPerm)
fn root_permission() -> authpb::Permission {
    authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite as i32,
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    }
}

/// Go reads a last digit whose spare bits are set.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The hash that a request carries. One with the password itself comes from etcd before 3.5 and is
/// refused: each member would have to draw a salt of its own.
//= etcd 3.7.3: server/auth/store.go#selectPassword
fn hash(password: &str, hashed: &str) -> Result<Bytes, ApiError> {
    if !password.is_empty() && hashed.is_empty() {
        return Err(ApiError::NoPasswordUser);
    }
    // Go's decoder skips line ends.
    let digits: Vec<u8> = hashed.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    BASE64.decode(digits).map(Bytes::from).map_err(|_| ApiError::NoPasswordUser)
}

fn user_op(key: &Bytes, user: Option<&authpb::User>) -> Op {
    let value = user.map(|user| user.encode_to_vec().into());
    Op { bucket: Bucket::AuthUsers, key: key.clone(), value }
}

fn role_op(key: &Bytes, role: Option<&authpb::Role>) -> Op {
    let value = role.map(|role| role.encode_to_vec().into());
    Op { bucket: Bucket::AuthRoles, key: key.clone(), value }
}

fn name_of(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn text(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Auth {
    /// Does what a command of the Auth service asks for; `None` if it is none of those.
    ///
    /// # Errors
    /// etcd's refusals.
    pub(crate) fn apply(
        self: &mut Arc<Self>,
        command: &Command,
        ops: &mut Ops,
    ) -> Option<Result<AuthReply, ApiError>> {
        Some(match command {
            Command::AuthStatus(_) => {
                Ok(AuthReply::Status { enabled: self.enabled, revision: self.revision })
            }
            Command::AuthUserGet(get) => self.user_get(get),
            Command::AuthUserList(_) => Ok(AuthReply::Names(
                self.users.values().map(|user| text(&user.stored.name)).collect(),
            )),
            Command::AuthRoleGet(get) => self.role_get(get),
            Command::AuthRoleList(_) => {
                Ok(AuthReply::Names(self.roles.values().map(|role| text(&role.name)).collect()))
            }
            Command::Authenticate(authenticate) => self.authenticate(authenticate),
            other => {
                let changed = Arc::make_mut(self).change(other, ops)?;
                changed.map(|()| AuthReply::Done)
            }
        })
    }

    fn change(&mut self, command: &Command, ops: &mut Ops) -> Option<Result<(), ApiError>> {
        Some(match command {
            Command::AuthEnable(_) => self.enable(ops),
            Command::AuthDisable(_) => {
                self.disable(ops);
                Ok(())
            }
            Command::AuthUserAdd(add) => self.user_add(add, ops),
            Command::AuthUserDelete(delete) => self.user_delete(delete, ops),
            Command::AuthUserChangePassword(change) => self.change_password(change, ops),
            Command::AuthUserGrantRole(grant) => self.grant_role(grant, ops),
            Command::AuthUserRevokeRole(revoke) => self.revoke_role(revoke, ops),
            Command::AuthRoleAdd(add) => self.role_add(add, ops),
            Command::AuthRoleDelete(delete) => self.role_delete(delete, ops),
            Command::AuthRoleGrantPermission(grant) => self.grant_permission(grant, ops),
            Command::AuthRoleRevokePermission(revoke) => self.revoke_permission(revoke, ops),
            _ => return None,
        })
    }

    /// Something changed.
    fn next_revision(&mut self, ops: &mut Ops) {
        self.revision = self.revision.wrapping_add(1);
        ops.push(revision_op(self.revision));
    }

    /// A user is as follows from now on.
    fn put_user(&mut self, key: &Bytes, user: authpb::User, ops: &mut Ops) {
        ops.push(user_op(key, Some(&user)));
        self.merge_user(key, user);
    }

    fn user(&self, name: &str) -> Result<authpb::User, ApiError> {
        let user = self.users.get(name.as_bytes()).ok_or(ApiError::UserNotFound)?;
        Ok(user.stored.clone())
    }

    fn role(&self, name: &str) -> Result<&authpb::Role, ApiError> {
        self.roles.get(name.as_bytes()).ok_or(ApiError::RoleNotFound)
    }

    fn enable(&mut self, ops: &mut Ops) -> Result<(), ApiError> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT.as_bytes()).ok_or(ApiError::RootUserNotExist)?;
        if !root.is_root {
            return Err(ApiError::RootRoleNotExist);
        }
        self.enabled = true;
        ops.push(enabled_op(true));
        Ok(())
    }

    fn disable(&mut self, ops: &mut Ops) {
        if self.enabled {
            self.enabled = false;
            ops.push(enabled_op(false));
            self.next_revision(ops);
        }
    }

    /// The password was checked by the member that was asked. A user that exists by now gets a
    /// token all the same if its password changed: that member looks at the revision again.
    fn authenticate(&self, request: &InternalAuthenticateRequest) -> Result<AuthReply, ApiError> {
        if !self.enabled {
            return Err(ApiError::AuthNotEnabled);
        }
        match self.password(&request.name) {
            Some(super::Password::Hash(_)) => {
                Ok(AuthReply::Authenticated { revision: self.revision })
            }
            Some(super::Password::Never) | None => Err(ApiError::AuthFailed),
        }
    }

    fn user_get(&self, get: &AuthUserGetRequest) -> Result<AuthReply, ApiError> {
        self.user(&get.name).map(|user| AuthReply::Names(user.roles))
    }

    fn user_add(&mut self, add: &AuthUserAddRequest, ops: &mut Ops) -> Result<(), ApiError> {
        if add.name.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        let key = name_of(&add.name);
        if self.users.contains_key(&key) {
            return Err(ApiError::UserAlreadyExist);
        }
        let options = add.options.unwrap_or_default();
        let password = if options.no_password {
            Bytes::new()
        } else {
            hash(&add.password, &add.hashed_password)?
        };
        let user =
            authpb::User { name: key.clone(), password, roles: Vec::new(), options: Some(options) };
        self.put_user(&key, user, ops);
        self.next_revision(ops);
        Ok(())
    }

    fn user_delete(
        &mut self,
        delete: &AuthUserDeleteRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        if self.enabled && delete.name == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        let key = name_of(&delete.name);
        self.users.remove(&key).ok_or(ApiError::UserNotFound)?;
        ops.push(user_op(&key, None));
        self.next_revision(ops);
        Ok(())
    }

    fn change_password(
        &mut self,
        change: &AuthUserChangePasswordRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        let key = name_of(&change.name);
        let mut user = self.user(&change.name)?;
        let without = user.options.as_ref().is_some_and(|options| options.no_password);
        user.password =
            if without { Bytes::new() } else { hash(&change.password, &change.hashed_password)? };
        user.name = key.clone();
        self.put_user(&key, user, ops);
        self.next_revision(ops);
        Ok(())
    }

    fn grant_role(
        &mut self,
        grant: &AuthUserGrantRoleRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        let mut user = self.user(&grant.user)?;
        // The role root needs no record (semantics H12).
        if grant.role != ROOT {
            self.role(&grant.role)?;
        }
        if user.roles.contains(&grant.role) {
            return Ok(());
        }
        user.roles.push(grant.role.clone());
        user.roles.sort_unstable();
        let key = user.name.clone();
        self.put_user(&key, user, ops);
        self.next_revision(ops);
        Ok(())
    }

    fn revoke_role(
        &mut self,
        revoke: &AuthUserRevokeRoleRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        if self.enabled && revoke.name == ROOT && revoke.role == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        let mut user = self.user(&revoke.name)?;
        let held = user.roles.len();
        user.roles.retain(|role| *role != revoke.role);
        if user.roles.len() == held {
            return Err(ApiError::RoleNotGranted);
        }
        let key = user.name.clone();
        self.put_user(&key, user, ops);
        self.next_revision(ops);
        Ok(())
    }

    fn role_get(&self, get: &AuthRoleGetRequest) -> Result<AuthReply, ApiError> {
        let role = self.role(&get.role)?;
        Ok(AuthReply::Permissions(if role.name == ROOT {
            vec![root_permission()]
        } else {
            role.key_permission.clone()
        }))
    }

    fn role_add(&mut self, add: &AuthRoleAddRequest, ops: &mut Ops) -> Result<(), ApiError> {
        if add.name.is_empty() {
            return Err(ApiError::RoleEmpty);
        }
        let key = name_of(&add.name);
        if self.roles.contains_key(&key) {
            return Err(ApiError::RoleAlreadyExist);
        }
        let role = authpb::Role { name: key.clone(), key_permission: Vec::new() };
        ops.push(role_op(&key, Some(&role)));
        self.roles.insert(key, role);
        self.next_revision(ops);
        Ok(())
    }

    /// Nobody holds a role that is gone.
    fn role_delete(
        &mut self,
        delete: &AuthRoleDeleteRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        if self.enabled && delete.role == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        let key = name_of(&delete.role);
        self.roles.remove(&key).ok_or(ApiError::RoleNotFound)?;
        ops.push(role_op(&key, None));
        let holders: Vec<_> = self
            .users
            .values()
            .filter(|user| user.stored.roles.contains(&delete.role))
            .map(|user| user.stored.clone())
            .collect();
        for mut user in holders {
            user.roles.retain(|role| *role != delete.role);
            let key = user.name.clone();
            self.put_user(&key, user, ops);
        }
        self.next_revision(ops);
        Ok(())
    }

    fn grant_permission(
        &mut self,
        grant: &AuthRoleGrantPermissionRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        let permission = grant.perm.as_ref().ok_or(ApiError::PermissionNotGiven)?;
        if !ranges::is_grantable(&permission.key, &permission.range_end) {
            return Err(ApiError::InvalidAuthManagement);
        }
        let mut role = self.role(&grant.name)?.clone();
        let granted = &mut role.key_permission;
        let at = granted.partition_point(|p| p.key < permission.key);
        // Of several on one key etcd compares the first alone, so a second range of that key may
        // be there twice: the bytes must be the same on members of both kinds.
        //= etcd 3.7.3: server/auth/store.go#RoleGrantPermission
        match granted.get_mut(at).filter(|p| p.key == permission.key) {
            Some(old) if old.range_end == permission.range_end => {
                old.perm_type = permission.perm_type;
            }
            _ => {
                granted.push(permission.clone());
                // Go's sort keeps the order of equal keys up to 12 permissions.
                granted.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(role, ops);
        Ok(())
    }

    fn revoke_permission(
        &mut self,
        revoke: &AuthRoleRevokePermissionRequest,
        ops: &mut Ops,
    ) -> Result<(), ApiError> {
        let mut role = self.role(&revoke.role)?.clone();
        let granted = role.key_permission.len();
        role.key_permission.retain(|p| p.key != revoke.key || p.range_end != revoke.range_end);
        if role.key_permission.len() == granted {
            return Err(ApiError::PermissionNotGranted);
        }
        self.put_role(role, ops);
        Ok(())
    }

    /// A role is as follows from now on, for all who hold it.
    fn put_role(&mut self, role: authpb::Role, ops: &mut Ops) {
        ops.push(role_op(&role.name, Some(&role)));
        let held = text(&role.name);
        self.roles.insert(role.name.clone(), role);
        let roles = &self.roles;
        for user in self.users.values_mut().filter(|user| user.stored.roles.contains(&held)) {
            *user = Arc::new(super::User::merged(user.stored.clone(), roles));
        }
        self.next_revision(ops);
    }
}
