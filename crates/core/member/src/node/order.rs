//! The appends of a turn in the order of the log.
//!
//! etcd 3.7.0 to 3.7.2 send the raft messages of one turn in reverse order. Whoever takes them as
//! they come refuses each that has a gap before it, and the leader begins anew: the log arrives,
//! but an append per round trip. The network may reorder messages, so any order is right, and this
//! one loses nothing.
//= etcd 3.7.1: server/etcdserver/raft.go#processMessages (3.7.3 sends them in order)

use raft::{Body, Message};
use types::{Index, MemberId, Term};

use crate::message::NodeInput;

/// Who sent an append, when, and behind what it goes.
fn append(input: &NodeInput) -> Option<((MemberId, Term), Index)> {
    match input {
        NodeInput::Step(Message { from, term, body: Body::Append { prev_index, .. }, .. }) => {
            Some(((*from, *term), *prev_index))
        }
        _ => None,
    }
}

/// Sorts the appends among the inputs, each at a place where one was. Usually they are in order,
/// and it looks at each once. Those of several leaders stay as they came.
pub(super) fn order_appends(inputs: &mut [NodeInput]) {
    let mut appends = inputs.iter().filter_map(append);
    let Some((leader, mut last)) = appends.next() else { return };
    let (mut is_sorted, mut has_one_leader) = (true, true);
    for (from, prev) in appends {
        is_sorted &= last <= prev;
        has_one_leader &= from == leader;
        last = prev;
    }
    if is_sorted || !has_one_leader {
        return;
    }
    let places: Vec<usize> =
        (0..inputs.len()).filter(|at| append(&inputs[*at]).is_some()).collect();
    let mut sorted: Vec<NodeInput> = places
        .iter()
        .map(|at| std::mem::replace(&mut inputs[*at], NodeInput::AdvanceElection))
        .collect();
    sorted.sort_by_key(|input| append(input).map(|(_, prev)| prev));
    for (at, input) in places.into_iter().zip(sorted) {
        inputs[at] = input;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: u64, prev: u64) -> NodeInput {
        NodeInput::Step(Message {
            from: MemberId(from),
            to: MemberId(1),
            term: Term(2),
            body: Body::Append {
                prev_index: Index(prev),
                prev_term: Term(2),
                entries: Vec::new(),
                commit: Index(0),
            },
        })
    }

    fn prevs(inputs: &[NodeInput]) -> Vec<Option<u64>> {
        inputs.iter().map(|input| append(input).map(|(_, prev)| prev.0)).collect()
    }

    fn other() -> NodeInput {
        NodeInput::AdvanceElection
    }

    #[test]
    fn appends_in_reverse_are_taken_in_the_logs_order() {
        let mut inputs = vec![step(2, 9), other(), step(2, 8), step(2, 5), other(), step(2, 5)];
        order_appends(&mut inputs);
        assert_eq!(prevs(&inputs), [Some(5), None, Some(5), Some(8), None, Some(9)]);
    }

    #[test]
    fn what_is_in_order_or_of_two_leaders_stays() {
        let mut inputs = vec![step(2, 1), step(2, 1), step(2, 3)];
        order_appends(&mut inputs);
        assert_eq!(prevs(&inputs), [Some(1), Some(1), Some(3)]);
        let mut inputs = vec![step(2, 3), step(3, 1)];
        order_appends(&mut inputs);
        assert_eq!(prevs(&inputs), [Some(3), Some(1)]);
    }
}
