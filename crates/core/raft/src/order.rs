//! Appends that arrived together, in the order of the log.
//!
//! etcd 3.7.0 to 3.7.2 send the raft messages of one turn in reverse order. Whoever takes them as
//! they come refuses each that has a gap before it, and the leader begins anew: the log arrives,
//! but an append per round trip. The network may reorder messages, so any order is right, and this
//! one loses nothing.
//= etcd 3.7.1: server/etcdserver/raft.go#processMessages (3.7.3 sends them in order)

use types::{Index, MemberId, Term};

use crate::message::{Body, Message};

/// Who sent an append, when, and behind what it goes.
fn append(message: &Message) -> Option<((MemberId, Term), Index)> {
    match message.body {
        Body::Append { prev_index, .. } => Some(((message.from, message.term), prev_index)),
        _ => None,
    }
}

/// Sorts the appends among what arrived together, each to a place where one was; `message` finds
/// the message in an item. Usually they are in order, and each is looked at once; reversed, each is
/// moved once. Those of several leaders stay as they came.
pub fn order_appends<T>(items: &mut [T], message: impl Fn(&T) -> Option<&Message>) {
    let of = |item: &T| message(item).and_then(append);
    let mut appends = items.iter().filter_map(of);
    let Some((leader, mut last)) = appends.next() else { return };
    let (mut is_sorted, mut is_reversed, mut has_one_leader) = (true, true, true);
    for (from, prev) in appends {
        is_sorted &= last <= prev;
        is_reversed &= last > prev;
        has_one_leader &= from == leader;
        last = prev;
    }
    if is_sorted || !has_one_leader {
        return;
    }
    let places: Vec<usize> = (0..items.len()).filter(|at| of(&items[*at]).is_some()).collect();
    if is_reversed {
        for (low, high) in places.iter().zip(places.iter().rev()).take(places.len() / 2) {
            items.swap(*low, *high);
        }
        return;
    }
    // Several turns at once: few runs, so that few are far from their place.
    let key = |items: &[T], n: usize| of(&items[places[n]]).map(|(_, prev)| prev);
    for n in 1..places.len().min(MAX_SORTED) {
        for m in (1..=n).rev() {
            if key(items, m - 1) <= key(items, m) {
                break;
            }
            items.swap(places[m - 1], places[m]);
        }
    }
}

/// Appends that are sorted one by one; what stands behind them is left as it came.
const MAX_SORTED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: u64, prev: u64) -> Message {
        Message {
            from: MemberId(from),
            to: MemberId(1),
            term: Term(2),
            body: Body::Append {
                prev_index: Index(prev),
                prev_term: Term(2),
                entries: Vec::new(),
                commit: Index(0),
            },
        }
    }

    fn other() -> Message {
        Message { body: Body::TimeoutNow, ..step(2, 0) }
    }

    fn ordered(mut messages: Vec<Message>) -> Vec<Option<u64>> {
        order_appends(&mut messages, |message| Some(message));
        messages.iter().map(|message| append(message).map(|(_, prev)| prev.0)).collect()
    }

    #[test]
    fn appends_in_reverse_are_taken_in_the_logs_order() {
        let reversed = vec![step(2, 9), other(), step(2, 8), other(), step(2, 5)];
        assert_eq!(ordered(reversed), [Some(5), None, Some(8), None, Some(9)]);
        let two_turns = vec![step(2, 3), step(2, 2), other(), step(2, 6), step(2, 5), step(2, 5)];
        let sorted = [Some(2), Some(3), None, Some(5), Some(5), Some(6)];
        assert_eq!(ordered(two_turns), sorted);
    }

    #[test]
    fn what_is_in_order_or_of_two_leaders_stays() {
        assert_eq!(ordered(vec![step(2, 1), step(2, 1), step(2, 3)]), [Some(1), Some(1), Some(3)]);
        assert_eq!(ordered(vec![step(2, 3), step(3, 1)]), [Some(3), Some(1)]);
        assert_eq!(ordered(vec![other()]), [None]);
    }
}
