//! An etcd of the version before, which writes fields of zero, as a peer.

#[path = "support/samples.rs"]
mod samples;
mod support;

use samples::{append, database, every_kind, snapshot};
use support::{Go, Ours, hex, program, send_back};

fn pair() -> Option<(Ours, Go)> {
    Some(support::pair(&program("rafthttp36/rafthttp36")?))
}

#[test]
fn etcd_3_6_and_ours_understand_each_other() {
    let Some((ours, mut go)) = pair() else { return };
    for message in every_kind(1, 2) {
        ours.plane.send(vec![message.clone()]);
        assert_eq!(go.decoded(1), [message]);
    }
    for message in every_kind(2, 1) {
        go.send(std::slice::from_ref(&message));
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
    send_back(&ours, &mut go, sent);
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
