//! A watch that begins anew behind what it has seen whenever its server goes, over and over.

use std::net::SocketAddr;
use std::time::Duration;

use api::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use model::Leg;
use prost::Message;

use super::Clock;
use crate::grpc::{Client, Stream, envelope};

/// One watch over all its connections.
pub struct Watcher {
    request: WatchCreateRequest,
    clock: Clock,
    pub(super) legs: Vec<Leg>,
}

impl Watcher {
    /// A watch that was not opened yet.
    #[must_use]
    pub fn new(request: WatchCreateRequest, clock: Clock) -> Self {
        Self { request, clock, legs: Vec::new() }
    }

    /// Where the next leg begins: behind the last event, or anew after a compaction.
    fn next_start(&self) -> i64 {
        let mut next = self.request.start_revision;
        for leg in &self.legs {
            for (_, response) in &leg.responses {
                let last = response.events.iter().filter_map(|e| e.kv.as_ref()).last();
                next = last.map_or(next, |kv| kv.mod_revision + 1);
                next = next.max(response.compact_revision);
            }
        }
        next
    }

    /// Opens the next leg; nothing if the server is gone.
    async fn open(&mut self, server: SocketAddr) -> Option<(Client, Stream)> {
        let client = Client::try_connect_to(server, 1 << 24).await.ok()?;
        let start_revision = self.next_start();
        let request = WatchCreateRequest { start_revision, ..self.request.clone() };
        let union = RequestUnion::CreateRequest(request.clone());
        let message = WatchRequest { request_union: Some(union) }.encode_to_vec();
        let opened = self.clock.now();
        self.legs.push(Leg { request, opened, responses: Vec::new(), must_reach: None });
        let body = Some(envelope(&message));
        let stream = client.try_open("/etcdserverpb.Watch/Watch", body, false).await.ok()?;
        Some((client, stream))
    }

    /// Takes the next response; nothing if the server is gone.
    async fn take(&mut self, stream: &mut Stream) -> Option<WatchResponse> {
        let bytes = stream.next_raw().await.ok()??;
        let response = WatchResponse::decode(bytes).expect("the method's message");
        let leg = self.legs.last_mut().expect("open before");
        leg.responses.push((self.clock.now(), response.clone()));
        Some(response)
    }

    /// Watches until the server is gone.
    ///
    /// # Panics
    /// If what comes is no answer to a watch.
    pub async fn run(&mut self, server: SocketAddr) {
        while let Some((_client, mut stream)) = self.open(server).await {
            // A compaction may cancel it; then it begins anew.
            loop {
                match self.take(&mut stream).await {
                    Some(response) if response.canceled => break,
                    Some(_) => {}
                    None => return,
                }
            }
        }
    }

    /// Watches until everything up to `revision` must have come, by the server's own word: a
    /// progress notification.
    ///
    /// # Panics
    /// If the server ends.
    pub async fn finish(&mut self, server: SocketAddr, revision: i64) {
        // A watch from a later revision is never told of progress, and this one has seen all.
        if self.next_start() > revision {
            return;
        }
        while let Some((_client, mut stream)) = self.open(server).await {
            self.legs.last_mut().expect("opened above").must_reach = Some(revision);
            loop {
                let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                stream.send(&WatchRequest { request_union: Some(progress) });
                let waiting = self.take(&mut stream);
                let Ok(next) = tokio::time::timeout(Duration::from_millis(100), waiting).await
                else {
                    continue;
                };
                let response = next.expect("nobody ends the server now");
                if response.canceled {
                    break;
                }
                let told = response.header.as_ref().map_or(0, |h| h.revision);
                if !response.created && response.events.is_empty() && told >= revision {
                    return;
                }
            }
        }
    }
}
