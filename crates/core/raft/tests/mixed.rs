//! Groups of three in which one or two members are Go's: their messages cross as bytes, under
//! loss, reordering, duplicates, crashes, compactions, transfers and changes of membership. There
//! is one history, one leader per term and one membership per index, and when all is well again
//! logs and hard states are equal.
//!
//! Seeded; `RAFT_SEEDS=from..to` and `RAFT_STEPS=n` run a longer one.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod support;

use std::collections::BTreeMap;

use api::raftpb;
use env::{Entropy, SplitMix};
use prost::Message as _;
use raft::Role;
use support::figures::Figures;
use support::script::{Runner, unhex};
use support::{Cluster, oracle};

/// Steps of bad luck after which everything arrives and all members agree.
const EPISODE: u64 = 500;
/// Messages on their way, beyond which nothing else happens than that they arrive or get lost.
const MAX_WAITING: usize = 60;
/// Entries in a log beyond which it is compacted.
const MAX_LOG: usize = 300;
const MEMBERS: std::ops::RangeInclusive<u64> = 1..=3;

struct Luck {
    loss: u64,
    ticks: u64,
    /// Who hears nobody and is not heard, if it exists.
    cut: u64,
}

/// A message on its way.
#[derive(Clone)]
struct Sent {
    from: u64,
    to: u64,
    snapshot: bool,
    hex: String,
}

/// What a member last said of itself.
#[derive(Clone, Default)]
struct Known {
    term: u64,
    vote: u64,
    commit: u64,
    applied: u64,
    leads: bool,
    /// Its log on disk and its hard state, as of the last `log`.
    log: BTreeMap<u64, String>,
    hard: (u64, u64),
}

/// A group and everything that was ever true of it.
struct Group {
    ours: Runner,
    theirs: oracle::Live,
    rng: SplitMix,
    net: Vec<Sent>,
    known: BTreeMap<u64, Known>,
    /// Committed entries and memberships by index, from whoever told them first.
    history: BTreeMap<u64, String>,
    memberships: BTreeMap<u64, String>,
    leaders: BTreeMap<u64, u64>,
    /// What was committed when a read was asked for.
    reads: BTreeMap<String, u64>,
    counter: u64,
    commands: u64,
    trace: String,
    what: String,
}

impl Group {
    fn new(program: &std::path::Path, seed: u64) -> Self {
        let mut rng = SplitMix::new(seed);
        // One or two of the three are Go's.
        let mut go = vec![1 + rng.below(3)];
        if rng.below(2) == 0 {
            go = MEMBERS.filter(|id| !go.contains(id)).collect();
        }
        let (pre_vote, check_quorum) = (rng.below(3) > 0, rng.below(3) > 0);
        let max_bytes = [40, 1 << 20][rng.below(2) as usize];
        let inflight = [2, 512][rng.below(2) as usize];
        let mut cluster = Cluster::with(3, |config| raft::Config {
            pre_vote,
            check_quorum,
            max_bytes_per_append: max_bytes,
            max_inflight: inflight,
            ..config
        });
        cluster.members.retain(|id, _| !go.contains(id));
        let only: Vec<String> = go.iter().map(u64::to_string).collect();
        let arguments = [
            format!("-only={}", only.join(",")),
            format!("-prevote={pre_vote}"),
            format!("-checkquorum={check_quorum}"),
            format!("-maxsize={max_bytes}"),
            format!("-inflight={inflight}"),
        ];
        Self {
            ours: Runner::apart(cluster),
            theirs: oracle::Live::start(program, &arguments),
            rng,
            net: Vec::new(),
            known: MEMBERS.map(|id| (id, Known::default())).collect(),
            history: BTreeMap::new(),
            memberships: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            counter: 0,
            commands: 0,
            trace: String::new(),
            what: format!("seed {seed}, {}", arguments.join(" ")),
        }
    }

    /// Gives a member a command and learns from what it says.
    fn command(&mut self, line: &str) {
        self.commands += 1;
        let id: u64 = line.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a member");
        let said = if self.ours.cluster.members.contains_key(&id) {
            // A refused proposal is refused.
            let _ = self.ours.exec(line);
            std::mem::take(&mut self.ours.trace)
        } else {
            self.theirs.command(line).unwrap_or_else(|| panic!("{}: Go's died", self.what))
        };
        for line in said.lines() {
            self.learn(id, line);
        }
        // A refused command of ours echoes nothing.
        if !said.starts_with('>') {
            self.trace += &format!("> {line}\n");
        }
        self.trace += &said;
    }

    fn learn(&mut self, id: u64, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| -> u64 {
            word.rsplit('=').next().and_then(|text| text.parse().ok()).expect("a number")
        };
        let what = &self.what;
        match words[0] {
            "MSG" => {
                let (from, to) = words[2].split_once("->").expect("an arrow");
                let snapshot = words[3] == "MsgSnap";
                let hex = words[4].to_owned();
                self.net.push(Sent { from: number(from), to: number(to), snapshot, hex });
            }
            "COMMIT" => {
                let entry = raftpb::Entry::decode(&unhex(words[2])[..]).expect("an entry");
                let index = entry.index.expect("entries have one");
                let known = self.history.entry(index).or_insert_with(|| words[2].to_owned());
                assert_eq!(known, words[2], "{what}: member {id} has another history at {index}");
                self.known.get_mut(&id).expect("a member").applied = index;
            }
            "CONF" => {
                let index = self.known[&id].applied;
                let known = self.memberships.entry(index).or_insert_with(|| words[2].to_owned());
                assert_eq!(known, words[2], "{what}: member {id}, membership at {index}");
            }
            "READ" => {
                let (index, context) = (number(words[2]), words[3].to_owned());
                let asked = self.reads[&context];
                assert!(index >= asked, "{what}: a read at {index} misses {asked}");
            }
            "STATUS" => {
                let (term, vote, commit) = (number(words[2]), number(words[3]), number(words[4]));
                let known = self.known.get_mut(&id).expect("a member");
                assert!(term >= known.term && commit >= known.commit, "{what}: {line}");
                let kept = term > known.term || known.vote == 0 || vote == known.vote;
                assert!(kept, "{what}: voted for {} before: {line}", known.vote);
                (known.term, known.vote, known.commit) = (term, vote, commit);
                known.applied = number(words[7]);
                known.leads = words[6] == "state=StateLeader";
                if known.leads {
                    let first = *self.leaders.entry(term).or_insert(id);
                    assert_eq!(first, id, "{what}: two leaders in term {term}");
                }
            }
            "LOG" => {
                let known = self.known.get_mut(&id).expect("a member");
                known.log.insert(number(words[2]), words[3].to_owned());
            }
            "HARD" => {
                let known = self.known.get_mut(&id).expect("a member");
                known.hard = (number(words[2]), number(words[4]));
            }
            _ => {}
        }
    }

    fn committed(&self) -> u64 {
        self.history.last_key_value().map_or(1, |(&index, _)| index)
    }

    fn read_log(&mut self, id: u64) {
        self.known.get_mut(&id).expect("a member").log.clear();
        self.command(&format!("log {id}"));
    }

    fn compact(&mut self, id: u64) {
        self.command(&format!("drain {id}"));
        self.read_log(id);
        let known = &self.known[&id];
        let Some((&first, _)) = known.log.first_key_value() else { return };
        if let Some(many) = known.applied.checked_sub(first) {
            let to = first + self.rng.below(many + 1);
            self.command(&format!("compact {id} {to}"));
        }
    }

    fn deliver(&mut self, at: usize, luck: &Luck) {
        let Sent { from, to, snapshot, hex } = self.net.remove(at);
        let dice = self.rng.below(100);
        let lost = from == luck.cut || to == luck.cut || dice < luck.loss;
        self.trace += if lost { "> drop\n" } else { "> deliver\n" };
        if !lost && dice < luck.loss + 4 {
            self.trace += "> dup\n";
            self.net.push(Sent { from, to, snapshot: false, hex: hex.clone() });
        }
        if !lost && MEMBERS.contains(&to) {
            self.command(&format!("feed {to} {hex}"));
        }
        if snapshot {
            // As transports do.
            let outcome = if lost { "failed" } else { "ok" };
            self.command(&format!("snapstatus {from} {to} {outcome}"));
        }
    }

    fn step(&mut self, luck: &Luck) {
        let id = 1 + self.rng.below(3);
        let other = 1 + self.rng.below(3);
        let dice = if self.net.len() > MAX_WAITING { 0 } else { self.rng.below(100) };
        let line = match dice {
            0..=44 if !self.net.is_empty() => {
                // Mostly in order, sometimes any.
                let any = self.rng.below(5) == 0;
                let at = if any { self.rng.below(self.net.len() as u64) as usize } else { 0 };
                return self.deliver(at, luck);
            }
            0..=69 => format!("drain {id}"),
            70..=79 => format!("tick {id} {}", 1 + self.rng.below(luck.ticks)),
            80 => format!("campaign {id}"),
            81..=88 => {
                self.counter += 1;
                let pad = "x".repeat(self.rng.below(30) as usize);
                format!("propose {id} {}{pad}", self.counter)
            }
            89..=91 => {
                self.counter += 1;
                let asked = self.committed();
                self.reads.insert(format!("ctx={:016x}", self.counter), asked);
                format!("readindex {id} {}", self.counter)
            }
            92 => format!("transfer {id} {other}"),
            93 => format!("unreachable {id} {other}"),
            94 => {
                let outcome = ["ok", "failed"][self.rng.below(2) as usize];
                format!("snapstatus {id} {other} {outcome}")
            }
            95 => self.membership_change(id),
            96 | 97 if self.rng.below(4) == 0 => {
                let timeout = 10 + self.rng.below(10);
                self.command(&format!("timeout {id} {timeout}"));
                format!("restart {id}")
            }
            96 | 97 => format!("crash {id} {}", self.rng.below(4)),
            98 => return self.compact(id),
            _ => return,
        };
        self.command(&line);
    }

    /// Members 1 and 2 stay voters: ours and Go's answer reads differently where one voter is left.
    fn membership_change(&mut self, id: u64) -> String {
        let cc = |kind: &str| format!("proposecc {id} ConfChange{kind} 3");
        match self.rng.below(8) {
            0 => format!("proposev2 {id} 1 l3"),
            1 => format!("proposev2 {id} 2 r3"),
            2 => format!("proposev2 {id} 0"),
            3 => cc("RemoveNode"),
            4 => cc("AddLearnerNode"),
            5 => cc("UpdateNode"),
            _ => cc("AddNode"),
        }
    }

    /// Drains and delivers until nothing is on its way. Nobody listens to a removed member.
    fn settle(&mut self) {
        for _ in 0..500 {
            let cut = MEMBERS.into_iter().find(|&id| !self.is_member(id)).unwrap_or(0);
            let well = Luck { loss: 0, ticks: 0, cut };
            for id in MEMBERS {
                self.command(&format!("drain {id}"));
            }
            if self.net.is_empty() {
                return;
            }
            for _ in 0..self.net.len() {
                self.deliver(0, &well);
            }
        }
        panic!("{}: it never settles", self.what);
    }

    /// Whether the newest membership has it. A removed member's process ends; as raft, it may lead
    /// for ever and take no proposals.
    fn is_member(&self, id: u64) -> bool {
        let Some((_, conf)) = self.memberships.last_key_value() else { return true };
        let conf = raftpb::ConfState::decode(&unhex(conf)[..]).expect("a membership");
        [conf.voters, conf.voters_outgoing, conf.learners].concat().contains(&id)
    }

    fn leader(&self) -> Option<u64> {
        let members = || MEMBERS.filter(|&id| self.is_member(id));
        let highest = members().map(|id| self.known[&id].term).max()?;
        members().find(|id| self.known[id].leads && self.known[id].term == highest)
    }

    /// Everything arrives; soon all members are voters again and hold the same.
    fn recover(&mut self) {
        self.settle();
        for round in 0..60 {
            let Some(leader) = self.leader() else {
                let id = 1 + round % 3;
                self.command(&format!("tick {id} 20"));
                self.settle();
                self.command(&format!("campaign {id}"));
                self.settle();
                continue;
            };
            // A change may wait for what is not yet known to be committed, so each is repeated.
            match round % 3 {
                0 => self.command(&format!("proposev2 {leader} 0")),
                1 => self.command(&format!("proposecc {leader} ConfChangeAddNode 3")),
                _ => {
                    self.counter += 1;
                    let (before, end) = (self.committed(), format!("end{}", self.counter));
                    self.command(&format!("propose {leader} {end}"));
                    self.settle();
                    if round > 6 && self.committed() > before && self.agreed() {
                        return;
                    }
                }
            }
            self.settle();
            for id in MEMBERS {
                self.command(&format!("tick {id}"));
                self.settle();
            }
        }
        let states: Vec<_> = self.known.iter().map(|(id, k)| (id, k.hard, k.applied)).collect();
        let lines: Vec<&str> = self.trace.lines().collect();
        let tail = lines[lines.len().saturating_sub(100)..].join("\n");
        panic!("{}: no agreement: {states:?}\n{tail}", self.what);
    }

    /// Whether logs, terms and commit indexes are equal; wherever logs overlap, they must be.
    fn agreed(&mut self) -> bool {
        for id in MEMBERS {
            self.read_log(id);
        }
        let committed = self.committed();
        for index in 2..=committed {
            let mut held = MEMBERS.filter_map(|id| self.known[&id].log.get(&index));
            if let Some(first) = held.next() {
                assert!(held.all(|other| other == first), "{}: logs at {index}", self.what);
                assert_eq!(first, &self.history[&index], "{}: log and history", self.what);
            }
        }
        let first = &self.known[&1];
        let equal = |known: &Known| {
            (known.hard, known.commit, known.applied) == (first.hard, first.commit, first.applied)
                && known.log.last_key_value() == first.log.last_key_value()
                && known.applied == committed
        };
        self.known.values().all(equal)
    }
}

#[test]
fn mixed_groups_keep_one_log() {
    let Some(program) = oracle::program() else { return };
    let steps = std::env::var("RAFT_STEPS").map_or(1_500, |text| text.parse().expect("a number"));
    let seeds = support::seeds(0..12);
    let count = seeds.end - seeds.start;
    let (mut figures, mut by_ours, mut by_theirs) = (Figures::default(), 0, 0);
    for seed in seeds {
        let mut group = Group::new(&program, seed);
        while group.commands < steps {
            let luck = Luck {
                loss: [0, 5, 20][group.rng.below(3) as usize],
                ticks: [2, 4, 12][group.rng.below(3) as usize],
                cut: group.rng.below(9),
            };
            for _ in 0..EPISODE {
                group.step(&luck);
            }
            group.recover();
            for id in MEMBERS {
                if group.known[&id].log.len() > MAX_LOG {
                    group.compact(id);
                }
            }
            figures.count(&std::mem::take(&mut group.trace));
        }
        let ours = |id: &&u64| group.ours.cluster.members.contains_key(*id);
        let led = group.leaders.values().filter(ours).count();
        by_ours += led;
        by_theirs += group.leaders.len() - led;
        let leads = |id: u64| group.ours.cluster.members.get(&id).map(|member| member.role());
        assert!(MEMBERS.filter(|&id| leads(id) == Some(Role::Leader)).count() <= 1);
    }
    eprintln!("{count} seeds, {by_ours} terms led by ours, {by_theirs} by Go's: {figures:?}");
    // A quiet group would prove nothing.
    let least = count * steps / 1_500;
    assert!(figures.commits > 60 * least && figures.memberships > 4 * least, "{figures:?}");
    assert!(figures.crashes > 2 * least && figures.reads > 2 * least, "{figures:?}");
    assert!(by_ours as u64 > least / 2 && by_theirs as u64 > least / 2, "{figures:?}");
    assert!(figures.snapshots > least / 10 && figures.transfers > least / 8, "{figures:?}");
}
