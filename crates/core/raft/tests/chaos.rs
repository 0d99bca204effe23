//! Random clusters with slow disks, slow state machines, crashes and a bad network, and what must
//! hold whatever happens: one leader per term, one history, promises only after durability, no
//! promise while a membership change waits, linearizable reads, and progress once all is well.
//!
//! Seeded; `RAFT_SEEDS=from..to` and `RAFT_STEPS=n` run a longer one.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use env::{Entropy, SplitMix};
use raft::{
    Body, ConfChange, ConfChangeKind, ConfChangeV2, ConfState, Config, Entry, EntryKind, HardState,
    Message, Persist, Raft, Role, SnapshotMeta,
};
use support::{Disk, Pinned};
use types::{Index, MemberId, Term};

/// What the state machine is told to do, in order.
enum Work {
    Install(SnapshotMeta),
    Apply(Entry),
}

struct Peer {
    id: MemberId,
    config: Config,
    raft: Raft,
    /// `disk.applied` and `disk.conf_state` are the durable database.
    disk: Disk,
    writes: VecDeque<Persist>,
    work: VecDeque<Work>,
    /// The database in memory, ahead of the durable one: each index with the membership there.
    database: Vec<(Index, ConfState)>,
    pin: Pinned,
}

/// A cluster and everything that was ever true of it.
struct World {
    rng: SplitMix,
    peers: Vec<Peer>,
    network: Vec<Message>,
    /// What is committed at each index, on whichever member it was applied first.
    history: BTreeMap<Index, Entry>,
    /// The membership from each index on.
    memberships: BTreeMap<Index, ConfState>,
    leaders: BTreeMap<Term, MemberId>,
    /// The highest index that any member had applied when a read was asked for.
    reads: BTreeMap<u64, Index>,
    reads_answered: u64,
    counter: u64,
    loss_percent: u64,
    snapshots: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix::new(seed);
        let n = [1, 3, 3, 4, 5][rng.below(5) as usize];
        let founders: Vec<_> =
            (1..=n).map(|id| (MemberId(id), Bytes::from_static(b"{}"))).collect();
        let (hard_state, entries) = raft::bootstrap(&founders);
        let pre_vote = rng.below(2) == 0;
        let check_quorum = rng.below(2) == 0;
        let max_bytes = [30, 200, 1 << 20][rng.below(3) as usize];
        let loss_percent = [0, 5, 30][rng.below(3) as usize];
        let peers = (1..=n + 1)
            .map(|id| {
                let config = Config {
                    pre_vote,
                    check_quorum,
                    max_bytes_per_append: max_bytes,
                    max_bytes_per_apply: max_bytes,
                    max_inflight: 1 + rng.below(8) as usize,
                    ..Config::new(MemberId(id))
                };
                // The last one was not there at the foundation.
                let disk = if id <= n {
                    Disk { hard_state, entries: entries.clone(), ..Disk::default() }
                } else {
                    Disk::default()
                };
                let pin = Pinned(Arc::new(AtomicU64::new(id)));
                let raft = support::start(&config, &disk, &pin);
                Peer {
                    id: MemberId(id),
                    config,
                    raft,
                    disk,
                    writes: VecDeque::new(),
                    work: VecDeque::new(),
                    database: Vec::new(),
                    pin,
                }
            })
            .collect();
        Self {
            rng,
            peers,
            network: Vec::new(),
            history: BTreeMap::new(),
            memberships: BTreeMap::from([(Index(0), ConfState::default())]),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_answered: 0,
            counter: 0,
            loss_percent,
            snapshots: 0,
        }
    }

    fn applied_anywhere(&self) -> Index {
        self.history.last_key_value().map_or(Index(0), |(index, _)| *index)
    }

    /// Takes what member `at` has ready.
    fn ready(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let ready = peer.raft.ready();
        // A received snapshot brings a newer membership than the changes that still wait.
        let first = peer.raft.status().first;
        let waits = |work: &Work| match work {
            Work::Apply(entry) => entry.kind != EntryKind::Normal && entry.index >= first,
            Work::Install(_) => false,
        };
        let conf_waits = peer.work.iter().any(waits);
        for message in &ready.messages {
            peer.check_promise(message, conf_waits);
        }
        if let Some(persist) = ready.persist {
            let changed = persist.hard_state.is_some() || !persist.entries.is_empty();
            assert!(changed || persist.snapshot.is_some(), "a write writes something");
            peer.writes.push_back(persist);
        }
        if let Some(meta) = ready.install {
            assert_eq!(peer.disk.snapshot.as_ref(), Some(&meta), "its record is durable");
            peer.work.push_back(Work::Install(meta));
        }
        for entry in ready.committed {
            let durable = peer.disk.entries.contains(&entry);
            assert!(durable, "only durable entries are handed out");
            peer.work.push_back(Work::Apply(entry));
        }
        if peer.raft.role() == Role::Leader {
            let first = *self.leaders.entry(peer.raft.term()).or_insert(peer.id);
            assert_eq!(first, peer.id, "one leader per term");
        }
        for read in ready.read_states {
            let asked = self.reads[&read.context];
            assert!(read.index >= asked, "a read at {} misses {asked}", read.index);
            self.reads_answered += 1;
        }
        self.network.extend(ready.messages);
    }

    fn work(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        match peer.work.pop_front() {
            None => {}
            Some(Work::Install(meta)) => {
                let (_, expected) =
                    self.memberships.range(..=meta.index).next_back().expect("the first");
                assert_eq!(&meta.conf_state, expected, "the membership of a snapshot");
                assert_eq!(self.history[&meta.index].term, meta.term);
                self.snapshots += 1;
                // An installed snapshot is a durable database.
                peer.database.clear();
                peer.disk.applied = meta.index;
                peer.disk.conf_state = meta.conf_state;
                peer.raft.applied(meta.index);
            }
            Some(Work::Apply(entry)) => {
                let index = entry.index;
                assert_eq!(index, peer.applied().next(), "in order, each once");
                let known = self.history.entry(index).or_insert_with(|| entry.clone());
                assert_eq!(*known, entry, "one history");
                let conf = match entry.kind {
                    EntryKind::Normal => peer.raft.conf_state(),
                    EntryKind::ConfChange => {
                        let change = ConfChange::decode(entry.data).unwrap();
                        peer.raft.conf_applied(index, Some(change))
                    }
                    EntryKind::ConfChangeV2 => {
                        let change = ConfChangeV2::decode(entry.data).unwrap();
                        peer.raft.conf_applied_v2(index, Some(change))
                    }
                };
                // A snapshot that waits already set the membership it brings.
                if !peer.work.iter().any(|work| matches!(work, Work::Install(_)))
                    && peer.raft.status().first <= index.next()
                    && entry.kind != EntryKind::Normal
                {
                    let known = self.memberships.entry(index).or_insert_with(|| conf.clone());
                    assert_eq!(*known, conf, "one membership");
                }
                let conf =
                    self.memberships.range(..=index).next_back().expect("the first").1.clone();
                peer.database.push((index, conf));
                peer.raft.applied(index);
            }
        }
    }

    fn crash(&mut self, at: usize) {
        let kept = self.rng.below(self.peers[at].writes.len() as u64 + 1) as usize;
        let durable = self.rng.below(self.peers[at].database.len() as u64 + 1) as usize;
        let peer = &mut self.peers[at];
        for persist in peer.writes.drain(..).take(kept) {
            peer.disk.write(&persist);
        }
        peer.flush_database(durable);
        peer.database.clear();
        peer.work.clear();
        peer.restart();
    }

    fn deliver(&mut self, message: Message) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == message.to) {
            let message = Message::decode(message.encode().into()).expect("it survives the wire");
            match peer.raft.step(message) {
                Ok(()) | Err(raft::StepError::UnknownPeer(_) | raft::StepError::Dropped(_)) => {}
                Err(error) => panic!("an honest peer was refused: {error}"),
            }
        }
    }

    /// The transport of a sender tells its raft how sending a snapshot ended.
    fn report_snapshot_sent(&mut self, message: &Message, arrived: bool) {
        if matches!(message.body, Body::Snapshot { .. })
            && let Some(sender) = self.peers.iter_mut().find(|peer| peer.id == message.from)
        {
            sender.raft.report_snapshot(message.to, arrived);
        }
    }

    fn step(&mut self) {
        let at = self.rng.below(self.peers.len() as u64) as usize;
        match self.rng.below(100) {
            0..=29 if !self.network.is_empty() => {
                let message = self.rng.below(self.network.len() as u64) as usize;
                let message = if self.rng.below(3) == 0 { message } else { 0 };
                let message = self.network.remove(message);
                let lost = self.rng.below(100) < self.loss_percent;
                self.report_snapshot_sent(&message, !lost);
                if lost {
                    return;
                }
                if self.rng.below(30) == 0 {
                    self.network.push(message.clone());
                }
                self.deliver(message);
            }
            0..=54 => self.ready(at),
            55..=69 => {
                let peer = &mut self.peers[at];
                // One report may stand for several writes.
                let count = (1 + self.rng.below(3) as usize).min(peer.writes.len());
                let mut last = None;
                for persist in peer.writes.drain(..count) {
                    peer.disk.write(&persist);
                    last = Some(persist.id);
                }
                if let Some(id) = last {
                    peer.raft.persisted(id);
                }
            }
            70..=81 => self.work(at),
            82..=87 => {
                let timeout = self.rng.below(10);
                self.peers[at].pin.0.store(timeout, Ordering::Relaxed);
                for _ in 0..=self.rng.below(4) {
                    self.peers[at].raft.tick();
                }
            }
            88..=92 => self.propose(at),
            93 => {
                self.counter += 1;
                self.reads.insert(self.counter, self.applied_anywhere());
                self.peers[at].raft.read_index(self.counter);
            }
            94 => self.change_membership(at),
            95 => {
                let to = MemberId(1 + self.rng.below(self.peers.len() as u64));
                self.peers[at].raft.transfer_leader(to);
            }
            96 => self.crash(at),
            97 => {
                let some = self.rng.below(self.peers[at].database.len() as u64 + 1) as usize;
                self.peers[at].flush_database(some);
            }
            98 => self.compact(at),
            _ => {
                let peer = MemberId(1 + self.rng.below(self.peers.len() as u64));
                if self.rng.below(2) == 0 {
                    self.peers[at].raft.report_unreachable(peer);
                } else {
                    self.peers[at].raft.report_snapshot(peer, self.rng.below(2) == 0);
                }
            }
        }
    }

    fn propose(&mut self, at: usize) {
        let batch = (0..=self.rng.below(3))
            .map(|_| {
                self.counter += 1;
                Bytes::from(self.counter.to_string())
            })
            .collect();
        let _ = self.peers[at].raft.propose(batch);
    }

    fn change_membership(&mut self, at: usize) {
        let node = MemberId(2 + self.rng.below(self.peers.len() as u64 - 1));
        let kind = match self.rng.below(4) {
            0 => ConfChangeKind::RemoveNode,
            1 => ConfChangeKind::AddLearner,
            _ => ConfChangeKind::AddNode,
        };
        let raft = &mut self.peers[at].raft;
        // A leader of two that makes the other the only voter may leave it unable to win: it needs
        // the vote of the removed one, whose log is longer (a limit of etcd's raft, too).
        let sure = raft.role() == Role::Leader && raft.conf_state().voters.len() > 2;
        if !sure && kind != ConfChangeKind::AddNode {
            return;
        }
        if self.rng.below(4) == 0 {
            let changes = vec![
                raft::ConfChangeSingle { kind, node },
                raft::ConfChangeSingle { kind: ConfChangeKind::AddNode, node: MemberId(2) },
            ];
            let change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
            let _ = raft.propose_conf_change_v2(&change);
        } else {
            let _ = raft.propose_conf_change(ConfChange { kind, node, ..ConfChange::default() });
        }
    }

    fn compact(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        // The log on disk is released only below the durable database.
        let to = peer.disk.applied;
        if to > peer.disk.base.0 && peer.work.is_empty() && peer.writes.is_empty() {
            peer.raft.compact(to);
            if peer.disk.last().0 >= to {
                peer.disk.compact(to);
            }
        }
    }

    /// Heals everything and demands progress.
    fn recover(&mut self) {
        self.loss_percent = 0;
        for round in 0..2_000 {
            // A removed member's process ends, and nobody listens to it.
            let (_, members) = self.memberships.last_key_value().expect("the first");
            let members = [&members.voters[..], &members.learners, &members.voters_outgoing];
            let members = members.concat();
            for at in 0..self.peers.len() {
                if !members.contains(&self.peers[at].id) && !members.is_empty() {
                    continue;
                }
                self.ready(at);
                for persist in std::mem::take(&mut self.peers[at].writes) {
                    self.peers[at].disk.write(&persist);
                    self.peers[at].raft.persisted(persist.id);
                }
                while !self.peers[at].work.is_empty() {
                    self.work(at);
                }
                if round % 5 == 0 {
                    let timeout = self.rng.below(10);
                    self.peers[at].pin.0.store(timeout, Ordering::Relaxed);
                    self.peers[at].raft.tick();
                }
            }
            for message in std::mem::take(&mut self.network) {
                self.report_snapshot_sent(&message, true);
                if members.contains(&message.from) || members.is_empty() {
                    self.deliver(message);
                }
            }
            let leader = self.peers.iter().position(|peer| {
                peer.raft.role() == Role::Leader
                    && members.contains(&peer.id)
                    && !self.leaders.keys().any(|&term| term > peer.raft.term())
            });
            let Some(leader) = leader else { continue };
            if round % 50 == 49 {
                let before = self.applied_anywhere();
                let conf = self.peers[leader].raft.conf_state();
                let level = conf.voters.iter().chain(&conf.learners).all(|id| {
                    let peer = self.peers.iter().find(|peer| peer.id == *id).unwrap();
                    peer.applied() >= before
                });
                let committed = self.peers[leader].raft.status().commit;
                if level && committed == before && before > Index(0) && round > 300 {
                    return;
                }
                self.propose(leader);
                self.counter += 1;
                self.reads.insert(self.counter, before);
                self.peers[leader].raft.read_index(self.counter);
            }
        }
        for peer in &self.peers {
            eprintln!(
                "{:?} applied {} work {}",
                peer.raft.status(),
                peer.applied(),
                peer.work.len()
            );
        }
        panic!("no progress; everything applied up to {}", self.applied_anywhere());
    }
}

impl Peer {
    fn applied(&self) -> Index {
        self.database.last().map_or(self.disk.applied, |(index, _)| *index)
    }

    /// Makes the first `count` changes of the database durable.
    fn flush_database(&mut self, count: usize) {
        if let Some((index, conf)) = self.database.drain(..count).next_back() {
            self.disk.applied = index;
            self.disk.conf_state = conf;
        }
    }

    fn restart(&mut self) {
        // Recovery finds the received snapshot beside a log that starts after it.
        if self.disk.applied < self.disk.base.0 {
            let meta = self.disk.snapshot.clone().expect("only a snapshot runs ahead");
            self.disk.applied = meta.index;
            self.disk.conf_state = meta.conf_state;
        }
        self.raft = support::start(&self.config, &self.disk, &self.pin);
    }

    /// What a message promises must be durable when it leaves.
    fn check_promise(&self, message: &Message, conf_waits: bool) {
        let HardState { term, vote, .. } = self.disk.hard_state;
        let follower = self.raft.role() != Role::Leader;
        match message.body {
            Body::VoteReply { reject: false } => {
                let kept = term == message.term && vote == Some(message.to);
                assert!(kept || term > message.term, "a vote that a crash would take back");
                assert!(!(follower && conf_waits), "a vote under an old membership");
            }
            Body::Vote { .. } => {
                assert!(term >= message.term, "a candidate that could forget its candidacy");
            }
            Body::AppendReply { index, rejected: None } => {
                let held = self.disk.last().0 >= index && term >= message.term;
                assert!(held || term > message.term, "an acknowledgement of what could be lost");
                assert!(!(follower && conf_waits), "an acknowledgement under an old membership");
            }
            _ => {}
        }
    }
}

#[test]
fn whatever_happens_there_is_one_history() {
    let steps = std::env::var("RAFT_STEPS").map_or(3_000, |text| text.parse().expect("a number"));
    let (mut entries, mut reads, mut snapshots, mut leaders, mut memberships) = (0, 0, 0, 0, 0);
    let seeds = support::seeds(0..150);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        eprintln!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        world.recover();
        entries += world.history.len();
        reads += world.reads_answered;
        snapshots += world.snapshots;
        leaders += world.leaders.len();
        memberships += world.memberships.len();
    }
    eprintln!(
        "{entries} entries, {reads} reads, {snapshots} snapshots, {leaders} leaders, {memberships} memberships"
    );
    // A quiet world would prove nothing.
    assert!(entries as u64 > 20 * count && reads > 2 * count && leaders as u64 > 2 * count);
    assert!(snapshots > count / 10 && memberships as u64 > 2 * count);
}
