//! What a member is started with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::membershippb;
use env::{HashSeed, Hooks, SplitMix};
use machine::{ApplyConfig, Member};
use store::StoreLimits;
use types::{ClusterId, MemberId, RequestId};

use crate::applier::CompactionPace;
use crate::committer::CommitPolicy;
use crate::node::NodeConfig;

/// Sizes that etcd fixes, or has flags for. The simulator makes them small, so that short runs
/// meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberLimits {
    /// Bytes of a log segment at which the next is begun.
    pub wal_segment_bytes: u64,
    /// What the store keeps in memory.
    pub store: StoreLimits,
    /// Slices of a compaction.
    pub compaction: CompactionPace,
}

impl Default for MemberLimits {
    fn default() -> Self {
        Self {
            wal_segment_bytes: types::limits::WAL_SEGMENT_BYTES,
            store: StoreLimits::default(),
            compaction: CompactionPace::default(),
        }
    }
}

/// The configuration of a member.
#[derive(Clone, Debug)]
pub struct StartConfig {
    /// Directory of the database and `.snap` files (`<data-dir>/member/snap`).
    pub snap_dir: PathBuf,
    /// Directory of the log (`<data-dir>/member/wal`).
    pub wal_dir: PathBuf,
    /// This member's id.
    pub member: MemberId,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The founding members; none if this one joins. Used only if there is no log yet.
    pub founders: Vec<Member>,
    /// Settings of raft and of proposals.
    pub node: NodeConfig,
    /// Settings of the state machine.
    pub apply: ApplyConfig,
    /// When the backend commits.
    pub commit: CommitPolicy,
    /// Sizes that etcd fixes or has flags for.
    pub limits: MemberLimits,
    /// Election timeout in ticks.
    pub election_ticks: u32,
    /// Whether to ask before an election (`--pre-vote`).
    pub pre_vote: bool,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// `--force-new-cluster`: this member alone goes on with what it has.
    pub force_new_cluster: bool,
    /// Who listens to rare paths: a simulator, or nobody.
    pub hooks: Hooks,
}

impl StartConfig {
    /// A member that founds a cluster alone, with etcd's defaults and no quota: for tests and tools.
    /// Its files are below `dir`, which is `<data-dir>/member`.
    #[must_use]
    pub fn founding(dir: &Path, founder: Member, cluster: ClusterId) -> Self {
        let id = MemberId(founder.id);
        let attributes = membershippb::Attributes {
            name: founder.name.clone(),
            client_urls: founder.client_urls.clone(),
        };
        Self {
            snap_dir: dir.join("snap"),
            wal_dir: dir.join("wal"),
            member: id,
            cluster,
            founders: vec![founder],
            node: NodeConfig {
                id,
                tick: Duration::from_millis(100),
                election: Duration::from_secs(1),
                snapshot_count: 10_000,
                catchup_entries: 5_000,
                attributes,
                cluster_version: types::CLUSTER_VERSION.to_owned(),
                lease_checkpoints: false,
                first_request_id: RequestId(1),
            },
            apply: ApplyConfig {
                id,
                min_lease_ttl: 2,
                max_learners: 1,
                quota_bytes: None,
                persist_checkpoints: false,
                hash_seed: HashSeed::draw(&mut SplitMix::new(1)),
            },
            commit: CommitPolicy { interval: Duration::from_millis(100), operations: 10_000 },
            limits: MemberLimits::default(),
            election_ticks: 10,
            pre_vote: true,
            unsafe_no_fsync: false,
            force_new_cluster: false,
            hooks: Hooks::default(),
        }
    }
}
