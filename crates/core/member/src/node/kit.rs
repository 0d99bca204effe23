//! For tests: a leader with one follower, without threads, disks and network.

use std::time::Duration;

use api::membershippb;
use env::{Hooks, Instant, SplitMix};
use machine::{Effect, Members};
use raft::{Body, ConfChange, ConfState, Entry, EntryKind, Message, Raft, Recovered};
use types::{Index, MemberId, ReplyToken, RequestId, Term};

use super::{Node, NodeConfig};
use crate::message::{Applied, Committed, LogInput, NodeInput, NodeOutput, Reply};

const FOLLOWER: MemberId = MemberId(2);

/// Member 1, which leads, and what is under way.
pub(super) struct Leader {
    pub(super) node: Node,
    pub(super) now: Instant,
    pub(super) inputs: Vec<NodeInput>,
    pub(super) written: Vec<Entry>,
    committed: Vec<Committed>,
    pub(super) replies: Vec<(ReplyToken, Reply)>,
    /// Whether member 2 hears and answers.
    pub(super) is_followed: bool,
}

impl Leader {
    /// Its only follower is a learner, which says nothing by itself.
    pub(super) fn of_a_learner() -> Self {
        Self::start(vec![MemberId(1)], vec![FOLLOWER])
    }

    /// Its only follower is a voter.
    pub(super) fn of_a_voter() -> Self {
        Self::start(vec![MemberId(1), FOLLOWER], Vec::new())
    }

    fn start(voters: Vec<MemberId>, learners: Vec<MemberId>) -> Self {
        let start = Index(1);
        let conf_state = ConfState { voters, learners, ..ConfState::default() };
        let recovered =
            Recovered { conf_state, snapshot: (start, Term(1)), ..Recovered::default() };
        let config = raft::Config { applied: start, ..raft::Config::new(MemberId(1)) };
        let raft = Raft::new(config, recovered, Box::new(SplitMix::new(1)));
        let config = NodeConfig {
            id: MemberId(1),
            tick: Duration::from_millis(100),
            election: Duration::from_secs(1),
            snapshot_count: 1_000,
            catchup_entries: 100,
            attributes: membershippb::Attributes::default(),
            cluster_version: "3.7.0".to_owned(),
            lease_checkpoints: false,
            first_request_id: RequestId(1 << 40),
        };
        let (raft, now, none) = (raft.expect("it fits"), Instant(0), std::iter::empty());
        let node = Node::new(config, raft, now, start, Members::default(), none, Hooks::default());
        let mut leader = Self {
            node,
            now,
            inputs: Vec::new(),
            written: Vec::new(),
            committed: Vec::new(),
            replies: Vec::new(),
            is_followed: true,
        };
        for _ in 0..100 {
            leader.now = leader.now + Duration::from_millis(100);
            leader.turn();
            leader.apply();
            let led = leader.node.is_leader() && leader.node.led_term.is_some();
            if led && leader.committed.is_empty() {
                return leader;
            }
        }
        unreachable!("nobody else can lead");
    }

    /// Handles the inputs and what follows from them; whatever is written is durable at once.
    pub(super) fn turn(&mut self) {
        for _ in 0..6 {
            let mut out = NodeOutput::default();
            self.node.handle(self.now, &mut self.inputs, &mut out);
            for input in out.log {
                let LogInput::Persist(persist) = input else { continue };
                self.inputs.push(NodeInput::Persisted(persist.id));
                self.written.extend(persist.entries);
            }
            self.committed.extend(out.committed);
            self.replies.extend(out.replies);
            if self.is_followed {
                self.inputs.extend(out.messages.iter().filter_map(answer).map(NodeInput::Step));
            }
        }
    }

    /// Applies what was committed.
    pub(super) fn apply(&mut self) {
        let committed = std::mem::take(&mut self.committed);
        let Some(index) = committed.last().map(|c| c.entry.index) else { return };
        let change = |entry: &Entry| match entry.kind {
            EntryKind::ConfChange => {
                let change = ConfChange::decode(entry.data.clone()).expect("ours");
                Some((entry.index, Effect::ConfChange(Some(change))))
            }
            _ => None,
        };
        let effects = committed.iter().filter_map(|c| change(&c.entry)).collect();
        self.inputs.push(NodeInput::Applied(Applied { index, effects }));
        self.turn();
    }
}

/// What a follower that agrees with everything says.
fn answer(message: &Message) -> Option<Message> {
    let body = match &message.body {
        Body::PreVote { .. } => Body::PreVoteReply { reject: false },
        Body::Vote { .. } => Body::VoteReply { reject: false },
        Body::Append { prev_index, entries, .. } => {
            let index = Index(prev_index.0 + entries.len() as u64);
            Body::AppendReply { index, rejected: None }
        }
        Body::Heartbeat { context, .. } => Body::HeartbeatReply { context: context.clone() },
        _ => return None,
    };
    Some(Message { from: message.to, to: message.from, term: message.term, body })
}
