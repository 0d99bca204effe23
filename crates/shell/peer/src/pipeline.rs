//! One request per message: for a peer whose stream is not there yet, and for remotes.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/pipeline.go#pipeline

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use raft::{Body, Message};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use types::{MemberId, Url};

use crate::core::Core;
use crate::event::{Channel, Event};
use crate::headers::{CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION};
use crate::link::{Link, repeatable};
use crate::picker::Picker;
use crate::reader::describe;
use crate::tasks;

/// Requests at once.
const WORKERS: usize = 4;
/// Messages that wait.
const QUEUED_MESSAGES: usize = 64;
/// Time for one message. Ours: etcd waits for ever.
const POST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer, which is a text if any.
const ANSWER_BYTES: usize = 64 * 1024;

/// A queue and its workers.
pub(crate) struct Pipeline {
    core: Rc<Core>,
    peer: MemberId,
    picker: Rc<Picker>,
    queue: RefCell<VecDeque<Message>>,
    waiting: Notify,
    workers: RefCell<Vec<AbortHandle>>,
    stopped: Cell<bool>,
    /// Whether raft is told what became of messages: not for remotes' full queues.
    is_peer: bool,
}

impl Pipeline {
    pub(crate) fn start(
        core: Rc<Core>,
        peer: MemberId,
        picker: Rc<Picker>,
        is_peer: bool,
    ) -> Rc<Self> {
        let pipeline = Rc::new(Self {
            core,
            peer,
            picker,
            queue: RefCell::default(),
            waiting: Notify::new(),
            workers: RefCell::default(),
            stopped: Cell::new(false),
            is_peer,
        });
        let workers =
            (0..WORKERS).map(|_| tasks::spawn(&pipeline.core, Rc::clone(&pipeline).work()));
        *pipeline.workers.borrow_mut() = workers.collect();
        pipeline
    }

    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        self.queue.borrow_mut().clear();
        self.workers.take().iter().for_each(AbortHandle::abort);
    }

    /// Queues a message; whether there was room.
    pub(crate) fn push(&self, message: Message) -> bool {
        let mut queue = self.queue.borrow_mut();
        if self.stopped.get() || queue.len() >= QUEUED_MESSAGES {
            return false;
        }
        queue.push_back(message);
        self.waiting.notify_one();
        true
    }

    async fn next(&self) -> Message {
        loop {
            let message = self.queue.borrow_mut().pop_front();
            if let Some(message) = message {
                return message;
            }
            self.waiting.notified().await;
        }
    }

    async fn work(self: Rc<Self>) {
        let mut kept = None;
        loop {
            let message = self.next().await;
            let is_snapshot = matches!(message.body, Body::Snapshot { .. });
            let bytes = Bytes::from(message.encode());
            drop(message);
            let len = bytes.len() as u64;
            let url = self.picker.pick();
            let outcome = tokio::time::timeout(POST_TIMEOUT, self.post(&mut kept, &url, bytes));
            let outcome = outcome.await.unwrap_or_else(|_| {
                kept = None;
                Err("no answer in time".to_owned())
            });
            match outcome {
                Ok(()) => {
                    self.core.activate(self.peer);
                    self.core.event(Event::Sent(self.peer, len));
                }
                Err(reason) => {
                    self.picker.failed(&url);
                    self.core.deactivate(self.peer, Channel::Pipeline, "write", &reason);
                    self.core.event(Event::SendFailed(self.peer, Channel::Pipeline));
                    self.core.member.unreachable(self.peer);
                    if is_snapshot {
                        self.core.member.snapshot_sent(self.peer, false);
                    }
                    continue;
                }
            }
            if is_snapshot && self.is_peer {
                self.core.member.snapshot_sent(self.peer, true);
            }
        }
    }

    /// Posts a message, which may arrive twice.
    async fn post(
        &self,
        kept: &mut Option<(Url, Link<Full<Bytes>>)>,
        url: &Url,
        bytes: Bytes,
    ) -> Result<(), String> {
        let link = kept.take().filter(|(to, _)| to == url).map(|(_, link)| link);
        let content_type = "application/protobuf";
        let request = post_request(&self.core, "/raft", content_type, Full::new(bytes));
        let exchanged = repeatable(link, &self.core.dialer, url, &request, ANSWER_BYTES).await;
        let (answer, link) = exchanged.map_err(|e| describe(&*e))?;
        *kept = Some((url.clone(), link));
        self.judge(&answer)
    }

    fn judge(&self, answer: &Response<Bytes>) -> Result<(), String> {
        judge(&self.core, self.peer, answer.status(), answer.body())
    }
}

/// A request to another member's raft.
pub(crate) fn post_request<B>(
    core: &Core,
    path: &'static str,
    content_type: &'static str,
    body: B,
) -> Request<B> {
    let mut headers = HeaderMap::new();
    core.identity.stamp(&mut headers);
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.headers_mut() = headers;
    request
}

/// What an answer to a message means.
//= etcd 3.7.1: server/etcdserver/api/rafthttp/util.go#checkPostResponse
pub(crate) fn judge(
    core: &Core,
    peer: MemberId,
    status: StatusCode,
    body: &[u8],
) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_end_matches('\n');
    match status {
        StatusCode::NO_CONTENT => return Ok(()),
        StatusCode::FORBIDDEN => {
            core.event(Event::RejectedBy(peer, text));
            core.member.removed();
            return Err("the member has been permanently removed from the cluster".to_owned());
        }
        StatusCode::PRECONDITION_FAILED => {}
        other => {
            let reason = other.canonical_reason().unwrap_or_default();
            return Err(format!("unexpected http status {reason} while posting to {peer}"));
        }
    }
    core.event(Event::RejectedBy(peer, text));
    Err(match text {
        INCOMPATIBLE_VERSION | CLUSTER_ID_MISMATCH => text.to_owned(),
        other => format!("unhandled error {other:?} when precondition failed"),
    })
}
