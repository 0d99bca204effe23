//! What a member starts from: its settings, and what it found on its disk.

use env::Hooks;
use types::limits::{MAX_BYTES_PER_APPEND, MAX_COMMITTED_BYTES_PER_APPLY, MAX_INFLIGHT_APPENDS};
use types::{Index, MemberId, Term};

use crate::entry::{ConfState, Entry, HardState};
use crate::error::ConfigError;

/// Settings. [`Config::new`] gives those that etcd uses.
//= etcd 3.7.1: server/etcdserver/bootstrap.go#raftConfig
#[derive(Clone, Debug)]
pub struct Config {
    /// This member; not 0.
    pub id: MemberId,
    /// Ticks without a leader until an election; the timeout is drawn from one to two times this.
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Whether to ask before disturbing a cluster with an election.
    pub pre_vote: bool,
    /// Whether a leader without contact to a majority steps down.
    pub check_quorum: bool,
    /// Bytes of entries per append message; one entry may be larger.
    pub max_bytes_per_append: usize,
    /// Bytes of entries per [`Ready::committed`](crate::Ready); one entry may be larger.
    pub max_bytes_per_apply: usize,
    /// Append messages in flight to one follower.
    pub max_inflight: usize,
    /// The last entry that the state machine had applied; earlier ones are not handed out again.
    pub applied: Index,
    /// Who listens to rare paths, if anyone does.
    pub hooks: Hooks,
}

impl Config {
    /// etcd's settings with its default timing: 10 election ticks, 1 heartbeat tick.
    #[must_use]
    pub fn new(id: MemberId) -> Self {
        Self {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            check_quorum: true,
            max_bytes_per_append: MAX_BYTES_PER_APPEND,
            max_bytes_per_apply: MAX_COMMITTED_BYTES_PER_APPLY,
            max_inflight: MAX_INFLIGHT_APPENDS,
            applied: Index(0),
            hooks: Hooks::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        // The two highest ids name the local storage threads in raft's messages.
        //= etcd 3.7.1: raft/raft.go#LocalAppendThread
        if self.id.0 == 0 || self.id.0 >= u64::MAX - 1 {
            return Err(ConfigError::ReservedId);
        }
        if self.heartbeat_ticks == 0 {
            return Err(ConfigError::NoHeartbeat);
        }
        if self.election_ticks <= self.heartbeat_ticks {
            return Err(ConfigError::ElectionTooShort);
        }
        if self.max_inflight == 0 {
            return Err(ConfigError::NoInflight);
        }
        Ok(())
    }
}

/// What the disk held. All of it is durable.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The last hard state; the default if there was none.
    pub hard_state: HardState,
    /// The membership after [`Config::applied`].
    pub conf_state: ConfState,
    /// The entry before the first of `entries` (index 0, term 0 for a whole log).
    pub snapshot: (Index, Term),
    /// The log after the snapshot.
    pub entries: Vec<Entry>,
}
