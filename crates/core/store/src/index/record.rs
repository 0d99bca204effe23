//! One version of one key as the index holds it, 32 bytes.

/// Set in [`Record::flags`] if the version is a deletion.
const TOMBSTONE: u32 = 1 << 31;
/// Set if [`Record::prev`] names the version that this one superseded.
const HAS_PREV: u32 = 1 << 30;
/// Set if the version counter exceeds 32 bits; the rest is in the index's side table.
const WIDE_VERSION: u32 = 1 << 29;

/// Changes of one transaction that can be told apart: sub-revisions are below this.
pub(crate) const MAX_CHANGES_PER_REVISION: u32 = 1 << 29;

/// A version of a key. `create` of a tombstone is that of the generation it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Main revision of this change.
    pub(crate) main: u64,
    /// Main revision at which the key was created.
    pub(crate) create: u64,
    /// Position in the history of the superseded version, modulo 2^32.
    pub(crate) prev: u32,
    /// Sub-revision and the flags above.
    pub(crate) flags: u32,
    /// Low 32 bits of the version; 0 in a tombstone.
    pub(crate) version: u32,
    /// Bytes of the stored `KeyValue`.
    pub(crate) len: u32,
}

impl Record {
    /// The first version of a key, or a tombstone that is the oldest known.
    pub(crate) fn first(main: u64, sub: u32, create: u64, len: u32, tombstone: bool) -> Self {
        assert!(sub < MAX_CHANGES_PER_REVISION, "too many changes in one transaction");
        let flags = sub | if tombstone { TOMBSTONE } else { 0 };
        Self { main, create, prev: 0, flags, version: u32::from(!tombstone), len }
    }

    pub(crate) fn sub(&self) -> u32 {
        self.flags & (MAX_CHANGES_PER_REVISION - 1)
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    pub(crate) fn has_prev(&self) -> bool {
        self.flags & HAS_PREV != 0
    }

    pub(crate) fn has_wide_version(&self) -> bool {
        self.flags & WIDE_VERSION != 0
    }

    /// Links to the superseded version, which lies at `position` of the history.
    pub(crate) fn set_prev(&mut self, position: u32) {
        self.prev = position;
        self.flags |= HAS_PREV;
    }

    /// Sets the version counter's low half and tells whether there is a high one.
    pub(crate) fn set_version(&mut self, version: u64) {
        self.version = version as u32;
        self.flags = match version >> 32 {
            0 => self.flags & !WIDE_VERSION,
            _ => self.flags | WIDE_VERSION,
        };
    }
}
