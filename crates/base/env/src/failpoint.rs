//! Moments at which a test from outside may delay a member, end it, or make a step fail.
//!
//! Owns the names, which are etcd's and mean what they mean there, and the handle through which
//! code passes such a moment. A name exists only if there is an equivalent moment here. Never
//! decides what happens: a [`Hook`] does. Without one a moment costs the look at an `Option`.

use std::sync::Arc;
use std::time::Duration;

macro_rules! failpoints {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal $(: $kind:ident)?,)+) => {
        /// A moment that can be made to fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Failpoint {
            $($(#[$doc])+ $variant,)+
        }

        impl Failpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// etcd's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Whether a returned text becomes an error ([`Failpoints::error`]).
            #[must_use]
            pub const fn takes_text(self) -> bool {
                match self {
                    $(Self::$variant => false $(|| failpoints!(@$kind))?,)+
                }
            }
        }
    };
    (@text) => { true };
}

//= etcd 3.7.1: the comments that begin with `gofail:`
failpoints! {
    /// A leader is about to send messages, before it writes.
    RaftBeforeLeaderSend = "raftBeforeLeaderSend",
    /// Another member is about to send messages, after it has written and applied memberships.
    RaftBeforeFollowerSend = "raftBeforeFollowerSend",
    /// Entries and the hard state are about to be written.
    RaftBeforeSave = "raftBeforeSave",
    /// They are durable; nobody was told.
    RaftAfterSave = "raftAfterSave",
    /// The log is about to be flushed.
    WalBeforeSync = "walBeforeSync",
    /// It is flushed.
    WalAfterSync = "walAfterSync",
    /// A received snapshot's file is about to be written, and its record in the log.
    RaftBeforeSaveSnap = "raftBeforeSaveSnap",
    /// A snapshot's file is durable, its record not written. (The name is etcd's.)
    RaftBeforeWalSaveSnapshot = "raftBeforeWALSaveSnaphot",
    /// A received snapshot's record is written.
    RaftAfterSaveSnap = "raftAfterSaveSnap",
    /// A received snapshot is durable; raft's log does not begin behind it yet.
    RaftBeforeApplySnap = "raftBeforeApplySnap",
    /// Raft's log begins behind a received snapshot.
    RaftAfterApplySnap = "raftAfterApplySnap",
    /// The segments before a received snapshot were let go.
    RaftAfterWalRelease = "raftAfterWALRelease",
    /// The database of a received snapshot is about to be opened.
    ApplyBeforeOpenSnapshot = "applyBeforeOpenSnapshot",
    /// The database of a received snapshot is open.
    ApplyAfterOpenSnapshot = "applyAfterOpenSnapshot",
    /// An entry that is no membership change is about to be applied.
    BeforeApplyOneEntryNormal = "beforeApplyOneEntryNormal",
    /// A membership change is about to be applied.
    BeforeApplyOneConfChange = "beforeApplyOneConfChange",
    /// A backend transaction is about to get what belongs to it, the consistent index with it.
    CommitBeforePreCommitHook = "commitBeforePreCommitHook",
    /// It has it.
    CommitAfterPreCommitHook = "commitAfterPreCommitHook",
    /// A backend transaction is about to be committed.
    BeforeCommit = "beforeCommit",
    /// It is committed; nobody was told.
    AfterCommit = "afterCommit",
    /// That a compaction was accepted is about to become durable in the backend.
    CompactBeforeCommitScheduledCompact = "compactBeforeCommitScheduledCompact",
    /// It is.
    CompactAfterCommitScheduledCompact = "compactAfterCommitScheduledCompact",
    /// What a compaction removed, but not all of it, is about to be committed.
    CompactBeforeCommitBatch = "compactBeforeCommitBatch",
    /// It is.
    CompactAfterCommitBatch = "compactAfterCommitBatch",
    /// A compaction has removed all; that it has finished is not noted yet.
    CompactBeforeSetFinishedCompact = "compactBeforeSetFinishedCompact",
    /// It is noted, not committed.
    CompactAfterSetFinishedCompact = "compactAfterSetFinishedCompact",
    /// The file of a defragmentation is opened; a text is the error.
    DefragOpenFileError = "defragOpenFileError": text,
    /// A defragmentation copies; a text is the error.
    DefragDbFail = "defragdbFail": text,
    /// All is committed, the copy is about to begin.
    DefragBeforeCopy = "defragBeforeCopy",
    /// The copy is complete and about to take the database's name.
    DefragBeforeRename = "defragBeforeRename",
    /// A lease is about to be renewed.
    BeforeCheckpointInLeaseRenew = "beforeCheckpointInLeaseRenew",
    /// A watch response is about to be sent.
    BeforeSendWatchResponse = "beforeSendWatchResponse",
}

/// What happens at failpoints. It may end the process.
pub trait Hook: Send + Sync {
    /// Passes a moment on a thread that may be held up. Returns the text of a failure.
    fn hit(&self, point: Failpoint) -> Option<String>;

    /// As [`Hook::hit`], but returns for how long to wait instead of waiting.
    fn delay(&self, point: Failpoint) -> Duration;
}

/// The way to failpoints; by default there are none.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<dyn Hook>>);

impl Failpoints {
    /// Failpoints with a hook.
    #[must_use]
    pub fn new(hook: Arc<dyn Hook>) -> Self {
        Self(Some(hook))
    }

    /// Whether there is a hook.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Passes a moment, on a thread that may be held up.
    #[inline]
    pub fn hit(&self, point: Failpoint) {
        if let Some(hook) = &self.0 {
            hook.hit(point);
        }
    }

    /// As [`Failpoints::hit`] where the step itself can fail.
    ///
    /// # Errors
    /// The text that was asked for.
    #[inline]
    pub fn error(&self, point: Failpoint) -> Result<(), String> {
        debug_assert!(point.takes_text());
        self.0.as_ref().and_then(|hook| hook.hit(point)).map_or(Ok(()), Err)
    }

    /// Passes a moment on a thread that must not be held up: for how long the caller shall wait.
    #[inline]
    #[must_use]
    pub fn delay(&self, point: Failpoint) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |hook| hook.delay(point))
    }
}

impl std::fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_on() { "Failpoints(on)" } else { "Failpoints(off)" })
    }
}
