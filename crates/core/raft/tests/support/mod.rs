//! A member with a modelled disk and state machine around [`Raft`], and a cluster of them.
//!
//! The disk holds what was *completed*, in order, and nothing else; a crash keeps only that (plus,
//! if asked, some of the writes under way, in order). The state machine's database is durable at
//! an index of its own, as etcd's is. Every entry applied anywhere is compared with what others
//! applied at the same index.
#![allow(dead_code)] // each test binary uses its part

pub mod figures;
pub mod oracle;
pub mod script;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use env::Entropy;
use raft::{
    Body, ConfState, Config, Entry, EntryKind, HardState, Message, Persist, Raft, ReadState, Ready,
    Recovered, Role, SnapshotMeta,
};
use types::{Index, MemberId, Term};

/// The seeds of a random test: `RAFT_SEEDS=from..to`, or the short form.
pub fn seeds(short: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("RAFT_SEEDS") else { return short };
    let (from, to) = text.split_once("..").expect("RAFT_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Entropy that returns one chosen number from [`Entropy::below`], so that a test can pin the
/// election timeout to `election_ticks + value`.
#[derive(Clone, Default)]
pub struct Pinned(pub Arc<AtomicU64>);

impl Entropy for Pinned {
    fn next_u64(&mut self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().min(bound.saturating_sub(1))
    }
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    /// The log starts after this.
    pub base: (Index, Term),
    /// The last received snapshot, recorded in the log; its data lies beside it.
    pub snapshot: Option<SnapshotMeta>,
    pub entries: Vec<Entry>,
    /// The database: applied up to here, with this membership.
    pub applied: Index,
    pub conf_state: ConfState,
}

impl Disk {
    pub fn write(&mut self, persist: &Persist) {
        if let Some(snapshot) = &persist.snapshot {
            self.base = (snapshot.index, snapshot.term);
            self.entries.clear();
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(first) = persist.entries.first() {
            let keep = first.index.0.checked_sub(self.base.0.0 + 1).expect("after the base");
            assert!(keep as usize <= self.entries.len(), "a gap in the log on disk");
            self.entries.truncate(keep as usize);
            self.entries.extend(persist.entries.iter().cloned());
        }
        if let Some(hard) = persist.hard_state {
            assert!(hard.term >= self.hard_state.term);
            self.hard_state = hard;
        }
    }

    /// Forgets the entries up to `to`.
    pub fn compact(&mut self, to: Index) {
        let count = (to.0 - self.base.0.0) as usize;
        let last = &self.entries[count - 1];
        self.base = (last.index, last.term);
        self.entries.drain(..count);
    }

    pub fn last(&self) -> (Index, Term) {
        self.entries.last().map_or(self.base, |entry| (entry.index, entry.term))
    }
}

/// One member.
pub struct Member {
    pub raft: Raft,
    pub config: Config,
    pub pin: Pinned,
    pub disk: Disk,
    /// Writes under way.
    pub writes: VecDeque<Persist>,
    /// Everything applied since the last start, in order.
    pub applied: Vec<Entry>,
    pub reads: Vec<ReadState>,
    /// Messages that left this member.
    pub sent: Vec<Message>,
}

impl Member {
    pub fn new(config: Config, disk: Disk) -> Self {
        // Election timeouts of 10 + id ticks, as the oracle pins them.
        let pin = Pinned(Arc::new(AtomicU64::new(config.id.0)));
        let raft = start(&config, &disk, &pin);
        Self {
            raft,
            config,
            pin,
            disk,
            writes: VecDeque::new(),
            applied: Vec::new(),
            reads: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The only member of a new cluster, as it comes out of its first boot.
    pub fn alone() -> Self {
        let id = MemberId(1);
        let (hard_state, entries) = raft::bootstrap(&[(id, Bytes::from_static(b"{}"))]);
        Self::new(Config::new(id), Disk { hard_state, entries, ..Disk::default() })
    }

    pub fn id(&self) -> MemberId {
        self.raft.id()
    }

    /// Takes what is ready without completing any write. Entries are applied at once.
    pub fn take_ready(&mut self) -> Ready {
        let announced = self.raft.has_ready();
        let ready = self.raft.ready();
        assert!(announced || ready.is_empty(), "has_ready announces everything");
        if let Some(persist) = &ready.persist {
            self.writes.push_back(persist.clone());
        }
        self.sent.extend(ready.messages.iter().cloned());
        self.reads.extend(&ready.read_states);
        if let Some(snapshot) = &ready.install {
            self.disk.applied = snapshot.index;
            self.disk.conf_state = snapshot.conf_state.clone();
            self.raft.applied(snapshot.index);
        }
        for entry in &ready.committed {
            let on_disk = self.disk.entries.iter().find(|other| other.index == entry.index);
            assert_eq!(on_disk, Some(entry), "only durable entries are applied");
            self.apply(entry);
        }
        ready
    }

    fn apply(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::Normal => {}
            EntryKind::ConfChange => {
                let change = raft::ConfChange::decode(entry.data.clone()).unwrap();
                self.disk.conf_state = self.raft.conf_applied(entry.index, Some(change));
            }
            EntryKind::ConfChangeV2 => {
                let change = raft::ConfChangeV2::decode(entry.data.clone()).unwrap();
                self.disk.conf_state = self.raft.conf_applied_v2(entry.index, Some(change));
            }
        }
        assert_eq!(entry.index, self.disk.applied.next(), "each entry is applied once, in order");
        self.disk.applied = entry.index;
        self.raft.applied(entry.index);
        self.applied.push(entry.clone());
    }

    /// Completes the oldest write.
    pub fn complete_write(&mut self) {
        let persist = self.writes.pop_front().expect("a write under way");
        self.disk.write(&persist);
        self.raft.persisted(persist.id);
    }

    /// Works until there is nothing to do, with a disk that completes at once.
    pub fn drain(&mut self) {
        while self.raft.has_ready() || !self.writes.is_empty() {
            self.take_ready();
            while !self.writes.is_empty() {
                self.complete_write();
            }
        }
    }

    /// Loses everything that is not durable, but for the first `kept` writes under way.
    pub fn crash(&mut self, kept: usize) {
        for persist in self.writes.drain(..).take(kept) {
            self.disk.write(&persist);
        }
        self.restart();
    }

    pub fn restart(&mut self) {
        self.writes.clear();
        self.applied.clear();
        self.reads.clear();
        self.raft = start(&self.config, &self.disk, &self.pin);
    }

    pub fn role(&self) -> Role {
        self.raft.role()
    }

    pub fn payloads(&self) -> Vec<String> {
        let text = |entry: &Entry| String::from_utf8_lossy(&entry.data).into_owned();
        let normal = |entry: &&Entry| entry.kind == EntryKind::Normal && !entry.data.is_empty();
        self.applied.iter().filter(normal).map(text).collect()
    }

    pub fn propose(&mut self, data: &str) {
        self.raft.propose(vec![Bytes::copy_from_slice(data.as_bytes())]).unwrap();
    }
}

pub fn start(config: &Config, disk: &Disk, pin: &Pinned) -> Raft {
    let mut config = config.clone();
    config.applied = disk.applied;
    let recovered = Recovered {
        hard_state: disk.hard_state,
        conf_state: disk.conf_state.clone(),
        snapshot: disk.base,
        entries: disk.entries.clone(),
    };
    Raft::new(config, recovered, Box::new(pin.clone())).unwrap()
}

/// Members and what is on its way between them.
pub struct Cluster {
    pub members: BTreeMap<u64, Member>,
    pub network: Vec<Message>,
    /// Pairs that do not hear each other (from, to).
    pub cut: Vec<(u64, u64)>,
}

impl Cluster {
    /// Members 1 to `n`, all voters, with a log that starts after a snapshot at (1, term 1), as
    /// the Go oracle starts them.
    pub fn new(n: u64) -> Self {
        Self::with(n, |config| config)
    }

    pub fn with(n: u64, adjust: impl Fn(Config) -> Config) -> Self {
        let voters: Vec<MemberId> = (1..=n).map(MemberId).collect();
        let disk = Disk {
            hard_state: HardState { term: Term(1), vote: None, commit: Index(1) },
            base: (Index(1), Term(1)),
            applied: Index(1),
            conf_state: ConfState { voters: voters.clone(), ..ConfState::default() },
            ..Disk::default()
        };
        let member = |id: &MemberId| (id.0, Member::new(adjust(Config::new(*id)), disk.clone()));
        Self { members: voters.iter().map(member).collect(), network: Vec::new(), cut: Vec::new() }
    }

    pub fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    /// Adds a member that knows nothing yet.
    pub fn join(&mut self, id: u64) {
        self.join_with(id, |config| config);
    }

    pub fn join_with(&mut self, id: u64, adjust: impl Fn(Config) -> Config) {
        let member = Member::new(adjust(Config::new(MemberId(id))), Disk::default());
        self.members.insert(id, member);
    }

    /// Drains member `id` and puts its messages on the network.
    pub fn drain(&mut self, id: u64) {
        let member = self.member(id);
        member.drain();
        let sent = std::mem::take(&mut member.sent);
        self.network.extend(sent);
    }

    pub fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from.0, message.to.0);
        if self.cut.contains(&(from, to)) {
            return;
        }
        if let Some(member) = self.members.get_mut(&to) {
            // A snapshot's data arrives beside its message.
            let _ = member.raft.step(message);
        }
    }

    /// Works and delivers until nothing happens any more.
    pub fn settle(&mut self) {
        loop {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in ids {
                self.drain(id);
            }
            if self.network.is_empty() {
                return;
            }
            for message in std::mem::take(&mut self.network) {
                self.deliver(message);
            }
        }
    }

    pub fn elect(&mut self, id: u64) {
        self.member(id).raft.campaign();
        self.settle();
        assert_eq!(self.member(id).role(), Role::Leader);
    }

    pub fn propose(&mut self, id: u64, data: &str) {
        self.member(id).propose(data);
        self.settle();
    }

    pub fn tick(&mut self, id: u64, ticks: u32) {
        for _ in 0..ticks {
            self.member(id).raft.tick();
        }
    }

    /// Cuts `id` off from everybody, in both directions.
    pub fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.members.keys().copied().filter(|&other| other != id).collect();
        for other in others {
            self.cut.push((id, other));
            self.cut.push((other, id));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }
}

pub fn snapshot_of(message: &Message) -> Option<&SnapshotMeta> {
    match &message.body {
        Body::Snapshot { meta, .. } => Some(meta),
        _ => None,
    }
}
