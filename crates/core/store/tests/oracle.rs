//! The store against the reference etcd: the same operations on both, then every hash of both, and
//! the reference's database read by ours and ours by the reference's tool.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::may;
use env::mem::MemDisk;
use env::{Disk, Entropy, Open, SplitMix};
use store::{Batch, DatabaseHasher, Step, Store, View};
use types::{Index, LeaseId, Revision, Term};

fn oracle(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let program = dir.join(name).join(name);
    if program.is_file() {
        return Some(program);
    }
    assert!(std::env::var_os("QUORATE_CI").is_none(), "{} is missing", program.display());
    eprintln!("SKIPPED: {} is missing", program.display());
    None
}

/// A directory that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("store-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running reference server, driven through its JSON gateway.
struct Reference {
    child: Child,
    port: u16,
}

impl Reference {
    fn start(program: &Path, dir: &Path) -> Self {
        let (port, peer) = (free_port(), free_port());
        let client_url = format!("http://127.0.0.1:{port}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let child = Command::new(program)
            .args(["--data-dir".as_ref(), dir.as_os_str()])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}"), "--log-level", "fatal"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !server.try_post("/v3/kv/range", r#"{"key":"YQ=="}"#).contains("200 OK") {
            assert!(Instant::now() < deadline, "the reference did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn try_post(&self, path: &str, body: &str) -> String {
        let mut answer = Vec::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = write!(
                stream,
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.read_to_end(&mut answer);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn post(&self, path: &str, body: &str) -> String {
        let answer = self.try_post(path, body);
        assert!(answer.contains("200 OK"), "{path} {body}: {answer}");
        answer
    }

    /// (hash, compact revision) of a revision, 0 for the current.
    fn hash_kv(&self, revision: i64) -> (u32, i64) {
        let answer =
            self.post("/v3/maintenance/hashkv", &format!(r#"{{"revision":"{revision}"}}"#));
        let compact = number(&answer, "compact_revision").expect("always sent but for 0");
        (number(&answer, "hash").unwrap_or(0) as u32, compact)
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        Command::new("kill").arg(id).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of a field of a JSON answer.
fn number(json: &str, field: &str) -> Option<i64> {
    let rest = json.split_once(&format!("\"{field}\":"))?.1;
    let digits: String = rest
        .chars()
        .skip_while(|c| *c == ' ' || *c == '"')
        .take_while(|c| "-0123456789".contains(*c))
        .collect();
    digits.parse().ok()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([&0; 2]).take(3).fold(0u32, |w, &b| w << 8 | u32::from(b));
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

enum Operation {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>, Vec<u8>),
}

/// Ours, with a database of its own.
struct Ours {
    store: Store,
    db: bolt::Db,
    disk: MemDisk,
    index: u64,
    queue: Vec<Arc<Batch>>,
}

impl Ours {
    fn new() -> Self {
        let disk = MemDisk::new();
        let db = common::fresh(&disk);
        Self { store: Store::empty(), db, disk, index: 0, queue: Vec::new() }
    }

    fn apply(&mut self, operations: &[Operation]) {
        let mut txn = self.store.begin();
        for operation in operations {
            match operation {
                Operation::Put(key, value) => drop(txn.put(key, value, LeaseId(0))),
                Operation::Delete(key, end) => drop(txn.delete_range(key, end)),
            }
        }
        txn.end();
        self.seal();
    }

    fn seal(&mut self) {
        self.index += 1;
        let batch = self.store.seal(Index(self.index), Term(2), None);
        self.queue.push(batch);
    }

    fn commit(&mut self) {
        let Some(last) = self.queue.last().cloned() else { return };
        let read = common::commit(&mut self.db, &self.queue).unwrap();
        drop(self.store.committed(&last, read));
        self.queue.clear();
    }

    /// Compacts and returns the hash of the compaction.
    fn compact(&mut self, revision: i64) -> u32 {
        let compacted = self.store.compact(Revision(revision)).unwrap();
        self.seal();
        let view = self.store.publish();
        let mut hasher = view.hash_compaction(compacted.previous);
        while hasher.step(&may(), &view, 500).unwrap() == Step::More {}
        while self.store.compaction_step(10) == Step::More {
            self.seal();
        }
        self.seal();
        hasher.finish().hash
    }
}

fn hash_kv(view: &View, revision: i64) -> (u32, i64) {
    let mut hasher = view.hash_kv(revision).unwrap();
    while hasher.step(&may(), view, 1_000).unwrap() == Step::More {}
    let hash = hasher.finish();
    (hash.hash, hash.compact_revision.0)
}

fn operations(random: &mut SplitMix, phase: u64) -> Vec<Operation> {
    let key = |random: &mut SplitMix| format!("/k/{}", random.below(25)).into_bytes();
    let n = if random.below(3) == 0 { 1 + random.below(4) } else { 1 };
    let mut used = Vec::new();
    let mut all = Vec::new();
    for _ in 0..n {
        let k = key(random);
        if used.contains(&k) {
            continue;
        }
        if random.below(10) < 6 + 2 * (phase % 2) {
            let value = vec![b'v'; random.below(300) as usize];
            all.push(Operation::Put(k.clone(), value));
        } else {
            let end = if random.below(6) == 0 { b"/k/2".to_vec() } else { Vec::new() };
            if !end.is_empty() && !all.is_empty() {
                continue; // puts within a deleted range are refused
            }
            all.push(Operation::Delete(k.clone(), end));
            if all.len() == 1 && matches!(&all[0], Operation::Delete(_, end) if !end.is_empty()) {
                return all;
            }
        }
        used.push(k);
    }
    // The quirk: a put and a delete from a key on, in one transaction.
    if random.below(12) == 0 {
        all.push(Operation::Delete(b"/k/9".to_vec(), vec![0]));
    }
    all
}

fn send(reference: &Reference, operations: &[Operation]) {
    let all: Vec<_> = operations
        .iter()
        .map(|operation| match operation {
            Operation::Put(key, value) => format!(
                r#"{{"requestPut":{{"key":"{}","value":"{}"}}}}"#,
                base64(key),
                base64(value)
            ),
            Operation::Delete(key, end) => format!(
                r#"{{"requestDeleteRange":{{"key":"{}","range_end":"{}"}}}}"#,
                base64(key),
                base64(end)
            ),
        })
        .collect();
    reference.post("/v3/kv/txn", &format!(r#"{{"success":[{}]}}"#, all.join(",")));
}

/// Every retained revision but the compact one, for which a running server answers from memory.
fn compare_all(reference: &Reference, view: &View, with_compact_revision: bool) {
    let compact = view.compact_revision().0;
    let first = if with_compact_revision { compact } else { compact + 1 };
    for revision in first.max(1)..=view.revision().0 {
        assert_eq!(hash_kv(view, revision), reference.hash_kv(revision), "revision {revision}");
    }
}

fn read_database(path: &Path) -> (MemDisk, bolt::Db) {
    let disk = MemDisk::new();
    let file = disk.open(&may(), Path::new("/db"), Open::CreateNew).unwrap();
    file.write_at(&may(), &std::fs::read(path).unwrap(), 0).unwrap();
    drop(file);
    let db = common::open(&disk);
    (disk, db)
}

#[test]
fn every_hash_is_the_references() {
    let (Some(etcd), Some(etcdutl)) = (oracle("etcd"), oracle("etcdutl")) else { return };
    let scratch = Scratch::new("hash");
    let data = scratch.0.join("data");
    let mut reference = Reference::start(&etcd, &data);
    let (mut ours, mut random) = (Ours::new(), SplitMix::new(7));
    assert_eq!(reference.hash_kv(0), hash_kv(&ours.store.publish(), 0), "empty");
    for phase in 0..6 {
        for _ in 0..40 {
            let operations = operations(&mut random, phase);
            ours.apply(&operations);
            send(&reference, &operations);
            if random.below(10) == 0 {
                ours.commit();
            }
        }
        if phase == 3 {
            let everything = [Operation::Delete(vec![0], vec![0])];
            ours.apply(&everything);
            send(&reference, &everything);
        }
        compare_all(&reference, &ours.store.publish(), phase == 0);
        let (now, compact) = (ours.store.revision().0, ours.store.compact_revision().0);
        let target = match phase {
            2 | 3 => now,
            _ => compact.max(1) + 1 + random.below((now - compact.max(1)) as u64) as i64,
        };
        let target = target.min(now);
        let body = format!(r#"{{"revision":"{target}","physical":true}}"#);
        reference.post("/v3/kv/compaction", &body);
        let hash = ours.compact(target);
        assert_eq!((hash, compact), reference.hash_kv(target), "compaction {compact} to {target}");
        compare_all(&reference, &ours.store.publish(), false);
        if phase % 2 == 1 {
            // Stored hashes are lost at restart: now the compact revision itself is hashed.
            reference.stop();
            reference = Reference::start(&etcd, &data);
            compare_all(&reference, &ours.store.publish(), true);
        }
    }
    ours.commit();
    let view = ours.store.publish();
    compare_all(&reference, &view, false);

    // Their database, read by us.
    let answer = reference.post("/v3/maintenance/hash", "{}");
    let their_hash = number(&answer, "hash").unwrap() as u32;
    reference.stop();
    let (_disk, db) = read_database(&data.join("member/snap/db"));
    let mut hasher = DatabaseHasher::new(db.begin_read());
    while hasher.step(&may(), 1_000).unwrap() == Step::More {}
    assert_eq!(hasher.finish(), their_hash);
    let theirs = Store::recover(&may(), db.begin_read()).unwrap().publish();
    assert_eq!(theirs.revision(), view.revision());
    assert_eq!(theirs.compact_revision(), view.compact_revision());
    for revision in view.compact_revision().0..=view.revision().0 {
        assert_eq!(hash_kv(&theirs, revision), hash_kv(&view, revision), "revision {revision}");
    }

    // Our database, read by their tool.
    let file = ours.disk.open(&may(), Path::new("/db"), Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&may(), &mut bytes, 0, env::Access::Scan).unwrap();
    let copy = scratch.0.join("ours");
    std::fs::write(&copy, bytes).unwrap();
    for revision in [view.compact_revision().0, view.revision().0] {
        let output = Command::new(&etcdutl)
            .args(["hashkv", "-w", "json", "--rev", &revision.to_string()])
            .arg(&copy)
            .output()
            .unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let got = number(&answer, "hash").expect("a hash in the tool's answer") as u32;
        assert_eq!(got, hash_kv(&view, revision).0, "{answer}");
    }
}
