//! The View that the member published last, closed: its keys and values can be read only with an
//! [`Allowed`], so a handler that reads without having asked does not compile (`tests/exhaustive.rs`
//! checks that).
//!
//! Members, alarms, versions, positions and sizes are open: the calls that show them have rules that
//! look at nothing but the method.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use handover::Slot;
use machine::{Alarms, Auth, Members};
use member::MemberView;
use types::{Index, Revision};

use crate::caller::Allowed;

/// Where the member publishes its View. Copies lead to the same place.
#[derive(Clone)]
pub struct ViewSlot(Arc<Slot<MemberView>>);

impl ViewSlot {
    /// The place that Applier's thread stores into.
    #[must_use]
    pub fn new(slot: Arc<Slot<MemberView>>) -> Self {
        Self(slot)
    }

    /// The newest View.
    #[must_use]
    pub fn load(&self) -> PublishedView {
        PublishedView(self.0.load())
    }
}

/// A View of which keys and values are shown to who is allowed to read.
#[derive(Clone)]
pub struct PublishedView(Arc<MemberView>);

impl fmt::Debug for PublishedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishedView").field(&self.applied_index()).finish()
    }
}

impl PublishedView {
    /// All of it, for a caller that may read. Costs nothing.
    pub(crate) fn open(self, _: Allowed) -> Arc<MemberView> {
        self.0
    }

    /// All of it, for the host's metrics: no call answers from this.
    #[must_use]
    pub fn for_metrics(&self) -> &MemberView {
        &self.0
    }

    /// The revision of the newest transaction in it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.0.store.revision()
    }

    /// The last entry that was applied to it.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.0.store.applied_index()
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &Arc<Members> {
        &self.0.members
    }

    /// The alarms.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }

    /// Users and roles. That they are shown to callers is decided by the machine.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// The storage version, once one is durably stored.
    #[must_use]
    pub fn storage_version(&self) -> Option<&Bytes> {
        self.0.storage_version.as_ref()
    }

    /// Bytes of the database's file; 0 before there is one.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.0.store.backend().map_or(0, bolt::ReadTx::size_bytes)
    }

    /// Bytes of it in use; 0 before there is one.
    pub(crate) fn size_in_use_bytes(&self) -> u64 {
        self.0.store.backend().map_or(0, bolt::ReadTx::size_in_use_bytes)
    }
}
