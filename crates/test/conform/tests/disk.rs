//! The data directory: either server goes on where the other stopped, cleanly or not.
//!
//! `QUORATE_KILL_ROUNDS` sets the rounds of the kill loop (10 by default).

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::etcdserverpb::{PutRequest, PutResponse, SnapshotRequest, SnapshotResponse};
use common::{block_on, contents, hashes, operate};
use conform::fuzz::Generator;
use conform::{Client, Kind, Server, oracle};

/// Lets `kinds` serve one directory in turn; what each left must be what the next one has.
fn in_turn(kinds: &[Kind], seed: u64) {
    if oracle("etcd/etcd").is_none() {
        return;
    }
    let mut server = Server::start(kinds[0], &[]).expect("the programs are there");
    let mut generator = Generator::new(seed);
    operate(&server, &mut generator, 400);
    for (n, &kind) in kinds.iter().enumerate().skip(1) {
        let (before, left) = (hashes(&server), contents(&server));
        assert_eq!(server.stop().unwrap_or(0), 0, "a clean stop");
        server.restart_as(kind);
        let (after, found) = (hashes(&server), contents(&server));
        assert_eq!(before, after, "seed {seed}, turn {n}: {kind:?} after the other");
        assert_eq!(left, found, "seed {seed}, turn {n}: {kind:?} after the other");
        operate(&server, &mut generator, 200);
    }
}

#[test]
fn etcd_opens_what_ours_wrote_and_ours_opens_it_again() {
    in_turn(&[Kind::Quorate, Kind::Reference, Kind::Quorate, Kind::Quorate, Kind::Reference], 11);
}

#[test]
fn ours_opens_what_etcd_wrote_and_etcd_opens_it_again() {
    in_turn(&[Kind::Reference, Kind::Quorate, Kind::Reference, Kind::Quorate], 12);
}

/// etcd's coming minor writes no `.snap` files.
#[test]
fn a_directory_without_snap_files_is_opened() {
    let few = ["--snapshot-count", "50", "--snapshot-catchup-entries", "10"];
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(mut server) = Server::start(kind, &few) else { continue };
        operate(&server, &mut Generator::new(14), 400);
        let (before, left) = (hashes(&server), contents(&server));
        server.stop();
        let snap = server.data_dir.join("member/snap");
        let mut removed = 0;
        for entry in std::fs::read_dir(&snap).expect("a member has it").flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "snap") {
                std::fs::remove_file(entry.path()).expect("it was just listed");
                removed += 1;
            }
        }
        assert!(removed > 0, "{kind:?} wrote none");
        server.restart_as(Kind::Quorate);
        assert_eq!((before, left), (hashes(&server), contents(&server)), "{kind:?}");
    }
}

#[test]
fn older_patches_of_etcd_and_ours_open_what_the_other_wrote() {
    let old = Kind::Reference371;
    if old.program().is_some() {
        in_turn(&[old, Kind::Quorate, old, Kind::Reference, Kind::Quorate], 13);
    }
}

/// Puts by eight writers until the server is killed. Returns per writer the last number that was
/// acknowledged.
fn write_until_killed(server: &mut Server, round: u64, wait: Duration) -> Vec<u64> {
    let killed = Arc::new(AtomicBool::new(false));
    let port = server.port;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let killed = Arc::clone(&killed);
            std::thread::spawn(move || {
                block_on(async {
                    let client = Client::connect(port).await;
                    let mut acknowledged = 0;
                    while !killed.load(Ordering::SeqCst) {
                        let number = acknowledged + 1;
                        let key = format!("r{round}/w{writer}/{number:06}");
                        let value = vec![b'v'; 100 + (number % 400) as usize];
                        let (key, value) = (key.into(), value.into());
                        let request = PutRequest { key, value, ..Default::default() };
                        // After the kill the connection may be refused at any step.
                        let call = tokio::spawn({
                            let client = client.clone();
                            async move {
                                client.call::<PutResponse>("/etcdserverpb.KV/Put", &request).await
                            }
                        });
                        match call.await {
                            Ok(Ok(_)) => acknowledged = number,
                            Ok(Err(_)) | Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
        })
        .collect();
    std::thread::sleep(wait);
    server.kill();
    killed.store(true, Ordering::SeqCst);
    writers.into_iter().map(|w| w.join().expect("a writer does not panic")).collect()
}

/// Checks that every acknowledged put of every round is there, and no writer's order is broken.
fn nothing_is_lost(server: &Server, rounds: &[(u64, Vec<u64>)]) {
    let keys = contents(server).kvs;
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for kv in keys {
        let key = String::from_utf8(kv.key.to_vec()).expect("all keys here are text");
        found.insert(key, kv.value.len());
    }
    for (round, writers) in rounds {
        for (writer, &last) in writers.iter().enumerate() {
            for number in 1..=last {
                let key = format!("r{round}/w{writer}/{number:06}");
                let len = found.get(&key);
                assert_eq!(len, Some(&(100 + (number % 400) as usize)), "{key} of {last}");
            }
        }
    }
}

#[test]
fn no_acknowledged_put_is_lost_by_kills_under_load() {
    let rounds = std::env::var("QUORATE_KILL_ROUNDS").ok().and_then(|v| v.parse().ok());
    let mut server = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let mut done = Vec::new();
    for round in 0..rounds.unwrap_or(10) {
        let wait = Duration::from_millis(100 + (round * 137) % 400);
        let acknowledged = write_until_killed(&mut server, round, wait);
        assert!(acknowledged.iter().sum::<u64>() > 0, "round {round} wrote nothing");
        server.restart_as(Kind::Quorate);
        done.push((round, acknowledged));
        nothing_is_lost(&server, &done);
    }
    server.stop();
    if oracle("etcd/etcd").is_some() {
        server.restart_as(Kind::Reference);
        nothing_is_lost(&server, &done);
    }
}

#[test]
fn either_goes_on_where_the_other_was_killed() {
    if oracle("etcd/etcd").is_none() {
        return;
    }
    for first in [Kind::Quorate, Kind::Reference] {
        let mut server = Server::start(first, &[]).expect("the programs are there");
        let mut done = Vec::new();
        for round in 0..4 {
            let wait = Duration::from_millis(150 + 90 * round);
            let acknowledged = write_until_killed(&mut server, round, wait);
            let other = if server.kind == Kind::Quorate { Kind::Reference } else { Kind::Quorate };
            server.restart_as(other);
            done.push((round, acknowledged));
            nothing_is_lost(&server, &done);
        }
        let before = hashes(&server);
        let other = if server.kind == Kind::Quorate { Kind::Reference } else { Kind::Quorate };
        server.stop();
        server.restart_as(other);
        assert_eq!(before, hashes(&server));
    }
}

/// Runs a Go program that must succeed; returns what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

fn save_snapshot(server: &Server, to: &Path) {
    let path = "/etcdserverpb.Maintenance/Snapshot";
    let mut file = Vec::new();
    block_on(async {
        let client = Client::connect(server.port).await;
        let message = prost::Message::encode_to_vec(&SnapshotRequest {});
        let envelope = conform::grpc::envelope(&message);
        let mut stream = client.open(path, Some(envelope), true).await;
        let patience = Duration::from_secs(20);
        while let Some(piece) = stream.next::<SnapshotResponse>(patience).await.unwrap() {
            file.extend_from_slice(&piece.blob);
        }
    });
    std::fs::write(to, file).expect("the temporary directory can be written");
}

#[test]
fn etcd_restores_a_snapshot_of_ours() {
    let (Some(etcdutl), Some(_)) = (oracle("etcdutl/etcdutl"), oracle("etcd/etcd")) else {
        return;
    };
    let server = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    operate(&server, &mut Generator::new(13), 500);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snapshot.db");
    save_snapshot(&server, &file);
    let status = Command::new(&etcdutl)
        .args(["snapshot", "status", "-w", "json"])
        .arg(&file)
        .output()
        .expect("etcdutl runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let left = contents(&server);
    let revision = format!("\"revision\":{}", left.header.unwrap().revision);
    assert!(status.contains(&revision), "{status} has not {revision}");
    let data = dir.path().join("restored");
    output(
        Command::new(&etcdutl)
            .args(["snapshot", "restore"])
            .arg(&file)
            .args(["--data-dir", data.to_str().expect("temporary paths are text")]),
    );
    for kind in [Kind::Reference, Kind::Quorate] {
        let restored = Server::start_on(kind, &data, &[]).expect("the programs are there");
        assert_eq!(contents(&restored), left, "{kind:?}");
        assert_eq!(hashes(&restored), hashes(&server), "{kind:?}");
    }
}

#[test]
fn go_reads_the_log_that_ours_writes() {
    let Some(wal) = oracle("wal/wal") else { return };
    let mut server = Server::start(Kind::Quorate, &["--snapshot-count", "100"]).expect("ours");
    operate(&server, &mut Generator::new(14), 400);
    server.stop();
    let member = server.data_dir.join("member");
    let run = |what: &str, dir: &str| output(Command::new(&wal).arg(what).arg(member.join(dir)));
    let all = run("all", "wal");
    assert!(all.contains(" entries=") && !all.contains("undecodable"), "{all}");
    assert!(all.contains("put:<") || all.contains("put:{"), "{all}");
    let verified = run("verify", "wal");
    assert!(verified.contains("OK"), "{verified}");
    let snapshots = run("snap", "snap");
    for line in snapshots.lines().skip(1) {
        assert!(line.ends_with("<nil>"), "{snapshots}");
    }
    // A torn end, as a kill leaves it, is read up to where it is torn.
    server.restart_as(Kind::Quorate);
    write_until_killed(&mut server, 0, Duration::from_millis(300));
    let killed = run("all", "wal");
    assert!(killed.contains(" entries="), "{killed}");
}
