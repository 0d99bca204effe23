//! The engine against Go's bbolt: each opens what the other wrote, and equal operations give equal
//! content.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;
use env::mem::MemDisk;
use env::{Access, Entropy};

/// Transactions of the long comparison; more with `BOLT_GO_TRANSACTIONS`.
const TRANSACTIONS: usize = 500;

struct Go {
    program: PathBuf,
    file: PathBuf,
}

/// Keys and hash by bucket, and the total size.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    buckets: BTreeMap<Vec<u8>, (u64, u64)>,
    size: u64,
    free: u64,
    deep: BTreeMap<Vec<u8>, u64>,
}

impl Go {
    fn new(name: &str) -> Option<Self> {
        let program = oracle("bbolt", "bbolt")?;
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.db"));
        let _ = std::fs::remove_file(&file);
        Some(Self { program, file })
    }

    fn store(&self, disk: &MemDisk) {
        std::fs::write(&self.file, bytes_of(disk)).unwrap();
    }

    fn load(&self) -> MemDisk {
        disk_with(&std::fs::read(&self.file).unwrap())
    }

    /// Runs the program and reads its table; panics if Go finds a fault.
    fn run(&self, args: &[&str], input: &str) -> Seen {
        let mut child = Command::new(&self.program)
            .args(args)
            .arg(&self.file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.ends_with("OK\n"), "Go says:\n{text}{errors}");
        let mut seen = Seen { buckets: BTreeMap::new(), size: 0, free: 0, deep: BTreeMap::new() };
        for line in text.lines() {
            let field = |name: &str| {
                line.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
            };
            if let Some(size) = field("size") {
                seen.size = size.parse().unwrap();
                seen.free = field("free").unwrap().parse().unwrap();
            }
            if let Some(name) = field("hex") {
                let hash = |name| u64::from_str_radix(field(name).unwrap(), 16).unwrap();
                let keys = field("keys").unwrap().parse().unwrap();
                seen.buckets.insert(unhex(name), (keys, hash("fnv")));
                seen.deep.insert(unhex(name), hash("deep"));
            }
        }
        seen
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().fold(String::new(), |mut s, b| {
        write!(s, "{b:02x}").unwrap();
        s
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn script(ops: &[Op], out: &mut String) {
    for op in ops {
        match op {
            Op::Create(name) => writeln!(out, "create {}", hex(name)),
            Op::Drop(name) => writeln!(out, "drop {}", hex(name)),
            Op::Fill(name, fill) => writeln!(out, "fill {} {fill}", hex(name)),
            Op::Put(name, k, v) => writeln!(out, "put {} {} {}", hex(name), hex(k), hex(v)),
            Op::Delete(name, k) => writeln!(out, "delete {} {}", hex(name), hex(k)),
        }
        .unwrap();
    }
    out.push_str("commit\n");
}

fn fnv(hash: &mut u64, bytes: &[u8]) {
    for byte in bytes {
        *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

/// The hash that the Go program prints, of what `tx` scans.
fn ours(tx: &bolt::ReadTx) -> BTreeMap<Vec<u8>, (u64, u64)> {
    let may = may();
    let mut buckets = BTreeMap::new();
    for name in tx.buckets(&may).unwrap() {
        let (mut keys, mut hash) = (0, 0xcbf2_9ce4_8422_2325);
        let mut scan = tx.scan(&may, &name, everything(), Access::ScanOnce);
        while let Some((key, value)) = scan.next_ref().unwrap() {
            keys += 1;
            fnv(&mut hash, &(key.len() as u32).to_be_bytes());
            fnv(&mut hash, &(value.len() as u32).to_be_bytes());
            fnv(&mut hash, key);
            fnv(&mut hash, value);
        }
        buckets.insert(name.to_vec(), (keys, hash));
    }
    buckets
}

/// Lets both engines take turns on one file, with equal operations from one seed.
fn take_turns(go: &Go, seed: u64, transactions: usize, page_size: u32, go_args: &[&str]) {
    let mut ops = Ops::new(seed);
    let mut disk = MemDisk::new();
    drop(try_open(&disk, page_size).unwrap());
    let mut done = 0;
    let mut turn = 0;
    while done < transactions {
        let n =
            (1 + ops.random.below(1 + transactions as u64 / 5) as usize).min(transactions - done);
        let when = format!("seed {seed}, transactions {done}..{}, turn {turn}", done + n);
        if turn % 2 == 0 {
            let mut db = try_open(&disk, 4096).unwrap();
            assert_eq!(db.check(&may()).unwrap(), [], "{when}");
            for _ in 0..n {
                let batch = ops.transaction();
                let mut tx = db.begin_write();
                perform(&mut tx, &batch).unwrap();
                tx.commit(&may()).unwrap();
            }
            assert_same(&db.begin_read(), &ops.model, &when);
            let (size, used) = (db.size_bytes(), db.size_in_use_bytes());
            drop(db);
            go.store(&disk);
            let seen = go.run(&[], "");
            let db = try_open(&disk, 4096).unwrap();
            assert_eq!(seen.buckets, ours(&db.begin_read()), "{when}");
            assert_eq!(seen.size, size, "{when}");
            // Go finds by its own walk what we track; pages of the last commit were pending here.
            assert!(size - seen.free * u64::from(page_size) <= used, "{when}");
            assert_eq!(db.size_in_use_bytes(), size - seen.free * u64::from(page_size), "{when}");
        } else {
            let mut text = String::new();
            for _ in 0..n {
                script(&ops.transaction(), &mut text);
            }
            let mut args = vec!["-apply"];
            // With and without a stored freelist, turn about.
            args.extend(go_args.iter().filter(|_| turn % 4 == 1));
            let seen = go.run(&args, &text);
            disk = go.load();
            let db = try_open(&disk, 4096).unwrap();
            let tx = db.begin_read();
            assert_same(&tx, &ops.model, &when);
            assert_eq!(seen.buckets, ours(&tx), "{when}");
            assert_eq!(tx.check(&may()).unwrap(), [], "{when}");
            for (key, value) in ops.model.get(REVISIONS).into_iter().flatten().step_by(5) {
                let be = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().unwrap());
                let found = tx.try_get(be(0), be(9), key.len() == 18).unwrap();
                assert_eq!(found, bolt::Lookup::Found(value.clone().into()), "{when}");
            }
        }
        done += n;
        turn += 1;
    }
}

#[test]
fn both_engines_write_one_file_in_turns() {
    let Some(go) = Go::new("turns") else { return };
    let transactions = std::env::var("BOLT_GO_TRANSACTIONS")
        .map_or(TRANSACTIONS, |n| n.parse().expect("BOLT_GO_TRANSACTIONS is a number"));
    take_turns(&go, 11, transactions, 4096, &["-sync-freelist"]);
}

#[test]
fn other_page_sizes_pass_to_go_and_back() {
    for page_size in [1024, 16_384] {
        let Some(go) = Go::new(&format!("pages-{page_size}")) else { return };
        take_turns(&go, 12, 60, page_size, &["-sync-freelist"]);
    }
}

#[test]
fn a_file_that_go_made_is_opened_with_its_page_size() {
    let Some(go) = Go::new("made") else { return };
    let seen = go.run(&["-apply", "-page-size", "8192"], "create 61\nput 61 62 63\ncommit\n");
    let db = try_open(&go.load(), 4096).unwrap();
    assert_eq!(db.page_size(), 8192);
    assert_eq!(seen.buckets, ours(&db.begin_read()));
    assert_eq!(db.check(&may()).unwrap(), []);
}

#[test]
fn nested_buckets_survive_our_writes() {
    let Some(go) = Go::new("nested") else { return };
    let mut text = String::new();
    for i in 0..400 {
        let (outer, inner) = (["61", "6c65617365", "7a7a"][i % 3], ["6e31", "6e32"][i % 2]);
        writeln!(text, "create {outer}").unwrap();
        writeln!(text, "put {outer} 70{i:04x} {}", hex(&[i as u8; 90])).unwrap();
        // `6e32` stays small, an inline bucket; `6e31` gets pages of its own.
        let key = if inner == "6e31" { i } else { i % 4 };
        writeln!(text, "nest {outer} {inner} {key:04x} {}", hex(&[3; 100])).unwrap();
    }
    text.push_str("commit\n");
    let before = go.run(&["-apply", "-sync-freelist"], &text);
    let disk = go.load();
    let mut db = open(&disk);
    assert_eq!(db.check(&may()).unwrap(), []);
    assert_eq!(db.begin_read().check(&may()).unwrap(), [], "with Go's freelist page");
    assert_eq!(before.buckets, ours(&db.begin_read()));
    for round in 0..20u8 {
        let mut tx = db.begin_write();
        tx.create_bucket(&may(), b"key").unwrap();
        assert_eq!(tx.put(&may(), b"a", b"n1", b"x"), Err(bolt::WriteError::Incompatible));
        assert_eq!(tx.delete(&may(), b"a", b"n1"), Err(bolt::WriteError::Incompatible));
        for i in 0..100u8 {
            tx.put(&may(), b"key", &revision(u64::from(i), 0, false), &[round; 200]).unwrap();
            tx.put(&may(), b"a", &[b'p', 1, i], &[round; 50]).unwrap();
            tx.delete(&may(), b"a", &[b'p', 1, i]).unwrap();
        }
        if round == 19 {
            tx.delete_bucket(&may(), b"zz").unwrap();
        }
        tx.commit(&may()).unwrap();
        assert_eq!(db.check(&may()).unwrap(), [], "round {round}");
    }
    let mine = ours(&db.begin_read());
    drop(db);
    go.store(&disk);
    let after = go.run(&[], "");
    assert_eq!(after.buckets, mine);
    assert_eq!(after.deep[&b"lease"[..]], before.deep[&b"lease"[..]]);
    assert!(!after.buckets.contains_key(&b"zz"[..]));
    let db = open(&disk);
    assert_eq!(db.size_in_use_bytes(), after.size - after.free * 4096);
}

#[test]
fn a_snapshot_stream_is_a_database_for_go() {
    let Some(go) = Go::new("snapshot") else { return };
    let disk = MemDisk::new();
    let mut db = open(&disk);
    let mut ops = Ops::new(77);
    let mut reader = None;
    for i in 0..60 {
        let batch = ops.transaction();
        let mut tx = db.begin_write();
        perform(&mut tx, &batch).unwrap();
        tx.commit(&may()).unwrap();
        if i == 30 {
            reader = Some(db.begin_read());
        }
    }
    let reader = reader.unwrap();
    let mut stream = vec![0; reader.file_len_of_snapshot() as usize];
    let mut at = 0;
    let mut random = env::SplitMix::new(4);
    while at < stream.len() {
        let n = (1 + random.below(9_000) as usize).min(stream.len() - at);
        reader.read_snapshot(&may(), at as u64, &mut stream[at..at + n]).unwrap();
        at += n;
    }
    std::fs::write(&go.file, &stream).unwrap();
    assert_eq!(go.run(&[], "").buckets, ours(&reader));
    let copy = open(&disk_with(&stream));
    assert_eq!(copy.txid(), reader.txid());
    assert_eq!(copy.check(&may()).unwrap(), []);
}

/// A running reference etcd, killed when dropped.
struct Etcd(std::process::Child);

impl Etcd {
    fn start(program: &Path, dir: &Path, client: u16, peer: u16) -> Self {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let child = Command::new(program)
            .arg(format!("--data-dir={}", dir.display()))
            .arg(format!("--listen-client-urls={}", url(client)))
            .arg(format!("--advertise-client-urls={}", url(client)))
            .arg(format!("--listen-peer-urls={}", url(peer)))
            .arg(format!("--initial-advertise-peer-urls={}", url(peer)))
            .arg(format!("--initial-cluster=default={}", url(peer)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Ends it as a service manager would.
    fn stop(mut self) {
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn etcd_starts_on_a_file_that_we_wrote_anew() {
    let (Some(etcd), Some(etcdctl)) = (oracle("etcd", "etcd"), oracle("etcdctl", "etcdctl")) else {
        return;
    };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("etcd");
    let _ = std::fs::remove_dir_all(&dir);
    let free_port = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (client, peer) = (free_port(), free_port());
    let ctl = |args: &[&str], input: &str| {
        let mut child = Command::new(&etcdctl)
            .arg(format!("--endpoints=http://127.0.0.1:{client}"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let server = Etcd::start(&etcd, &dir, client, peer);
    ctl(&["endpoint", "health", "--dial-timeout=20s", "--command-timeout=20s"], "");
    for batch in 0..8 {
        let mut txn = String::from("\n");
        for i in 0..100 {
            writeln!(txn, "put k{batch}-{i} {}", "v".repeat(1 + i * 5)).unwrap();
        }
        ctl(&["txn"], &format!("{txn}\n\n\n"));
    }
    ctl(&["del", "--prefix", "k3"], "");
    let before = ctl(&["get", "--prefix", "", "--write-out=fields"], "");
    server.stop();

    // Every bucket goes into a new file, as a defrag does it.
    let file = dir.join("member/snap/db");
    let old = open(&disk_with(&std::fs::read(&file).unwrap()));
    assert_eq!(old.check(&may()).unwrap(), []);
    let tx = old.begin_read();
    assert_eq!(tx.check(&may()).unwrap(), []);
    let disk = MemDisk::new();
    let mut new = open(&disk);
    for (name, pairs) in content(&tx) {
        let mut write = new.begin_write();
        write.create_bucket(&may(), &name).unwrap();
        write.set_fill_percent(&name, 0.9);
        for (key, value) in pairs {
            write.put(&may(), &name, &key, &value).unwrap();
        }
        write.commit(&may()).unwrap();
    }
    drop(new);
    std::fs::write(&file, bytes_of(&disk)).unwrap();

    let server = Etcd::start(&etcd, &dir, client, peer);
    ctl(&["endpoint", "health", "--dial-timeout=20s", "--command-timeout=20s"], "");
    let after = ctl(&["get", "--prefix", "", "--write-out=fields"], "");
    let keys = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("\"RaftTerm\""));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&before), keys(&after));
    assert!(before.contains("k7-99") && !before.contains("k3-1"));
    ctl(&["put", "more", "writes"], "");
    server.stop();
    let again = open(&disk_with(&std::fs::read(&file).unwrap()));
    assert_eq!(again.check(&may()).unwrap(), []);
}
