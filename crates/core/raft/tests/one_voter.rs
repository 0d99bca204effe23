//! A cluster of one: everything that a durable write waits for, without a network.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod support;

use bytes::Bytes;
use raft::{ConfChange, ConfChangeKind, EntryKind, NotLeader, ProposeError, Raft, Role};
use support::{Disk, Member};
use types::{Index, MemberId, Term, WriteId};

/// A leader that has nothing left to do.
fn leading() -> Member {
    let mut member = Member::alone();
    member.drain();
    member.raft.campaign();
    member.drain();
    assert_eq!(member.role(), Role::Leader);
    member
}

#[test]
fn the_first_boot_gives_the_log_that_etcd_writes() {
    let mut member = Member::alone();
    let entry = &member.disk.entries[0];
    assert_eq!((entry.index, entry.term, entry.kind), (Index(1), Term(1), EntryKind::ConfChange));
    // type 0, node 1, context `{}`; no id.
    assert_eq!(entry.data[..], [0x10, 0, 0x18, 1, 0x22, 2, b'{', b'}']);

    member.raft.campaign();
    assert!(!member.raft.has_ready() || member.role() == Role::Follower, "no voter yet");
    member.drain();
    assert_eq!(member.raft.conf_state().voters, [MemberId(1)]);
    member.raft.campaign();
    member.drain();
    let hard = member.disk.hard_state;
    assert_eq!((hard.term, hard.vote, hard.commit), (Term(2), Some(MemberId(1)), Index(2)));
    let entry = &member.disk.entries[1];
    assert_eq!((entry.index, entry.term), (Index(2), Term(2)));
    assert!(entry.data.is_empty());
    assert_eq!(member.disk.applied, Index(2));
    assert!(member.sent.is_empty());
}

#[test]
fn bootstrap_lists_members_in_ascending_order() {
    let json = Bytes::from_static(b"x");
    let (hard, entries) =
        raft::bootstrap(&[(MemberId(9), json.clone()), (MemberId(4), json.clone())]);
    assert_eq!((hard.term, hard.vote, hard.commit), (Term(1), None, Index(2)));
    let nodes: Vec<u64> = entries
        .iter()
        .map(|entry| ConfChange::decode(entry.data.clone()).unwrap().node.0)
        .collect();
    assert_eq!(nodes, [4, 9]);
}

#[test]
fn a_sole_voter_campaigns_on_its_first_tick() {
    let mut member = Member::alone();
    member.drain();
    member.raft.tick();
    member.drain();
    assert_eq!(member.role(), Role::Leader);
}

#[test]
fn a_sole_voter_campaigns_once_however_slow_its_disk_is() {
    let mut member = Member::alone();
    member.drain();
    member.raft.tick();
    member.take_ready();
    let term = member.raft.term();
    for _ in 0..100 {
        member.raft.tick();
        member.take_ready();
    }
    assert_eq!((member.role(), member.raft.term()), (Role::Candidate, term));
    member.complete_write();
    assert_eq!(member.role(), Role::Leader);
}

#[test]
fn it_leads_only_when_its_vote_is_durable() {
    let mut member = Member::alone();
    member.drain();
    member.raft.campaign();
    let ready = member.take_ready();
    let persist = ready.persist.expect("term and vote");
    assert!(persist.must_sync && persist.entries.is_empty());
    assert_eq!(persist.hard_state.unwrap().vote, Some(MemberId(1)));
    assert_eq!(member.role(), Role::Candidate);
    member.complete_write();
    assert_eq!(member.role(), Role::Leader);
}

#[test]
fn an_entry_commits_when_its_write_is_durable_and_not_before() {
    let mut member = leading();
    member.propose("a");
    member.propose("b");
    let ready = member.take_ready();
    assert!(ready.committed.is_empty());
    let persist = ready.persist.unwrap();
    assert_eq!(persist.entries.len(), 2);
    assert!(persist.must_sync && persist.hard_state.is_none());
    // A second write is handed out while the first is under way.
    member.propose("c");
    let ready = member.take_ready();
    assert_eq!(ready.persist.unwrap().entries.len(), 1);
    assert!(!member.raft.has_ready());

    member.complete_write();
    let ready = member.take_ready();
    assert_eq!(ready.committed.len(), 2);
    let commit = ready.persist.expect("the commit index");
    assert!(!commit.must_sync, "a commit index needs no flush");
    assert_eq!(commit.hard_state.unwrap().commit, Index(4));
    member.drain();
    assert_eq!(member.payloads(), ["a", "b", "c"]);
}

#[test]
fn one_completion_may_stand_for_several_writes() {
    let mut member = leading();
    let mut last = WriteId(0);
    for data in ["a", "b", "c"] {
        member.propose(data);
        last = member.take_ready().persist.unwrap().id;
    }
    for persist in member.writes.drain(..) {
        member.disk.write(&persist);
    }
    member.raft.persisted(last);
    member.drain();
    assert_eq!(member.payloads(), ["a", "b", "c"]);
}

#[test]
fn what_was_applied_survives_a_crash_and_is_not_applied_again() {
    let mut member = leading();
    member.propose("a");
    member.drain();
    // Not durable: lost.
    member.propose("b");
    member.take_ready();
    member.crash(0);
    assert!(!member.raft.has_ready() || member.raft.ready().committed.is_empty());
    member.raft.campaign();
    member.drain();
    assert_eq!(member.disk.hard_state.term, Term(3));
    assert!(member.payloads().is_empty(), "`a` was applied before the crash, `b` is lost");
    member.propose("c");
    member.drain();
    assert_eq!(member.payloads(), ["c"]);
}

#[test]
fn an_entry_that_was_durable_but_not_applied_commits_after_a_restart() {
    let mut member = leading();
    member.propose("a");
    member.take_ready();
    member.crash(1);
    member.drain();
    assert!(member.payloads().is_empty(), "nobody knows that it is committed");
    member.raft.campaign();
    member.drain();
    assert_eq!(member.payloads(), ["a"]);
}

#[test]
fn a_database_ahead_of_the_hard_state_raises_the_commit_index() {
    let mut member = leading();
    member.propose("a");
    member.drain();
    member.disk.hard_state.commit = Index(1);
    member.restart();
    let ready = member.take_ready();
    let persist = ready.persist.unwrap();
    assert_eq!(persist.hard_state.unwrap().commit, Index(3));
    assert!(!persist.must_sync && ready.committed.is_empty());
}

#[test]
fn a_database_ahead_of_the_log_is_a_snapshot_of_its_term() {
    // Go applies committed entries while they are still being saved.
    let mut disk = leading().disk;
    disk.base = (Index(7), Term(5));
    disk.entries.clear();
    disk.applied = Index(7);
    disk.hard_state.commit = Index(2);
    let mut member = Member::new(raft::Config::new(MemberId(1)), disk);
    let hard = member.take_ready().persist.unwrap().hard_state.unwrap();
    assert_eq!((hard.term, hard.vote, hard.commit), (Term(5), None, Index(7)));
    member.complete_write();
    member.raft.campaign();
    member.drain();
    member.propose("a");
    member.drain();
    assert_eq!(member.disk.last(), (Index(9), Term(6)));
}

#[test]
fn reads_before_the_first_commit_of_the_term_wait_for_it() {
    let mut member = leading();
    member.restart();
    member.raft.read_index(1);
    member.drain();
    assert!(member.reads.is_empty(), "a follower without a leader drops it");
    member.raft.campaign();
    while member.role() != Role::Leader {
        member.take_ready();
        member.complete_write();
    }
    member.raft.read_index(7);
    member.take_ready();
    assert!(member.reads.is_empty());
    member.drain();
    assert_eq!(member.reads.len(), 1);
    assert_eq!((member.reads[0].context, member.reads[0].index), (7, Index(3)));
    // From then on at once, with the commit index.
    member.raft.read_index(8);
    assert_eq!(member.raft.ready().read_states[0].index, Index(3));
}

#[test]
fn committed_entries_come_in_pieces_of_bounded_size() {
    let mut member = leading();
    member.config.max_bytes_per_apply = 100;
    member.restart();
    member.raft.campaign();
    member.drain();
    let batch: Vec<Bytes> = (0..10).map(|i| Bytes::from(vec![i; 40])).collect();
    member.raft.propose(batch).unwrap();
    member.take_ready();
    member.complete_write();
    let mut sizes = Vec::new();
    while member.raft.has_ready() {
        let ready = member.take_ready();
        if !ready.committed.is_empty() {
            sizes.push(ready.committed.len());
        }
    }
    assert_eq!(sizes, [2, 2, 2, 2, 2]);
}

#[test]
fn one_membership_change_at_a_time() {
    let mut member = leading();
    let learner = |node| ConfChange {
        id: 77,
        kind: ConfChangeKind::AddLearner,
        node: MemberId(node),
        context: Bytes::new(),
    };
    member.raft.propose_conf_change(learner(2)).unwrap();
    assert_eq!(member.raft.propose_conf_change(learner(3)), Err(ProposeError::ConfChangePending));
    member.drain();
    assert_eq!(member.raft.conf_state().learners, [MemberId(2)]);
    member.raft.propose_conf_change(learner(3)).unwrap();
    member.take_ready();
    member.complete_write();
    let committed = member.raft.ready().committed;
    let conf = member.raft.conf_applied(committed[0].index, None);
    assert_eq!(conf.learners, [MemberId(2)], "a rejected change does nothing");
    member.raft.applied(committed[0].index);
    assert!(member.raft.propose_conf_change(learner(3)).is_ok());
}

#[test]
fn a_leaders_own_proposals_belong_to_one_term() {
    let mut member = leading();
    let data = Bytes::from_static(b"revoke");
    assert_eq!(member.raft.propose_as_leader(Term(2), data.clone()), Ok(()));
    let refused = NotLeader { wanted: Term(1), term: Term(2) };
    assert_eq!(member.raft.propose_as_leader(Term(1), data.clone()), Err(refused));
    member.restart();
    let refused = NotLeader { wanted: Term(2), term: Term(2) };
    assert_eq!(member.raft.propose_as_leader(Term(2), data.clone()), Err(refused));
    assert_eq!(member.raft.propose(vec![data]), Err(ProposeError::NoLeader));
}

#[test]
fn forgotten_entries_keep_the_term_of_the_last() {
    let mut member = leading();
    for data in ["a", "b", "c"] {
        member.propose(data);
    }
    member.drain();
    member.raft.compact(Index(4));
    assert_eq!(member.raft.entry_term(Index(3)), None);
    assert_eq!(member.raft.entry_term(Index(4)), Some(Term(2)));
    assert_eq!(member.raft.status().first, Index(5));
    member.raft.compact(Index(2));
    member.raft.compact(Index(5));
    member.propose("d");
    member.drain();
    assert_eq!(member.payloads(), ["a", "b", "c", "d"]);
}

#[test]
#[should_panic(expected = "only applied entries can be forgotten")]
fn entries_that_are_not_applied_cannot_be_forgotten() {
    let mut member = leading();
    member.propose("a");
    member.raft.compact(Index(3));
}

#[test]
#[should_panic(expected = "was handed out")]
fn nothing_is_applied_before_it_is_handed_out() {
    let mut member = leading();
    member.propose("a");
    member.take_ready();
    member.raft.applied(Index(3));
}

#[test]
#[should_panic(expected = "not reported by conf_applied")]
fn membership_changes_are_reported_before_they_count_as_applied() {
    let mut member = Member::alone();
    let ready = member.raft.ready();
    member.raft.applied(ready.committed[0].index);
}

#[test]
fn nothing_to_do_is_nothing() {
    let mut member = leading();
    assert!(!member.raft.has_ready());
    assert!(member.raft.ready().is_empty());
}

#[test]
fn impossible_recoveries_are_refused() {
    use raft::ConfigError as E;
    let good = leading().disk;
    let refused = |disk: Disk| {
        let config = raft::Config { applied: disk.applied, ..raft::Config::new(MemberId(1)) };
        let recovered = raft::Recovered {
            hard_state: disk.hard_state,
            conf_state: disk.conf_state,
            snapshot: disk.base,
            entries: disk.entries,
        };
        Raft::new(config, recovered, Box::new(support::Pinned::default())).err()
    };
    assert_eq!(refused(good.clone()), None);
    let mut disk = good.clone();
    disk.entries.remove(0);
    assert_eq!(refused(disk), Some(E::EntriesOutOfOrder { index: Index(2) }));
    let mut disk = good.clone();
    disk.entries[0].term = Term(9);
    assert_eq!(refused(disk), Some(E::EntriesOutOfOrder { index: Index(2) }));
    let mut disk = good.clone();
    disk.hard_state.commit = Index(3);
    let error = E::CommitBeyondLog { commit: Index(3), last: Index(2) };
    assert_eq!(refused(disk), Some(error));
    let mut disk = good.clone();
    disk.applied = Index(3);
    assert!(matches!(refused(disk), Some(E::AppliedOutsideLog { .. })));
    let mut disk = good;
    disk.conf_state.learners.push(MemberId(1));
    assert!(matches!(refused(disk), Some(E::InvalidConfState(_))));
}
