//! What the tests share: a model, random operations, and the way to the Go oracle.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bolt::{Db, OpenError, Options, ReadTx, WriteError, WriteTx};
use env::mem::MemDisk;
use env::{Access, Disk, Entropy, MayBlock, Open, SplitMix};

pub type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

pub const REVISIONS: &[u8] = b"key";
pub const DB: &str = "/db";

pub fn may() -> MayBlock {
    MayBlock::on_this_thread()
}

pub fn options(page_size: u32) -> Options {
    Options { page_size, fenced_bucket: Some(REVISIONS) }
}

pub fn try_open(disk: &MemDisk, page_size: u32) -> Result<Db, OpenError> {
    Db::open(Arc::new(disk.clone()), Path::new(DB), &may(), options(page_size))
}

pub fn open(disk: &MemDisk) -> Db {
    try_open(disk, 4096).unwrap()
}

pub fn revision(main: u64, sub: u64, tombstone: bool) -> Vec<u8> {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(sub.to_be_bytes());
    if tombstone {
        key.push(b't');
    }
    key
}

pub fn everything<'a>() -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Unbounded, Bound::Unbounded)
}

/// All that a reader sees.
pub fn content(tx: &ReadTx) -> Model {
    let mut model = Model::new();
    let may = may();
    for name in tx.buckets(&may).unwrap() {
        let scan = tx.scan(&may, &name, everything(), Access::Scan);
        let pairs = scan.map(|pair| pair.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap());
        model.insert(name.to_vec(), pairs.collect());
    }
    model
}

pub fn assert_same(tx: &ReadTx, model: &Model, when: &str) {
    let found = content(tx);
    assert!(
        found.keys().eq(model.keys()),
        "{when}: buckets {:?}, wanted {:?}",
        found.keys().collect::<Vec<_>>(),
        model.keys().collect::<Vec<_>>()
    );
    for (name, pairs) in model {
        assert!(found[name] == *pairs, "{when}: bucket {} differs", String::from_utf8_lossy(name));
    }
}

/// Random transactions on a model and on anything else.
pub struct Ops {
    pub random: SplitMix,
    pub model: Model,
    next_revision: u64,
    /// Longest transaction, operations.
    pub longest: u64,
}

#[derive(Clone, Debug)]
pub enum Op {
    Create(Vec<u8>),
    Drop(Vec<u8>),
    Fill(Vec<u8>, f64),
    Put(Vec<u8>, Vec<u8>, Vec<u8>),
    Delete(Vec<u8>, Vec<u8>),
}

impl Ops {
    pub fn new(seed: u64) -> Self {
        Self { random: SplitMix::new(seed), model: Model::new(), next_revision: 2, longest: 300 }
    }

    fn value(&mut self, long: bool) -> Vec<u8> {
        let len = match self.random.below(if long { 40 } else { 36 }) {
            0..=20 => self.random.below(40),
            21..=35 => self.random.below(400),
            36..=38 => self.random.below(6_000),
            _ => self.random.below(30_000),
        };
        let fill = self.random.next_u64();
        (0..len).map(|i| (fill >> (i % 8 * 8)) as u8 ^ i as u8).collect()
    }

    /// One transaction; the model is changed already.
    pub fn transaction(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        let steps = match self.random.below(10) {
            0 => 0,
            1..=7 => 1 + self.random.below(20),
            _ => self.random.below(self.longest),
        };
        for name in [&b"key"[..], b"a", b"lease", b"meta", b"zz"] {
            if !self.model.contains_key(name) && self.random.below(3) > 0 {
                ops.push(Op::Create(name.to_vec()));
            }
        }
        let emptying = self.random.below(12) == 0;
        for op in &ops {
            self.apply(&op.clone());
        }
        for _ in 0..steps {
            let op = self.step(emptying);
            self.apply(&op);
            ops.push(op);
        }
        ops
    }

    fn step(&mut self, emptying: bool) -> Op {
        let names: Vec<Vec<u8>> = self.model.keys().cloned().collect();
        if names.is_empty() || self.random.below(2_500) == 0 {
            let name = [&b"key"[..], b"a", b"lease"][self.random.below(3) as usize].to_vec();
            let drop = self.model.contains_key(&name);
            return if drop { Op::Drop(name) } else { Op::Create(name) };
        }
        let name = names[self.random.below(names.len() as u64) as usize].clone();
        if self.random.below(50) == 0 {
            return Op::Fill(name, [0.1, 0.5, 0.9, 1.0][self.random.below(4) as usize]);
        }
        let delete = self.random.below(10) < if emptying { 9 } else { 2 };
        let existing = |random: &mut SplitMix, pairs: &BTreeMap<Vec<u8>, Vec<u8>>| {
            let n = random.below(pairs.len() as u64) as usize;
            // Deletes come in runs, as a compaction's do.
            pairs.keys().nth(if random.below(2) == 0 { n } else { n / 16 }).cloned()
        };
        let pairs = &self.model[&name];
        if delete && !pairs.is_empty() {
            let key = existing(&mut self.random, pairs).unwrap();
            return Op::Delete(name, key);
        }
        let key = if name == REVISIONS {
            if !pairs.is_empty() && self.random.below(8) == 0 {
                existing(&mut self.random, pairs).unwrap()
            } else {
                self.next_revision += self.random.below(3);
                let sub = self.random.below(4);
                revision(self.next_revision, sub, self.random.below(5) == 0)
            }
        } else {
            let n = self.random.below(3_000);
            match self.random.below(20) {
                0 => vec![b'k'; 1 + n as usize],
                _ => format!("{n:04}").into_bytes(),
            }
        };
        let value = self.value(name != b"meta");
        Op::Put(name, key, value)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name) => {
                self.model.entry(name.clone()).or_default();
            }
            Op::Drop(name) => {
                self.model.remove(name);
            }
            Op::Fill(..) => {}
            Op::Put(name, key, value) => {
                self.model.get_mut(name).unwrap().insert(key.clone(), value.clone());
            }
            Op::Delete(name, key) => {
                self.model.get_mut(name).unwrap().remove(key);
            }
        }
    }
}

pub fn perform(tx: &mut WriteTx<'_>, ops: &[Op]) -> Result<(), WriteError> {
    let may = may();
    for op in ops {
        match op {
            Op::Create(name) => tx.create_bucket(&may, name)?,
            Op::Drop(name) => tx.delete_bucket(&may, name)?,
            Op::Fill(name, fill) => tx.set_fill_percent(name, *fill),
            Op::Put(name, key, value) => tx.put(&may, name, key, value)?,
            Op::Delete(name, key) => tx.delete(&may, name, key)?,
        }
    }
    Ok(())
}

/// A Go program that the tests compare with, or `None` if it is not built (an error with
/// `QUORATE_CI`).
pub fn oracle(name: &str, program: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let path = dir.join(name).join(program);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("QUORATE_CI").is_none(), "oracle {} is missing", path.display());
    eprintln!("SKIPPED: oracle {} is missing", path.display());
    None
}

/// All bytes of a file in memory.
pub fn bytes_of(disk: &MemDisk) -> Vec<u8> {
    let file = disk.open(&may(), Path::new(DB), Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&may(), &mut bytes, 0, Access::Scan).unwrap();
    bytes
}

pub fn disk_with(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new();
    let file = disk.open(&may(), Path::new(DB), Open::CreateNew).unwrap();
    file.write_at(&may(), bytes, 0).unwrap();
    file.sync_all(&may()).unwrap();
    disk.sync_dir(&may(), Path::new("/")).unwrap();
    disk
}
