//! Unsynced watchers: they share scans of the database, in chunks that the caller reads where
//! blocking is allowed, until the rest is in memory.
//!
//! A job reads for several watchers at once: ranges that stand near each other share one scan of
//! the revision log; single keys walk their own chain in the index. What a job holds is bounded by
//! bytes; a watcher whose client stops reading is parked and nothing is held for it.

use std::collections::VecDeque;

use bytes::Bytes;
use env::{HashSeed, MayBlock};
use store::{Rev, ValueError, View};
use types::limits::WATCH_BATCH_REVISIONS;
use types::{Revision, WatchId};

use crate::events::Seen;
use crate::hub::{Filter, Flow, Response, Sink, State, StreamId, WatchHub};
use crate::matcher::{Keys, Matcher};

/// Watchers that one job reads for. etcd takes as many into a pass.
const JOB_WATCHERS: usize = 512;
/// Watchers on ranges share a scan if they begin within this many revisions.
const SHARED_REVISIONS: i64 = 10_000;
/// Bytes of events that a job brings (one revision may exceed it).
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of the database that a job reads for them.
const SCAN_BYTES: usize = 16 << 20;
/// Places of a key's versions that a job collects.
const CHAIN_PLACES: usize = 65_536;
/// Bytes of one response; the revision that crosses it is the last. What a client that has stopped
/// reading holds.
pub(crate) const RESPONSE_BYTES: usize = 128 << 10;
/// Changes in memory that a watcher is walked over on the hub's own thread.
const JOIN_EVENTS: usize = 256;

#[derive(Debug)]
struct Want {
    slot: u32,
    keys: Keys,
    next: i64,
    prev: bool,
    filter: Filter,
}

/// A chunk of history to be read with [`ReadJob::run`].
#[derive(Debug)]
pub struct ReadJob {
    /// The job's number, for [`WatchHub::failed`].
    pub id: u64,
    wants: Vec<Want>,
    hash_seed: HashSeed,
}

#[derive(Debug)]
struct Found {
    rev: Rev,
    tombstone: bool,
    stored: Bytes,
    prev: Option<Bytes>,
}

#[derive(Debug)]
struct Part {
    slot: u32,
    /// The watcher has everything below this main revision once it has `events`.
    next: i64,
    events: Vec<u32>,
}

/// The result of a job.
#[derive(Debug)]
pub struct Chunk {
    job: u64,
    revision: Revision,
    found: Vec<Found>,
    parts: Vec<Part>,
}

/// The next step for watchers that are behind.
#[derive(Debug)]
pub enum CatchUp {
    /// Run this with the View that was given, then [`WatchHub::finish`] it.
    Job(ReadJob),
    /// The budget is spent: call again.
    More,
    /// Nothing is to be done now.
    Idle,
}

impl ReadJob {
    /// Reads the chunk.
    ///
    /// # Errors
    /// The database is damaged or its disk failed.
    pub fn run(self, may: &MayBlock, view: &View) -> Result<Chunk, ValueError> {
        let revision = view.revision();
        let mut chunk = Chunk { job: self.id, revision, found: Vec::new(), parts: Vec::new() };
        if matches!(self.wants.first(), Some(Want { keys: Keys::One(_), .. })) {
            chains(self.wants, may, view, &mut chunk)?;
        } else {
            Scan::new(self.wants, self.hash_seed).run(may, view, &mut chunk)?;
        }
        Ok(chunk)
    }
}

/// One scan of the revision log for watchers on ranges.
struct Scan {
    wants: Vec<Want>,
    matcher: Matcher,
    events: Vec<Vec<u32>>,
    matched: Vec<u32>,
    held: usize,
    revisions: usize,
    last: i64,
}

impl Scan {
    fn new(wants: Vec<Want>, hash_seed: HashSeed) -> Self {
        let mut matcher = Matcher::new(hash_seed);
        for (want, i) in wants.iter().zip(0..) {
            matcher.insert(&want.keys, i);
        }
        let events = wants.iter().map(|_| Vec::new()).collect();
        let matched = Vec::new();
        Self { wants, matcher, events, matched, held: 0, revisions: 0, last: 0 }
    }

    fn is_full(&self) -> bool {
        self.held >= CHUNK_BYTES || self.revisions >= WATCH_BATCH_REVISIONS
    }

    fn run(mut self, may: &MayBlock, view: &View, chunk: &mut Chunk) -> Result<(), ValueError> {
        let from = self.wants.iter().map(|want| want.next).min().unwrap_or(i64::MAX);
        let end = self.read(may, view, from, &mut chunk.found)?;
        for (want, events) in self.wants.into_iter().zip(self.events) {
            let next = end.max(want.next);
            chunk.parts.push(Part { slot: want.slot, next, events });
        }
        Ok(())
    }

    /// Returns the main revision below which everything was read.
    fn read(
        &mut self,
        may: &MayBlock,
        view: &View,
        from: i64,
        found: &mut Vec<Found>,
    ) -> Result<i64, ValueError> {
        let (mut at, mut scanned) = (Rev::first_of(Revision(from)), 0);
        while at.main < view.tail_start() {
            let history = view.history(may, at, view.revision(), CHUNK_BYTES)?;
            for change in history.changes {
                scanned += change.stored.len();
                self.take(may, view, change.rev, change.tombstone, &change.stored, found)?;
            }
            // A chunk may end within a large revision: that is read to its end.
            at = history.next.unwrap_or(Rev::first_of(view.tail_start()));
            let between = at.sub.0 == 0;
            if between && (self.is_full() || scanned >= SCAN_BYTES) {
                return Ok(at.main.0);
            }
        }
        let tail = view.tail(at).expect("the loop above went up to where memory begins");
        let mut main = 0;
        for event in tail {
            if event.rev().main.0 != main {
                if self.is_full() || scanned >= SCAN_BYTES {
                    return Ok(event.rev().main.0);
                }
                main = event.rev().main.0;
            }
            scanned += event.stored().len();
            let stored = event.stored_bytes();
            self.take(may, view, event.rev(), event.is_tombstone(), &stored, found)?;
        }
        Ok(view.revision().0 + 1)
    }

    fn take(
        &mut self,
        may: &MayBlock,
        view: &View,
        rev: Rev,
        tombstone: bool,
        stored: &Bytes,
        found: &mut Vec<Found>,
    ) -> Result<(), ValueError> {
        let seen = Seen::new(rev, tombstone, stored)?;
        self.matched.clear();
        self.matcher.find(seen.key, &mut self.matched);
        let wants = &self.wants;
        self.matched.retain(|i| {
            let want = &wants[*i as usize];
            want.next <= rev.main.0 && !want.filter.drops(tombstone)
        });
        if self.matched.is_empty() {
            return Ok(());
        }
        let prev = match self.matched.iter().any(|i| wants[*i as usize].prev) {
            true => previous(may, view, &seen)?,
            false => None,
        };
        let event = u32::try_from(found.len()).expect("bounded by bytes");
        self.matched.iter().for_each(|i| self.events[*i as usize].push(event));
        self.held += stored.len() + prev.as_ref().map_or(0, Bytes::len) + size_of::<Found>();
        self.revisions += usize::from(self.last != rev.main.0);
        self.last = rev.main.0;
        found.push(Found { rev, tombstone, stored: stored.clone(), prev });
        Ok(())
    }
}

fn previous(may: &MayBlock, view: &View, seen: &Seen<'_>) -> Result<Option<Bytes>, ValueError> {
    match seen.prev(view) {
        Some(at) => view.value(may, at),
        None => Ok(None),
    }
}

/// Walks the chains of single keys.
fn chains(
    mut wants: Vec<Want>,
    may: &MayBlock,
    view: &View,
    chunk: &mut Chunk,
) -> Result<(), ValueError> {
    let key = |want: &Want| match &want.keys {
        Keys::One(key) => key.clone(),
        Keys::Range { start, .. } => unreachable!("{start:?} begins a range"),
    };
    wants.sort_by_cached_key(|want| (key(want), want.next));
    let mut held = 0;
    // Watchers of one key share what the one that stands lowest needs.
    for same in wants.chunk_by(|a, b| a.keys == b.keys) {
        let (key, from) = (key(&same[0]), same[0].next);
        let first = chunk.found.len();
        let prev = same.iter().any(|want| want.prev);
        let end = match held < CHUNK_BYTES {
            true => chain(&key, from, prev, may, view, &mut chunk.found, &mut held)?,
            false => from,
        };
        for want in same {
            let mut part = Part { slot: want.slot, next: end.max(want.next), events: Vec::new() };
            for (found, i) in chunk.found[first..].iter().zip(first..) {
                if found.rev.main.0 >= want.next && !want.filter.drops(found.tombstone) {
                    part.events.push(u32::try_from(i).expect("bounded by bytes"));
                }
            }
            chunk.parts.push(part);
        }
    }
    Ok(())
}

/// The changes of one key from a main revision on. Returns the one below which all were read.
fn chain(
    key: &Bytes,
    from: i64,
    prev: bool,
    may: &MayBlock,
    view: &View,
    out: &mut Vec<Found>,
    held: &mut usize,
) -> Result<i64, ValueError> {
    // The index goes back from the newest; the oldest are wanted first.
    let (mut places, mut end) = (VecDeque::new(), view.revision().0 + 1);
    view.key_chain(key, |version, tombstone| {
        if version.rev.main.0 < from {
            return false;
        }
        places.push_front((version.rev, tombstone));
        if places.len() > CHAIN_PLACES {
            end = places.pop_back().map_or(end, |(rev, _): (Rev, _)| rev.main.0);
        }
        true
    });
    while places.back().is_some_and(|(rev, _)| rev.main.0 >= end) {
        places.pop_back(); // the other change of a revision that was cut off
    }
    let mut main = 0;
    for (rev, tombstone) in places {
        if rev.main.0 != main && *held >= CHUNK_BYTES {
            return Ok(rev.main.0);
        }
        main = rev.main.0;
        let stored = if tombstone {
            let mut stored = Vec::new();
            store::KeyValue { key, ..Default::default() }.encode(&mut stored);
            stored.into()
        } else {
            view.value(may, rev)?.ok_or(ValueError::Compacted)?
        };
        let seen = Seen::new(rev, tombstone, &stored)?;
        let prev = if prev { previous(may, view, &seen)? } else { None };
        *held += stored.len() + prev.as_ref().map_or(0, Bytes::len) + size_of::<Found>();
        out.push(Found { rev, tombstone, stored, prev });
    }
    Ok(end)
}

impl<A> WatchHub<A> {
    /// What is to be done next for watchers that are behind. Those whose revisions were compacted
    /// are cancelled here. [`WatchHub::advance`] has come to the end of a View not much older.
    pub fn catch_up(&mut self, view: &View, budget: usize, sink: &mut impl Sink) -> CatchUp {
        let compact = view.compact_revision();
        let mut left = budget;
        while let Some((_, slot)) = self.ready.pop_first() {
            if left == 0 {
                self.make_ready(slot);
                return CatchUp::More;
            }
            left -= 1;
            let watcher = self.watcher(slot);
            let (next, stream) = (watcher.next, watcher.stream);
            if self.streams[stream as usize].lag.is_some() {
                self.park(slot);
            } else if next < compact.0 {
                self.cancel_compacted(slot, compact, sink);
            } else if !watcher.cold && self.is_near(view, next) {
                left = left.saturating_sub(JOIN_EVENTS);
                self.join(slot, view, JOIN_EVENTS, sink);
            } else {
                return CatchUp::Job(self.job(slot, compact));
            }
        }
        CatchUp::Idle
    }

    /// Whether memory has what a watcher lacks, and it is not much.
    fn is_near(&self, view: &View, next: i64) -> bool {
        let near = self.position - next <= JOIN_EVENTS as i64;
        next >= self.position || (near && next >= view.tail_start().0)
    }

    //= etcd 3.7.1: server/storage/mvcc/watcher_group.go#chooseAll
    fn cancel_compacted(&mut self, slot: u32, compact: Revision, sink: &mut impl Sink) {
        let watcher = self.watcher_mut(slot);
        watcher.state = State::Compacted;
        let (stream, watch): (u32, WatchId) = (watcher.stream, watcher.id);
        if sink.send(StreamId(stream), Response::Compacted { watch, compact }) == Flow::Full {
            self.set_lag(stream, self.position);
        }
    }

    /// A job for a watcher and others that can share it.
    fn job(&mut self, seed: u32, compact: Revision) -> ReadJob {
        let from = self.watcher(seed).next;
        let single = |keys: &Keys| matches!(keys, Keys::One(_));
        let seed_is_single = single(&self.watcher(seed).keys);
        let mut slots = vec![(0, seed)];
        for (&ticket, &slot) in self.ready.iter().take(JOB_WATCHERS - 1) {
            let watcher = self.watcher(slot);
            let near = (from..=from + SHARED_REVISIONS).contains(&watcher.next);
            let lags = self.streams[watcher.stream as usize].lag.is_some();
            if !lags
                && watcher.next >= compact.0
                && single(&watcher.keys) == seed_is_single
                && (seed_is_single || near)
            {
                slots.push((ticket, slot));
            }
        }
        self.tickets += 1;
        let id = self.tickets;
        let mut wants = Vec::with_capacity(slots.len());
        for (ticket, slot) in slots {
            self.ready.remove(&ticket);
            let watcher = self.watcher_mut(slot);
            watcher.state = State::Reading(id);
            let (keys, next) = (watcher.keys.clone(), watcher.next);
            let (prev, filter) = (watcher.prev, watcher.filter);
            wants.push(Want { slot, keys, next, prev, filter });
        }
        self.jobs.insert(id, wants.iter().map(|want| want.slot).collect());
        ReadJob { id, wants, hash_seed: self.hash_seed }
    }

    /// Gives the watchers of a job what it found. `view` is the newest.
    pub fn finish(&mut self, chunk: Chunk, view: &View, sink: &mut impl Sink) {
        self.jobs.remove(&chunk.job);
        self.skip_idle(view.revision());
        let mut seen = Vec::with_capacity(chunk.found.len());
        for found in &chunk.found {
            let event = Seen::new(found.rev, found.tombstone, &found.stored);
            let event = event.expect("the job parsed it");
            seen.push((event, found.prev.as_ref()));
        }
        self.bodies.clear();
        let mut rest = Vec::new();
        for part in chunk.parts {
            let waits = |w: &crate::hub::Watcher| w.state == State::Reading(chunk.job);
            if !self.watchers[part.slot as usize].as_ref().is_some_and(waits) {
                continue; // cancelled meanwhile
            }
            let stream = self.watcher(part.slot).stream;
            if self.streams[stream as usize].lag.is_none()
                && self.send_part(&part, &seen, chunk.revision, sink) == Flow::Open
            {
                let watcher = self.watcher_mut(part.slot);
                watcher.next = part.next;
                watcher.cold = false;
                rest.push(part.slot);
            } else {
                self.park(part.slot);
            }
        }
        for slot in rest {
            let stream = self.watcher(slot).stream;
            if self.streams[stream as usize].lag.is_some() {
                self.park(slot);
            } else if self.is_near(view, self.watcher(slot).next) {
                self.join(slot, view, JOIN_EVENTS, sink);
            } else {
                self.make_ready(slot);
            }
        }
    }

    /// Sends a watcher's events of a chunk, in responses of bounded size.
    fn send_part(
        &mut self,
        part: &Part,
        seen: &[(Seen<'_>, Option<&Bytes>)],
        revision: Revision,
        sink: &mut impl Sink,
    ) -> Flow {
        let main = |i: u32| seen[i as usize].0.main;
        let mut rest = &part.events[..];
        while let Some(&first) = rest.first() {
            let (mut revisions, mut bytes, mut last) = (1, 0, main(first));
            let over = |&i: &u32| {
                if main(i) != last {
                    revisions += 1;
                    last = main(i);
                    if revisions > WATCH_BATCH_REVISIONS || bytes >= RESPONSE_BYTES {
                        return true;
                    }
                }
                let (event, prev) = &seen[i as usize];
                bytes += event.size_bytes() + prev.map_or(0, Bytes::len);
                false
            };
            let end = rest.iter().position(over).unwrap_or(rest.len());
            let (now, later) = rest.split_at(end);
            let watcher = self.watchers[part.slot as usize].as_mut().expect("a slot in use");
            let body = self.bodies.of_chunk(seen, now, watcher.prev);
            watcher.next = main(now[now.len() - 1]) + 1;
            watcher.quiet = false;
            let (watch, fragment, stream) = (watcher.id, watcher.fragment, watcher.stream);
            let response = Response::Events { watch, revision, body: &body, fragment };
            if sink.send(StreamId(stream), response) == Flow::Full {
                self.set_lag(stream, self.position);
                return Flow::Full;
            }
            rest = later;
        }
        Flow::Open
    }

    /// A job was not run, or failed. Its watchers wait for another; their streams come back, to be
    /// ended if that is no use.
    pub fn failed(&mut self, job: u64) -> Vec<StreamId> {
        let mut streams = Vec::new();
        for slot in self.jobs.remove(&job).unwrap_or_default() {
            let reads = |w: &crate::hub::Watcher| w.state == State::Reading(job);
            if self.watchers[slot as usize].as_ref().is_some_and(reads) {
                self.make_ready(slot);
                streams.push(StreamId(self.watcher(slot).stream));
            }
        }
        streams.sort_unstable();
        streams.dedup();
        streams
    }
}
