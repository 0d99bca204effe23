//! State that all runtimes of a member share: its id, the View it published last, its limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use env::{Failpoints, Hooks};
use handover::{Notifier, Slot};
use member::NodeStatus;
use types::{ClusterId, MemberId};

use crate::jobs::LargeResults;
use crate::logins::Logins;
use crate::published::ViewSlot;

/// Limits of requests and responses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an encoded raft request (`--max-request-bytes`).
    pub max_request_bytes: usize,
    /// Operations per level of a transaction (`--max-txn-ops`).
    pub max_txn_ops: usize,
    /// The quota as clients are shown it, in bytes; negative for none. See [`Limits::quota`].
    pub quota_bytes: i64,
    /// How long a request may wait: 5 s and two election timeouts.
    pub request_timeout: Duration,
    /// Time without progress after which the reader of a long response is given up.
    pub reader_progress: Duration,
    /// Time between progress notifications of a watch without events
    /// (`--watch-progress-notify-interval`); at least 100 ms.
    pub progress_interval: Duration,
    /// Bytes of a watch response from which on it is fragmented, if its watch asked for that.
    pub fragment_bytes: usize,
    /// `--election-timeout`: after three of them without a leader, streams that require one end.
    pub election: Duration,
}

impl Limits {
    /// Bytes of the backend beyond which writes are refused.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        u64::try_from(self.quota_bytes).ok()
    }
}

/// How many long lists keep their state, and how long each may (invariant 12).
#[derive(Debug)]
pub struct Pins {
    /// Number of lists that keep a View now.
    pub count: AtomicUsize,
    /// The age at which a list lets go of its state.
    pub age: Duration,
}

impl Default for Pins {
    fn default() -> Self {
        let age = Duration::from_millis(types::limits::LIST_PIN_MS);
        Self { count: AtomicUsize::new(0), age }
    }
}

/// For how long messages have been passing to and from another member; `None` while they do not.
pub type ConnectedFor = dyn Fn(MemberId) -> Option<Duration> + Send + Sync;

/// What all runtimes of a member share.
pub struct Shared {
    /// This member's id.
    pub id: MemberId,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The newest View.
    pub view: ViewSlot,
    /// The newest state of raft.
    pub status: Arc<Slot<NodeStatus>>,
    /// Notified, one per runtime, when a View has a new revision.
    pub notifiers: Arc<[Notifier]>,
    /// Whether this member is a learner; see [`Shared::is_learner`].
    pub learner: Arc<AtomicBool>,
    /// Limits of requests and responses.
    pub limits: Limits,
    /// The next block of request ids.
    pub ids: AtomicU64,
    /// Feature gates: name, stage, and whether it is enabled.
    pub features: Vec<(&'static str, &'static str, bool)>,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// Long lists that keep the state they began with, and for how long each may.
    pub pins: Pins,
    /// Permits for results of many megabytes.
    pub large: LargeResults,
    /// How users log in.
    pub logins: Logins,
    /// For how long each other member has been connected.
    pub connected: Box<ConnectedFor>,
    /// Failpoints that tests set from outside.
    pub failpoints: Failpoints,
    /// Hooks of the simulator; empty in the server.
    pub hooks: Hooks,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether this member is a learner, which serves few methods.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }
}
