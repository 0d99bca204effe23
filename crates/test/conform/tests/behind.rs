//! Data directories in the states that only bad luck brings: a database ahead of its log, one that
//! another process still holds, and a log of a version that is yet to come.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{InternalRaftRequest, RequestHeader};
use api::raftpb;
use common::{contents, hashes, operate};
use conform::fuzz::Generator;
use conform::{Kind, Server, oracle};
use prost::Message;

/// Zeroes the log of a stopped server behind a record so many entries before its end, as if the
/// rest had never reached the disk. Returns how many entries are left.
fn forget_entries(wal: &Path, dir: &Path, forget: usize) -> usize {
    const ENTRY: &str = "type=2";
    let raw = Command::new(wal).arg("raw").arg(dir).output().expect("the program runs");
    let raw = String::from_utf8(raw.stdout).expect("hex is text");
    let entries: Vec<&str> = raw.lines().filter(|l| l.contains(ENTRY)).collect();
    let last = entries[entries.len() - 1 - forget];
    let offset = last.split_whitespace().next().and_then(|word| word.strip_prefix("off="));
    let offset: u64 = offset.expect("every line begins with it").parse().expect("a number");
    let mut segments: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    assert_eq!(segments.len(), 1, "offsets count from the start of the first segment");
    let file = std::fs::File::options().write(true).open(&segments[0]).unwrap();
    let len = file.metadata().unwrap().len();
    assert!(offset < len);
    file.set_len(offset).unwrap();
    file.set_len(len).unwrap();
    entries.len() - forget
}

#[test]
fn a_database_of_go_that_is_ahead_of_its_log_is_served_by_ours_and_by_go_again() {
    let (Some(wal), Some(_)) = (oracle("wal/wal"), oracle("etcd/etcd")) else { return };
    for forget in [1, 25, 150] {
        let mut server = Server::start(Kind::Reference, &[]).expect("the programs are there");
        let mut generator = Generator::new(forget as u64);
        operate(&server, &mut generator, 300);
        let (left, hashed) = (contents(&server), hashes(&server));
        server.stop();
        let log = server.data_dir.join("member/wal");
        assert!(forget_entries(&wal, &log, forget) > 0);
        server.restart_as(Kind::Quorate);
        assert_eq!(contents(&server), left, "{forget} entries forgotten");
        assert_eq!(hashes(&server), hashed, "{forget} entries forgotten");
        operate(&server, &mut generator, 100);
        let (left, hashed) = (contents(&server), hashes(&server));
        server.restart_as(Kind::Quorate);
        assert_eq!(contents(&server), left, "after a kill");
        assert_eq!(hashes(&server), hashed, "after a kill");
        server.restart_as(Kind::Reference);
        assert_eq!(contents(&server), left, "served by etcd");
        assert_eq!(hashes(&server), hashed, "served by etcd");
        operate(&server, &mut generator, 50);
        let left = contents(&server);
        server.stop();
        server.restart_as(Kind::Quorate);
        assert_eq!(contents(&server), left, "and back");
    }
}

/// Starts `second` on the directory of a running `first`; it must say that it waits, and serve
/// once the first has ended. Returns the line it said.
fn wait_for_the_first(first: Kind, second: Kind) -> Option<serde_json::Value> {
    const MESSAGE: &str = "db file is flocked by another process, or taking too long";
    let context = format!("{second:?} behind {first:?}");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut holder = Server::start_on(first, &data, &[])?;
    operate(&holder, &mut Generator::new(5), 50);
    let left = contents(&holder);
    let mut waiter = Server::prepare(second, &data, &[]);
    waiter.spawn()?;
    let said = |log: &str| log.lines().find(|l| l.contains(MESSAGE)).map(str::to_owned);
    for _ in 0..150 {
        if said(&waiter.log()).is_some() {
            break;
        }
        assert!(waiter.wait_exit(Duration::from_millis(100)).is_none(), "{context}: it waits");
    }
    let line = said(&waiter.log()).unwrap_or_else(|| panic!("{context}: nothing was said"));
    assert!(waiter.http_get("/health").is_none(), "{context}: it serves nobody meanwhile");
    operate(&holder, &mut Generator::new(6), 50);
    let revised = contents(&holder);
    assert_ne!(left, revised, "the first goes on");
    holder.stop();
    assert!(waiter.wait_ready(), "{context}: it serves when the first has ended");
    assert_eq!(contents(&waiter), revised, "{context}");
    Some(serde_json::from_str(&line).expect("a line of JSON"))
}

#[test]
fn a_second_process_on_a_directory_says_that_it_waits_and_then_serves() {
    let kinds = [Kind::Quorate, Kind::Reference];
    let lines = std::thread::scope(|scope| {
        let pairs = kinds.iter().flat_map(|&a| kinds.iter().map(move |&b| (a, b)));
        let running: Vec<_> =
            pairs.map(|(a, b)| (b, scope.spawn(move || wait_for_the_first(a, b)))).collect();
        let ended = running.into_iter();
        ended.map(|(kind, t)| (kind, t.join().expect("as asserted above"))).collect::<Vec<_>>()
    });
    let (mut ours, mut theirs) = (None, None);
    for (kind, line) in lines {
        let Some(line) = line else { continue };
        let place = if kind == Kind::Quorate { &mut ours } else { &mut theirs };
        let fields = line.as_object().expect("an object").clone();
        *place = Some((fields.keys().cloned().collect::<Vec<_>>(), line["level"].clone()));
    }
    if let Some(theirs) = theirs {
        assert_eq!(ours, Some(theirs), "level and fields of the line; left is ours");
    }
}

/// Appends a committed entry to the log of a stopped server: a request of a kind that does not
/// exist.
fn append_unknown(log: &Path) {
    let may = env::MayBlock::on_this_thread();
    let disk: Arc<dyn env::Disk> = Arc::new(osenv::OsDisk);
    let (mut wal, read) = wal::Wal::open(disk, log, &may, (0, 0)).expect("a log");
    let mut state = read.hard_state.expect("a member that ran has one");
    let index = read.last_index + 1;
    let header = RequestHeader { id: 1, ..RequestHeader::default() };
    let request = InternalRaftRequest { header: Some(header), ..InternalRaftRequest::default() };
    // Field 3000, of no bytes.
    let data = [request.encode_to_vec(), vec![0xc2, 0xbb, 0x01, 0x00]].concat();
    wal.append(&raftpb::Entry {
        term: state.term,
        index: Some(index),
        data: Some(data.into()),
        ..raftpb::Entry::default()
    });
    state.commit = Some(index);
    wal.append_hard_state(&state);
    wal.write(&may).expect("written");
    wal.sync(&may).expect("synced");
}

#[test]
fn p5_an_entry_of_an_unknown_kind_ends_each_start() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(mut server) = Server::start(kind, &[]) else { continue };
        operate(&server, &mut Generator::new(7), 20);
        server.stop();
        append_unknown(&server.data_dir.join("member/wal"));
        for _ in 0..2 {
            let before = server.log().len();
            server.spawn().expect("it was there before");
            let code = server.wait_exit(Duration::from_secs(20));
            assert!(matches!(code, Some(Some(1 | 2))), "{kind:?} goes on, or is killed: {code:?}");
            let log = server.log().split_off(before);
            assert!(log.contains("not implemented apply"), "{kind:?}: {log}");
            assert!(!log.contains("ready to serve client requests"), "{kind:?}: {log}");
        }
    }
}
