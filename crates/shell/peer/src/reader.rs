//! A stream that we open to be sent messages: dial, ask, read until it ends, again.
//!
//! Invariant: attempts to one peer are at least [`REDIAL`] apart.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/stream.go#streamReader

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::time::{MissedTickBehavior, interval};
use types::{MemberId, Url};

use crate::codec::{AppendDecoder, Broken, Heard, MessageDecoder};
use crate::core::Core;
use crate::event::{Channel, Event, Side};
use crate::headers::{CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION, RAFT_TO};
use crate::link::{Link, LinkError, compact, read_body};
use crate::picker::Picker;

/// Time between the beginnings of two attempts.
pub(crate) const REDIAL: Duration = Duration::from_millis(100);
/// Bytes of a refusal's text.
const REFUSAL_BYTES: usize = 64 * 1024;

/// The path of a stream, without the reader's id.
pub(crate) fn path(channel: Channel) -> &'static str {
    match channel {
        Channel::Appends => "/raft/stream/msgapp",
        _ => "/raft/stream/message",
    }
}

enum Decoder {
    Appends(AppendDecoder),
    Messages(MessageDecoder),
}

impl Decoder {
    fn feed(&mut self, piece: Bytes) {
        match self {
            Decoder::Appends(decoder) => decoder.feed(piece),
            Decoder::Messages(decoder) => decoder.feed(piece),
        }
    }

    fn next(&mut self) -> Result<Option<Heard>, Broken> {
        match self {
            Decoder::Appends(decoder) => decoder.next(),
            Decoder::Messages(decoder) => decoder.next(),
        }
    }
}

/// Why a stream did not come about.
enum NoStream {
    Failed(String),
    /// The peer's machine says that no process has the port.
    NobodyListens(String),
    /// The peer is too old for streams: messages go by requests.
    Unsupported,
}

impl<E: Into<LinkError>> From<E> for NoStream {
    fn from(error: E) -> Self {
        let error = error.into();
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let reason = describe(&*error);
        match kind {
            Some(std::io::ErrorKind::ConnectionRefused) => NoStream::NobodyListens(reason),
            _ => NoStream::Failed(reason),
        }
    }
}

/// An error with its causes.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Reads one of a peer's streams for as long as it is a peer.
pub(crate) async fn run(core: Rc<Core>, peer: MemberId, picker: Rc<Picker>, channel: Channel) {
    let mut pace = interval(REDIAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        match open(&core, peer, &picker, channel).await {
            Ok((link, body)) => {
                core.activate(peer);
                core.event(Event::StreamEstablished(peer, channel, Side::Reader));
                let end = listen(&core, peer, channel, link, body).await;
                let reason = end.as_ref().err().map_or("EOF", String::as_str);
                core.event(Event::StreamLost(peer, channel, Side::Reader, reason));
                if end.is_err() {
                    core.deactivate(peer, channel, "read", reason);
                }
            }
            Err(NoStream::Unsupported) => {}
            Err(NoStream::Failed(reason)) => core.deactivate(peer, channel, "dial", &reason),
            Err(NoStream::NobodyListens(reason)) => {
                core.deactivate(peer, channel, "dial", &reason);
                if picker.all().len() == 1 {
                    core.member.ended(peer);
                }
            }
        }
    }
}

type StreamLink = Link<Empty<Bytes>>;

async fn open(
    core: &Core,
    peer: MemberId,
    picker: &Picker,
    channel: Channel,
) -> Result<(StreamLink, Incoming), NoStream> {
    let url = picker.pick();
    let opened = try_open(core, peer, &url, channel).await;
    if opened.is_err() {
        picker.failed(&url);
    }
    opened
}

async fn try_open(
    core: &Core,
    peer: MemberId,
    url: &Url,
    channel: Channel,
) -> Result<(StreamLink, Incoming), NoStream> {
    let (read, write) = (core.config.read_timeout, core.config.write_timeout);
    let mut link = StreamLink::open(&core.dialer, url, Some(read), Some(write)).await?;
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("{}/{}", path(channel), core.config.id))
        .header(RAFT_TO, peer.to_string())
        .body(Empty::new())?;
    core.identity.stamp(request.headers_mut());
    let (head, body) = link.send(request).await?.into_parts();
    if !core.identity.has_streams(&head.headers) {
        return Err(NoStream::Unsupported);
    }
    if head.status == StatusCode::OK {
        return Ok((link, body));
    }
    let text = link.drive(read_body(body, REFUSAL_BYTES)).await?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches('\n');
    core.event(Event::RejectedBy(peer, text));
    Err(NoStream::Failed(match head.status {
        StatusCode::GONE => {
            core.member.removed();
            "the member has been permanently removed from the cluster".to_owned()
        }
        StatusCode::NOT_FOUND => {
            format!("peer {peer} failed to find local node {}", core.config.id)
        }
        StatusCode::PRECONDITION_FAILED => match text {
            INCOMPATIBLE_VERSION | CLUSTER_ID_MISMATCH => text.to_owned(),
            other => format!("unhandled error {other:?} when precondition failed"),
        },
        other => format!("unhandled http status {}", other.as_u16()),
    }))
}

async fn listen(
    core: &Core,
    peer: MemberId,
    channel: Channel,
    mut link: StreamLink,
    mut body: Incoming,
) -> Result<(), String> {
    let mut decoder = match channel {
        Channel::Appends => Decoder::Appends(AppendDecoder::new(core.config.id, peer)),
        _ => Decoder::Messages(MessageDecoder::new()),
    };
    // What one piece of the body holds.
    let mut heard = Vec::new();
    while let Some(frame) = link.drive(body.frame()).await {
        let frame = frame.map_err(|e| describe(&e))?;
        let Ok(piece) = frame.into_data() else { continue };
        decoder.feed(compact(piece));
        let mut received = 0;
        let broken = loop {
            match decoder.next() {
                Ok(Some(Heard::Message(message, bytes))) => {
                    received += bytes as u64;
                    heard.push(message);
                }
                Ok(Some(Heard::LinkHeartbeat)) => {}
                Ok(Some(Heard::Nonsense(nonsense))) => {
                    core.event(Event::Ignored(peer, &format!("{nonsense:?}")));
                }
                Ok(None) => break None,
                Err(broken) => break Some(broken),
            }
        };
        raft::order_appends(&mut heard, |message| Some(message));
        for message in heard.drain(..) {
            // What was refused is lost, as if by the network.
            let _ = core.deliver(message);
        }
        if received > 0 {
            core.event(Event::Received(peer, received));
        }
        if let Some(broken) = broken {
            return Err(broken.to_string());
        }
    }
    Ok(())
}
