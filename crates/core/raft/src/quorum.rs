//! Majorities, plain and joint. A joint decision needs a majority of both halves; an empty half
//! agrees with everything.
//= etcd 3.7.1: raft/quorum/majority.go, raft/quorum/joint.go

use types::MemberId;

/// What the votes so far decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteResult {
    Pending,
    Lost,
    Won,
}

/// The highest value that a majority of `voters` has reached; `u64::MAX` for no voters.
pub(crate) fn majority_reached(voters: &[MemberId], reached: impl Fn(MemberId) -> u64) -> u64 {
    match voters {
        [] => u64::MAX,
        [only] => reached(*only),
        _ => {
            let mut values: Vec<u64> = voters.iter().map(|&id| reached(id)).collect();
            values.sort_unstable();
            values[values.len() - (values.len() / 2 + 1)]
        }
    }
}

/// Whether a majority of `voters` said yes, cannot any more, or neither.
pub(crate) fn majority_vote(
    voters: &[MemberId],
    vote: impl Fn(MemberId) -> Option<bool>,
) -> VoteResult {
    let needed = voters.len() / 2 + 1;
    let (mut yes, mut open) = (0, 0);
    for &id in voters {
        match vote(id) {
            Some(true) => yes += 1,
            Some(false) => {}
            None => open += 1,
        }
    }
    if voters.is_empty() || yes >= needed {
        VoteResult::Won
    } else if yes + open >= needed {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}

/// The decision of two halves together.
pub(crate) fn both(a: VoteResult, b: VoteResult) -> VoteResult {
    match (a, b) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        _ => VoteResult::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u64) -> Vec<MemberId> {
        (1..=n).map(MemberId).collect()
    }

    #[test]
    fn a_majority_has_reached_the_value_below_the_minority() {
        let values = [0, 5, 9, 7, 1, 8];
        let reached = |id: MemberId| values[id.0 as usize];
        assert_eq!(majority_reached(&ids(0), reached), u64::MAX);
        assert_eq!(majority_reached(&ids(1), reached), 5);
        assert_eq!(majority_reached(&ids(2), reached), 5);
        assert_eq!(majority_reached(&ids(3), reached), 7);
        assert_eq!(majority_reached(&ids(4), reached), 5);
        assert_eq!(majority_reached(&ids(5), reached), 7);
    }

    #[test]
    fn a_vote_is_open_until_one_side_cannot_lose() {
        let table = [
            (vec![], 0, VoteResult::Won),
            (vec![Some(true)], 1, VoteResult::Won),
            (vec![None], 1, VoteResult::Pending),
            (vec![Some(true), None, None], 3, VoteResult::Pending),
            (vec![Some(true), Some(true), None], 3, VoteResult::Won),
            (vec![Some(false), Some(false), None], 3, VoteResult::Lost),
            (vec![Some(true), Some(false), None], 3, VoteResult::Pending),
            (vec![Some(true), Some(true), Some(false), Some(false)], 4, VoteResult::Lost),
        ];
        for (votes, n, expected) in table {
            let got = majority_vote(&ids(n), |id| votes[id.0 as usize - 1]);
            assert_eq!(got, expected, "{votes:?}");
        }
    }

    #[test]
    fn joint_decisions_need_both_halves() {
        use VoteResult::{Lost, Pending, Won};
        for (a, b, expected) in [
            (Won, Won, Won),
            (Won, Pending, Pending),
            (Pending, Pending, Pending),
            (Lost, Won, Lost),
            (Lost, Pending, Lost),
            (Lost, Lost, Lost),
        ] {
            assert_eq!(both(a, b), expected);
            assert_eq!(both(b, a), expected);
        }
    }
}
