//! What a seed draws before anything runs.

use std::time::Duration;

use env::{Entropy, SplitMix};
use member::{CommitPolicy, CompactionPace, MemberLimits, Retention};
use store::StoreLimits;

/// Milliseconds of an election timeout where the options do not say.
const ELECTION_MS: u64 = 1_000;

/// What a seed simulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// One member that crashes every few hundred steps.
    One,
    /// A cluster that changes, over a network that fails: at least a minute of it.
    #[default]
    Cluster,
}

/// How clients' calls come to the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// Over HTTP/2 in one seed of four, as messages in the others.
    #[default]
    Drawn,
    /// Over HTTP/2.
    Http2,
    /// As messages.
    Messages,
}

/// Whether users call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// Users in one seed of three, nobody in particular in the others; nobody beside a planted bug,
    /// which are about other things.
    #[default]
    Drawn,
    /// Users.
    Users,
    /// Nobody in particular.
    Nobody,
}

/// What differs between seeds whose callers are users.
#[derive(Clone, Debug)]
pub struct UserOptions {
    /// Users besides root: 1-3.
    pub users: u32,
    /// Milliseconds between changes of users and roles: 60-1,500.
    pub change_ms: u64,
    /// Seconds for which a token is valid after its last use: 2-60.
    pub token_ttl_secs: u64,
}

impl UserOptions {
    /// Draws whether a seed has them, and which, from numbers of its own, as
    /// [`Http2Options::draw`] does.
    #[must_use]
    pub fn draw(seed: u64, callers: Callers, is_planted: bool) -> Option<(Self, SplitMix)> {
        /// Parts the numbers from the seed's others.
        const SALT: u64 = 0x7573_6572_7300_0d0a;
        let mut entropy = SplitMix::new(SplitMix::new(seed ^ SALT).next_u64());
        let is_drawn = entropy.below(3) == 0;
        let options = Self {
            users: 1 + entropy.below(3) as u32,
            change_ms: 60 + entropy.below(2) * entropy.below(1_440),
            token_ttl_secs: 2 + entropy.below(2) * entropy.below(58),
        };
        let has_them = match callers {
            Callers::Drawn => is_drawn && !is_planted,
            Callers::Users => true,
            Callers::Nobody => false,
        };
        has_them.then_some((options, entropy))
    }
}

/// What differs between seeds whose calls come over HTTP/2.
#[derive(Clone, Debug)]
pub struct Http2Options {
    /// Connections to a member: 1-3.
    pub connections: u64,
    /// Bytes of a stream's window: 100-12,800.
    pub window: u32,
    /// Bytes after which clients open a connection's window of 65,535 again: 1 to all of it.
    pub give_back: u32,
    /// Bytes that a server may have unsent before it reads no more: 300-20,000.
    pub unsent_bytes: u64,
    /// Microseconds that a piece travels at most: 0-3,000.
    pub travel_us: u64,
    /// Of a hundred thousand turns of a connection, how many break it: 0-200.
    pub breaks_per_100k: u64,
}

impl Http2Options {
    /// Draws whether a seed has them, and which, from numbers of its own: nothing else that the
    /// seed draws depends on it. The generator is for whatever uses them.
    #[must_use]
    pub fn draw(seed: u64, carrier: Carrier) -> Option<(Self, SplitMix)> {
        /// Parts the numbers from the seed's others.
        const SALT: u64 = 0x4854_5450_2f32_0d0a;
        let mut entropy = SplitMix::new(SplitMix::new(seed ^ SALT).next_u64());
        let is_drawn = entropy.below(4) == 0;
        let options = Self {
            connections: 1 + entropy.below(3),
            window: 100 << entropy.below(8),
            give_back: [1, 1_000, 30_000, 65_535][entropy.below(4) as usize],
            unsent_bytes: 300 + entropy.below(2) * entropy.below(19_700),
            travel_us: entropy.below(2) * entropy.below(3_000),
            breaks_per_100k: entropy.below(2) * entropy.below(200),
        };
        let has_them = match carrier {
            Carrier::Drawn => is_drawn,
            Carrier::Http2 => true,
            Carrier::Messages => false,
        };
        has_them.then_some((options, entropy))
    }
}

/// What differs between clusters, and what goes wrong in them.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Founding members: 1, 3 or 5.
    pub founders: u64,
    /// Members that there may be at once, learners among them: up to 3 more.
    pub most: usize,
    /// Milliseconds between membership changes and leader transfers: none (one in four), or 2-20 s.
    pub change_ms: Option<u64>,
    /// Milliseconds between faults, on average: 1.5-9 s.
    pub fault_ms: u64,
    /// Milliseconds that a fault lasts at most: 0.3-6 s.
    pub fault_lasts_ms: u64,
    /// Of a thousand packets, how many are lost, come twice, or come late when all is well: 0-30.
    pub lost_permille: u64,
    /// See above.
    pub twice_permille: u64,
    /// See above.
    pub late_permille: u64,
    /// Microseconds that a packet travels: 50-5,000.
    pub travel_us: u64,
    /// Thousandths that the slowest clock loses: 0-50.
    pub clock_loss: u64,
    /// Milliseconds after which a client gives a call up: 1-9 s.
    pub patience_ms: u64,
    /// Milliseconds of the election timeout, ten ticks: 300-1,500.
    pub election_ms: u64,
    /// Simulated seconds of the safety phase, at least.
    pub seconds: u64,
    /// Faults in it, at least.
    pub faults: u64,
}

impl ClusterOptions {
    fn draw(within: &mut impl FnMut(u64, u64) -> u64) -> Self {
        let founders = [1, 3, 3, 3, 3, 5][within(0, 5) as usize];
        Self {
            founders,
            most: (founders + within(0, 3)) as usize,
            change_ms: (within(0, 3) > 0).then_some(within(2_000, 20_000)),
            fault_ms: within(1_500, 9_000),
            fault_lasts_ms: within(300, 6_000),
            lost_permille: within(0, 1) * within(0, 30),
            twice_permille: within(0, 1) * within(0, 30),
            late_permille: within(0, 30),
            travel_us: within(50, 5_000),
            clock_loss: within(0, 1) * within(0, 50),
            patience_ms: within(1_000, 9_000),
            election_ms: within(3, 15) * 100,
            seconds: 62,
            faults: 6,
        }
    }
}

/// Everything that differs between seeds, but for the schedule itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// What there is only in clusters.
    pub cluster: Option<ClusterOptions>,
    /// Operations that clients ask for before everything is healed: 120-700.
    pub operations: usize,
    /// Clients: 2-8.
    pub clients: u32,
    /// Watching clients, besides one that watches everything: 1-4.
    pub watchers: u32,
    /// Distinct keys: 2-14.
    pub keys: u64,
    /// Bytes of a large value, which one put in sixteen has: 0, or 200-6,000.
    pub large_bytes: u64,
    /// Milliseconds that a client thinks at most between operations: 1-60.
    pub think_ms: u64,
    /// Scheduler steps between crashes on average: none (one in six), or 250-4,000.
    pub crash_steps: Option<u64>,
    /// Of a hundred crashes, how many cut the power; the others kill the process, whose writes
    /// the kernel still has: 30-100.
    pub power_percent: u64,
    /// Of a hundred recoveries, how many are cut too: 0-40.
    pub recovery_fault_percent: u64,
    /// Of a thousand steps of an automaton, how many end in a stall of up to `stall_ms`: 0-20.
    pub stall_permille: u64,
    /// Longest stall in milliseconds: 5-800. The log's are the disk's slowness.
    pub stall_ms: u64,
    /// Of a hundred thousand steps, how many jump the clock by 0.1 to 12 seconds: 0-60.
    pub jump_per_100k: u64,
    /// Entries between raft snapshots: 8-150.
    pub snapshot_count: u64,
    /// Entries kept behind them: 0-40.
    pub catchup_entries: u64,
    /// Segment size (2 KiB to 64 KiB), memory kept for watchers (0 to 64 KiB), bytes that the
    /// backend may lag behind (4 KiB to 1 MiB), revisions per slice of a compaction (1-50).
    pub limits: MemberLimits,
    /// Backend commits: 5-300 ms, 5-2,000 operations.
    pub commit: CommitPolicy,
    /// Log segments and snapshot files kept by purge: 1-3.
    pub keep: u32,
    /// Milliseconds between purges: 50-1,000.
    pub purge_ms: u64,
    /// Bytes of the backend beyond which writes are refused: none (half of the seeds), or 32 to
    /// 96 KiB.
    pub quota_bytes: Option<u64>,
    /// Compaction by itself: none (two in three), periodic 1-8 s, or 5-60 revisions.
    pub retention: Option<Retention>,
    /// Of a hundred operations, how many compact: 0-6.
    pub compact_percent: u64,
    /// Of a thousand operations, how many defragment: 0-15.
    pub defragment_permille: u64,
    /// Of a hundred operations, how many concern leases: 0-30.
    pub lease_percent: u64,
    /// Of a hundred operations, how many read: 10-60.
    pub read_percent: u64,
    /// Of a hundred operations, how many are transactions: 0-30.
    pub txn_percent: u64,
    /// Whether nothing is in the page cache, so that reads go to the pool: one in four.
    pub cold: bool,
    /// Hundreds of bytes that a watch stream takes before it is full: 1-6.
    pub window: usize,
    /// Bytes of a watch response from which on it is fragmented where that was asked for: 64-600.
    pub fragment_bytes: usize,
    /// Milliseconds between progress notifications: 100-1,500.
    pub progress_ms: u64,
    /// Whether the calls are careful with changes of the cluster (`--strict-reconfig-check`).
    pub strict_reconfig: bool,
    /// Milliseconds between comparisons of hashes: none (one in two), or 1-10 s.
    pub corrupt_check_ms: Option<u64>,
    /// Milliseconds between comparisons of compaction hashes: none (one in two), or 1-10 s.
    pub compact_check_ms: Option<u64>,
}

impl Options {
    /// Draws the options of a seed.
    #[must_use]
    pub fn draw(entropy: &mut SplitMix, shape: Shape) -> Self {
        let mut options = Self::draw_one(entropy);
        if shape == Shape::One {
            return options;
        }
        let mut within = |from: u64, to: u64| from + entropy.below(to - from + 1);
        let cluster = ClusterOptions::draw(&mut within);
        options.operations = 510;
        options.clients = within(4, 9) as u32;
        options.read_percent = within(5, 40);
        options.think_ms = within(45, 140);
        // Thousands of revisions, a few every 20 ms, would outlast all patience.
        options.limits.compaction.batch = options.limits.compaction.batch.max(10);
        options.crash_steps = None;
        options.jump_per_100k = 0;
        options.stall_permille = within(0, 1) * within(0, 4);
        options.snapshot_count = within(10, 400);
        options.catchup_entries = within(0, 1) * within(0, 200);
        options.quota_bytes = options.quota_bytes.filter(|_| within(0, 2) == 0);
        options.compact_percent = within(0, 3);
        options.defragment_permille = within(0, 1) * within(0, 4);
        options.cluster = Some(cluster);
        options.strict_reconfig = within(0, 1) == 1;
        options.corrupt_check_ms = (within(0, 1) == 1).then_some(within(1_000, 10_000));
        options.compact_check_ms = (within(0, 1) == 1).then_some(within(1_000, 10_000));
        options
    }

    fn draw_one(entropy: &mut SplitMix) -> Self {
        let mut within = |from: u64, to: u64| from + entropy.below(to - from + 1);
        let ms = Duration::from_millis;
        let limits = MemberLimits {
            wal_segment_bytes: 1 << within(11, 16),
            store: StoreLimits {
                watch_tail_bytes: within(0, 1) as usize * (1 << within(9, 16)),
                uncommitted_bytes: 1 << within(12, 20),
            },
            compaction: CompactionPace { batch: within(1, 50) as usize, sleep: ms(within(0, 20)) },
        };
        Self {
            cluster: None,
            operations: within(120, 700) as usize,
            clients: within(2, 8) as u32,
            watchers: within(1, 4) as u32,
            keys: within(2, 14),
            large_bytes: within(0, 1) * within(200, 6_000),
            think_ms: within(1, 60),
            crash_steps: (within(0, 5) > 0).then_some(within(250, 4_000)),
            power_percent: within(30, 100),
            recovery_fault_percent: within(0, 40),
            stall_permille: within(0, 20),
            stall_ms: within(5, 800),
            jump_per_100k: within(0, 60),
            snapshot_count: within(8, 150),
            catchup_entries: within(0, 40),
            limits,
            commit: CommitPolicy {
                interval: ms(within(5, 300)),
                operations: within(5, 2_000) as usize,
            },
            keep: within(1, 3) as u32,
            purge_ms: within(50, 1_000),
            quota_bytes: (within(0, 1) == 1).then_some(within(32, 96) << 10),
            retention: match within(0, 5) {
                0 => Some(Retention::Periodic(ms(within(1_000, 8_000)))),
                1 => Some(Retention::Revisions(within(5, 60) as i64)),
                _ => None,
            },
            compact_percent: within(0, 6),
            defragment_permille: within(0, 15),
            lease_percent: within(0, 30),
            read_percent: within(10, 60),
            txn_percent: within(0, 30),
            cold: within(0, 3) == 0,
            window: within(1, 6) as usize,
            fragment_bytes: within(64, 600) as usize,
            progress_ms: within(100, 1_500),
            strict_reconfig: false,
            corrupt_check_ms: None,
            compact_check_ms: None,
        }
    }

    /// The election timeout.
    #[must_use]
    pub fn election(&self) -> Duration {
        Duration::from_millis(self.cluster.as_ref().map_or(ELECTION_MS, |c| c.election_ms))
    }
}
