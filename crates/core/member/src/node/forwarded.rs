//! Membership changes that other members propose through this leader.
//!
//! A leader takes one at a time: raft makes an empty entry of one that comes while another is not
//! applied, and its proposer hears nothing until its time is over. In etcd that is rare, for raft
//! there counts a change as applied as soon as it is handed over. Here it counts once it is, and a
//! follower may be faster: whoever changes members through it one after the other would run into
//! it. So such a proposal waits here, as this member's own ones do in `propose`.

use env::Instant;
use raft::{EntryKind, Message};
use types::limits::MAX_PARKED_CONF_CHANGES;

use super::Node;
use crate::message::NodeOutput;

/// Whether a message proposes a membership change.
fn changes_members(message: &Message) -> bool {
    match &message.body {
        raft::Body::Propose(proposals) => proposals.iter().any(|p| p.kind != EntryKind::Normal),
        _ => false,
    }
}

impl Node {
    /// Keeps a message that must wait, and gives back any other.
    pub(super) fn park_forwarded(&mut self, now: Instant, message: Message) -> Option<Message> {
        let must_wait = self.raft.has_unapplied_conf_change() && changes_members(&message);
        if !must_wait || self.parked_forwarded.len() >= MAX_PARKED_CONF_CHANGES {
            return Some(message);
        }
        self.parked_forwarded.push_back((now, message));
        None
    }

    /// Lets raft have what waited, one at a time. Whether anything was tried.
    pub(super) fn unpark_forwarded(&mut self, now: Instant, out: &mut NodeOutput) -> bool {
        let mut tried = false;
        while !self.raft.has_unapplied_conf_change() {
            let Some((at, message)) = self.parked_forwarded.pop_front() else { break };
            // Its proposer has told the client by now that nobody knows.
            if at + self.config.request_timeout() <= now {
                continue;
            }
            let from = message.from;
            if let Err(why) = self.raft.step(message) {
                out.refused.push((from, why));
            }
            tried = true;
        }
        tried
    }
}

#[cfg(test)]
mod tests {
    use machine::Member;
    use raft::{Body, ConfChange, ConfChangeKind, Entry};
    use types::{MemberId, Term};

    use super::*;
    use crate::message::NodeInput;
    use crate::node::kit::Leader;

    impl Leader {
        /// The learner forwards that somebody shall be added.
        fn forward(&mut self, node: u64) {
            let urls = Some(vec![format!("http://127.0.0.1:{node}")]);
            let member =
                Member { id: node, peer_urls: urls, is_learner: true, ..Member::default() };
            let (kind, context) = (ConfChangeKind::AddLearner, member.to_json());
            let change = ConfChange { id: node, kind, node: MemberId(node), context };
            let proposal = raft::Proposal { kind: EntryKind::ConfChange, data: change.encode() };
            let body = Body::Propose(vec![proposal]);
            let (from, to) = (MemberId(2), MemberId(1));
            self.inputs.push(NodeInput::Step(Message { from, to, term: Term(0), body }));
            self.turn();
        }

        /// Who was added in the log; 0 for an empty entry.
        fn added(&mut self) -> Vec<u64> {
            let node = |entry: Entry| match entry.kind {
                EntryKind::ConfChange => ConfChange::decode(entry.data).expect("ours").node.0,
                _ => 0,
            };
            let own = |entry: &Entry| entry.kind == EntryKind::Normal && !entry.data.is_empty();
            self.written.drain(..).filter(|entry| !own(entry)).map(node).collect()
        }
    }

    #[test]
    fn a_forwarded_change_waits_until_the_one_before_is_applied() {
        let mut leader = Leader::of_a_learner();
        leader.added();
        leader.forward(3);
        assert_eq!(leader.added(), [3]);
        // Committed, and perhaps applied where it came from, but not here.
        leader.forward(4);
        leader.forward(5);
        assert!(leader.added().is_empty(), "neither is taken, nor made an empty entry");
        leader.apply();
        assert_eq!(leader.added(), [4], "one at a time");
        leader.apply();
        assert_eq!(leader.added(), [5]);
    }

    #[test]
    fn a_forwarded_change_whose_time_is_over_is_not_made() {
        let mut leader = Leader::of_a_learner();
        leader.added();
        leader.forward(3);
        leader.forward(4);
        leader.now = leader.now + leader.node.config.request_timeout();
        leader.apply();
        assert_eq!(leader.added(), [3]);
    }

    #[test]
    fn forwarded_changes_wait_in_a_bounded_queue() {
        let mut leader = Leader::of_a_learner();
        leader.added();
        for node in 0..=MAX_PARKED_CONF_CHANGES as u64 {
            leader.forward(10 + node);
        }
        assert_eq!(leader.node.parked_forwarded.len(), MAX_PARKED_CONF_CHANGES);
        leader.forward(9);
        assert_eq!(leader.added(), [10, 0], "one more is refused as in etcd");
    }
}
