//! A store, its database and the model side by side.

#![allow(dead_code)] // each test program uses its part

pub mod model;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use env::mem::MemDisk;
use env::{Disk, Entropy, MayBlock, SplitMix};
use model::Model;
use store::{Batch, Bucket, Op, Piece, RangeQuery, Ranged, SortOrder, SortTarget, Store, View};
use types::{Index, LeaseId, Revision, Term};

pub fn may() -> MayBlock {
    MayBlock::on_this_thread()
}

pub fn open(disk: &MemDisk) -> bolt::Db {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    bolt::Db::open(disk, Path::new("/db"), &may(), store::database_options()).unwrap()
}

pub fn fresh(disk: &MemDisk) -> bolt::Db {
    let mut db = open(disk);
    let mut tx = db.begin_write();
    store::create_buckets(&mut tx, &may()).unwrap();
    tx.commit(&may()).unwrap();
    db
}

/// Commits batches in one transaction.
pub fn commit(
    db: &mut bolt::Db,
    batches: &[Arc<Batch>],
) -> Result<bolt::ReadTx, bolt::CommitError> {
    let mut tx = db.begin_write();
    for batch in batches {
        batch.write_to(&mut tx, &may()).expect("no fault while a transaction is filled");
    }
    tx.commit(&may())?;
    Ok(db.begin_read())
}

/// Elements of a rendered body.
pub fn elements(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !body.is_empty() {
        assert_eq!(body[0], 0x12);
        let (mut len, mut at) = (0usize, 1);
        loop {
            let byte = body[at];
            len |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte < 0x80 {
                break;
            }
        }
        all.push(body[at..at + len].to_vec());
        body = &body[at + len..];
    }
    all
}

/// Renders a plan in pieces of `piece` bytes, blocking only when told to.
pub fn render(view: &View, newest: &View, ranged: Ranged, piece: usize) -> Vec<Vec<u8>> {
    let ranged = view.resolve(&may(), ranged).unwrap();
    let size = ranged.body_bytes();
    let len = ranged.len();
    let mut body = view.body(ranged);
    let (mut all, mut blocking) = (Vec::new(), false);
    loop {
        let mut out = Vec::new();
        let ended = match blocking {
            true => body.next_blocking(&may(), newest, piece, &mut out).unwrap(),
            false => body.next(newest, piece, &mut out).unwrap(),
        };
        assert!(ended != Piece::More || out.len() >= piece, "{ended:?} {}", out.len());
        all.extend(out);
        match ended {
            Piece::Done => break,
            Piece::More => blocking = !blocking,
            Piece::NeedsBlocking => blocking = true,
        }
    }
    assert_eq!(all.len() as u64, size);
    let elements = elements(&all);
    assert_eq!(elements.len() as u64, len);
    elements
}

pub struct World {
    pub random: SplitMix,
    pub store: Store,
    pub model: Model,
    pub disk: MemDisk,
    pub db: bolt::Db,
    /// Sealed batches that are not committed, each with the model after it.
    pub queue: VecDeque<(Arc<Batch>, Model)>,
    /// The model as the database holds it.
    pub durable: Model,
    pub index: u64,
    pub key_count: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let disk = MemDisk::new();
        let db = fresh(&disk);
        let key_count = 5 + random.below(60);
        let (model, durable) = (Model::new(), Model::new());
        let (store, queue) = (Store::empty(), VecDeque::new());
        Self { random, store, model, disk, db, queue, durable, index: 0, key_count }
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    pub fn key(&mut self) -> Vec<u8> {
        let n = self.below(self.key_count);
        match self.below(3) {
            0 => format!("/pods/{n:x}").into_bytes(),
            _ => format!("/po/{n:x}").into_bytes(),
        }
    }

    fn range_end(&mut self) -> Vec<u8> {
        match self.below(6) {
            0 => vec![0],
            1 => b"/po0".to_vec(),
            2 => b"/poe".to_vec(),
            3 => self.key(),
            _ => Vec::new(),
        }
    }

    /// One transaction of up to six operations, from-key deletes and repeated keys included.
    pub fn transaction(&mut self) {
        let n = self.below(6);
        self.transaction_of(n);
    }

    pub fn transaction_of(&mut self, n: u64) {
        let keys: Vec<_> = (0..n).map(|_| self.key()).collect();
        let Self { store, model, random, .. } = self;
        let main = model.revision + 1;
        let mut sub = 0;
        let mut txn = store.begin();
        assert_eq!(txn.revision(), Revision(main));
        for key in keys {
            if random.below(4) > 0 {
                let filler = vec![b'v'; random.below(60) as usize];
                let value = [&filler[..], &random.next_u64().to_le_bytes()[..1]].concat();
                let lease = random.below(3) as i64 - 1;
                let prev = txn.put(&key, &value, LeaseId(lease));
                let known = model.at(&key, i64::MAX).map(|v| (v.main, v.sub, v.version));
                assert_eq!(prev.map(|p| (p.rev.main.0, p.rev.sub.0, p.version)), known);
                model.put(&key, &value, lease, (main, sub));
                sub += 1;
            } else {
                let end = match random.below(8) {
                    0 => vec![0],
                    1 => b"/poe".to_vec(),
                    _ => vec![],
                };
                let got = txn.delete_range(&key, &end).into_iter();
                let got: Vec<_> =
                    got.map(|d| (d.key, d.prev.rev.main.0, d.prev.rev.sub.0)).collect();
                let mut want = Vec::new();
                for k in model.keys.keys().cloned().collect::<Vec<_>>() {
                    let Some(v) = model.at(&k, i64::MAX) else { continue };
                    if Model::inside(&k, &key, &end) {
                        want.push((k.clone(), v.main, v.sub));
                        model.delete(&k, (main, sub));
                        sub += 1;
                    }
                }
                assert_eq!(got, want);
            }
            if sub > 0 {
                model.revision = main;
            }
            let all = RangeQuery::between(b"/", b"0");
            let seen = txn.range(&all).unwrap();
            let want = model.range(&all).unwrap();
            assert_eq!((seen.count, seen.len()), (want.count, want.kvs.len() as u64));
            for (r, stored) in seen.refs().unwrap().iter().zip(&want.kvs) {
                let value = txn.store().value(&may(), r.rev()).unwrap().unwrap();
                assert_eq!(value, stored[..]);
            }
        }
        assert_eq!(txn.end().0, model.revision);
    }

    pub fn seal(&mut self) -> Arc<Batch> {
        self.index += 1 + self.random.below(3);
        if self.below(4) == 0 {
            let value = Some(Bytes::from(self.index.to_string()));
            let key = Bytes::from_static(b"lease-id");
            self.store.local(Op { bucket: Bucket::Lease, key, value });
        }
        let conf = (self.below(5) == 0).then(|| Bytes::from_static(b"{\"auto_leave\":false}"));
        let batch = self.store.seal(Index(self.index), Term(3), conf);
        self.queue.push_back((Arc::clone(&batch), self.model.clone()));
        batch
    }

    /// Commits some of the sealed batches in one transaction.
    pub fn commit_some(&mut self) {
        let n = self.below(self.queue.len() as u64 + 1) as usize;
        let taken: Vec<_> = self.queue.drain(..n).collect();
        let Some((last, model)) = taken.last().cloned() else { return };
        let batches: Vec<_> = taken.into_iter().map(|t| t.0).collect();
        let read = commit(&mut self.db, &batches).unwrap();
        drop(self.store.committed(&last, read));
        self.durable = model;
    }

    pub fn query_parts(&mut self) -> (Vec<u8>, Vec<u8>) {
        (self.key(), self.range_end())
    }

    pub fn query<'a>(
        &mut self,
        key: &'a [u8],
        range_end: &'a [u8],
        model: &Model,
    ) -> RangeQuery<'a> {
        let around = |random: &mut SplitMix| random.below(model.revision as u64 + 3) as i64;
        let r = &mut self.random;
        let mut q = RangeQuery { key, range_end, ..RangeQuery::default() };
        if r.below(2) == 0 {
            let low = model.compact.max(1) - 1;
            q.revision = low + r.below((model.revision - low + 2) as u64) as i64;
        }
        if r.below(2) == 0 {
            q.limit = r.below(12) as i64 - 1;
        }
        q.sort_order = [SortOrder::None, SortOrder::None, SortOrder::Ascend, SortOrder::Descend]
            [r.below(4) as usize];
        q.sort_target = [
            SortTarget::Key,
            SortTarget::Key,
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ][r.below(7) as usize];
        q.keys_only = r.below(3) == 0;
        q.count_only = r.below(10) == 0;
        for filter in [&mut q.min_mod, &mut q.max_mod, &mut q.min_create, &mut q.max_create] {
            if r.below(12) == 0 {
                *filter = around(r) - 1;
            }
        }
        q
    }

    /// Compares a View with the model it was published with. `newest` serves the values.
    pub fn check(&mut self, view: &View, newest: &View, model: &Model) {
        let (key, end) = self.query_parts();
        let q = self.query(&key, &end, model);
        let cold = self.below(4) == 0;
        self.disk.set_cold(cold);
        match (view.range(&q), model.range(&q)) {
            (Ok(ranged), Ok(answer)) => {
                assert_eq!(ranged.revision.0, model.revision);
                let needs_values = ranged.needs_values();
                let count = ranged.count;
                let ranged = view.resolve(&may(), ranged).unwrap();
                assert_eq!((count, ranged.more), (answer.count, answer.more), "{q:?}");
                let mut whole = Vec::new();
                if !needs_values && view.try_render(&ranged, 1 << 20, &mut whole).unwrap() {
                    assert_eq!(elements(&whole), answer.kvs, "{q:?}");
                }
                let piece = 1 + self.below(400) as usize;
                assert_eq!(render(view, newest, ranged, piece), answer.kvs, "{q:?}");
            }
            (got, want) => assert_eq!(got.map(drop), want.map(drop), "{q:?}"),
        }
        assert_eq!(view.revision().0, model.revision);
        assert_eq!(view.compact_revision().0, model.compact);
        let main = Revision(1 + self.below(model.revision as u64) as i64);
        let prev = view.prev(&key, main).map(|p| (p.rev.main.0, p.rev.sub.0));
        let readable = main.0 > 1 && main.0 > model.compact;
        let want = model.at(&key, main.0 - 1).filter(|_| readable).map(|v| (v.main, v.sub));
        assert_eq!(prev, want);
    }

    /// Every change after the compact revision, from the database and then from memory.
    pub fn check_events(&mut self, view: &View, model: &Model) {
        let low = model.compact.max(1) + 1;
        let span = (model.revision - low + 1).max(1) as u64;
        let from = Revision(low + self.below(span) as i64);
        let mut got = Vec::new();
        let mut next = Some(store::Rev::first_of(from));
        let budget = 1 + self.below(3_000) as usize;
        while let Some(at) = next.filter(|at| at.main < view.tail_start()) {
            let chunk = view.history(&may(), at, view.revision(), budget).unwrap();
            got.extend(
                chunk
                    .changes
                    .iter()
                    .map(|c| (c.rev.main.0, c.rev.sub.0, c.tombstone, c.stored.to_vec())),
            );
            next = chunk.next;
        }
        let resumed = from.max(view.tail_start());
        for event in view.tail(store::Rev::first_of(resumed)).unwrap() {
            let rev = event.rev();
            got.push((rev.main.0, rev.sub.0, event.is_tombstone(), event.stored().to_vec()));
        }
        let want: Vec<_> = model
            .rows()
            .range((from.0, 0)..)
            .map(|(place, (key, v))| (place.0, place.1, v.tombstone, v.stored(key)))
            .collect();
        assert_eq!(got, want);
    }

    /// Steps a hash to its end, with a View of its own for each step.
    pub fn check_hash(&mut self, view: &View, model: &Model) {
        let low = model.compact.max(0);
        let rev = low + self.below((model.revision - low + 1) as u64) as i64;
        let budget = 1 + self.below(2_000) as usize;
        let mut hasher = view.hash_kv(rev).unwrap();
        while hasher.step(&may(), view, budget).unwrap() == store::Step::More {}
        let hash = hasher.finish();
        let rev = if rev == 0 { model.revision } else { rev };
        assert_eq!((hash.revision.0, hash.compact_revision.0), (rev, model.compact));
        assert_eq!(hash.hash, model.hash_kv(rev), "revision {rev} compact {}", model.compact);
    }
}
