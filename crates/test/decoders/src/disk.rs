//! Files: the log, `.snap` files, the database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{raftpb, walpb};
use env::mem::MemDisk;
use env::{Access, Disk, HashSeed, MayBlock, Open, SplitMix};
use machine::{ApplyConfig, Machine};
use types::{ClusterId, MemberId};

const DIR: &str = "/wal";
const SEGMENT: &str = "0000000000000000-0000000000000000.wal";

fn write_file(disk: &dyn Disk, may: &MayBlock, path: &Path, bytes: &[u8]) {
    let open = Open::CreateOrWrite;
    let file = disk.open(may, path, open).expect("the disk is healthy");
    file.write_at(may, bytes, 0).expect("the disk is healthy");
}

fn read_file(disk: &dyn Disk, may: &MayBlock, path: &Path) -> Vec<u8> {
    let file = disk.open(may, path, Open::Read).expect("the file is there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("a healthy disk")).expect("small")];
    file.read_at(may, &mut bytes, 0, Access::ScanOnce).expect("the disk is healthy");
    bytes
}

/// Reads the bytes as the only segment of a log, mends a torn tail, and reads again.
pub fn segment(bytes: &[u8]) {
    let (disk, may) = (MemDisk::new(), MayBlock::on_this_thread());
    let dir = Path::new(DIR);
    disk.create_dir_all(&may, dir).expect("an empty disk");
    write_file(&disk, &may, &dir.join(SEGMENT), bytes);
    let _ = wal::snapshots(&disk, dir, &may);
    let first = wal::read_all(&disk, dir, &may, (0, 0));
    if matches!(first, Err(wal::ReadError::TornTail { .. })) {
        let mended = wal::repair(&disk, dir, &may).expect("the disk is healthy");
        let second = wal::read_all(&disk, dir, &may, (0, 0));
        assert!(!mended || !matches!(second, Err(wal::ReadError::TornTail { .. })));
    }
}

fn a_log() -> Vec<u8> {
    let (disk, may) = (Arc::new(MemDisk::new()), MayBlock::on_this_thread());
    let metadata = wal::writer::metadata(MemberId(7), ClusterId(9));
    let dir = Path::new(DIR);
    let made =
        wal::Wal::create(disk.clone(), dir, &may, metadata, &wal::writer::Beginning::default());
    let mut log = made.expect("an empty disk");
    for index in 1..=5 {
        let data = vec![0x5a; 100 * index as usize];
        log.append(&raftpb::Entry {
            term: Some(1),
            index: Some(index),
            data: Some(data.into()),
            ..Default::default()
        });
        log.append_hard_state(&raftpb::HardState {
            term: Some(1),
            vote: Some(7),
            commit: Some(index),
        });
    }
    log.append_snapshot(&walpb::Snapshot {
        index: Some(3),
        term: Some(1),
        conf_state: Some(raftpb::ConfState { voters: vec![7], ..Default::default() }),
    });
    log.write(&may).expect("the disk is healthy");
    log.sync(&may).expect("the disk is healthy");
    let end = usize::try_from(log.end()).expect("a short log");
    drop(log);
    let mut bytes = read_file(&*disk, &may, &dir.join(SEGMENT));
    bytes.truncate(end + 64);
    bytes
}

/// A log, whole and torn.
#[must_use]
pub fn segments() -> Vec<Vec<u8>> {
    let whole = a_log();
    let torn = whole[..whole.len() * 2 / 3].to_vec();
    vec![whole, torn]
}

/// Single records of a log.
#[must_use]
pub fn records() -> Vec<Vec<u8>> {
    let mut encoder = wal::record::Encoder::new(0);
    [wal::RecordType::Entry, wal::RecordType::State, wal::RecordType::Crc]
        .into_iter()
        .map(|kind| {
            let mut out = Vec::new();
            encoder.record(&mut out, kind, b"some payload");
            out
        })
        .collect()
}

/// Reads the bytes as a `.snap` file.
pub fn snap_file(bytes: &[u8]) {
    if let Ok(snapshot) = wal::snap::decode(&bytes.to_vec().into()) {
        let again = wal::snap::encode(&snapshot);
        assert_eq!(wal::snap::decode(&again.into()).as_ref(), Ok(&snapshot));
    }
}

/// A `.snap` file.
#[must_use]
pub fn snap_files() -> Vec<Vec<u8>> {
    let metadata = raftpb::SnapshotMetadata {
        conf_state: Some(raftpb::ConfState { voters: vec![7], ..Default::default() }),
        index: Some(40),
        term: Some(2),
    };
    let data = br#"{"Root":{}}"#.to_vec().into();
    vec![wal::snap::encode(&raftpb::Snapshot { data: Some(data), metadata: Some(metadata) })]
}

/// What the machine of a lone member is told.
#[must_use]
pub fn apply_config() -> ApplyConfig {
    ApplyConfig {
        id: MemberId(7),
        min_lease_ttl: 2,
        max_learners: 1,
        quota_bytes: None,
        persist_checkpoints: false,
        hash_seed: HashSeed::draw(&mut SplitMix::new(1)),
    }
}

/// Opens the bytes as a database, checks every page, and rebuilds a member's state from it.
pub fn database(bytes: &[u8]) {
    /// Opening zeroes what it reserves by the page size in the file: keep that small.
    const MOST: usize = 1 << 20;
    let bytes = &bytes[..bytes.len().min(MOST)];
    let (disk, may) = (Arc::new(MemDisk::new()), MayBlock::on_this_thread());
    let path = Path::new("/db");
    write_file(&*disk, &may, path, bytes);
    if let Ok(db) = bolt::Db::open(disk, path, &may, store::database_options()) {
        let _ = db.check(&may);
        let _ = Machine::recover(apply_config(), &may, db.begin_read());
    }
}

/// A small database of etcd's with something in most buckets.
#[must_use]
pub fn databases() -> Vec<Vec<u8>> {
    let (disk, may) = (Arc::new(MemDisk::new()), MayBlock::on_this_thread());
    let path = PathBuf::from("/db");
    let opened = bolt::Db::open(disk.clone(), &path, &may, store::database_options());
    let mut db = opened.expect("an empty disk");
    let mut machine = Machine::empty(apply_config());
    for (index, data) in crate::wire::entries().into_iter().enumerate() {
        let (index, term) = (types::Index(index as u64 + 1), types::Term(1));
        let entry = raft::Entry { index, term, kind: raft::EntryKind::Normal, data: data.into() };
        let outcome = machine.apply(&may, &entry, false).expect("nothing is read");
        assert!(outcome.reply.is_ok(), "{:?}", outcome.reply);
        let batch = machine.store.seal(index, term, None);
        let mut tx = db.begin_write();
        store::create_buckets(&mut tx, &may).expect("a healthy disk");
        batch.write_to(&mut tx, &may).expect("a healthy disk");
        tx.commit(&may).expect("a healthy disk");
        let _ = machine.store.committed(&batch, db.begin_read());
    }
    drop(db);
    vec![read_file(&*disk, &may, &path)]
}

/// Single pages of a database.
#[must_use]
pub fn pages() -> Vec<Vec<u8>> {
    let file = databases().remove(0);
    file.chunks(4_096).skip(2).map(<[u8]>::to_vec).collect()
}
