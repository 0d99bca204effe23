//! Clients: who is asking, who is watching, and what they write down.

use std::sync::Arc;

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCancelRequest, WatchProgressRequest, WatchRequest};
use api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use model::{Leg, Watch};
use prost::Message;

use crate::streams::Stream;
use crate::world::Running;

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
    /// The place of its last request in the trail of users, until it is answered.
    pub(crate) asked: Option<usize>,
    /// Planted: responses that are kept from the client.
    hidden: Hidden,
}

/// Planted: what is left to be kept from a client whose cancelled watch was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    Nothing,
    /// The answer to a cancellation, and to a new request.
    CancelAndCreate,
    /// The answer to a new request.
    Create,
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
    pub(crate) client: u32,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) stream: Option<(u64, Stream)>,
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
            asked: None,
            hidden: Hidden::Nothing,
        };
        Self {
            client,
            lanes: requests.into_iter().map(lane).collect(),
            stream: None,
            next_at: 0,
            member: 0,
        }
    }

    /// Opens a stream and goes on where each watch was.
    pub(crate) fn connect(
        &mut self,
        now: u64,
        window: usize,
        running: &mut Running,
        token: Option<Arc<str>>,
    ) {
        let (task, stream) = running.watch(window, token);
        for (place, lane) in self.lanes.iter_mut().enumerate() {
            let request = WatchCreateRequest {
                start_revision: lane.next,
                watch_id: place as i64 + 1,
                ..lane.request.clone()
            };
            lane.id = Some(request.watch_id);
            stream.send(message(RequestUnion::CreateRequest(request.clone())));
            lane.watch.legs.push(Leg { request, opened: now, ..Leg::default() });
        }
        self.stream = Some((task, stream));
    }

    /// Asks how far the stream is.
    pub(crate) fn want_progress(&self) {
        if let Some((_, stream)) = &self.stream {
            stream.send(message(RequestUnion::ProgressRequest(WatchProgressRequest {})));
        }
    }

    /// The next response, if one has come.
    pub(crate) fn next(&self) -> Option<WatchResponse> {
        let (_, stream) = self.stream.as_ref()?;
        let message = stream.take()?;
        Some(WatchResponse::decode(message).expect("calls encode responses"))
    }

    /// Planted: a watch that a compaction has cancelled goes on behind the compaction, and its
    /// client is told nothing. Whether this response is one of those that it is not told.
    pub(crate) fn swallow(&mut self, response: &WatchResponse) -> bool {
        let Some((_, stream)) = &self.stream else { return false };
        let lane = self.lanes.iter_mut().find(|lane| lane.id == Some(response.watch_id));
        let Some(lane) = lane else { return false };
        match lane.hidden {
            Hidden::Nothing if response.canceled && response.compact_revision > 0 => {
                let watch_id = response.watch_id;
                let cancel = WatchCancelRequest { watch_id };
                stream.send(message(RequestUnion::CancelRequest(cancel)));
                let create = WatchCreateRequest {
                    start_revision: response.compact_revision,
                    watch_id,
                    ..lane.request.clone()
                };
                stream.send(message(RequestUnion::CreateRequest(create)));
                lane.hidden = Hidden::CancelAndCreate;
                true
            }
            Hidden::CancelAndCreate if response.canceled => {
                lane.hidden = Hidden::Create;
                true
            }
            Hidden::Create if response.created => {
                lane.hidden = Hidden::Nothing;
                true
            }
            _ => false,
        }
    }

    /// The stream is gone, with what was still on its way.
    pub(crate) fn disconnected(&mut self) {
        self.stream = None;
        for lane in &mut self.lanes {
            (lane.id, lane.hidden) = (None, Hidden::Nothing);
        }
    }

    /// The watch that an answer to a request is for. What is refused has no id; answers come in the
    /// order of the requests.
    pub(crate) fn lane_of(&mut self, response: &WatchResponse) -> Option<&mut Lane> {
        let is_open = |lane: &Lane| {
            let leg = lane.watch.legs.last();
            lane.id.is_some() && leg.is_some_and(|leg| leg.responses.is_empty())
        };
        let is_refused = response.created && response.watch_id == -1;
        self.lanes.iter_mut().find(|lane| match is_refused {
            true => is_open(lane),
            false => lane.id == Some(response.watch_id),
        })
    }

    /// A watch was refused; whether none is left on the stream.
    fn refuse(&mut self, now: u64, response: &WatchResponse) -> bool {
        if let Some(lane) = self.lane_of(response) {
            let leg = lane.watch.legs.last_mut().expect("an open watch has a leg");
            leg.responses.push((now, response.clone()));
            lane.id = None;
        }
        self.lanes.iter().all(|lane| lane.id.is_none())
    }

    /// Writes down a response. Returns whether the stream should be made anew, because a watch was
    /// cancelled.
    pub(crate) fn take(&mut self, now: u64, response: &WatchResponse) -> bool {
        if response.created && response.watch_id == -1 {
            return self.refuse(now, response);
        }
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

fn message(union: RequestUnion) -> bytes::Bytes {
    WatchRequest { request_union: Some(union) }.encode_to_vec().into()
}
