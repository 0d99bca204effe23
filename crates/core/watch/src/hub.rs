//! The watchers of one runtime thread, and the position of each.
//!
//! Invariants:
//! - a live watcher of a stream that keeps up has been given every event below the hub's position;
//! - of a lagging stream, every event below the stream's position;
//! - a watcher is never given an event below its own `next`, which rises with every response: so a
//!   position may be walked again after a stream's window filled in the middle of a revision;
//! - `index` holds exactly the live watchers; `synced` counts those of streams that keep up.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use bytes::Bytes;
use env::HashSeed;
use types::{Revision, WatchId};

use crate::events::Bodies;
use crate::matcher::{Keys, Matcher};

/// A client's stream of watches, by its place in the hub. Places are used again after
/// [`WatchHub::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// Kinds of events that a watcher does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
}

impl Filter {
    pub(crate) fn drops(self, tombstone: bool) -> bool {
        if tombstone { self.no_delete } else { self.no_put }
    }
}

/// A request to create a watch.
#[derive(Clone, Debug)]
pub struct Create {
    /// First key, as in the request; empty means the smallest key.
    pub key: Bytes,
    /// End of the range, exclusive: empty for one key, one zero byte for no end.
    pub range_end: Bytes,
    /// First revision whose events are wanted; 0 for future events only.
    pub start: Revision,
    /// The watch id; 0 lets the hub choose one.
    pub id: WatchId,
    /// Kinds of events that are left out.
    pub filter: Filter,
    /// Whether events carry the previous key-value (`prev_kv`).
    pub prev_kv: bool,
    /// Whether the watch gets progress notifications while it has no events.
    pub progress_notify: bool,
    /// Whether large responses may be split.
    pub fragment: bool,
}

/// Why a watch is not created; the client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The range holds no key.
    EmptyRange,
    /// The stream has a watch with this id already.
    DuplicateId,
}

impl std::fmt::Display for CreateError {
    //= etcd 3.7.1: server/storage/mvcc/watcher.go (errors)
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CreateError::EmptyRange => "mvcc: watcher range is empty",
            CreateError::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        })
    }
}

impl std::error::Error for CreateError {}

/// A response on its way to a client.
#[derive(Clone, Copy, Debug)]
pub enum Response<'a> {
    /// The events of whole revisions.
    Events {
        /// The watch's id.
        watch: WatchId,
        /// Revision for the response's header.
        revision: Revision,
        /// The `events` fields of the response, encoded; shared by watchers that get the same.
        body: &'a Bytes,
        /// Whether it may be split between events.
        fragment: bool,
    },
    /// The watch is cancelled: it needs a revision that was compacted.
    Compacted {
        /// The watch's id.
        watch: WatchId,
        /// The compact revision.
        compact: Revision,
    },
    /// A progress notification: everything up to a revision was sent.
    Progress {
        /// The watch's id; -1 for all watches of the stream.
        watch: WatchId,
        /// That revision.
        revision: Revision,
    },
}

/// Whether a stream can take another response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It can.
    Open,
    /// It took this one, and takes none more until [`WatchHub::resume`].
    Full,
}

/// Where responses go; never blocks.
pub trait Sink {
    /// Takes a response, whole. Not called again for this stream after [`Flow::Full`] until it is
    /// resumed.
    fn send(&mut self, stream: StreamId, response: Response<'_>) -> Flow;
}

/// Where a watcher stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It goes with its stream.
    Live,
    /// It waits for its turn to read history.
    Ready(u64),
    /// A job reads for it.
    Reading(u64),
    /// It waits for its stream to go on.
    Parked,
    /// It was cancelled because of a compaction, and keeps its id.
    Compacted,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: WatchId,
    pub(crate) stream: u32,
    pub(crate) keys: Keys,
    pub(crate) start: i64,
    /// First main revision whose events it may still get.
    pub(crate) next: i64,
    pub(crate) filter: Filter,
    pub(crate) prev: bool,
    pub(crate) fragment: bool,
    notify: bool,
    /// No event since the last tick.
    pub(crate) quiet: bool,
    /// The state before its next event is on disk.
    pub(crate) cold: bool,
    pub(crate) state: State,
}

/// A stream that was full.
#[derive(Debug)]
pub(crate) struct Lag {
    /// First main revision that its live watchers may not have.
    pub(crate) position: i64,
    /// Its live watchers, once it has been walked.
    pub(crate) matcher: Option<Matcher>,
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    open: bool,
    pub(crate) ids: BTreeMap<WatchId, u32>,
    next_id: i64,
    pub(crate) live: usize,
    pub(crate) lag: Option<Lag>,
    pub(crate) parked: Vec<u32>,
    pub(crate) wants_progress: bool,
}

/// The watchers of one runtime thread; see the [module](self). `A` is the proof that a caller may
/// watch, which [`WatchHub::create`] takes; `()` where none is needed.
pub struct WatchHub<A = ()> {
    allowed: PhantomData<fn(A)>,
    /// First main revision that synced watchers have not been given.
    pub(crate) position: i64,
    pub(crate) watchers: Vec<Option<Watcher>>,
    free_watchers: Vec<u32>,
    pub(crate) streams: Vec<Stream>,
    free_streams: Vec<u32>,
    pub(crate) index: Matcher,
    pub(crate) synced: usize,
    /// Watchers that wait for their turn to read history, in order of arrival.
    pub(crate) ready: BTreeMap<u64, u32>,
    pub(crate) tickets: u64,
    /// The watchers that each job reads for.
    pub(crate) jobs: BTreeMap<u64, Vec<u32>>,
    pub(crate) hash_seed: HashSeed,
    pub(crate) progress_requests: Vec<u32>,
    pub(crate) bodies: Bodies,
    pub(crate) found: Vec<u32>,
    pub(crate) pairs: Vec<(u32, u32)>,
}

impl<A> WatchHub<A> {
    /// A hub without watchers. `revision` is the store's at any time before, `hash_seed` is for
    /// maps of watched keys.
    #[must_use]
    pub fn new(revision: Revision, hash_seed: HashSeed) -> Self {
        Self {
            allowed: PhantomData,
            position: revision.0 + 1,
            watchers: Vec::new(),
            free_watchers: Vec::new(),
            streams: Vec::new(),
            free_streams: Vec::new(),
            index: Matcher::new(hash_seed),
            hash_seed,
            synced: 0,
            ready: BTreeMap::new(),
            tickets: 0,
            jobs: BTreeMap::new(),
            progress_requests: Vec::new(),
            bodies: Bodies::default(),
            found: Vec::new(),
            pairs: Vec::new(),
        }
    }

    /// The revision up to which synced watchers have been given everything.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.position - 1)
    }

    /// Number of watchers that keep up with the newest change. While it is 0, nobody needs to
    /// call [`WatchHub::advance`] for a new View.
    #[must_use]
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// Number of watchers.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.watchers.len() - self.free_watchers.len()
    }

    /// Number of watchers that wait for their turn to read history.
    #[must_use]
    pub fn waiting_for_history(&self) -> usize {
        self.ready.len()
    }

    /// Opens a stream.
    ///
    /// # Panics
    /// Beyond 2^32 streams.
    pub fn open(&mut self) -> StreamId {
        let at = self.free_streams.pop().unwrap_or_else(|| {
            self.streams.push(Stream::default());
            u32::try_from(self.streams.len() - 1).expect("fewer than 2^32 streams")
        });
        self.streams[at as usize] = Stream { open: true, ..Stream::default() };
        StreamId(at)
    }

    /// Closes a stream with all its watches.
    pub fn close(&mut self, stream: StreamId) {
        let ids = std::mem::take(&mut self.streams[stream.0 as usize].ids);
        for watcher in ids.into_values() {
            self.detach(watcher);
            self.watchers[watcher as usize] = None;
            self.free_watchers.push(watcher);
        }
        self.progress_requests.retain(|s| *s != stream.0);
        let closed = std::mem::take(&mut self.streams[stream.0 as usize]);
        assert!(closed.open && closed.live == 0, "a stream is closed once, without watchers");
        self.free_streams.push(stream.0);
    }

    /// Creates a watch and returns its id. `revision` is the newest View's: what the client is
    /// told, and behind which a watch without a start begins.
    ///
    /// # Errors
    /// [`CreateError`].
    //= etcd 3.7.1: server/storage/mvcc/watcher.go#Watch
    pub fn create(
        &mut self,
        stream: StreamId,
        create: Create,
        revision: Revision,
        _: A,
    ) -> Result<WatchId, CreateError> {
        let keys = Keys::of_request(create.key, create.range_end).ok_or(CreateError::EmptyRange)?;
        let at = &mut self.streams[stream.0 as usize];
        let id = if create.id == WatchId(0) {
            while at.ids.contains_key(&WatchId(at.next_id)) {
                at.next_id += 1;
            }
            at.next_id += 1;
            WatchId(at.next_id - 1)
        } else if at.ids.contains_key(&create.id) {
            return Err(CreateError::DuplicateId);
        } else {
            create.id
        };
        self.skip_idle(revision);
        let start = create.start.0;
        let to_come = start == 0 || start > revision.0;
        let watcher = Watcher {
            id,
            stream: stream.0,
            keys,
            start,
            next: if to_come { start.max(revision.0 + 1) } else { start },
            filter: create.filter,
            prev: create.prev_kv,
            fragment: create.fragment,
            notify: create.progress_notify,
            quiet: true,
            cold: false,
            state: State::Parked,
        };
        let slot = self.free_watchers.pop().unwrap_or_else(|| {
            self.watchers.push(None);
            u32::try_from(self.watchers.len() - 1).expect("fewer than 2^32 watchers")
        });
        self.watchers[slot as usize] = Some(watcher);
        self.streams[stream.0 as usize].ids.insert(id, slot);
        if to_come {
            self.make_live(slot);
        } else {
            self.make_ready(slot);
        }
        Ok(id)
    }

    /// Ends a watch. Returns whether the stream had one with this id.
    pub fn cancel(&mut self, stream: StreamId, id: WatchId) -> bool {
        let Some(watcher) = self.streams[stream.0 as usize].ids.remove(&id) else { return false };
        self.detach(watcher);
        self.watchers[watcher as usize] = None;
        self.free_watchers.push(watcher);
        true
    }

    /// A response that did not come from here filled the stream: it is not given any until
    /// [`WatchHub::resume`].
    pub fn stall(&mut self, stream: StreamId) {
        self.set_lag(stream.0, self.position);
    }

    /// Asks for a response that tells how far the whole stream is. [`WatchHub::advance`] answers
    /// once it has come to the end of its View, or not at all if a watch of the stream is behind.
    pub fn want_progress(&mut self, stream: StreamId) {
        let at = &mut self.streams[stream.0 as usize];
        if !std::mem::replace(&mut at.wants_progress, true) {
            self.progress_requests.push(stream.0);
        }
    }

    /// Whether a watch of the stream wants progress notifications.
    #[must_use]
    pub fn notifies(&self, stream: StreamId) -> bool {
        self.streams[stream.0 as usize].ids.values().any(|w| self.watcher(*w).notify)
    }

    /// Tells progress of the watches of a stream that want it and had no event since the last
    /// tick.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/watch.go#sendLoop (progressTicker)
    pub fn tick(&mut self, stream: StreamId, sink: &mut impl Sink) {
        let revision = self.revision();
        let at = &mut self.streams[stream.0 as usize];
        let mut full = at.lag.is_some();
        for slot in at.ids.values() {
            let watcher = self.watchers[*slot as usize].as_mut().expect("ids name watchers");
            let told = std::mem::replace(&mut watcher.quiet, true);
            let synced = watcher.state == State::Live && watcher.start <= revision.0;
            if full || !told || !synced || !watcher.notify {
                continue;
            }
            full =
                sink.send(stream, Response::Progress { watch: watcher.id, revision }) == Flow::Full;
            if full {
                break;
            }
        }
        if full {
            self.set_lag(stream.0, self.position);
        }
    }

    /// Answers the progress requests of whole streams.
    //= etcd 3.7.1: server/storage/mvcc/watchable_store.go#progressIfSync
    pub(crate) fn answer_progress(&mut self, sink: &mut impl Sink) {
        let revision = self.revision();
        for stream in std::mem::take(&mut self.progress_requests) {
            let at = &mut self.streams[stream as usize];
            at.wants_progress = false;
            let at = &self.streams[stream as usize];
            let is_synced = |slot: &u32| {
                let watcher = self.watcher(*slot);
                watcher.state == State::Live && watcher.start <= revision.0
            };
            if at.ids.is_empty() || at.lag.is_some() || !at.ids.values().all(is_synced) {
                continue;
            }
            let response = Response::Progress { watch: WatchId(-1), revision };
            if sink.send(StreamId(stream), response) == Flow::Full {
                self.set_lag(stream, self.position);
            }
        }
    }

    /// While nobody is synced, nobody moves the hub: catches up with that. `revision` is the newest
    /// View's.
    pub(crate) fn skip_idle(&mut self, revision: Revision) {
        if self.synced == 0 {
            self.position = self.position.max(revision.0 + 1);
        }
    }

    pub(crate) fn watcher(&self, slot: u32) -> &Watcher {
        self.watchers[slot as usize].as_ref().expect("a slot in use")
    }

    pub(crate) fn watcher_mut(&mut self, slot: u32) -> &mut Watcher {
        self.watchers[slot as usize].as_mut().expect("a slot in use")
    }

    /// The stream took its last response for now; its live watchers have everything below
    /// `position`.
    pub(crate) fn set_lag(&mut self, stream: u32, position: i64) {
        let at = &mut self.streams[stream as usize];
        if at.lag.is_none() {
            at.lag = Some(Lag { position, matcher: None });
            self.synced -= at.live;
        }
    }

    /// The stream keeps up again.
    pub(crate) fn end_lag(&mut self, stream: u32) {
        let at = &mut self.streams[stream as usize];
        if at.lag.take().is_some() {
            self.synced += at.live;
            for slot in std::mem::take(&mut at.parked) {
                self.make_ready(slot);
            }
        }
    }

    /// Puts a watcher that is in no list among the live ones.
    pub(crate) fn make_live(&mut self, slot: u32) {
        let watcher = self.watchers[slot as usize].as_mut().expect("a slot in use");
        watcher.state = State::Live;
        self.index.insert(&watcher.keys, slot);
        let stream = &mut self.streams[watcher.stream as usize];
        stream.live += 1;
        match &mut stream.lag {
            None => self.synced += 1,
            Some(lag) => {
                if let Some(matcher) = &mut lag.matcher {
                    matcher.insert(&watcher.keys, slot);
                }
            }
        }
    }

    /// Puts a watcher that is in no list among those that wait for history.
    pub(crate) fn make_ready(&mut self, slot: u32) {
        self.tickets += 1;
        let ticket = self.tickets;
        self.watcher_mut(slot).state = State::Ready(ticket);
        self.ready.insert(ticket, slot);
    }

    /// Lets a watcher that is in no list wait for its stream.
    pub(crate) fn park(&mut self, slot: u32) {
        let watcher = self.watcher_mut(slot);
        watcher.state = State::Parked;
        let stream = watcher.stream;
        self.streams[stream as usize].parked.push(slot);
    }

    /// Takes a watcher out of whatever list it is in.
    pub(crate) fn detach(&mut self, slot: u32) {
        let watcher = self.watchers[slot as usize].as_ref().expect("a slot in use");
        let stream = &mut self.streams[watcher.stream as usize];
        match watcher.state {
            State::Live => {
                self.index.remove(&watcher.keys, slot);
                stream.live -= 1;
                match &mut stream.lag {
                    None => self.synced -= 1,
                    Some(lag) => {
                        if let Some(matcher) = &mut lag.matcher {
                            matcher.remove(&watcher.keys, slot);
                        }
                    }
                }
            }
            State::Ready(ticket) => {
                self.ready.remove(&ticket);
            }
            State::Parked => stream.parked.retain(|s| *s != slot),
            State::Reading(_) | State::Compacted => {}
        }
    }
}
