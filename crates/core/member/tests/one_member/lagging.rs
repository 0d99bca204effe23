//! A member of which a part lags behind: what then waits, and how it is refused.

use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{CompactionRequest, InternalRaftRequest, LeaseGrantRequest};
use env::mem::MemDisk;
use env::{Instant, MayBlock};
use member::{ApplierInput, ApplierOutput, NodeInput, Reply};
use types::limits::{APPLY_WAIT_MS, MAX_APPLY_GAP};
use types::{Index, LeaseId, ReplyToken};

use super::harness::{ID, Running, config};

/// Turns of these automata only, as [`Running::step`] has them.
const LOG: u64 = 1;
const ALL_BUT_THE_APPLIER: u64 = 1 | 4;
const ALL_BUT_THE_LOG: u64 = 2 | 4;

impl Running {
    fn later(&mut self, time: Duration, which: u64) {
        self.now = self.now + time;
        (0..4).for_each(|_| self.step(which));
    }

    /// How a call was refused, if it was answered.
    fn refused(&mut self, token: ReplyToken) -> Option<ApiError> {
        let at = self.replies.iter().position(|(t, _)| *t == token)?;
        match self.replies.swap_remove(at).1 {
            Reply::Refused(error) => Some(error),
            other => panic!("answered: {other:?}"),
        }
    }

    fn keep_alive(&mut self, lease: i64) -> ReplyToken {
        self.next += 1;
        let token = ReplyToken(self.next);
        self.to_node.push(NodeInput::KeepAlive { token, lease: LeaseId(lease), for_peer: false });
        token
    }

    fn grant(&mut self, id: i64) -> ReplyToken {
        let grant = LeaseGrantRequest { id, ttl: 1_000 };
        self.propose(InternalRaftRequest { lease_grant: Some(grant), ..Default::default() })
    }

    fn renewed(&mut self, token: ReplyToken) -> Option<i64> {
        let at = self.replies.iter().position(|(t, _)| *t == token)?;
        match self.replies.swap_remove(at).1 {
            Reply::KeepAlive(ttl) => Some(ttl),
            other => panic!("not renewed: {other:?}"),
        }
    }
}

#[test]
fn j1_a_proposal_is_refused_while_apply_lags_by_more_than_its_limit() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let lags = |member: &Running| member.status.commit.0 - member.status.applied.0;
    let mut waiting = Vec::new();
    // Entry by entry, so that no batch passes the limit as a whole.
    while lags(&member) <= MAX_APPLY_GAP {
        let before = lags(&member);
        waiting.push(member.put("k", &format!("v{before}")));
        (0..3).for_each(|_| member.step(LOG));
        assert_eq!(lags(&member), before + 1, "the one at {before} was accepted");
    }
    let refused = member.put("k", "refused");
    member.step(LOG);
    assert_eq!(member.refused(refused), Some(ApiError::TooManyRequests));
    assert_eq!(lags(&member), MAX_APPLY_GAP + 1, "and left no trace in the log");
    // Once apply has caught up all is answered, and writes are taken again.
    (0..4).for_each(|_| member.step(7));
    for token in waiting {
        member.outcome(token).unwrap();
    }
    assert_eq!(member.value("k"), Some(format!("v{MAX_APPLY_GAP}").into_bytes()));
    let token = member.put("k", "after");
    member.outcome(token).unwrap();
}

#[test]
fn j6_a_member_that_stops_answers_what_is_in_flight_and_takes_nothing_more() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let before = member.put("k", "before");
    member.step(ALL_BUT_THE_LOG);
    member.to_node.push(NodeInput::Stop { successor: None });
    let after = member.put("k", "after");
    member.step(ALL_BUT_THE_LOG);
    assert_eq!(member.refused(after), Some(ApiError::Stopped));
    member.outcome(before).unwrap();
    assert_eq!(member.value("k").as_deref(), Some(&b"before"[..]));
}

#[test]
fn j9_a_write_that_timed_out_may_still_be_applied() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let timeout = config().node.request_timeout();
    let token = member.put("k", "late");
    member.step(ALL_BUT_THE_LOG);
    member.later(timeout - Duration::from_millis(200), ALL_BUT_THE_LOG);
    assert_eq!(member.refused(token), None, "its time is not over");
    member.later(Duration::from_millis(400), ALL_BUT_THE_LOG);
    assert_eq!(member.refused(token), Some(ApiError::Timeout));
    assert_eq!(member.value("k"), None);
    member.later(Duration::ZERO, 7);
    assert_eq!(member.value("k").as_deref(), Some(&b"late"[..]));
    assert!(member.replies.iter().all(|(t, _)| *t != token), "nobody is answered twice");
}

#[test]
fn g5_a_keep_alive_waits_for_apply_only_if_its_lease_is_unknown() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    let token = member.grant(1);
    member.outcome(token).unwrap();
    let granted = member.grant(2);
    (0..3).for_each(|_| member.step(ALL_BUT_THE_APPLIER));
    let known = member.keep_alive(1);
    let unknown = member.keep_alive(2);
    member.step(ALL_BUT_THE_APPLIER);
    assert_eq!(member.renewed(known), Some(1_000), "at once");
    let wait = Duration::from_millis(APPLY_WAIT_MS);
    member.later(wait - Duration::from_millis(1), ALL_BUT_THE_APPLIER);
    assert_eq!(member.renewed(unknown), None);
    member.later(Duration::from_millis(1), ALL_BUT_THE_APPLIER);
    assert_eq!(member.refused(unknown), Some(ApiError::TimeoutWaitApplied));
    // Apply catches up in time: the lease is found.
    let found = member.keep_alive(2);
    let missing = member.keep_alive(3);
    member.step(ALL_BUT_THE_APPLIER);
    assert_eq!(member.renewed(found), None);
    member.later(wait / 2, 7);
    assert_eq!((member.renewed(found), member.renewed(missing)), (Some(1_000), Some(0)));
    member.outcome(granted).unwrap();
}

#[test]
fn e5_a_compaction_rests_after_each_batch() {
    let disk = MemDisk::new();
    let mut config = config();
    config.limits.compaction.batch = 10;
    config.limits.compaction.sleep = Duration::from_millis(30);
    let mut member = Running::start_with(config, &disk, Instant(0), 1);
    let mut revision = 0;
    for n in 0..36 {
        let token = member.put("k", &format!("v{n}"));
        revision = member.outcome(token).unwrap().revision.0;
    }
    let compaction = CompactionRequest { revision, ..CompactionRequest::default() };
    let compaction = InternalRaftRequest { compaction: Some(compaction), ..Default::default() };
    member.propose(compaction);
    let began = member.view.counts.compacted;
    let mut slices: Vec<(Instant, u64)> = Vec::new();
    for _ in 0..100 {
        member.later(Duration::from_millis(1), 7);
        let removed = member.view.counts.compacted - began;
        if slices.last().map_or(0, |(_, before)| *before) < removed {
            slices.push((member.now, removed));
        }
    }
    let removed: Vec<u64> = slices.iter().map(|(_, removed)| *removed).collect();
    assert_eq!(removed, [10, 20, 30, 35], "what is live at the revision stays");
    for pair in slices.windows(2) {
        assert_eq!(pair[0].0 + Duration::from_millis(30), pair[1].0);
    }
    assert_eq!(member.value("k").as_deref(), Some(&b"v35"[..]));
}

#[test]
fn a_received_snapshot_waits_for_the_entries_before_it() {
    let disk = MemDisk::new();
    let mut member = Running::start(&disk, Instant(0), 1);
    member.turn(50);
    let token = member.put("k", "v");
    member.now = member.now + Duration::from_millis(100);
    // The entry waits for its turn when the snapshot behind it comes.
    (0..4).for_each(|_| member.step(ALL_BUT_THE_APPLIER));
    let (index, term) = (Index(member.status.commit.0 + 100), member.status.term);
    let conf_state = raft::ConfState { voters: vec![ID], ..Default::default() };
    let meta = raft::SnapshotMeta { index, term, conf_state };
    assert!(!member.to_applier.is_empty(), "the Applier has not had its turn");
    member.to_applier.push(ApplierInput::Install(meta.clone()));
    let mut out = ApplierOutput::default();
    let handled = member.applier.handle(
        &MayBlock::on_this_thread(),
        member.now,
        &mut member.to_applier,
        &mut out,
    );
    handled.expect("nothing fails");
    assert!(out.replies.iter().any(|(to, _)| *to == token), "somebody waited for the entry");
    assert_eq!(out.install, Some(meta));
}
