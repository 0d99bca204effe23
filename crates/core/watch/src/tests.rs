//! The hub against a naive model: random changes, compactions, restarts of the store, watchers and
//! slow streams.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use env::mem::MemDisk;
use env::{Disk, Entropy, HashSeed, MayBlock, SplitMix};
use store::{Batch, KeyValue, Store, View};
use types::{Index, LeaseId, Revision, Term, WatchId};

use crate::*;

fn may() -> MayBlock {
    MayBlock::on_this_thread()
}

/// An event as a client decodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    main: i64,
    key: Vec<u8>,
    /// `None` for a delete.
    value: Option<Vec<u8>>,
    prev: Option<(i64, Vec<u8>)>,
}

fn take_len<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (mut len, mut shift) = (0, 0);
    loop {
        let byte = rest[0];
        *rest = &rest[1..];
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn decode(body: &Bytes) -> Vec<Event> {
    let mut all = Vec::new();
    for element in split_events(body) {
        let mut rest = &element[1..];
        let mut event = take_len(&mut rest);
        assert!(element[0] == 0x5a && rest.is_empty());
        let mut deleted = false;
        if event[0] == 0x08 {
            assert_eq!(event[1], 1);
            (deleted, event) = (true, &event[2..]);
        }
        assert_eq!(event[0], 0x12);
        event = &event[1..];
        let kv = KeyValue::parse(take_len(&mut event)).unwrap();
        let mut prev = None;
        if !event.is_empty() {
            assert_eq!(event[0], 0x1a);
            event = &event[1..];
            let kv = KeyValue::parse(take_len(&mut event)).unwrap();
            prev = Some((kv.main, kv.value.to_vec()));
            assert!(event.is_empty());
        }
        if deleted {
            assert_eq!((kv.create, kv.version, kv.value), (0, 0, &b""[..]));
        }
        let value = (!deleted).then(|| kv.value.to_vec());
        all.push(Event { main: kv.main, key: kv.key.to_vec(), value, prev });
    }
    all
}

/// A watch as its client and the model see it.
#[derive(Debug)]
struct Watch {
    keys: Keys,
    start: i64,
    /// First revision whose events did not come yet.
    cursor: i64,
    filter: Filter,
    prev: bool,
    compacted: bool,
}

#[derive(Default)]
struct Client {
    watches: BTreeMap<WatchId, Watch>,
    full: bool,
    was_full: bool,
    /// Responses until the window fills.
    window: u64,
    progress: Vec<(WatchId, i64)>,
}

/// Every change there ever was, by key; `None` for a delete.
#[derive(Default)]
struct History {
    all: Vec<Event>,
    revision: i64,
    compact: i64,
}

impl History {
    fn before(&self, key: &[u8], main: i64) -> Option<(i64, Vec<u8>)> {
        let last = self.all.iter().rev().find(|e| e.main < main && e.key == key)?;
        last.value.clone().map(|value| (last.main, value))
    }
}

struct Clients {
    random: SplitMix,
    history: History,
    clients: BTreeMap<StreamId, Client>,
    responses: u64,
}

impl Sink for Clients {
    fn send(&mut self, stream: StreamId, response: Response<'_>) -> Flow {
        let client = self.clients.get_mut(&stream).expect("an open stream");
        assert!(!client.full, "a full stream is given nothing");
        self.responses += 1;
        match response {
            Response::Progress { watch, revision } => client.progress.push((watch, revision.0)),
            Response::Compacted { watch, compact } => {
                let watch = client.watches.get_mut(&watch).expect("a watch");
                assert_eq!(compact.0, self.history.compact);
                assert!(watch.cursor < compact.0 && !watch.compacted);
                watch.compacted = true;
            }
            Response::Events { watch, revision, body, .. } => {
                let watch = client.watches.get_mut(&watch).expect("a watch");
                check_events(&self.history, watch, revision, &decode(body));
            }
        }
        client.window -= 1;
        client.full = client.window == 0;
        client.was_full |= client.full;
        if client.full { Flow::Full } else { Flow::Open }
    }
}

/// Exactly the next events of the watch, up to the end of a revision.
fn check_events(history: &History, watch: &mut Watch, revision: Revision, events: &[Event]) {
    assert!(!watch.compacted && !events.is_empty());
    let last = events[events.len() - 1].main;
    assert!(revision.0 >= last && revision.0 <= history.revision);
    let wanted = |e: &&Event| {
        (watch.cursor..=last).contains(&e.main)
            && watch.keys.contains(&e.key)
            && !watch.filter.drops(e.value.is_none())
    };
    let want: Vec<&Event> = history.all.iter().filter(wanted).collect();
    assert_eq!(want.len(), events.len(), "{watch:?}\n{want:?}\n{events:?}");
    for (want, got) in want.iter().zip(events) {
        assert_eq!((want.main, &want.key, &want.value), (got.main, &got.key, &got.value));
        let before = history.before(&got.key, got.main).filter(|_| watch.prev);
        if got.prev != before {
            let compacted = got.main - 1 < history.compact;
            assert!(got.prev.is_none() && compacted, "{got:?} was {before:?}");
        }
    }
    watch.cursor = last + 1;
}

struct World {
    hub: WatchHub,
    clients: Clients,
    store: Store,
    disk: MemDisk,
    db: bolt::Db,
    queue: VecDeque<Arc<Batch>>,
    view: Arc<View>,
    jobs: Vec<(ReadJob, Arc<View>)>,
    chunks: Vec<Chunk>,
    index: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let memory = MemDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let options = store::database_options();
        let mut db = bolt::Db::open(disk, Path::new("/db"), &may(), options).unwrap();
        let mut tx = db.begin_write();
        store::create_buckets(&mut tx, &may()).unwrap();
        tx.commit(&may()).unwrap();
        let store = Store::empty();
        let view = Arc::new(store.publish());
        let history = History { revision: 1, compact: -1, ..History::default() };
        let clients = Clients {
            random: SplitMix::new(seed),
            history,
            clients: BTreeMap::new(),
            responses: 0,
        };
        let hub = WatchHub::new(Revision(1), HashSeed::draw(&mut SplitMix::new(1)));
        let (queue, jobs, chunks) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { hub, clients, store, disk: memory, db, queue, view, jobs, chunks, index: 0 }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.clients.random.below(n)
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.below(8)).into_bytes()
    }

    fn transaction(&mut self) {
        let mut keys: Vec<_> = (0..1 + self.below(4)).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let mut txn = self.store.begin();
        let main = txn.revision().0;
        let (random, all) = (&mut self.clients.random, &mut self.clients.history.all);
        for key in keys {
            let event = |value| Event { main, key: key.clone(), value, prev: None };
            if random.below(3) > 0 {
                let len = if random.below(50) == 0 { 700_000 } else { random.below(20) };
                let mut value = vec![b'v'; len as usize];
                value.extend(random.next_u64().to_le_bytes());
                txn.put(&key, &value, LeaseId(0));
                all.push(event(Some(value)));
            } else if txn.delete(&key).is_some() {
                all.push(event(None));
            }
        }
        self.clients.history.revision = txn.end().0;
    }

    fn publish(&mut self) {
        self.index += 1;
        self.queue.push_back(self.store.seal(Index(self.index), Term(1), None));
        self.view = Arc::new(self.store.publish());
    }

    fn commit(&mut self) {
        let mut tx = self.db.begin_write();
        self.queue.iter().for_each(|batch| batch.write_to(&mut tx, &may()).unwrap());
        tx.commit(&may()).unwrap();
        if let Some(last) = self.queue.drain(..).next_back() {
            drop(self.store.committed(&last, self.db.begin_read()));
            self.view = Arc::new(self.store.publish());
        }
    }

    /// As after a snapshot was installed: memory reaches back no further than now.
    fn forget(&mut self) {
        self.commit();
        let revision = self.store.revision();
        self.store = Store::recover(&may(), self.db.begin_read()).unwrap();
        assert_eq!(self.store.revision(), revision);
        self.view = Arc::new(self.store.publish());
    }

    fn compact(&mut self) {
        let target = 1 + self.below(self.store.revision().0 as u64) as i64;
        if self.store.compact(Revision(target)).is_ok() {
            self.clients.history.compact = target;
            while self.store.compaction_step(3) == store::Step::More {}
            self.publish();
        }
    }

    fn create(&mut self) {
        let Some(stream) = self.any_stream(false) else { return };
        let (key, range_end) = match self.below(4) {
            0 => (self.key(), vec![0]),
            1 => (b"k".to_vec(), b"l".to_vec()),
            2 => (b"k2".to_vec(), b"k5".to_vec()),
            _ => (self.key(), vec![]),
        };
        let revision = self.clients.history.revision;
        let start = match self.below(3) {
            0 => 0,
            1 => revision + self.below(5) as i64,
            _ => 1 + self.below(revision as u64) as i64,
        };
        let filter = Filter { no_put: self.below(6) == 0, no_delete: self.below(6) == 0 };
        let create = Create {
            key: key.into(),
            range_end: range_end.into(),
            start: Revision(start),
            id: WatchId(self.below(4) as i64),
            filter,
            prev_kv: self.below(2) == 0,
            progress_notify: false,
            fragment: false,
        };
        let keys = Keys::of_request(create.key.clone(), create.range_end.clone()).unwrap();
        let (wanted, prev) = (create.id, create.prev_kv);
        let client = self.clients.clients.get_mut(&stream).unwrap();
        match self.hub.create(stream, create, Revision(revision), ()) {
            Ok(id) => {
                assert!(wanted == WatchId(0) || id == wanted);
                let cursor = if start == 0 { revision + 1 } else { start };
                let compacted = false;
                let watch = Watch { keys, start, cursor, filter, prev, compacted };
                assert!(client.watches.insert(id, watch).is_none());
            }
            Err(refused) => {
                assert_eq!(refused, CreateError::DuplicateId);
                assert!(client.watches.contains_key(&wanted));
            }
        }
    }

    fn any_stream(&mut self, full: bool) -> Option<StreamId> {
        let all = self.clients.clients.iter();
        let ids: Vec<_> = all.filter(|c| c.1.full == full).map(|c| *c.0).collect();
        (!ids.is_empty()).then(|| ids[self.below(ids.len() as u64) as usize])
    }

    fn open(&mut self) {
        if self.clients.clients.len() < 6 {
            let stream = self.hub.open();
            let window = self.window();
            let client = Client { window, ..Client::default() };
            assert!(self.clients.clients.insert(stream, client).is_none());
        }
    }

    fn window(&mut self) -> u64 {
        match self.below(2) {
            0 => u64::MAX,
            _ => 1 + self.below(6),
        }
    }

    fn resume(&mut self, stream: StreamId, window: u64) {
        let client = self.clients.clients.get_mut(&stream).unwrap();
        client.full = false;
        client.window = window;
        let budget = 1 + self.below(20) as usize;
        while self.hub.resume(stream, &self.view, budget, &mut self.clients) == Resumed::More {}
    }

    fn step(&mut self) {
        match self.below(20) {
            0..=4 => {
                for _ in 0..1 + self.below(3) {
                    self.transaction();
                }
                self.publish();
            }
            5..=8 => {
                let budget = 1 + self.below(10) as usize;
                let _ = self.hub.advance(&self.view, budget, &mut self.clients);
            }
            9 => self.commit(),
            10 if self.below(4) == 0 => self.forget(),
            11 if self.below(3) == 0 => self.compact(),
            12 => self.create(),
            13 => self.open(),
            14 if self.below(3) == 0 => {
                if let Some(stream) = self.any_stream(false) {
                    self.hub.close(stream);
                    self.clients.clients.remove(&stream);
                }
            }
            11 => {
                let cold = self.below(3) == 0;
                self.disk.set_cold(cold);
            }
            15 => {
                let Some(stream) = self.any_stream(false) else { return };
                let id = WatchId(self.below(5) as i64);
                let known = self.clients.clients.get_mut(&stream).unwrap().watches.remove(&id);
                assert_eq!(self.hub.cancel(stream, id), known.is_some());
            }
            16 => {
                if let Some(stream) = self.any_stream(true) {
                    let window = self.window();
                    self.resume(stream, window);
                }
            }
            17 => {
                let budget = 1 + self.below(300) as usize;
                let found = self.hub.catch_up(&self.view, budget, &mut self.clients);
                if let CatchUp::Job(job) = found {
                    self.jobs.push((job, Arc::clone(&self.view)));
                }
            }
            18 if !self.jobs.is_empty() => {
                let at = self.below(self.jobs.len() as u64) as usize;
                let (job, view) = self.jobs.swap_remove(at);
                if self.below(8) == 0 {
                    self.hub.failed(job.id);
                } else {
                    self.chunks.push(job.run(&may(), &view).unwrap());
                }
            }
            19 if !self.chunks.is_empty() => {
                let at = self.below(self.chunks.len() as u64) as usize;
                let chunk = self.chunks.swap_remove(at);
                self.hub.finish(chunk, &self.view, &mut self.clients);
            }
            _ => {}
        }
    }

    /// Lets everyone read on without pause, until nothing is left to do.
    fn drain(&mut self) {
        for (job, view) in std::mem::take(&mut self.jobs) {
            self.chunks.push(job.run(&may(), &view).unwrap());
        }
        for stream in self.clients.clients.keys().copied().collect::<Vec<_>>() {
            let client = self.clients.clients.get_mut(&stream).unwrap();
            if std::mem::replace(&mut client.window, u64::MAX) == 0 {
                self.resume(stream, u64::MAX);
            }
        }
        for chunk in std::mem::take(&mut self.chunks) {
            self.hub.finish(chunk, &self.view, &mut self.clients);
        }
        for round in 0.. {
            assert!(round < 10_000, "catching up ends");
            while self.hub.advance(&self.view, 50, &mut self.clients) == Step::More {}
            match self.hub.catch_up(&self.view, 1_000, &mut self.clients) {
                CatchUp::Job(job) => {
                    let chunk = job.run(&may(), &self.view).unwrap();
                    self.hub.finish(chunk, &self.view, &mut self.clients);
                }
                CatchUp::More => {}
                CatchUp::Idle => break,
            }
        }
    }

    /// Nobody lacks anything, and progress says so.
    fn check_complete(&mut self) {
        let revision = self.clients.history.revision;
        assert_eq!(self.hub.revision().0, revision);
        for (stream, client) in &mut self.clients.clients {
            for watch in client.watches.values().filter(|watch| !watch.compacted) {
                let missing = self.clients.history.all.iter().find(|e| {
                    e.main >= watch.cursor
                        && watch.keys.contains(&e.key)
                        && !watch.filter.drops(e.value.is_none())
                });
                assert_eq!(missing, None, "{watch:?} at {revision}");
            }
            client.progress.clear();
            self.hub.want_progress(*stream);
        }
        let _ = self.hub.advance(&self.view, 1, &mut self.clients);
        for client in self.clients.clients.values() {
            let told = !client.watches.is_empty()
                && client.watches.values().all(|w| !w.compacted && w.start <= revision);
            let want = told.then_some((WatchId(-1), revision));
            assert_eq!(client.progress, want.into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn every_watch_gets_its_events_once_in_order_and_whole_or_is_cancelled() {
    let (mut responses, mut compacted) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..150 {
                world.step();
            }
            world.drain();
            world.check_complete();
        }
        responses += world.clients.responses;
        let watches = world.clients.clients.values().flat_map(|c| c.watches.values());
        compacted += watches.filter(|w| w.compacted).count();
        for stream in world.clients.clients.keys().copied().collect::<Vec<_>>() {
            world.hub.close(stream);
        }
        assert_eq!((world.hub.watchers(), world.hub.synced()), (0, 0), "seed {seed}");
        assert_eq!(world.hub.waiting_for_history(), 0);
    }
    assert!(responses > 10_000 && compacted > 30, "{responses} {compacted}");
}

/// Keeps what it is sent, as (stream, watch, revision, address of the events).
#[derive(Default)]
struct Kept(Vec<(StreamId, WatchId, i64, Option<Bytes>)>);

impl Sink for Kept {
    fn send(&mut self, stream: StreamId, response: Response<'_>) -> Flow {
        self.0.push(match response {
            Response::Events { watch, revision, body, .. } => {
                (stream, watch, revision.0, Some(body.clone()))
            }
            Response::Compacted { watch, compact } => (stream, watch, -compact.0, None),
            Response::Progress { watch, revision } => (stream, watch, revision.0, None),
        });
        Flow::Open
    }
}

fn watch_of(key: &'static str, start: i64) -> Create {
    Create {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::new(),
        start: Revision(start),
        id: WatchId(0),
        filter: Filter::default(),
        prev_kv: false,
        progress_notify: true,
        fragment: false,
    }
}

fn put(store: &mut Store, index: u64, keys: &[&str]) -> View {
    let mut txn = store.begin();
    for key in keys {
        txn.put(key.as_bytes(), b"value", LeaseId(0));
    }
    txn.end();
    store.seal(Index(index), Term(1), None);
    store.publish()
}

#[test]
fn ids_count_upwards_and_skip_used_ones() {
    let mut hub = WatchHub::new(Revision(1), HashSeed::draw(&mut SplitMix::new(1)));
    let stream = hub.open();
    let mut create =
        |id| hub.create(stream, Create { id: WatchId(id), ..watch_of("k", 0) }, Revision(1), ());
    assert_eq!(create(0), Ok(WatchId(0)));
    assert_eq!(create(1), Ok(WatchId(1)));
    assert_eq!(create(0), Ok(WatchId(2)));
    assert_eq!(create(-1), Ok(WatchId(-1)));
    assert_eq!(create(-1), Err(CreateError::DuplicateId));
    assert!(hub.cancel(stream, WatchId(0)) && !hub.cancel(stream, WatchId(0)));
    let again = hub.create(stream, watch_of("k", 0), Revision(1), ());
    assert_eq!(again, Ok(WatchId(3)), "a cancelled id is not handed out again");
    let empty = Create { range_end: Bytes::from_static(b"a"), id: WatchId(3), ..watch_of("b", 0) };
    assert_eq!(hub.create(stream, empty, Revision(1), ()), Err(CreateError::EmptyRange));
}

#[test]
fn watchers_of_one_event_share_its_bytes() {
    let (mut hub, mut store, mut kept) = (
        WatchHub::new(Revision(1), HashSeed::draw(&mut SplitMix::new(1))),
        Store::empty(),
        Kept::default(),
    );
    for _ in 0..100 {
        let stream = hub.open();
        hub.create(stream, watch_of("k", 0), Revision(1), ()).unwrap();
        hub.create(stream, Create { prev_kv: true, ..watch_of("k", 0) }, Revision(1), ()).unwrap();
    }
    let view = put(&mut store, 1, &["k", "other"]);
    assert_eq!(hub.advance(&view, 1_000, &mut kept), Step::Done);
    assert_eq!(kept.0.len(), 200);
    let mut places: Vec<_> = kept.0.iter().map(|k| k.3.as_ref().unwrap().as_ptr()).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 2, "one encoding with and one without prev_kv");
}

#[test]
fn a_tick_tells_progress_only_of_quiet_synced_watches_that_began() {
    let (mut hub, mut store, mut kept) = (
        WatchHub::new(Revision(1), HashSeed::draw(&mut SplitMix::new(1))),
        Store::empty(),
        Kept::default(),
    );
    let stream = hub.open();
    let busy = hub.create(stream, watch_of("busy", 0), Revision(1), ()).unwrap();
    let quiet = hub.create(stream, watch_of("quiet", 0), Revision(1), ()).unwrap();
    hub.create(stream, watch_of("quiet", 1_000), Revision(1), ()).unwrap();
    hub.create(stream, Create { progress_notify: false, ..watch_of("quiet", 0) }, Revision(1), ())
        .unwrap();
    let view = put(&mut store, 1, &["busy"]);
    assert_eq!(hub.advance(&view, 1_000, &mut kept), Step::Done);
    // A watch that reads history is not told of progress either.
    hub.create(stream, watch_of("quiet", 1), Revision(2), ()).unwrap();
    kept.0.clear();
    hub.tick(stream, &mut kept);
    assert_eq!(kept.0, [(stream, quiet, 2, None)]);
    kept.0.clear();
    hub.tick(stream, &mut kept);
    assert_eq!(kept.0, [(stream, busy, 2, None), (stream, quiet, 2, None)]);
    hub.stall(stream);
    kept.0.clear();
    hub.tick(stream, &mut kept);
    assert_eq!(kept.0, [], "a full stream is told nothing");
}

#[test]
fn while_all_streams_are_full_or_idle_nobody_needs_to_wake_the_hub() {
    let (mut hub, mut store, mut kept) = (
        WatchHub::new(Revision(1), HashSeed::draw(&mut SplitMix::new(1))),
        Store::empty(),
        Kept::default(),
    );
    let stream = hub.open();
    assert_eq!(hub.synced(), 0);
    hub.create(stream, watch_of("k", 0), Revision(1), ()).unwrap();
    assert_eq!(hub.synced(), 1);
    hub.stall(stream);
    assert_eq!(hub.synced(), 0);
    put(&mut store, 1, &["k"]);
    let view = put(&mut store, 2, &["k"]);
    assert_eq!(hub.resume(stream, &view, 1_000, &mut kept), Resumed::Synced);
    assert_eq!(kept.0.iter().map(|k| k.2).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(hub.synced(), 1);
}
