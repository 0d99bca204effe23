//! Clients: who is asking, who is watching, and what they write down.

use api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use model::{Leg, Watch};
use watch::StreamId;

use crate::watches::Watches;

/// A client that has one call in flight at most.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u32,
    /// When it asks next.
    pub(crate) next_at: u64,
    pub(crate) busy: Option<Busy>,
    /// Whom it asks, by place.
    pub(crate) member: usize,
}

/// A call in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    pub(crate) call: u64,
    /// Its place in the history, if it has one.
    pub(crate) place: Option<usize>,
    /// Whom it was given to, by place.
    pub(crate) member: usize,
    /// When the client gives it up.
    pub(crate) until: u64,
}

/// A watch of a client, over all connections.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) request: WatchCreateRequest,
    pub(crate) watch: Watch,
    /// Its id on the stream, while it is alive there.
    pub(crate) id: Option<i64>,
    /// Where it goes on.
    pub(crate) next: i64,
}

impl Lane {
    /// The first revision that it asked its stream for.
    pub(crate) fn started(&self) -> Option<i64> {
        self.watch.legs.last().map(|leg| leg.request.start_revision)
    }
}

/// A client with one stream of watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) next_at: u64,
    /// Whose stream it is, by place.
    pub(crate) member: usize,
}

impl Watcher {
    pub(crate) fn new(client: u32, requests: Vec<WatchCreateRequest>) -> Self {
        let lane = |request: WatchCreateRequest| Lane {
            next: request.start_revision,
            request,
            watch: Watch { client, legs: Vec::new() },
            id: None,
        };
        Self {
            lanes: requests.into_iter().map(lane).collect(),
            stream: None,
            next_at: 0,
            member: 0,
        }
    }

    /// Opens a stream and goes on where each watch was.
    pub(crate) fn connect(&mut self, now: u64, view: &member::MemberView, watches: &mut Watches) {
        let stream = watches.open();
        self.stream = Some(stream);
        for (place, lane) in self.lanes.iter_mut().enumerate() {
            let request = WatchCreateRequest {
                start_revision: lane.next,
                watch_id: place as i64 + 1,
                ..lane.request.clone()
            };
            let id = watches.create(view, stream, &request);
            lane.id = id.map(|id| id.0);
            lane.watch.legs.push(Leg { request, opened: now, ..Leg::default() });
        }
    }

    /// The stream is gone, with what was still on its way.
    pub(crate) fn disconnected(&mut self) {
        self.stream = None;
        for lane in &mut self.lanes {
            lane.id = None;
        }
    }

    /// Writes down a response. Returns whether the stream should be made anew, because a watch was
    /// cancelled.
    pub(crate) fn take(&mut self, now: u64, response: &WatchResponse) -> bool {
        let mut cancelled = false;
        for lane in &mut self.lanes {
            let Some(id) = lane.id else { continue };
            // Progress of the whole stream concerns every watch that has begun.
            let leg = lane.watch.legs.last_mut().expect("a live watch has a leg");
            let begun = !leg.responses.is_empty() && !response.created;
            let of_all = response.watch_id == -1 && begun;
            if response.watch_id != id && !of_all {
                continue;
            }
            leg.responses.push((now, response.clone()));
            if response.canceled {
                lane.id = None;
                lane.next = response.compact_revision;
                cancelled = true;
                continue;
            }
            let revision = response.header.as_ref().map_or(0, |h| h.revision);
            if response.created {
                lane.next = if lane.next == 0 { revision + 1 } else { lane.next };
            } else if response.events.is_empty() {
                lane.next = lane.next.max(revision + 1);
            } else if !response.fragment {
                let last = response.events.last().and_then(|e| e.kv.as_ref());
                lane.next = last.map_or(lane.next, |kv| kv.mod_revision + 1);
            }
        }
        cancelled
    }
}
