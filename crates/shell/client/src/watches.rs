//! Watches over one stream, which go on where they were when the stream breaks.
//!
//! [`WatchTable`] is the protocol, without I/O: what is to be sent, and what an answer means.
//! [`Watches`] drives it over a [`Client`].
//!
//! Invariant: a watch that is created again begins behind the last revision that it told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::error::{ApiError, Code};
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use bytes::Bytes;

use crate::call::{Client, Leader, Stream};
use crate::error::Error;

/// What a server answers to requests for progress: they are of all watches.
const ALL_WATCHES: i64 = -1;

/// Time between a broken stream and the next.
const BACKOFF: Duration = Duration::from_millis(100);

/// A watch of a [`WatchTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchKey(u64);

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Events, or progress. After one that is canceled the watch is over.
    Response(WatchKey, WatchResponse),
    /// The stream ended for good, and the watch with it.
    Ended(WatchKey, Error),
}

#[derive(Debug)]
struct Watch {
    /// With the revision from which it goes on.
    request: WatchCreateRequest,
    /// Its id on this stream, once the server has said it.
    id: Option<i64>,
}

/// Watches and their states, without I/O.
///
/// A watch is created after the one before it was answered, as etcd's client does it: answers are
/// told apart by their order.
#[derive(Debug, Default)]
pub struct WatchTable {
    watches: BTreeMap<WatchKey, Watch>,
    next: u64,
    /// Watches that are to be created, in order. The first may have been sent.
    creating: VecDeque<WatchKey>,
    is_first_sent: bool,
    wants_progress: bool,
}

impl WatchTable {
    /// Adds a watch.
    pub fn add(&mut self, request: WatchCreateRequest) -> WatchKey {
        let key = WatchKey(self.next);
        self.next += 1;
        self.watches.insert(key, Watch { request, id: None });
        self.creating.push_back(key);
        key
    }

    /// Asks for the progress of all watches.
    pub fn ask_for_progress(&mut self) {
        self.wants_progress = true;
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.watches.is_empty() && !self.wants_progress
    }

    /// The next message to send; [`WatchTable::sent`] says that it went out.
    #[must_use]
    pub fn wanted(&self) -> Option<WatchRequest> {
        let union = match self.creating.front() {
            Some(key) if !self.is_first_sent => {
                RequestUnion::CreateRequest(self.watches.get(key)?.request.clone())
            }
            _ if self.wants_progress => RequestUnion::ProgressRequest(WatchProgressRequest {}),
            _ => return None,
        };
        Some(WatchRequest { request_union: Some(union) })
    }

    /// The wanted message was sent.
    pub fn sent(&mut self) {
        if !self.creating.is_empty() && !self.is_first_sent {
            self.is_first_sent = true;
        } else {
            self.wants_progress = false;
        }
    }

    /// Takes a response, and says what it tells to whom.
    pub fn received(&mut self, response: WatchResponse) -> Vec<Told> {
        let revision = response.header.map_or(0, |h| h.revision);
        if response.created {
            return self.created(response, revision);
        }
        if response.watch_id == ALL_WATCHES && response.events.is_empty() && !response.canceled {
            let known = self.watches.iter_mut().filter(|(_, watch)| watch.id.is_some());
            let tell = |(key, watch): (&WatchKey, &mut Watch)| {
                watch.request.start_revision =
                    watch.request.start_revision.max(revision.saturating_add(1));
                Told::Response(*key, response.clone())
            };
            return known.map(tell).collect();
        }
        let found = self.watches.iter_mut().find(|(_, w)| w.id == Some(response.watch_id));
        let Some((&key, watch)) = found else { return Vec::new() };
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        let next = last.map_or(revision, |kv| kv.mod_revision).saturating_add(1);
        if response.canceled {
            self.watches.remove(&key);
        } else {
            watch.request.start_revision = watch.request.start_revision.max(next);
        }
        vec![Told::Response(key, response)]
    }

    fn created(&mut self, response: WatchResponse, revision: i64) -> Vec<Told> {
        if !self.is_first_sent {
            return Vec::new();
        }
        self.is_first_sent = false;
        let Some(key) = self.creating.pop_front() else { return Vec::new() };
        if response.canceled {
            self.watches.remove(&key);
            return vec![Told::Response(key, response)];
        }
        if let Some(watch) = self.watches.get_mut(&key) {
            watch.id = Some(response.watch_id);
            if watch.request.start_revision == 0 {
                watch.request.start_revision = revision.saturating_add(1);
            }
        }
        Vec::new()
    }

    /// The stream broke: every watch is to be created again.
    pub fn broke(&mut self) {
        self.is_first_sent = false;
        self.watches.values_mut().for_each(|watch| watch.id = None);
        self.creating = self.watches.keys().copied().collect();
    }

    /// The stream ended for good.
    pub fn ended(&mut self, error: &Error) -> Vec<Told> {
        self.creating.clear();
        self.is_first_sent = false;
        self.wants_progress = false;
        let gone = std::mem::take(&mut self.watches);
        gone.into_keys().map(|key| Told::Ended(key, error.clone())).collect()
    }
}

/// Whether watches go on over another stream after this error.
//= etcd 3.7.3: client/v3/client.go#isHaltErr
fn resumes(error: &Error) -> bool {
    match error {
        Error::Broken(_) => true,
        Error::Status(status) => {
            !error.is(ApiError::NoLeader)
                && matches!(status.code, Code::Unavailable | Code::Internal)
        }
        _ => false,
    }
}

/// Whether an event is the end of a key.
#[must_use]
pub fn is_delete(event: &Event) -> bool {
    event.r#type == EventType::Delete as i32
}

/// Why a watch was canceled, in the words of etcd's client.
//= etcd 3.7.3: client/v3/watch.go#Err
#[must_use]
pub fn why_canceled(response: &WatchResponse) -> String {
    if response.compact_revision != 0 {
        return ApiError::Compacted.text().to_owned();
    }
    if response.cancel_reason.is_empty() {
        return ApiError::FutureRevision.text().to_owned();
    }
    response.cancel_reason.clone()
}

/// The first key after all that begin with `prefix`; `\0` (no end) if there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// Watches over one stream of a client.
#[derive(Debug)]
pub struct Watches<'a> {
    client: &'a Client,
    leader: Leader,
    table: WatchTable,
    stream: Option<Stream>,
    told: VecDeque<Told>,
}

impl<'a> Watches<'a> {
    /// No watches yet. `leader` says whether they end where a member has no leader.
    #[must_use]
    pub fn new(client: &'a Client, leader: Leader) -> Self {
        let (table, stream, told) = (WatchTable::default(), None, VecDeque::new());
        Self { client, leader, table, stream, told }
    }

    /// Adds a watch. It is created while [`Watches::next`] is awaited.
    pub fn add(&mut self, request: WatchCreateRequest) -> WatchKey {
        self.table.add(request)
    }

    /// Asks for the progress of all watches.
    pub fn ask_for_progress(&mut self) {
        self.table.ask_for_progress();
    }

    /// The next response of any watch. Waits for ever if there is no watch. It may be dropped and
    /// called again: nothing is lost.
    pub async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            if self.table.is_idle() && self.stream.is_none() {
                std::future::pending::<()>().await;
            }
            let Err(error) = self.turn().await else { continue };
            self.stream = None;
            if !resumes(&error) {
                self.told.extend(self.table.ended(&error));
                continue;
            }
            self.table.broke();
            tokio::time::sleep(BACKOFF).await;
        }
    }

    /// Sends what is wanted, and takes one response.
    async fn turn(&mut self) -> Result<(), Error> {
        while let Some(request) = self.table.wanted() {
            match &mut self.stream {
                Some(stream) => stream.send(&request)?,
                None => {
                    let opened = self.client.watch_stream(&request, self.leader).await?;
                    self.stream = Some(opened);
                }
            }
            self.table.sent();
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let response = stream.next::<WatchResponse>(None).await?;
        let response = response.ok_or_else(|| Error::Broken("the stream ended".to_owned()))?;
        self.told.extend(self.table.received(response));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::ResponseHeader;
    use api::mvccpb::KeyValue;

    use super::*;

    fn request(key: &'static str, start_revision: i64) -> WatchCreateRequest {
        let key = bytes::Bytes::from_static(key.as_bytes());
        WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() }
    }

    fn response(watch_id: i64, revision: i64) -> WatchResponse {
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        WatchResponse { header, watch_id, ..WatchResponse::default() }
    }

    fn created(watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse { created: true, ..response(watch_id, revision) }
    }

    fn event(watch_id: i64, mod_revision: i64) -> WatchResponse {
        let kv = Some(KeyValue { mod_revision, ..KeyValue::default() });
        let events = vec![Event { kv, ..Event::default() }];
        WatchResponse { events, ..response(watch_id, mod_revision) }
    }

    /// What is sent: key and revision of a create, or nothing for a request for progress.
    fn send(table: &mut WatchTable) -> Vec<Option<(String, i64)>> {
        let mut sent = Vec::new();
        while let Some(request) = table.wanted() {
            table.sent();
            sent.push(match request.request_union {
                Some(RequestUnion::CreateRequest(r)) => {
                    Some((String::from_utf8_lossy(&r.key).into_owned(), r.start_revision))
                }
                _ => None,
            });
        }
        sent
    }

    fn create(key: &str, revision: i64) -> Option<(String, i64)> {
        Some((key.to_owned(), revision))
    }

    #[test]
    fn a_prefix_ends_where_its_last_small_byte_grows() {
        assert_eq!(prefix_end(b"ab"), &b"ac"[..]);
        assert_eq!(prefix_end(b"a\xff\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff"), &b"\0"[..]);
    }

    #[test]
    fn watches_are_created_one_after_another() {
        let mut table = WatchTable::default();
        let (a, b) = (table.add(request("a", 0)), table.add(request("b", 7)));
        assert_eq!(send(&mut table), [create("a", 0)]);
        assert_eq!(table.received(created(3, 9)), []);
        assert_eq!(send(&mut table), [create("b", 7)]);
        assert_eq!(table.received(event(3, 10)), [Told::Response(a, event(3, 10))]);
        assert_eq!(table.received(created(4, 9)), []);
        assert_eq!(table.received(event(4, 8)), [Told::Response(b, event(4, 8))]);
    }

    #[test]
    fn a_broken_stream_goes_on_behind_what_was_told() {
        let mut table = WatchTable::default();
        table.add(request("a", 0));
        table.add(request("b", 7));
        send(&mut table);
        table.received(created(0, 9));
        send(&mut table);
        table.received(created(1, 9));
        table.received(event(1, 12));
        table.broke();
        assert_eq!(send(&mut table), [create("a", 10)]);
        // What the old stream still says is of nobody.
        assert_eq!(table.received(event(1, 13)), []);
        table.received(created(0, 20));
        assert_eq!(send(&mut table), [create("b", 13)]);
    }

    #[test]
    fn progress_is_told_to_all_and_moves_them() {
        let mut table = WatchTable::default();
        let a = table.add(request("a", 0));
        table.ask_for_progress();
        assert_eq!(send(&mut table), [create("a", 0), None]);
        table.received(created(0, 5));
        assert_eq!(
            table.received(response(ALL_WATCHES, 8)),
            [Told::Response(a, response(ALL_WATCHES, 8))]
        );
        table.broke();
        assert_eq!(send(&mut table), [create("a", 9)]);
    }

    #[test]
    fn a_canceled_watch_is_over_and_the_next_is_created() {
        let mut table = WatchTable::default();
        let (a, b) = (table.add(request("a", 0)), table.add(request("b", 0)));
        send(&mut table);
        let refused = WatchResponse { canceled: true, ..created(-1, 5) };
        assert_eq!(table.received(refused.clone()), [Told::Response(a, refused)]);
        assert_eq!(send(&mut table), [create("b", 0)]);
        assert_eq!(table.ended(&Error::Deadline), [Told::Ended(b, Error::Deadline)]);
        assert!(table.is_idle());
    }
}
