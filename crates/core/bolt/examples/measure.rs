//! Measures appends, reads and opening on a real file:
//! `cargo run --release -p quorate-bolt --example measure -- FILE [COMMITS]`.
//! The Go side is `bbolt -bench -commits N FILE` of `oracle/bbolt`.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example of core, not core: it reads files, clocks and oracles"
)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::hint::black_box;
use std::io::IoSlice;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bolt::{Db, Lookup, Options};
use env::{
    Access, Cached, Disk, Entropy, Entry, File, IoError, IoErrorKind, IoOp, MayBlock, Open,
    SplitMix,
};

/// The operating system's files, just enough for this program.
#[derive(Debug)]
struct Plain;

#[derive(Debug)]
struct PlainFile(fs::File, PathBuf);

fn error(op: IoOp, path: &Path, e: &std::io::Error) -> IoError {
    let kind = match e.kind() {
        std::io::ErrorKind::UnexpectedEof => IoErrorKind::UnexpectedEof,
        _ => IoErrorKind::Other,
    };
    IoError { op, kind, path: path.to_path_buf(), text: e.to_string() }
}

impl File for PlainFile {
    fn path(&self) -> &Path {
        &self.1
    }
    fn len(&self) -> Result<u64, IoError> {
        self.0.metadata().map(|m| m.len()).map_err(|e| error(IoOp::Stat, &self.1, &e))
    }
    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<Cached, IoError> {
        self.read_at(&MayBlock::on_this_thread(), buf, offset, Access::Point)?;
        Ok(Cached::Hit)
    }
    fn read_at(&self, _: &MayBlock, buf: &mut [u8], at: u64, _: Access) -> Result<(), IoError> {
        self.0.read_exact_at(buf, at).map_err(|e| error(IoOp::Read, &self.1, &e))
    }
    fn write_vectored_at(
        &self,
        _: &MayBlock,
        bufs: &[IoSlice<'_>],
        mut offset: u64,
    ) -> Result<(), IoError> {
        for buf in bufs {
            self.0.write_all_at(buf, offset).map_err(|e| error(IoOp::Write, &self.1, &e))?;
            offset += buf.len() as u64;
        }
        Ok(())
    }
    fn sync_data(&self, _: &MayBlock) -> Result<(), IoError> {
        self.0.sync_data().map_err(|e| error(IoOp::Sync, &self.1, &e))
    }
    fn sync_all(&self, _: &MayBlock) -> Result<(), IoError> {
        self.0.sync_all().map_err(|e| error(IoOp::Sync, &self.1, &e))
    }
    fn set_len(&self, _: &MayBlock, len: u64) -> Result<(), IoError> {
        self.0.set_len(len).map_err(|e| error(IoOp::SetLen, &self.1, &e))
    }
    fn allocate(&self, may: &MayBlock, len: u64) -> Result<(), IoError> {
        self.set_len(may, len)
    }
    fn try_lock(&self) -> Result<(), IoError> {
        Ok(())
    }
}

impl Disk for Plain {
    fn open(&self, _: &MayBlock, path: &Path, _: Open) -> Result<Arc<dyn File>, IoError> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(|e| error(IoOp::Open, path, &e))?;
        Ok(Arc::new(PlainFile(file, path.to_path_buf())))
    }
    fn create_dir_all(&self, _: &MayBlock, _: &Path) -> Result<(), IoError> {
        Ok(())
    }
    fn rename(&self, _: &MayBlock, _: &Path, _: &Path) -> Result<(), IoError> {
        Ok(())
    }
    fn remove_file(&self, _: &MayBlock, _: &Path) -> Result<(), IoError> {
        Ok(())
    }
    fn remove_dir_all(&self, _: &MayBlock, _: &Path) -> Result<(), IoError> {
        Ok(())
    }
    fn read_dir(&self, _: &MayBlock, _: &Path) -> Result<Vec<Entry>, IoError> {
        Ok(Vec::new())
    }
    fn sync_dir(&self, _: &MayBlock, _: &Path) -> Result<(), IoError> {
        Ok(())
    }
    fn exists(&self, _: &MayBlock, _: &Path) -> Result<bool, IoError> {
        Ok(true)
    }
}

fn key(main: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

/// CPU time of this process so far, nanoseconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

fn time(what: &str, n: u64, f: impl FnOnce()) {
    let (start, spent) = (Instant::now(), cpu());
    f();
    let (wall, spent) = (start.elapsed().as_nanos() as f64, cpu() - spent);
    println!(
        "{what:<34} {:>9.0} ns wall {:>9.0} ns CPU each ({n})",
        wall / n as f64,
        spent / n as f64
    );
}

#[expect(clippy::too_many_lines, reason = "a program from its beginning to its end")]
fn main() {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().expect("usage: measure FILE [COMMITS]"));
    let commits: u64 = args.next().map_or(200, |n| n.parse().expect("COMMITS is a number"));
    let _ = fs::remove_file(&path);
    let may = MayBlock::on_this_thread();
    let options = Options { fenced_bucket: Some(b"key"), ..Options::default() };
    let mut db = Db::open(Arc::new(Plain), &path, &may, options).unwrap();
    let value: Vec<u8> = (0..300).map(|i| i as u8).collect();
    let n = commits * 1000;
    let (mut main, mut writes, mut slowest) = (0, 0, 0);
    time("append, 1,000 per commit", n, || {
        for _ in 0..commits {
            let mut tx = db.begin_write();
            tx.create_bucket(&may, b"key").unwrap();
            tx.set_fill_percent(b"key", 0.9);
            for _ in 0..1000 {
                main += 1;
                tx.put(&may, b"key", &key(main), &value).unwrap();
            }
            let start = Instant::now();
            writes += tx.commit(&may).unwrap().writes;
            slowest = slowest.max(start.elapsed().as_micros());
        }
    });
    println!(
        "{:.1} writes per commit, slowest commit {slowest} us",
        writes as f64 / commits as f64
    );
    let tx = db.begin_read();
    let mut random = SplitMix::new(1);
    time("try_get, random", 300_000, || {
        for _ in 0..300_000 {
            let found = tx.try_get(1 + random.below(n), 0, false).unwrap();
            assert!(matches!(found, Lookup::Found(v) if v.len() == 300));
        }
    });
    time("get_many, 512 neighbours", 512 * 500, || {
        for _ in 0..500 {
            let at = 1 + random.below(n - 512);
            let revs: Vec<(u64, u64)> = (at..at + 512).map(|main| (main, 0)).collect();
            tx.get_many(&may, &revs, &mut |_, v| {
                black_box(v.unwrap().len());
            })
            .unwrap();
        }
    });
    time("get_many, 512 scattered", 512 * 200, || {
        for _ in 0..200 {
            let revs: Vec<(u64, u64)> = (0..512).map(|_| (1 + random.below(n), 0)).collect();
            tx.get_many(&may, &revs, &mut |_, v| {
                black_box(v.unwrap().len());
            })
            .unwrap();
        }
    });
    time("scan", n, || {
        let everything = (Bound::Unbounded, Bound::Unbounded);
        let mut scan = tx.scan(&may, b"key", everything, Access::ScanOnce);
        let mut seen = 0;
        while let Some((_, value)) = scan.next_ref().unwrap() {
            seen += u64::from(value.len() == 300);
        }
        assert_eq!(seen, n);
    });
    drop(tx);
    let mut dead: Vec<u64> = (1..=n).filter(|_| random.below(2) == 0).collect();
    dead.truncate(dead.len() / 10_000 * 10_000);
    if !dead.is_empty() {
        time("delete half, 10,000 per commit", dead.len() as u64, || {
            for chunk in dead.chunks(10_000) {
                let mut tx = db.begin_write();
                tx.set_fill_percent(b"key", 0.9);
                for main in chunk {
                    tx.delete(&may, b"key", &key(*main)).unwrap();
                }
                tx.commit(&may).unwrap();
            }
        });
    }
    drop(db);
    let mut reopened = None;
    time("open, whole", 1, || {
        reopened = Some(Db::open(Arc::new(Plain), &path, &may, options).unwrap());
    });
    let db = reopened.expect("set above");
    assert!(db.check(&may).unwrap().is_empty());
    println!("size {} in use {}", db.size_bytes(), db.size_in_use_bytes());
}
