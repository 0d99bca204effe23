//! Users, roles, and what they permit.
//!
//! Owns the state of authentication: whether it is enabled, its revision, the users and roles as
//! they are stored (buckets `auth`, `authUsers` and `authRoles`, byte for byte etcd's), and the
//! ranges that each user may read and write, merged when something of them changes. It is
//! replicated state like the rest; tokens are not ([`crate::Effect::TokenAssigned`]).
//!
//! Readers share it as an `Arc` with each View, so they need no lock. [`Auth::permit`] decides
//! whether somebody may do something; there is no other place that does.
//!
//! Read next: `permit.rs` (the decision), `change.rs` (the commands), `ranges.rs`.

mod change;
mod permit;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::authpb;
use bytes::Bytes;
use prost::Message;
use store::{Bucket, Op};
use types::Index;

pub use permit::{Attached, Want, Who};
pub use ranges::Ranges;

/// Name of the user that must exist before authentication is enabled, and that the leader signs
/// with when it ends a lease.
pub const ROOT: &str = "root";

/// The simple token that the login of entry `index` makes of the letters in it. It names the entry
/// before: that is how far etcd has come when it makes one, and all members must make the same.
//= etcd 3.7.3: server/etcdserver/apply/backend.go#Authenticate, server/auth/simple_token.go#assign
#[must_use]
pub fn simple_token(letters: &str, index: Index) -> String {
    format!("{letters}.{}", index.0.saturating_sub(1))
}

/// Keys of the bucket `auth`.
//= etcd 3.7.3: server/storage/schema/bucket.go (AuthEnabledKeyName, AuthRevisionKeyName)
const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";

/// A user with what its roles permit.
#[derive(Clone, PartialEq)]
struct User {
    stored: authpb::User,
    /// Whether it holds the role root, which permits everything.
    is_root: bool,
    read: Ranges,
    write: Ranges,
}

/// The state of authentication as of one entry.
#[derive(Clone, Default, PartialEq)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<Bytes, Arc<User>>,
    roles: BTreeMap<Bytes, authpb::Role>,
}

impl fmt::Debug for Auth {
    /// Without users and roles: the hashes of passwords are nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("enabled", &self.enabled)
            .field("revision", &self.revision)
            .field("users", &self.users.len())
            .field("roles", &self.roles.len())
            .finish()
    }
}

/// A record that is not what etcd writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedAuth;

impl Auth {
    /// Takes in a stored record of one of the three buckets. Once all are in, call
    /// [`Auth::loaded`].
    ///
    /// # Errors
    /// [`MalformedAuth`].
    pub fn insert_stored(
        &mut self,
        bucket: Bucket,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), MalformedAuth> {
        let name = Bytes::copy_from_slice(key);
        match bucket {
            Bucket::AuthUsers => {
                let stored = authpb::User::decode(value).map_err(|_| MalformedAuth)?;
                self.users.insert(name, Arc::new(User::bare(stored)));
            }
            Bucket::AuthRoles => {
                let role = authpb::Role::decode(value).map_err(|_| MalformedAuth)?;
                self.roles.insert(name, role);
            }
            _ if key == ENABLED => self.enabled = value == [1],
            _ if key == REVISION => {
                let revision = value.first_chunk().ok_or(MalformedAuth)?;
                self.revision = u64::from_be_bytes(*revision);
            }
            _ => {}
        }
        Ok(())
    }

    /// All that was stored is in. Gives what must be written into a database that has no revision
    /// yet.
    //= etcd 3.7.3: server/auth/store.go#NewAuthStore
    pub fn loaded(&mut self) -> Option<Op> {
        self.merge();
        if self.revision > 0 {
            return None;
        }
        self.revision = 1;
        Some(revision_op(self.revision))
    }

    /// Whether callers must say who they are.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The revision of users and roles.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that an entry is signed with by a member itself, if entries must be signed.
    #[must_use]
    pub fn signing_revision(&self) -> Option<u64> {
        self.enabled.then_some(self.revision)
    }

    /// Number of users.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// How a user's password is checked; `None` if there is no such user.
    #[must_use]
    pub fn password(&self, user: &str) -> Option<Password> {
        let stored = &self.users.get(user.as_bytes())?.stored;
        let without = stored.options.as_ref().is_some_and(|options| options.no_password);
        Some(if without { Password::Never } else { Password::Hash(stored.password.clone()) })
    }

    /// Whether tokens stay good if `newer` takes the place of this without the entries in between. If
    /// anything changed there, authentication may have been off for a while, or a user another one:
    /// what ended a token cannot be told from what came of it.
    #[must_use]
    pub fn keeps_tokens(&self, newer: &Self) -> bool {
        newer.enabled && newer.revision == self.revision
    }

    /// Computes what each user may read and write.
    fn merge(&mut self) {
        let roles = &self.roles;
        for user in self.users.values_mut() {
            *user = Arc::new(User::merged(user.stored.clone(), roles));
        }
    }

    /// As [`Auth::merge`], for one user.
    fn merge_user(&mut self, name: &Bytes, stored: authpb::User) {
        let user = User::merged(stored, &self.roles);
        self.users.insert(name.clone(), Arc::new(user));
    }
}

/// How a user's password is checked.
#[derive(Clone)]
pub enum Password {
    /// The user has none: it is known by its certificate only.
    Never,
    /// A bcrypt hash; empty if no password fits.
    Hash(Bytes),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Password::Never => "Never",
            Password::Hash(_) => "Hash(..)",
        })
    }
}

impl User {
    fn bare(stored: authpb::User) -> Self {
        Self { stored, is_root: false, read: Ranges::default(), write: Ranges::default() }
    }

    //= etcd 3.7.3: server/auth/range_perm_cache.go#getMergedPerms
    fn merged(stored: authpb::User, roles: &BTreeMap<Bytes, authpb::Role>) -> Self {
        let held = stored.roles.iter().filter_map(|name| roles.get(name.as_bytes()));
        let permissions = held.flat_map(|role| &role.key_permission);
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let Some(range) = ranges::granted(&permission.key, &permission.range_end) else {
                continue;
            };
            match authpb::permission::Type::try_from(permission.perm_type) {
                Ok(authpb::permission::Type::Read) => read.push(range),
                Ok(authpb::permission::Type::Write) => write.push(range),
                Ok(authpb::permission::Type::Readwrite) => {
                    read.push(range.clone());
                    write.push(range);
                }
                // A kind that only a later version knows permits nothing here, as in etcd.
                Err(_) => {}
            }
        }
        let is_root = stored.roles.iter().any(|role| role == ROOT);
        Self { stored, is_root, read: Ranges::merge(read), write: Ranges::merge(write) }
    }
}

fn enabled_op(enabled: bool) -> Op {
    let value = Bytes::from_static(if enabled { &[1] } else { &[0] });
    Op { bucket: Bucket::Auth, key: Bytes::from_static(ENABLED), value: Some(value) }
}

fn revision_op(revision: u64) -> Op {
    let value = Bytes::copy_from_slice(&revision.to_be_bytes());
    Op { bucket: Bucket::Auth, key: Bytes::from_static(REVISION), value: Some(value) }
}
