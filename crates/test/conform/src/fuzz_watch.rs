//! Watches beside the random operations: the same ones on both servers, and what each carried must
//! be the same.
//!
//! How events are spread over responses, and when they come, is each server's own business: per
//! watch, the sequence is compared, at moments when both have had time to deliver. What the order
//! of a compaction and a catch-up decides by chance is kept out: before each compaction both
//! servers have delivered what they owe, and watches of history that may not have caught up yet
//! are cancelled and forgotten.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    PutRequest, PutResponse, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use api::mvccpb::Event;

use crate::fuzz::Generator;
use crate::grpc::{Client, Failure, Stream};

/// What a watch was told, in order, apart from when.
#[derive(Clone, Debug, PartialEq)]
enum Observed {
    Created,
    Refused(String),
    Event(Box<Event>),
    Cancelled { compact_revision: i64, reason: String },
}

/// One server's stream, and what came on it so far by watch.
#[derive(Debug)]
struct Side {
    stream: Stream,
    observed: BTreeMap<i64, Vec<Observed>>,
    /// Creates that were answered.
    created: usize,
}

/// The id of the watch of [`BARRIER_KEY`], whose events come behind all that were due before.
const BARRIER: i64 = i64::MAX;
const BARRIER_KEY: &str = "~barrier";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Watches at once.
const MAX_WATCHES: usize = 24;
/// How long a watch of history may take to catch up with nothing to show: etcd looks at its
/// unsynced watchers every 100 ms.
const CAUGHT_UP: Duration = Duration::from_millis(400);
/// How long the servers may take to agree.
const PATIENCE: Duration = Duration::from_secs(10);

impl Side {
    async fn open(client: &Client) -> Self {
        let stream = client.open(WATCH, None, false).await;
        Self { stream, observed: BTreeMap::new(), created: 0 }
    }

    fn send(&mut self, union: RequestUnion) {
        self.stream.send(&WatchRequest { request_union: Some(union) });
    }

    /// Takes one response, if there is one or it comes within `patience`.
    async fn take(&mut self, patience: Duration) -> bool {
        let next = self.stream.next::<WatchResponse>(patience).await;
        let Some(response) = next.expect("a watch stream goes on") else { return false };
        let observed = self.observed.entry(response.watch_id).or_default();
        if response.created {
            self.created += 1;
            let reason = response.cancel_reason.clone();
            observed.push(if response.canceled {
                Observed::Refused(reason)
            } else {
                Observed::Created
            });
        } else if response.canceled {
            let (compact_revision, reason) = (response.compact_revision, response.cancel_reason);
            observed.push(Observed::Cancelled { compact_revision, reason });
            return true;
        }
        observed.extend(response.events.into_iter().map(|e| Observed::Event(Box::new(e))));
        true
    }

    /// Takes everything up to the barrier's event at a revision, and what is there behind it.
    async fn take_to(&mut self, revision: i64) {
        let is_barrier = |seen: &Observed| match seen {
            Observed::Event(event) => {
                event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision)
            }
            _ => false,
        };
        let until = Instant::now() + PATIENCE;
        while !self.observed.get(&BARRIER).is_some_and(|told| told.iter().any(is_barrier)) {
            assert!(Instant::now() < until, "the barrier's event comes");
            self.take(Duration::from_millis(100)).await;
        }
        while self.take(Duration::ZERO).await {}
    }
}

/// The watches of a run on both servers.
#[derive(Debug)]
pub struct Watches {
    clients: (Client, Client),
    ours: Side,
    theirs: Side,
    /// Live ones by id, with when they were created if they began in the past.
    live: BTreeMap<i64, Option<Instant>>,
    next_id: i64,
    requests: usize,
    events: usize,
}

impl Watches {
    /// Opens a stream on each server.
    pub async fn open(ours: &Client, theirs: &Client) -> Self {
        let clients = (ours.clone(), theirs.clone());
        let (ours, theirs) = (Side::open(ours).await, Side::open(theirs).await);
        let live = BTreeMap::new();
        let mut all = Self { clients, ours, theirs, live, next_id: 1, requests: 0, events: 0 };
        all.create(WatchCreateRequest {
            key: BARRIER_KEY.into(),
            watch_id: BARRIER,
            ..WatchCreateRequest::default()
        })
        .await;
        all
    }

    /// Events that were compared.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    fn send(&mut self, union: &RequestUnion) {
        self.ours.send(union.clone());
        self.theirs.send(union.clone());
    }

    /// Creates a drawn watch, or cancels one if there are many.
    pub async fn change(&mut self, generator: &mut Generator) {
        if self.live.len() >= MAX_WATCHES || (!self.live.is_empty() && generator.chance(40)) {
            let nth = generator.below(self.live.len() as u64) as usize;
            let id = *self.live.keys().nth(nth).expect("there are as many");
            self.cancel(id).await;
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let request = WatchCreateRequest { watch_id: id, ..generator.watch() };
        let of_history = request.start_revision > 0;
        self.create(request).await;
        let accepted =
            |side: &Side| side.observed.get(&id).is_some_and(|t| t[0] == Observed::Created);
        assert_eq!(accepted(&self.ours), accepted(&self.theirs), "watch {id}");
        if accepted(&self.ours) {
            self.live.insert(id, of_history.then(Instant::now));
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) {
        self.requests += 1;
        self.send(&RequestUnion::CreateRequest(request));
        // Where it begins is decided when it is created: that comes before the next operation.
        let until = Instant::now() + PATIENCE;
        for side in [&mut self.ours, &mut self.theirs] {
            while side.created < self.requests {
                assert!(Instant::now() < until, "a create is answered");
                side.take(Duration::from_millis(100)).await;
            }
        }
    }

    /// Cancels a watch; what came of it is compared first, unless it may be on its way still.
    async fn cancel(&mut self, id: i64) {
        let since = self.live.remove(&id).expect("it is live");
        let fresh = since.is_some_and(|since| since.elapsed() < CAUGHT_UP);
        if !fresh {
            self.compare().await;
        }
        self.send(&RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }));
        let until = Instant::now() + PATIENCE;
        for side in [&mut self.ours, &mut self.theirs] {
            let ended = |side: &Side| {
                // A compaction may have ended it before; the client's cancel is told apart by 0.
                let by_client =
                    |t: &Observed| matches!(t, Observed::Cancelled { compact_revision: 0, .. });
                side.observed.get(&id).is_some_and(|told| told.iter().any(by_client))
            };
            while !ended(side) {
                assert!(Instant::now() < until, "a cancel of watch {id} is answered");
                side.take(Duration::from_millis(100)).await;
            }
        }
        if !fresh {
            assert_eq!(self.ours.observed.get(&id), self.theirs.observed.get(&id), "watch {id}");
        }
        self.ours.observed.remove(&id);
        self.theirs.observed.remove(&id);
    }

    /// To be called before a compaction: nothing is left that it could decide by chance.
    pub async fn before_compaction(&mut self) {
        let is_fresh = |since: &Option<Instant>| since.is_some_and(|s| s.elapsed() < CAUGHT_UP);
        let fresh: Vec<i64> =
            self.live.iter().filter(|(_, since)| is_fresh(since)).map(|(id, _)| *id).collect();
        for id in fresh {
            self.cancel(id).await;
        }
        self.compare().await;
    }

    /// Waits until both servers have delivered the same, and forgets it.
    ///
    /// # Panics
    /// If they do not.
    pub async fn compare(&mut self) {
        let put = PutRequest { key: BARRIER_KEY.into(), ..PutRequest::default() };
        let path = "/etcdserverpb.KV/Put";
        let (ours, theirs) = tokio::join!(
            self.clients.0.call::<PutResponse>(path, &put),
            self.clients.1.call::<PutResponse>(path, &put)
        );
        let revision = |answer: Result<PutResponse, Failure>| {
            let answer = answer.expect("a plain put succeeds");
            answer.header.expect("every answer has a header").revision
        };
        let (ours, theirs) = (revision(ours), revision(theirs));
        assert_eq!(ours, theirs, "the revision of a put on both");
        tokio::join!(self.ours.take_to(ours), self.theirs.take_to(theirs));
        // History may still be on its way.
        let until = Instant::now() + PATIENCE;
        while self.ours.observed != self.theirs.observed {
            let (ours, theirs) = (&self.ours.observed, &self.theirs.observed);
            assert!(Instant::now() < until, "left ours: {ours:#?}\nright etcd's: {theirs:#?}");
            let patience = Duration::from_millis(5);
            tokio::join!(self.ours.take(patience), self.theirs.take(patience));
        }
        self.events += self.ours.observed.values().map(Vec::len).sum::<usize>();
        for side in [&mut self.ours, &mut self.theirs] {
            for told in side.observed.values_mut() {
                told.clear();
            }
        }
    }
}
