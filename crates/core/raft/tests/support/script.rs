//! Schedules as text, one command per line, with the trace that they leave. The Go oracle reads
//! the same commands (`oracle/raft/main.go` lists them) and leaves the same trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message as _;
use raft::{
    Body, ConfChange, ConfChangeKind, ConfChangeSingle, ConfChangeV2, EntryKind, Message, Persist,
    ProposeError, ReplicationState, Role, StepError, Transition,
};
use types::{Index, MemberId};

use super::{Cluster, Member, oracle};

/// Runs commands and remembers them with their trace.
pub struct Runner {
    pub cluster: Cluster,
    /// Every message ever sent; `None` when delivered or dropped.
    pub net: Vec<Option<Message>>,
    /// Which of them are still on their way, in the order in which they were sent.
    pub waiting: Vec<usize>,
    /// What members answer here goes only to `trace`, and every command is carried out, also one
    /// that means something else in Go.
    pub apart: bool,
    /// Members that may hold reads until the first commit of their term.
    early: BTreeSet<u64>,
    /// How many commands were carried out.
    pub commands: u64,
    pub script: String,
    pub trace: String,
}

/// A command that means something else in Go, so that a comparison leaves it out.
#[derive(Debug)]
pub struct Skip;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// What is left of a write of which `kept` entries reached the disk: all of it if there are fewer.
fn torn(persist: Persist, kept: usize) -> Persist {
    if kept > persist.entries.len() {
        return persist;
    }
    let entries = if persist.snapshot.is_some() { &[] } else { &persist.entries[..kept] };
    Persist { entries: entries.to_vec(), snapshot: None, hard_state: None, ..persist }
}

/// What is on a member's disk.
fn log(member: &Member) -> String {
    let (id, mut text) = (member.id().0, String::new());
    for entry in &member.disk.entries {
        let bytes = entry.to_wire().encode_to_vec();
        writeln!(text, "LOG {id} {} {}", entry.index, hex(&bytes)).unwrap();
    }
    let hard = member.disk.hard_state;
    let vote = hard.vote.map_or(0, |id| id.0);
    writeln!(text, "HARD {id} term={} vote={vote} commit={}", hard.term, hard.commit).unwrap();
    text
}

fn kind(message: &Message) -> &'static str {
    message.to_wire().r#type().as_str_name()
}

pub fn changes(words: &[&str]) -> Vec<ConfChangeSingle> {
    let one = |word: &&str| {
        let kind = match &word[..1] {
            "v" => ConfChangeKind::AddNode,
            "l" => ConfChangeKind::AddLearner,
            "r" => ConfChangeKind::RemoveNode,
            _ => ConfChangeKind::UpdateNode,
        };
        ConfChangeSingle { kind, node: MemberId(word[1..].parse().unwrap()) }
    };
    words.iter().map(one).collect()
}

impl Runner {
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            net: Vec::new(),
            waiting: Vec::new(),
            apart: false,
            early: BTreeSet::new(),
            commands: 0,
            script: String::new(),
            trace: String::new(),
        }
    }

    /// The members of a group of which others live elsewhere: their messages come by `feed`, and
    /// what these send is in the trace alone.
    pub fn apart(cluster: Cluster) -> Self {
        Self { apart: true, ..Self::new(cluster) }
    }

    /// Runs every line of a script.
    pub fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !line.starts_with('#') {
                self.exec(line).unwrap_or_else(|Skip| panic!("`{line}` is not comparable"));
            }
        }
    }

    /// Runs one command.
    pub fn exec(&mut self, line: &str) -> Result<(), Skip> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let echo = format!("> {line}\n");
        match words[0] {
            "deliver" | "dup" | "drop" => {
                let at = number(1) as usize;
                if let (Some(message), true) = (&self.net[at], words[0] != "drop")
                    && matches!(message.body, Body::ReadIndex { .. })
                    && self.cluster.members.get(&message.to.0).is_some_and(read_differs)
                {
                    return Err(Skip);
                }
                self.trace += &echo;
                let message =
                    if words[0] == "dup" { self.net[at].clone() } else { self.net[at].take() };
                if words[0] != "dup" {
                    self.waiting.retain(|&other| other != at);
                }
                if let (Some(message), true) = (message, words[0] != "drop") {
                    self.step(at, message);
                }
            }
            "feed" => {
                let message = Message::decode(unhex(words[2]).into()).expect("an honest message");
                self.step(0, message);
            }
            "drain" => {
                let id = number(1);
                if self.early.contains(&id) && sole_voter(&self.cluster.members[&id]) {
                    // Such reads ours answers at once, Go's after a learner's word or never.
                    self.exec(&format!("restart {id}"))?;
                }
                self.trace += &echo;
                self.drain(id);
            }
            "crash" => {
                if !self.crash(number(1), number(2) as usize) {
                    return self.exec(&format!("restart {}", words[1]));
                }
                self.trace += &echo;
            }
            _ => {
                let before = self.trace.len();
                self.trace += &echo;
                if let Err(Skip) = self.member_command(&words, line) {
                    self.trace.truncate(before);
                    return Err(Skip);
                }
            }
        }
        self.commands += 1;
        if !self.apart {
            self.script += line;
            self.script.push('\n');
        }
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn member_command(&mut self, words: &[&str], line: &str) -> Result<(), Skip> {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let id = number(1);
        let member = self.cluster.members.get_mut(&id).expect("a member");
        let alone = sole_voter(member);
        let mut result = Ok(());
        match words[0] {
            "campaign" => member.raft.campaign(),
            "tick" => {
                // Ours campaigns at once, Go's after its timeout.
                if !self.apart && alone && member.role() != Role::Leader {
                    return Err(Skip);
                }
                for _ in 0..words.get(2).map_or(1, |n| n.parse().unwrap()) {
                    member.raft.tick();
                }
            }
            "propose" => {
                let data = Bytes::copy_from_slice(words[2].as_bytes());
                result = member.raft.propose(vec![data]);
            }
            "proposecc" => {
                let kind = match words[2] {
                    "ConfChangeAddNode" => ConfChangeKind::AddNode,
                    "ConfChangeRemoveNode" => ConfChangeKind::RemoveNode,
                    "ConfChangeUpdateNode" => ConfChangeKind::UpdateNode,
                    "ConfChangeAddLearnerNode" => ConfChangeKind::AddLearner,
                    _ => panic!("{line}"),
                };
                let node = MemberId(number(3));
                let change = ConfChange { kind, node, ..ConfChange::default() };
                result = member.raft.propose_conf_change(change);
            }
            "proposev2" => {
                let transition = match words[2] {
                    "0" => Transition::Auto,
                    "1" => Transition::JointImplicit,
                    _ => Transition::JointExplicit,
                };
                let changes = changes(&words[3..]);
                let change = ConfChangeV2 { transition, changes, ..ConfChangeV2::default() };
                result = member.raft.propose_conf_change_v2(&change);
            }
            "readindex" => {
                if !self.apart && read_differs(member) {
                    return Err(Skip);
                }
                self.early.extend(holds_reads(member).then_some(id));
                member.raft.read_index(number(2));
            }
            "transfer" => member.raft.transfer_leader(MemberId(number(2))),
            "unreachable" => member.raft.report_unreachable(MemberId(number(2))),
            "snapstatus" => {
                member.raft.report_snapshot(MemberId(number(2)), words[3] == "ok");
            }
            "compact" => {
                let to = Index(number(2));
                member.raft.compact(to);
                member.disk.compact(to);
            }
            "restart" => {
                // Go's does not raise the commit index at start.
                member.writes.clear();
                member.restart();
                self.early.remove(&id);
            }
            "timeout" => member.pin.0.store(number(2) - 10, Ordering::Relaxed),
            "log" => self.trace += &log(member),
            "status" => self.trace += &status(member),
            _ => panic!("unknown command: {line}"),
        }
        match result {
            Ok(()) => Ok(()),
            // Go appends an empty entry instead and says nothing.
            Err(
                ProposeError::ConfChangePending
                | ProposeError::ConfChangeNotNow
                | ProposeError::ConfChangeImpossible,
            ) => Err(Skip),
            Err(_) => {
                self.trace += "ERR raft proposal dropped\n";
                Ok(())
            }
        }
    }

    /// Crashes within the next write, of which `kept` entries reach the disk. False if nothing may,
    /// to stay comparable: ours starts in the term of its last entry, Go's in that of its hard
    /// state.
    fn crash(&mut self, id: u64, kept: usize) -> bool {
        let member = self.cluster.members.get_mut(&id).expect("a member");
        if let Some(persist) = member.raft.ready().persist {
            let persist = torn(persist, kept);
            let known = persist.hard_state.unwrap_or(member.disk.hard_state).term;
            let ahead = persist.entries.last().is_some_and(|entry| entry.term > known);
            if ahead && !self.apart {
                return false;
            }
            member.disk.write(&persist);
            if let Some(snapshot) = persist.snapshot {
                // Its database is durable before its record is.
                member.disk.applied = snapshot.index;
                member.disk.conf_state = snapshot.conf_state;
            }
        }
        member.restart();
        self.early.remove(&id);
        true
    }

    fn step(&mut self, at: usize, message: Message) {
        let Some(member) = self.cluster.members.get_mut(&message.to.0) else { return };
        if matches!(message.body, Body::ReadIndex { .. }) && holds_reads(member) {
            self.early.insert(member.id().0);
        }
        let text = match member.raft.step(message) {
            Ok(()) => return,
            Err(StepError::UnknownPeer(_)) => "raft: cannot step as peer not found".to_owned(),
            Err(StepError::Dropped(_)) => "raft proposal dropped".to_owned(),
            Err(error) => panic!("an honest peer was refused: {error}\n{}", self.trace),
        };
        writeln!(self.trace, "STEPERR {at} {text}").unwrap();
    }

    /// Drains a member with a disk that completes at once, in the order of Go's loop: membership
    /// changes, then durability, then progress of apply.
    fn drain(&mut self, id: u64) {
        let member = self.cluster.members.get_mut(&id).expect("a member");
        let (mut written, mut committed, mut reads) = (String::new(), String::new(), String::new());
        let mut sent = Vec::new();
        while member.raft.has_ready() {
            let ready = member.raft.ready();
            if let Some(snapshot) = &ready.install {
                member.disk.applied = snapshot.index;
                member.disk.conf_state = snapshot.conf_state.clone();
                member.raft.applied(snapshot.index);
            }
            for entry in &ready.committed {
                let bytes = entry.to_wire().encode_to_vec();
                writeln!(committed, "COMMIT {id} {}", hex(&bytes)).unwrap();
                let conf = match entry.kind {
                    EntryKind::Normal => None,
                    EntryKind::ConfChange => {
                        let change = ConfChange::decode(entry.data.clone()).unwrap();
                        Some(member.raft.conf_applied(entry.index, Some(change)))
                    }
                    EntryKind::ConfChangeV2 => {
                        let change = ConfChangeV2::decode(entry.data.clone()).unwrap();
                        Some(member.raft.conf_applied_v2(entry.index, Some(change)))
                    }
                };
                if let Some(conf) = conf {
                    let bytes = conf.to_wire().encode_to_vec();
                    writeln!(committed, "CONF {id} {}", hex(&bytes)).unwrap();
                    member.disk.conf_state = conf;
                }
                member.disk.applied = entry.index;
            }
            if let Some(persist) = &ready.persist {
                if let Some(snapshot) = &persist.snapshot {
                    let bytes = snapshot.to_wire().encode_to_vec();
                    writeln!(written, "SNAP {id} {}", hex(&bytes)).unwrap();
                }
                for entry in &persist.entries {
                    writeln!(written, "ENT {id} {}", hex(&entry.to_wire().encode_to_vec()))
                        .unwrap();
                }
                member.disk.write(persist);
                member.raft.persisted(persist.id);
            }
            if let Some(last) = ready.committed.last() {
                member.raft.applied(last.index);
            }
            for read in &ready.read_states {
                let (index, context) = (read.index, read.context);
                writeln!(reads, "READ {id} index={index} ctx={context:016x}").unwrap();
            }
            sent.extend(ready.messages);
        }
        for lines in [written, committed, reads] {
            self.trace += &lines;
        }
        let mut sent = newest(sent);
        sent.sort_by_cached_key(|message| (message.to, message.encode()));
        for message in sent {
            let bytes = message.encode();
            let again = Message::decode(bytes.clone().into());
            assert_eq!(again.as_ref(), Ok(&message), "messages survive the wire");
            let (from, to, kind) = (message.from.0, message.to.0, kind(&message));
            writeln!(self.trace, "MSG {} {from}->{to} {kind} {}", self.net.len(), hex(&bytes))
                .unwrap();
            if !self.apart {
                self.waiting.push(self.net.len());
                self.net.push(Some(message));
            }
        }
        self.trace += &status(member);
    }

    /// Drains and delivers until nothing is on its way.
    pub fn settle(&mut self) {
        let all: Vec<u64> = self.cluster.members.keys().copied().collect();
        self.settle_among(&all);
    }

    /// As [`Runner::settle`], for some members only; messages from or to others get lost.
    pub fn settle_among(&mut self, ids: &[u64]) {
        loop {
            for id in ids {
                self.exec(&format!("drain {id}")).unwrap();
            }
            if self.waiting.is_empty() {
                return;
            }
            for at in self.waiting.clone() {
                let message = self.net[at].as_ref().expect("it waits");
                // A forwarded message travels from its forwarder, but names the first sender.
                let known = ids.contains(&message.from.0) && ids.contains(&message.to.0);
                let delivered = known && self.exec(&format!("deliver {at}")).is_ok();
                if !delivered {
                    self.exec(&format!("drop {at}")).unwrap();
                }
            }
        }
    }

    /// Elects `id` in a quiet cluster.
    pub fn elect(&mut self, id: u64) {
        self.run(&format!("campaign {id}"));
        self.settle();
        assert_eq!(self.role(id), Role::Leader, "{}", self.trace);
    }

    pub fn role(&self, id: u64) -> Role {
        self.cluster.members[&id].role()
    }

    /// The terms of the entries in the durable log of `id` after the first.
    pub fn terms(&self, id: u64) -> Vec<u64> {
        self.cluster.members[&id].disk.entries.iter().map(|entry| entry.term.0).collect()
    }

    /// Runs the same commands on Go's raft and compares the traces, if the oracle is there.
    pub fn compare_with_go(&self, arguments: &[&str]) {
        let Some(program) = oracle::program() else { return };
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let theirs = oracle::run(&program, &arguments, &self.script);
        let comparison = oracle::compare(&self.trace, &theirs, "scenario");
        assert_eq!(comparison, oracle::Comparison::Equal);
    }
}

/// Whether a read index is handled otherwise by Go's leader. If there is one voter, it answers at
/// once: even before the first commit of its term, and even if another member is that voter.
fn read_differs(member: &Member) -> bool {
    let status = member.raft.status();
    status.role == Role::Leader
        && sole_voter(member)
        && (holds_reads(member) || status.conf_state.voters != [status.id])
}

/// Whether one voter decides alone, be it this member or another.
fn sole_voter(member: &Member) -> bool {
    let conf = member.raft.conf_state();
    conf.voters.len() == 1 && conf.voters_outgoing.is_empty()
}

/// Whether this is a leader that answers no reads yet.
fn holds_reads(member: &Member) -> bool {
    let commit = member.raft.commit();
    member.role() == Role::Leader && member.raft.entry_term(commit) != Some(member.raft.term())
}

/// What tells most: of appends without entries to one member at one position, the one with the
/// highest commit index (Go acknowledges each append to its own log by itself and may tell every
/// step, ours acknowledges a write as a whole); of acknowledgements to one member in one term,
/// the one with the highest index (ours replaces those that wait, as etcd's server does).
fn newest(sent: Vec<Message>) -> Vec<Message> {
    let group = |message: &Message| match &message.body {
        Body::Append { prev_index, entries, commit, .. } if entries.is_empty() => {
            Some(((message.to, message.term, prev_index.0), commit.0))
        }
        Body::AppendReply { index, rejected: None } => {
            Some(((message.to, message.term, u64::MAX), index.0))
        }
        _ => None,
    };
    let mut best = BTreeMap::new();
    for (at, message) in sent.iter().enumerate() {
        if let Some((group, value)) = group(message) {
            let entry = best.entry(group).or_insert((value, at));
            if value > entry.0 {
                *entry = (value, at);
            }
        }
    }
    let keep = |(at, message): &(usize, Message)| {
        group(message).is_none_or(|(group, _)| best[&group].1 == *at)
    };
    sent.into_iter().enumerate().filter(keep).map(|(_, message)| message).collect()
}

fn status(member: &Member) -> String {
    let s = member.raft.status();
    let role = match s.role {
        Role::Follower => "StateFollower",
        Role::PreCandidate => "StatePreCandidate",
        Role::Candidate => "StateCandidate",
        Role::Leader => "StateLeader",
    };
    let id = |id: Option<MemberId>| id.map_or(0, |id| id.0);
    let mut text = format!(
        "STATUS {} term={} vote={} commit={} lead={} state={role} applied={} last={}\n",
        s.id.0,
        s.term,
        id(s.vote),
        s.commit,
        id(s.leader),
        member.disk.applied,
        member.disk.last().0,
    );
    for peer in s.progress.iter().filter(|peer| peer.id != s.id) {
        let state = match peer.state {
            ReplicationState::Probe => "StateProbe",
            ReplicationState::Replicate => "StateReplicate",
            ReplicationState::Snapshot => "StateSnapshot",
        };
        writeln!(
            text,
            "PROGRESS {} match={} next={} {state} learner={} active={} paused={}",
            peer.id.0, peer.matched, peer.next, peer.learner, peer.recent_active, peer.paused
        )
        .unwrap();
    }
    text
}
