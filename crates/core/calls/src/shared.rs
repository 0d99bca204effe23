//! What all runtimes of a member share: who it is, what it published last, its limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use env::{Failpoints, Hooks};
use handover::{Notifier, Slot};
use member::NodeStatus;
use types::{ClusterId, MemberId};

use crate::jobs::LargeResults;
use crate::published::ViewSlot;

/// Limits of requests and answers.
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
    /// Time after which a client that takes nothing of a long answer is given up.
    pub reader_progress: Duration,
    /// How long a watch is quiet before it tells its progress
    /// (`--watch-progress-notify-interval`); at least 100 ms.
    pub progress_interval: Duration,
    /// Bytes of a watch response from which on it is split, if its watch wishes that.
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
    /// Those that do now.
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
    /// Who this is.
    pub id: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The newest View.
    pub view: ViewSlot,
    /// The newest state of raft.
    pub status: Arc<Slot<NodeStatus>>,
    /// Notified, one per runtime, when a View has a new revision.
    pub notifiers: Arc<[Notifier]>,
    /// Whether this member is a learner; see [`Shared::is_learner`].
    pub learner: Arc<AtomicBool>,
    /// Limits of requests and answers.
    pub limits: Limits,
    /// The next block of request ids.
    pub ids: AtomicU64,
    /// Feature gates: name, stage, and whether it is open.
    pub features: Vec<(&'static str, &'static str, bool)>,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// Long lists that keep the state they began with, and for how long each may.
    pub pins: Pins,
    /// Results of many megabytes.
    pub large: LargeResults,
    /// Who of the other members is connected.
    pub connected: Box<ConnectedFor>,
    /// What tests from outside make fail.
    pub failpoints: Failpoints,
    /// What a simulator hears and does; nobody in the server.
    pub hooks: Hooks,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether this member only receives the log, and so serves little.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }
}
