//! Protocol scenarios, each with its point as assertions, and compared with Go's raft as a whole.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod support;

use raft::{Body, ReplicationState, Role};
use support::Cluster;
use support::script::Runner;
use types::{Index, MemberId};

fn three() -> Runner {
    Runner::new(Cluster::new(3))
}

#[test]
fn an_entry_replicates_commits_and_is_applied_everywhere() {
    let mut run = three();
    run.elect(2);
    run.run("propose 2 a");
    run.settle();
    for id in 1..=3 {
        let disk = &run.cluster.members[&id].disk;
        assert_eq!((disk.applied, disk.entries[1].data.as_ref()), (Index(3), &b"a"[..]));
        assert_eq!(disk.hard_state.commit, Index(3));
    }
    run.compare_with_go(&["-n=3"]);
}

/// Figure 8 of the Raft paper: an entry of an old term on a majority is not yet safe.
#[test]
fn a_leader_commits_old_entries_only_with_one_of_its_own() {
    let mut run = Runner::new(Cluster::with(3, |config| raft::Config {
        pre_vote: false,
        check_quorum: false,
        // One entry per append, so that the old entry travels before the new one.
        max_bytes_per_append: 1,
        ..config
    }));
    run.elect(1);
    // Durable on 1 only; then 1 leads the next term.
    run.run("propose 1 old\ndrain 1");
    run.settle_among(&[]);
    run.run("restart 1\ncampaign 1");
    for _ in 0..20 {
        run.run("drain 1\ndrain 2");
        let Some(at) = run.net.iter().position(Option::is_some) else { continue };
        let message = run.net[at].as_ref().unwrap();
        // Its own entry never fits behind what 2 has: it gets lost then.
        let last = run.cluster.members[&2].disk.last().0;
        let fits = matches!(&message.body, Body::Append { prev_index, entries, .. }
            if *prev_index <= last && entries.iter().any(|entry| entry.term == message.term));
        let lost = fits || message.to.0 == 3 || message.from.0 == 3;
        run.run(&format!("{} {at}", if lost { "drop" } else { "deliver" }));
    }
    let leader = run.cluster.members[&1].raft.status();
    assert_eq!((leader.role, leader.term.0), (Role::Leader, 3));
    assert_eq!(leader.progress[1].matched, Index(3), "the old entry is on a majority");
    assert_eq!(leader.commit, Index(2), "but it is not committed");
    run.run("tick 1 1");
    run.settle();
    assert_eq!(run.cluster.members[&1].raft.status().commit, Index(4));
    run.compare_with_go(&["-n=3", "-prevote=false", "-checkquorum=false", "-maxsize=1"]);
}

#[test]
fn who_follows_a_leader_votes_for_nobody_else_in_its_term() {
    let mut run = Runner::new(Cluster::with(3, |config| raft::Config {
        pre_vote: false,
        check_quorum: false,
        ..config
    }));
    // 1 and 3 campaign in the same term; 3 hears from the winner before it is asked for a vote.
    run.run("campaign 1\ndrain 1");
    let ask = run.net.iter().position(|m| m.as_ref().is_some_and(|m| m.to.0 == 2)).unwrap();
    run.run(&format!("deliver {ask}\ndrain 2"));
    let to_third: Vec<usize> = (0..run.net.len())
        .filter(|&at| run.net[at].as_ref().is_some_and(|m| m.to.0 == 3))
        .collect();
    for at in to_third {
        run.run(&format!("drop {at}"));
    }
    run.run(&format!("deliver {}\ndrain 1", run.net.len() - 1));
    assert_eq!(run.role(1), Role::Leader);
    let append = run.net.iter().position(|m| m.as_ref().is_some_and(|m| m.to.0 == 3)).unwrap();
    run.run(&format!("deliver {append}\ndrain 3"));
    let third = run.cluster.members[&3].raft.status();
    assert_eq!((third.leader, third.vote), (Some(MemberId(1)), None));
    let term = third.term;
    // An impostor of the same term; Go never gets to see it.
    let vote = raft::Message {
        from: MemberId(2),
        to: MemberId(3),
        term,
        body: Body::Vote { last_index: Index(99), last_term: term, transfer: false },
    };
    run.compare_with_go(&["-n=3", "-prevote=false", "-checkquorum=false"]);
    let member = run.cluster.member(3);
    member.raft.step(vote).unwrap();
    member.drain();
    assert_eq!(member.sent.last().unwrap().body, Body::VoteReply { reject: true });
}

#[test]
fn diverged_logs_are_found_out_term_by_term_and_repaired() {
    let mut run = Runner::new(Cluster::with(3, |config| raft::Config {
        pre_vote: false,
        check_quorum: false,
        ..config
    }));
    run.elect(1);
    for i in 0..5 {
        run.run(&format!("propose 1 lost{i}"));
    }
    run.settle_among(&[1]);
    run.run("campaign 2");
    run.settle_among(&[2, 3]);
    for i in 0..3 {
        run.run(&format!("propose 2 kept{i}"));
    }
    run.settle_among(&[2, 3]);
    assert_eq!(run.terms(1), [2, 2, 2, 2, 2, 2]);
    run.run("tick 2 1");
    run.settle();
    assert_eq!(run.terms(1), [2, 3, 3, 3, 3]);
    assert_eq!(run.terms(1), run.terms(2));
    let probes = run.trace.matches("2->1 MsgApp ").count();
    assert!(probes <= 8, "one probe per term, not per entry: {probes}");
    run.compare_with_go(&["-n=3", "-prevote=false", "-checkquorum=false"]);
}

#[test]
fn a_pre_vote_disturbs_nobody() {
    let mut run = three();
    run.elect(1);
    // 3 hears nothing for long, then everything again.
    run.run("tick 3 60");
    run.settle_among(&[3]);
    assert_eq!(run.role(3), Role::PreCandidate);
    let term = run.cluster.members[&1].raft.term();
    assert_eq!(run.cluster.members[&3].raft.term(), term);
    run.run("tick 3 14");
    run.settle();
    run.run("tick 1 1");
    run.settle();
    let status = run.cluster.members[&3].raft.status();
    assert_eq!(
        (status.role, status.leader, status.term),
        (Role::Follower, Some(MemberId(1)), term)
    );
    run.compare_with_go(&["-n=3"]);
}

#[test]
fn a_leader_without_a_quorum_steps_down_within_an_election_timeout() {
    let mut run = three();
    run.elect(1);
    run.run("tick 1 10");
    run.settle_among(&[1]);
    assert_eq!(run.role(1), Role::Leader, "2 and 3 were heard from before");
    run.run("tick 1 10");
    run.settle_among(&[1]);
    assert_eq!(run.role(1), Role::Follower);
    run.compare_with_go(&["-n=3"]);
}

#[test]
fn leadership_is_handed_over_without_a_gap() {
    let mut run = three();
    run.elect(1);
    run.run("propose 1 a\ntransfer 1 3\npropose 1 refused");
    assert!(run.trace.contains("ERR raft proposal dropped"));
    run.settle();
    assert_eq!((run.role(1), run.role(3)), (Role::Follower, Role::Leader));
    // A follower asks the leader to hand over.
    run.run("transfer 1 2");
    run.settle();
    assert_eq!(run.role(2), Role::Leader);
    // Nobody takes over: the leader gives up after an election timeout.
    run.run("transfer 2 1\ntick 2 10\npropose 2 b");
    run.settle();
    assert!(!run.trace.ends_with("dropped\n"));
    run.compare_with_go(&["-n=3"]);
}

#[test]
fn followers_send_on_what_only_a_leader_can_do() {
    let mut run = three();
    run.run("propose 2 early\nreadindex 2 1");
    run.elect(1);
    run.run("propose 2 a\nproposecc 3 ConfChangeAddLearnerNode 9\nreadindex 3 77");
    run.settle();
    assert!(run.trace.contains("READ 3 index=2 ctx=000000000000004d"), "{}", run.trace);
    assert_eq!(run.cluster.members[&2].raft.conf_state().learners, [MemberId(9)]);
    run.compare_with_go(&["-n=3"]);
}

#[test]
fn reads_need_a_quorum_and_one_round_confirms_many() {
    let mut run = three();
    run.elect(1);
    run.run("readindex 1 1\nreadindex 1 2\nreadindex 1 3");
    run.settle_among(&[1]);
    assert!(!run.trace.contains("READ"));
    // The next heartbeat asks for all of them.
    run.run("tick 1 1");
    run.settle_among(&[1, 2]);
    assert_eq!(run.trace.matches("READ 1 index=2").count(), 3);
    run.compare_with_go(&["-n=3"]);
}

#[test]
fn a_new_member_catches_up_by_snapshot_as_a_learner_and_is_promoted() {
    let mut cluster = Cluster::new(3);
    cluster.join(4);
    let mut run = Runner::new(cluster);
    run.elect(1);
    for i in 0..5 {
        run.run(&format!("propose 1 {i}"));
    }
    run.settle();
    run.run("compact 1 6\nproposecc 1 ConfChangeAddLearnerNode 4");
    run.settle();
    run.run("tick 1 1");
    run.settle();
    assert!(run.trace.contains("SNAP 4"), "{}", run.trace);
    let status = run.cluster.members[&1].raft.status();
    let learner = &status.progress[3];
    assert!(learner.learner && learner.state == ReplicationState::Replicate);
    assert_eq!(learner.matched, status.last);
    run.run("proposecc 1 ConfChangeAddNode 4");
    run.settle();
    assert_eq!(run.cluster.members[&4].raft.conf_state().voters.len(), 4);
    run.run("transfer 1 4");
    run.settle();
    assert_eq!(run.role(4), Role::Leader);
    run.compare_with_go(&["-n=4", "-voters=3"]);
}

#[test]
fn a_joint_change_is_left_by_itself() {
    let mut cluster = Cluster::new(3);
    cluster.join(4);
    let mut run = Runner::new(cluster);
    run.elect(1);
    run.run("proposev2 1 0 v4 r2 l3");
    run.settle();
    let conf = run.cluster.members[&1].raft.conf_state();
    assert_eq!(conf.voters, [MemberId(1), MemberId(4)]);
    assert_eq!(conf.learners, [MemberId(3)]);
    assert!(conf.voters_outgoing.is_empty() && !conf.auto_leave);
    assert!(run.trace.contains("2801\n"), "it was joint for a while");
    run.compare_with_go(&["-n=4", "-voters=3"]);
}

#[test]
fn lost_appends_are_found_out_by_heartbeats() {
    let mut run = three();
    run.elect(1);
    run.run("propose 1 a");
    run.settle_among(&[1]); // everything is lost
    run.run("tick 1 1");
    run.settle();
    assert_eq!(run.cluster.members[&3].disk.applied, Index(3));
    run.run("unreachable 1 3\npropose 1 b");
    run.settle();
    assert_eq!(run.cluster.members[&3].disk.applied, Index(4));
    run.compare_with_go(&["-n=3"]);
}

/// Not compared: Go's storage is synchronous there.
#[test]
fn a_leader_whose_disk_hangs_makes_way_for_a_healthy_voter() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    // The write of this entry never completes, while 2 and 3 answer heartbeats.
    cluster.member(1).propose("a");
    for tick in 0..12 {
        assert_eq!(cluster.member(1).role(), Role::Leader, "after {tick} ticks");
        let leader = cluster.member(1);
        leader.raft.tick();
        leader.take_ready();
        let sent = std::mem::take(&mut leader.sent);
        cluster.network.extend(sent);
        for message in std::mem::take(&mut cluster.network) {
            cluster.deliver(message);
        }
        for id in [2, 3] {
            cluster.drain(id);
        }
        for message in std::mem::take(&mut cluster.network) {
            cluster.deliver(message);
        }
        if cluster.member(1).role() == Role::Follower {
            assert!(tick >= 10, "not before an election timeout: {tick}");
            return;
        }
    }
    panic!("it still leads");
}

#[test]
fn a_sole_voter_waits_for_its_disk_as_long_as_it_takes() {
    let mut cluster = Cluster::new(1);
    cluster.elect(1);
    let member = cluster.member(1);
    member.propose("a");
    member.take_ready();
    for _ in 0..100 {
        member.raft.tick();
        member.take_ready();
    }
    assert_eq!((member.role(), member.raft.quorum_contact_age()), (Role::Leader, Some(0)));
    member.drain();
    assert_eq!(member.payloads(), ["a"]);
}

#[test]
fn a_leader_knows_how_long_it_has_not_heard_from_a_quorum() {
    let mut cluster = Cluster::with(3, |config| raft::Config { check_quorum: false, ..config });
    cluster.elect(1);
    assert_eq!(cluster.member(1).raft.quorum_contact_age(), Some(0));
    assert_eq!(cluster.member(2).raft.quorum_contact_age(), None);
    cluster.isolate(1);
    cluster.tick(1, 25);
    cluster.settle();
    assert_eq!(cluster.member(1).raft.quorum_contact_age(), Some(25));
    cluster.heal();
    cluster.tick(1, 1);
    cluster.settle();
    assert_eq!(cluster.member(1).raft.quorum_contact_age(), Some(0));
}

/// The second gate of a follower's answers, and that heartbeats pass it.
#[test]
fn a_follower_answers_appends_only_when_membership_changes_are_applied() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let change = raft::ConfChange {
        kind: raft::ConfChangeKind::AddLearner,
        node: MemberId(9),
        ..raft::ConfChange::default()
    };
    let member = cluster.member(1);
    member.raft.propose_conf_change(change.clone()).unwrap();
    cluster.drain(1);
    let append = cluster.network.iter().find(|message| message.to.0 == 2).unwrap().clone();
    cluster.settle();
    // The same again by hand on 2, restarted before the change arrived.
    let member = cluster.member(2);
    member.disk.entries.truncate(1);
    member.disk.applied = Index(2);
    member.disk.conf_state.learners.clear();
    member.disk.hard_state.commit = Index(2);
    member.restart();
    let Body::Append { prev_index, prev_term, entries, .. } = append.body.clone() else {
        panic!("{append:?}")
    };
    let body = Body::Append { prev_index, prev_term, entries, commit: Index(3) };
    member.raft.step(raft::Message { body, ..append.clone() }).unwrap();
    let persist = member.raft.ready().persist.unwrap();
    member.raft.persisted(persist.id);
    let ready = member.raft.ready();
    assert_eq!(ready.committed.len(), 1);
    assert!(ready.messages.is_empty(), "durable, but not applied");
    let heartbeat = Body::Heartbeat { commit: Index(3), context: bytes::Bytes::new() };
    member.raft.step(raft::Message { body: heartbeat, ..append }).unwrap();
    let bodies: Vec<Body> = member.raft.ready().messages.into_iter().map(|m| m.body).collect();
    assert!(matches!(bodies[..], [Body::HeartbeatReply { .. }]), "{bodies:?}");
    member.raft.conf_applied(Index(3), Some(change));
    let bodies: Vec<Body> = member.raft.ready().messages.into_iter().map(|m| m.body).collect();
    assert_eq!(bodies, [Body::AppendReply { index: Index(3), rejected: None }]);
}

/// Ours, so without Go: what a connection tells of a leader that was killed.
#[test]
fn when_the_leaders_process_has_ended_the_others_elect_within_a_few_ticks() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    for id in [2, 3] {
        cluster.member(id).raft.peer_ended(MemberId(1));
    }
    for _ in 0..raft::EARLY_CAMPAIGN_TICKS {
        for id in [2, 3] {
            cluster.tick(id, 1);
            cluster.settle();
        }
    }
    let leads = |id: &u64| cluster.members[id].role() == Role::Leader;
    assert_eq!([2, 3].iter().filter(|id| leads(id)).count(), 1);
}

#[test]
fn a_report_that_the_leader_ended_changes_nothing_while_others_hear_from_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.members[&1].raft.term();
    cluster.member(2).raft.peer_ended(MemberId(1));
    cluster.tick(2, raft::EARLY_CAMPAIGN_TICKS as u32);
    cluster.settle();
    assert_eq!(cluster.members[&2].role(), Role::PreCandidate);
    // The leader lives, as its next heartbeat shows.
    cluster.tick(1, 1);
    cluster.settle();
    for id in 1..=3 {
        let raft = &cluster.members[&id].raft;
        assert_eq!((raft.leader(), raft.term()), (Some(MemberId(1)), term));
    }
    // Nor do reports about others, or old ones.
    cluster.member(2).raft.peer_ended(MemberId(3));
    cluster.tick(2, raft::EARLY_CAMPAIGN_TICKS as u32);
    assert_eq!(cluster.members[&2].role(), Role::Follower);
}

#[test]
fn an_early_campaign_that_nobody_answers_does_not_put_off_the_one_in_time() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.member(2).raft.peer_ended(MemberId(1));
    // 3 still believes in its leader: it does not answer.
    cluster.tick(2, raft::EARLY_CAMPAIGN_TICKS as u32);
    cluster.settle();
    assert_eq!(cluster.members[&2].role(), Role::PreCandidate);
    cluster.tick(3, 10);
    cluster.tick(2, 20 - raft::EARLY_CAMPAIGN_TICKS as u32);
    cluster.settle();
    assert!([2, 3].iter().any(|id| cluster.members[id].role() == Role::Leader));
}

#[test]
fn an_election_clock_that_runs_ahead_starts_no_election_by_itself() {
    let mut cluster = Cluster::new(3);
    cluster.member(1).raft.advance_election(1_000);
    cluster.settle();
    assert_eq!(cluster.members[&1].role(), Role::Follower);
    // The timeout is at most twice the election's ticks.
    cluster.tick(1, 11);
    cluster.settle();
    assert_eq!(cluster.members[&1].role(), Role::Leader);
}
