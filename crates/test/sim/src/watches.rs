//! The shell's side of watches: what `rpc/src/services/watch` does around the same `WatchHub`.
//!
//! One hub, streams with a window each, jobs that read history with the View they were given and
//! are finished with a newer one. A stream whose window is full is resumed when its client has
//! taken everything.

use std::collections::VecDeque;
use std::sync::Arc;

use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use bytes::Bytes;
use env::{Entropy, MayBlock, SplitMix};
use member::MemberView;
use prost::Message;
use types::{Revision, WatchId};
use watch::{
    CatchUp, Create, Filter, Flow, ReadJob, Response, Resumed, Sink, Step, StreamId, WatchHub,
    split_events,
};

use crate::plant::Plant;

/// Jobs that read history at once.
const MAX_JOBS: usize = 4;

/// A stream's way to its client.
#[derive(Default)]
struct Out {
    responses: VecDeque<WatchResponse>,
    open: bool,
}

struct Outs {
    outs: Vec<Out>,
    window: usize,
    fragment_bytes: usize,
    /// Watches that were cancelled for a compaction, if that is what a plant wants to know.
    swallowed: Option<Vec<(StreamId, WatchId, Revision)>>,
}

fn header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.0, ..ResponseHeader::default() })
}

impl Outs {
    fn push(&mut self, stream: StreamId, response: WatchResponse) -> Flow {
        let out = &mut self.outs[stream.0 as usize];
        out.responses.push_back(response);
        if out.responses.len() >= self.window { Flow::Full } else { Flow::Open }
    }

    fn events(
        &mut self,
        stream: StreamId,
        head: WatchResponse,
        body: &Bytes,
        fragment: bool,
    ) -> Flow {
        let elements: Vec<Bytes> = split_events(body).collect();
        let split = fragment && elements.len() > 1 && body.len() >= self.fragment_bytes;
        let pieces: Vec<Bytes> = if split { elements } else { vec![body.clone()] };
        let count = pieces.len();
        let mut flow = Flow::Open;
        for (i, piece) in pieces.into_iter().enumerate() {
            let decoded = WatchResponse::decode(piece).expect("the hub encodes responses");
            let events = decoded.events;
            flow = self
                .push(stream, WatchResponse { events, fragment: i + 1 < count, ..head.clone() });
        }
        flow
    }
}

impl Sink for Outs {
    fn send(&mut self, stream: StreamId, response: Response<'_>) -> Flow {
        match response {
            Response::Events { watch, revision, body, fragment } => {
                let head = WatchResponse {
                    header: header(revision),
                    watch_id: watch.0,
                    ..WatchResponse::default()
                };
                self.events(stream, head, body, fragment)
            }
            Response::Compacted { watch, compact } => {
                if let Some(swallowed) = &mut self.swallowed {
                    swallowed.push((stream, watch, compact));
                    return Flow::Open;
                }
                let response = WatchResponse {
                    header: header(Revision(0)),
                    watch_id: watch.0,
                    canceled: true,
                    compact_revision: compact.0,
                    ..WatchResponse::default()
                };
                self.push(stream, response)
            }
            Response::Progress { watch, revision } => {
                let response = WatchResponse {
                    header: header(revision),
                    watch_id: watch.0,
                    ..WatchResponse::default()
                };
                self.push(stream, response)
            }
        }
    }
}

/// The watch streams of one process.
pub(crate) struct Watches {
    hub: WatchHub,
    outs: Outs,
    kicked: bool,
    /// Streams that go on once there is time.
    resuming: Vec<StreamId>,
    jobs: Vec<(ReadJob, Arc<MemberView>)>,
    /// What planted re-creations need.
    requests: Vec<(StreamId, WatchId, WatchCreateRequest)>,
}

impl Watches {
    pub(crate) fn new(
        view: &MemberView,
        window: usize,
        fragment_bytes: usize,
        plant: Option<Plant>,
    ) -> Self {
        let swallowed = (plant == Some(Plant::SkippedTombstone)).then(Vec::new);
        Self {
            hub: WatchHub::new(view.store.revision(), crate::process::hash_seed()),
            outs: Outs { outs: Vec::new(), window, fragment_bytes, swallowed },
            kicked: false,
            resuming: Vec::new(),
            jobs: Vec::new(),
            requests: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self) -> StreamId {
        let id = self.hub.open();
        if self.outs.outs.len() <= id.0 as usize {
            self.outs.outs.resize_with(id.0 as usize + 1, Out::default);
        }
        self.outs.outs[id.0 as usize] = Out { responses: VecDeque::new(), open: true };
        id
    }

    pub(crate) fn close(&mut self, stream: StreamId) {
        self.hub.close(stream);
        self.outs.outs[stream.0 as usize] = Out::default();
        self.resuming.retain(|s| *s != stream);
        self.requests.retain(|(s, ..)| *s != stream);
    }

    /// Makes a watch; its id, if there is one, comes back and in the first response.
    pub(crate) fn create(
        &mut self,
        view: &MemberView,
        stream: StreamId,
        request: &WatchCreateRequest,
    ) -> Option<WatchId> {
        let revision = view.store.revision();
        let created = self.hub.create(stream, translate(request), revision);
        let mut response =
            WatchResponse { created: true, header: header(revision), ..WatchResponse::default() };
        match &created {
            Ok(id) => {
                response.watch_id = id.0;
                self.requests.push((stream, *id, request.clone()));
            }
            Err(refused) => {
                (response.watch_id, response.canceled) = (-1, true);
                response.cancel_reason = refused.to_string();
            }
        }
        if self.outs.push(stream, response) == Flow::Full {
            self.hub.stall(stream);
        }
        self.kicked = true;
        created.ok()
    }

    pub(crate) fn want_progress(&mut self, stream: StreamId) {
        self.hub.want_progress(stream);
        self.kicked = true;
    }

    /// Tells the progress of watches that wish it and were quiet.
    pub(crate) fn tick(&mut self) {
        for stream in 0..u32::try_from(self.outs.outs.len()).expect("few streams") {
            if self.outs.outs[stream as usize].open {
                self.hub.tick(StreamId(stream), &mut self.outs);
            }
        }
    }

    /// Whether the driver has something to do with this View.
    pub(crate) fn has_news(&self, view: &MemberView) -> bool {
        let behind = self.hub.synced() > 0 && view.store.revision() > self.hub.revision();
        self.kicked || behind || !self.resuming.is_empty()
    }

    /// One turn of the driver, or of a stream that goes on.
    pub(crate) fn turn(&mut self, view: &Arc<MemberView>, entropy: &mut SplitMix) {
        let budget = 1 + entropy.below(40) as usize;
        if !self.resuming.is_empty() && entropy.below(2) == 0 {
            let at = entropy.below(self.resuming.len() as u64) as usize;
            let stream = self.resuming.swap_remove(at);
            match self.hub.resume(stream, &view.store, budget, &mut self.outs) {
                Resumed::More => self.resuming.push(stream),
                Resumed::Synced | Resumed::Full => self.kicked = true,
            }
            return;
        }
        self.kicked = false;
        if self.hub.advance(&view.store, budget, &mut self.outs) == Step::More {
            self.kicked = true;
            return;
        }
        while self.jobs.len() < MAX_JOBS {
            match self.hub.catch_up(&view.store, budget, &mut self.outs) {
                CatchUp::Job(job) => self.jobs.push((job, Arc::clone(view))),
                CatchUp::More => {
                    self.kicked = true;
                    break;
                }
                CatchUp::Idle => break,
            }
        }
        self.revive_swallowed();
    }

    /// Planted: a watch that a compaction has cancelled goes on behind the compaction.
    fn revive_swallowed(&mut self) {
        let Some(swallowed) = &mut self.outs.swallowed else { return };
        for (stream, id, compact) in std::mem::take(swallowed) {
            let known = self.requests.iter().find(|(s, i, _)| (*s, *i) == (stream, id));
            let Some((_, _, request)) = known else { continue };
            let mut create = translate(request);
            (create.start, create.id) = (compact, id);
            self.hub.cancel(stream, id);
            // The id 0 would ask for any: those watches stay silent, which is a loss as well.
            let _ = self.hub.create(stream, create, self.hub.revision());
            self.kicked = true;
        }
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Runs one job on the pool.
    pub(crate) fn run_job(&mut self, view: &MemberView, entropy: &mut SplitMix) {
        let at = entropy.below(self.jobs.len() as u64) as usize;
        let (job, old) = self.jobs.swap_remove(at);
        let id = job.id;
        match job.run(&MayBlock::on_this_thread(), &old.store) {
            Ok(chunk) => self.hub.finish(chunk, &view.store, &mut self.outs),
            // The disk has failed: the process is about to end.
            Err(_) => drop(self.hub.failed(id)),
        }
        self.kicked = true;
    }

    /// The client takes a response from its stream.
    pub(crate) fn take(&mut self, stream: StreamId) -> Option<WatchResponse> {
        let out = &mut self.outs.outs[stream.0 as usize];
        let response = out.responses.pop_front()?;
        if out.responses.is_empty() && !self.resuming.contains(&stream) {
            self.resuming.push(stream);
        }
        Some(response)
    }
}

fn translate(request: &WatchCreateRequest) -> Create {
    let has = |filter: FilterType| request.filters.contains(&(filter as i32));
    Create {
        filter: Filter { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) },
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        start: Revision(request.start_revision),
        id: WatchId(request.watch_id),
        prev_kv: request.prev_kv,
        progress_notify: request.progress_notify,
        fragment: request.fragment,
    }
}
