//! An etcd of the version before, which writes fields of zero, as a peer.

#[path = "support/samples.rs"]
mod samples;
mod support;

use raft::Message;
use samples::{append, database, every_kind, snapshot};
use support::{Go, Ours, hex, program};
use types::MemberId;

/// Ours is 1, that of Go 3.6 is 2, and all streams are open.
fn pair() -> Option<(Ours, Go)> {
    let program = program("rafthttp36/rafthttp36")?;
    let ours = Ours::start(1);
    let mut go = Go::start(&program, 2);
    go.tell(&format!("addpeer 1 {}", ours.url));
    ours.add(2, &go.url);
    ours.wait_streams(1);
    go.wait_active(1);
    Some((ours, go))
}

fn send(go: &mut Go, message: &Message) {
    go.tell(&format!("send {}", hex(&message.encode())));
}

#[test]
fn etcd_3_6_and_ours_understand_each_other() {
    let Some((ours, mut go)) = pair() else { return };
    for message in every_kind(1, 2) {
        ours.plane.send(vec![message.clone()]);
        assert_eq!(go.decoded(1), [message]);
    }
    for message in every_kind(2, 1) {
        send(&mut go, &message);
        ours.member.wait("the message", |told| told.received == [message.clone()]);
        ours.member.with(|told| told.received.clear());
    }
}

#[test]
fn appends_pass_between_etcd_3_6_and_ours() {
    let Some((ours, mut go)) = pair() else { return };
    let mut sent = Vec::new();
    let mut prev = 4;
    for (count, payload) in [(1, 10), (0, 0), (10, 100), (3, 1 << 20), (1, 0), (100, 7)] {
        sent.push(append(1, 2, prev, count, payload));
        prev += count;
    }
    ours.plane.send(sent.clone());
    assert!(go.decoded(sent.len()) == sent, "appends came differently");
    let sent: Vec<_> =
        sent.into_iter().map(|m| Message { from: MemberId(2), to: MemberId(1), ..m }).collect();
    sent.iter().for_each(|message| send(&mut go, message));
    ours.member.wait("all appends", |told| told.received.len() == sent.len());
    let received = ours.member.with(|told| std::mem::take(&mut told.received));
    assert!(received == sent, "appends came differently");
}

#[test]
fn snapshots_pass_between_etcd_3_6_and_ours() {
    let Some((ours, mut go)) = pair() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (db, bytes) = database(scratch.path(), 2);
    ours.plane.send_snapshot(snapshot(1, 2, 5), db);
    ours.member.wait("the outcome", |told| told.snapshots == [(2, true)]);
    let saved = std::fs::read(go.dir.path().join("0000000000000005.snap.db")).unwrap();
    assert!(saved == bytes);
    assert_eq!(go.decoded(1), [snapshot(1, 2, 5)]);

    let file = scratch.path().join("sent");
    std::fs::write(&file, &bytes).unwrap();
    go.tell(&format!("sendsnap {} {}", hex(&snapshot(2, 1, 6).encode()), file.display()));
    assert_eq!(go.wait("snapshot "), "1 finish");
    ours.member.with(|told| assert_eq!(told.received, [snapshot(2, 1, 6)]));
    assert!(std::fs::read(ours.dir.path().join("0000000000000006.snap.db")).unwrap() == bytes);
}
