//! The same bytes as etcd's rafthttp, to and from it.

#[path = "support/samples.rs"]
mod samples;
mod support;

use std::net::TcpListener;
use std::time::Duration;

use raft::{Body, Message};
use samples::{append, database, every_kind, message, snapshot};
use support::{CLUSTER, Go, Ours, hex, oracle, send_back};
use types::{Index, MemberId, Term};

fn pair() -> Option<(Ours, Go)> {
    Some(support::pair(&oracle()?))
}

fn encoded(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| hex(&message.encode())).collect()
}

#[test]
fn messages_of_every_kind_arrive_as_they_were_sent_in_both_directions() {
    let Some((ours, mut go)) = pair() else { return };
    let sent = every_kind(1, 2);
    for message in &sent {
        ours.plane.send(vec![message.clone()]);
    }
    let mut got = go.processed(sent.len());
    // Go hands proposals over apart from the others.
    assert!(matches!(sent[0].body, Body::Propose(_)));
    got.sort_by_key(|text| *text != hex(&sent[0].encode()));
    assert_eq!(got, encoded(&sent));

    let sent = every_kind(2, 1);
    go.send(&sent);
    ours.member.wait("all messages", |told| told.received.len() == sent.len());
    let received = ours.member.with(|told| std::mem::take(&mut told.received));
    assert_eq!(received, sent);
}

#[test]
fn appends_arrive_in_order_and_whole_in_both_directions() {
    let Some((ours, mut go)) = pair() else { return };
    let mut sent = Vec::new();
    let mut prev = 4;
    for (count, payload) in
        [(1, 10), (0, 0), (10, 100), (3, 1 << 20), (1, 0), (200, 7), (1, 3 << 20), (1, 1)]
    {
        sent.push(append(1, 2, prev, count, payload));
        prev += count;
    }
    // Back to before what was sent, and on in a later term.
    sent.push(append(1, 2, 2, 2, 5));
    sent.push(append(1, 2, 4, 2, 5));
    sent.push(Message { term: Term(8), ..append(1, 2, 6, 2, 5) });
    sent.push(append(1, 2, 8, 1, 5));
    ours.plane.send(sent.clone());
    let got = go.processed(sent.len());
    for (n, (got, sent)) in got.iter().zip(encoded(&sent)).enumerate() {
        assert!(*got == sent, "append {n}: {} against {}", got.len(), sent.len());
    }

    send_back(&ours, &mut go, sent);
}

#[test]
fn thousands_of_appends_lose_nothing_and_come_as_batches() {
    let Some((ours, mut go)) = pair() else { return };
    const COUNT: u64 = 3_000;
    go.tell("quiet");
    ours.plane.send((0..COUNT).map(|n| append(1, 2, n, 1, 100)).collect());
    let mut arrived = 0;
    while arrived < COUNT {
        go.tell("count");
        let line = go.wait("count ");
        arrived += line.split(' ').next().unwrap().parse::<u64>().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(arrived, COUNT);
    ours.member.with(|told| assert!(told.unreachable.is_empty()));

    go.tell(&format!("flood 1 {COUNT} 100"));
    ours.member.wait("the flood", |told| told.received.len() == COUNT as usize);
    let received = ours.member.with(|told| std::mem::take(&mut told.received));
    for (n, message) in received.iter().enumerate() {
        let Body::Append { prev_index, entries, .. } = &message.body else { panic!("{message:?}") };
        assert_eq!(prev_index.0, n as u64);
        assert_eq!(entries[0].data.len(), 100);
    }
}

#[test]
fn of_answers_to_appends_in_one_batch_the_newest_is_sent() {
    let Some((ours, mut go)) = pair() else { return };
    let reply = |index| message(1, 2, 4, Body::AppendReply { index: Index(index), rejected: None });
    let beat = message(1, 2, 4, Body::HeartbeatReply { context: b"c".to_vec().into() });
    ours.plane.send(vec![reply(1), reply(2), beat.clone(), reply(3)]);
    assert_eq!(go.processed(2), encoded(&[beat, reply(3)]));
}

#[test]
fn a_snapshot_arrives_at_go_as_the_database_is() {
    let Some((ours, mut go)) = pair() else { return };
    let (db, bytes) = database(ours.dir.path(), 20);
    let sent = snapshot(1, 2, 0x1234);
    ours.plane.send_snapshot(sent.clone(), db);
    assert_eq!(go.wait("process "), hex(&sent.encode()));
    ours.member.wait("the outcome", |told| told.snapshots == [(2, true)]);
    let saved = std::fs::read(go.dir.path().join("0000000000001234.snap.db")).unwrap();
    assert!(saved == bytes, "{} bytes against {}", saved.len(), bytes.len());
}

#[test]
fn a_snapshot_arrives_from_go_under_its_name() {
    let Some((ours, mut go)) = pair() else { return };
    let (_, bytes) = database(go.dir.path(), 20);
    let file = go.dir.path().join("sent");
    std::fs::write(&file, &bytes).unwrap();
    let sent = snapshot(2, 1, 0xabc);
    go.tell(&format!("sendsnap {} {}", hex(&sent.encode()), file.display()));
    assert_eq!(go.wait("snapshot "), "1 finish");
    ours.member.with(|told| assert_eq!(told.received, [sent]));
    let names: Vec<_> = std::fs::read_dir(ours.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["0000000000000abc.snap.db"]);
    assert!(std::fs::read(ours.dir.path().join(&names[0])).unwrap() == bytes);
}

#[test]
fn a_snapshot_that_cannot_be_kept_is_reported_on_either_side() {
    let Some((ours, mut go)) = pair() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (db, bytes) = database(scratch.path(), 1);
    std::fs::remove_dir_all(go.dir.path()).unwrap();
    ours.plane.send_snapshot(snapshot(1, 2, 5), db);
    ours.member.wait("a failure", |told| told.snapshots == [(2, false)]);
    ours.member.with(|told| assert_eq!(told.unreachable, [2]));

    let file = scratch.path().join("sent");
    std::fs::write(&file, &bytes).unwrap();
    std::fs::remove_dir_all(ours.dir.path()).unwrap();
    let line = format!("sendsnap {} {}", hex(&snapshot(2, 1, 5).encode()), file.display());
    go.tell(&line);
    assert_eq!(go.wait("snapshot "), "1 failure");
    std::fs::create_dir(ours.dir.path()).unwrap();
    ours.member.with(|told| told.full = true);
    go.tell(&line);
    assert_eq!(go.wait("snapshot "), "1 failure");
    ours.member.with(|told| assert!(told.received.is_empty()));
}

#[test]
fn without_streams_messages_go_by_requests_both_ways() {
    let Some(program) = oracle() else { return };
    let ours = Ours::start(1);
    let mut go = Go::start(&program, 2);
    // Each is only a remote of the other, so there are no streams.
    ours.plane.add_remote(MemberId(2), &[&go.url]).unwrap();
    for message in every_kind(1, 2) {
        ours.plane.send(vec![message.clone()]);
        assert_eq!(go.wait("process "), hex(&message.encode()));
    }
    // Our requests told Go where to reach us.
    for message in every_kind(2, 1) {
        go.send(std::slice::from_ref(&message));
        ours.member.wait("the message", |told| told.received == [message.clone()]);
        ours.member.with(|told| told.received.clear());
    }
}

#[test]
fn an_unknown_sender_is_refused_but_answered_to() {
    let Some(program) = oracle() else { return };
    let ours = Ours::start(1);
    let mut go = Go::start(&program, 2);
    go.tell(&format!("addpeer 1 {}", ours.url));
    ours.member.wait_event("UnknownSender", 1);
    ours.member.wait_event("RemoteAdded", 1);
    let sent = message(1, 2, 3, Body::VoteReply { reject: true });
    ours.plane.send(vec![sent.clone()]);
    assert_eq!(go.wait("process "), hex(&sent.encode()));
    // The other way round.
    ours.plane.add_peer(MemberId(2), &[&go.url]).unwrap();
    ours.wait_streams(1);
    go.tell("removepeer 1");
    ours.member.wait_event("error sender not found", 1);
}

#[test]
fn a_removed_member_hears_of_it_on_either_side() {
    let Some((ours, mut go)) = pair() else { return };
    go.tell("removed 1");
    go.tell("removepeer 1");
    ours.member.wait("410", |told| told.removed > 0);
    drop((ours, go));

    let Some((ours, mut go)) = pair() else { return };
    ours.member.with(|told| told.gone.push(2));
    ours.plane.remove_peer(MemberId(2));
    let text = go.wait("error ");
    assert_eq!(text, "the member has been permanently removed from the cluster");
}

#[test]
fn a_member_of_another_cluster_is_refused_on_either_side() {
    let Some(program) = oracle() else { return };
    let ours = Ours::start(1);
    let mut go = Go::start_with(&program, 2, CLUSTER + 1, "127.0.0.1:0");
    ours.add(2, &go.url);
    ours.member.wait_event("RejectedBy(MemberId(2), \"cluster ID mismatch\")", 2);
    go.tell(&format!("addpeer 1 {}", ours.url));
    ours.member.wait_event("why: Cluster", 2);
    assert_eq!(ours.plane.active_since(MemberId(2)), None);
}

#[test]
fn either_side_may_stop_and_come_back() {
    let Some(program) = oracle() else { return };
    let Some((ours, mut go)) = pair() else { return };
    let address = go.url.strip_prefix("http://").unwrap().to_owned();
    go.stop();
    ours.member.wait_event("StreamLost", 4);
    ours.member.wait("unreachable", |told| told.unreachable.contains(&2));
    assert_eq!(ours.plane.active_since(MemberId(2)), None);
    go = Go::start_with(&program, 2, CLUSTER, &address);
    go.tell(&format!("addpeer 1 {}", ours.url));
    ours.wait_streams(2);
    assert!(ours.plane.active_since(MemberId(2)).is_some());
    let sent = every_kind(1, 2).swap_remove(4);
    ours.plane.send(vec![sent.clone()]);
    assert_eq!(go.wait("process "), hex(&sent.encode()));

    let address = ours.url.strip_prefix("http://").unwrap().to_owned();
    drop(ours);
    let ours = Ours::start_on(1, TcpListener::bind(address).unwrap());
    ours.add(2, &go.url);
    ours.wait_streams(1);
    go.seen.clear();
    let sent = every_kind(2, 1).swap_remove(4);
    go.send(std::slice::from_ref(&sent));
    ours.member.wait("the message", |told| told.received == [sent.clone()]);
}
