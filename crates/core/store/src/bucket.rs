//! etcd's buckets and operations on their keys. Their values are described in `FORMAT.md`.
//!
//! //= etcd 3.7.1: server/storage/schema/bucket.go

use bytes::Bytes;

/// A bucket of etcd's database. The order is that of the file: bytewise by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Bucket {
    Alarm,
    Auth,
    AuthRoles,
    AuthUsers,
    Cluster,
    Key,
    Lease,
    Members,
    MembersRemoved,
    Meta,
}

impl Bucket {
    /// All buckets, as they are ordered in the file.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// The name in the file.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Alarm => b"alarm",
            Self::Auth => b"auth",
            Self::AuthRoles => b"authRoles",
            Self::AuthUsers => b"authUsers",
            Self::Cluster => b"cluster",
            Self::Key => b"key",
            Self::Lease => b"lease",
            Self::Members => b"members",
            Self::MembersRemoved => b"members_removed",
            Self::Meta => b"meta",
        }
    }
}

/// Keys of the `meta` bucket.
pub mod meta {
    /// Index of the last entry in the database, u64 big-endian.
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    /// Term of that entry, u64 big-endian.
    pub const TERM: &[u8] = b"term";
    /// `raftpb.ConfState` as JSON.
    pub const CONF_STATE: &[u8] = b"confState";
    /// Storage version, text such as `3.7.0`.
    pub const STORAGE_VERSION: &[u8] = b"storageVersion";
    /// Revision of the newest compaction that was accepted, 17 bytes with sub 0.
    pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
    /// Revision of the newest compaction whose deletes are all in the database.
    pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
}

/// One change of a bucket other than through the key-value API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The bucket.
    pub bucket: Bucket,
    /// The key in it, not empty.
    pub key: Bytes,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

impl Op {
    /// Bytes this operation holds in memory, roughly.
    pub(crate) fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}
