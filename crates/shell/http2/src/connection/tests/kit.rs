//! A protocol that keeps everything, a client that writes frames by hand, and frames as text.

use std::sync::LazyLock;

use crate::connection::Connection;
use crate::frame::{self, HEAD, Head, flag, kind};
use crate::{
    Code, End, Event, Fatal, Field, Limits, PREFACE, Protocol, ResponseHead, StaticTags, StreamKey,
    Verdict,
};

/// A field's name and value.
pub(super) type NameValue = (Vec<u8>, Vec<u8>);

/// Keeps all fields. `x-refuse` is refused, `connection` is malformed.
#[derive(Debug)]
pub(super) struct Plain;

impl Protocol for Plain {
    type Tag = usize;
    type Head = Vec<NameValue>;
    type Slot = &'static str;

    fn tag(name: &[u8], value: &[u8]) -> usize {
        1_000 * name.len() + value.len()
    }

    fn static_tags() -> &'static StaticTags<usize> {
        static TAGS: LazyLock<StaticTags<usize>> = LazyLock::new(StaticTags::of::<Plain>);
        &TAGS
    }

    fn field(head: &mut Self::Head, tag: &usize, name: &[u8], value: &[u8]) {
        assert_eq!(*tag, Self::tag(name, value));
        head.push((name.to_vec(), value.to_vec()));
    }

    fn judge(head: &Self::Head) -> Verdict {
        let has = |wanted: &str| head.iter().any(|(name, _)| name == wanted.as_bytes());
        match () {
            () if has("connection") => Verdict::Reset(Code::PROTOCOL_ERROR),
            () if has("x-refuse") => Verdict::Refuse,
            () => Verdict::Serve,
        }
    }
}

pub(super) fn framed(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::head(&mut out, payload.len(), kind, flags, id);
    out.extend_from_slice(payload);
    out
}

pub(super) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    framed(kind::SETTINGS, 0, 0, &payload)
}

pub(super) fn window_update(id: u32, increment: u32) -> Vec<u8> {
    framed(kind::WINDOW_UPDATE, 0, id, &increment.to_be_bytes())
}

pub(super) fn rst_stream(id: u32, code: u32) -> Vec<u8> {
    framed(kind::RST_STREAM, 0, id, &code.to_be_bytes())
}

pub(super) fn data(id: u32, body: &[u8]) -> Vec<u8> {
    framed(kind::DATA, 0, id, body)
}

pub(super) fn last_data(id: u32, body: &[u8]) -> Vec<u8> {
    framed(kind::DATA, flag::END_STREAM, id, body)
}

/// A header block of literals.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        crate::hpack::Encoder::timeless(&mut out, &Field::literal(name, value));
    }
    out
}

/// `:method: POST`, `:scheme: http`, `:path: /`.
pub(super) const POST: &[u8] = &[0x83, 0x86, 0x84];

pub(super) fn headers(id: u32, block: &[u8]) -> Vec<u8> {
    framed(kind::HEADERS, flag::END_HEADERS, id, block)
}

/// A request without a body that waits for nothing.
pub(super) fn whole_headers(id: u32) -> Vec<u8> {
    framed(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, POST)
}

pub(super) const OK: ResponseHead<'static> =
    ResponseHead { status: 200, fields: &[Field::indexed(b"content-type", b"application/grpc")] };
pub(super) const DONE: &[Field<'static>] = &[Field::indexed(b"grpc-status", b"0")];

/// A connection and its client.
pub(super) struct Client {
    pub(super) server: Connection<Plain>,
    input: Vec<u8>,
    pub(super) failed: Option<Fatal>,
}

impl Client {
    /// A client that has sent its preface and these settings, and has read the answer.
    pub(super) fn with(limits: Limits, first: &[(u16, u32)]) -> Self {
        let mut client = Self::silent(limits);
        client.server.out().clear();
        client.send(&PREFACE[..]);
        client.send(&settings(first));
        assert_eq!(client.said(), ["SETTINGS ack"]);
        client
    }

    pub(super) fn new() -> Self {
        Self::with(Limits::default(), &[])
    }

    /// A client that has sent nothing.
    pub(super) fn silent(limits: Limits) -> Self {
        Self { server: Connection::new(limits), input: Vec::new(), failed: None }
    }

    /// Sends bytes; the events they lead to, as text.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Vec<String> {
        self.send_with(bytes, |_, _| {})
    }

    /// Sends bytes; `react` may answer each event.
    pub(super) fn send_with(
        &mut self,
        bytes: &[u8],
        mut react: impl FnMut(&mut Connection<Plain>, &Event<'_, Plain>),
    ) -> Vec<String> {
        self.input.extend_from_slice(bytes);
        let (mut events, mut input) = (Vec::new(), &self.input[..]);
        loop {
            match self.server.next(&mut input) {
                Ok(Some(event)) => {
                    events.push(event_text(&event));
                    react(&mut self.server, &event);
                }
                Ok(None) => break,
                Err(fatal) => {
                    assert_eq!(self.server.next(&mut input).unwrap_err(), fatal);
                    self.failed = Some(fatal);
                    break;
                }
            }
        }
        self.input = input.to_vec();
        events
    }

    /// Sends a request of one frame; its stream, which is open and waits for an answer.
    pub(super) fn begin(&mut self, id: u32) -> StreamKey {
        let mut found = None;
        self.send_with(&whole_headers(id), |server, event| match event {
            Event::Head { stream, .. } => {
                assert!(server.set_slot(*stream, "slot").is_none());
                found = Some(*stream);
            }
            event => panic!("{event:?}"),
        });
        found.expect("the request was taken")
    }

    /// What the server said since, as text.
    pub(super) fn said(&mut self) -> Vec<String> {
        frame_texts(&std::mem::take(self.server.out()))
    }

    /// Bytes of DATA that the server sent since.
    pub(super) fn received(&mut self) -> usize {
        let said = std::mem::take(self.server.out());
        frames(&said).filter(|(head, _)| head.kind == kind::DATA).map(|(head, _)| head.length).sum()
    }

    pub(super) fn begin_answer(&mut self, id: u32) -> StreamKey {
        let stream = self.begin(id);
        self.server.headers(stream, &OK, End::Open);
        stream
    }
}

/// The frames in some bytes, which must be whole.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (Head, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let head = Head::read(bytes).expect("a whole head");
        let payload = &bytes[HEAD..HEAD + head.length];
        bytes = &bytes[HEAD + head.length..];
        Some((head, payload))
    })
}

pub(super) fn frame_texts(bytes: &[u8]) -> Vec<String> {
    frames(bytes).map(|(head, payload)| frame_text(head, payload)).collect()
}

fn frame_text(head: Head, payload: &[u8]) -> String {
    let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    let end = if head.has(flag::END_STREAM) { " end" } else { "" };
    let id = head.id;
    match head.kind {
        kind::DATA => format!("DATA {id} {}{end}", payload.len()),
        kind::HEADERS => format!("HEADERS {id}{end}"),
        kind::CONTINUATION => format!("CONTINUATION {id}"),
        kind::RST_STREAM => format!("RST_STREAM {id} {:?}", Code(number(0))),
        kind::SETTINGS if head.has(flag::ACK) => "SETTINGS ack".to_owned(),
        kind::SETTINGS => {
            let (settings, _) = payload.as_chunks::<6>();
            let texts = settings
                .iter()
                .map(|[_, name, value @ ..]| format!(" {name}={}", u32::from_be_bytes(*value)));
            format!("SETTINGS{}", texts.collect::<String>())
        }
        kind::PING if head.has(flag::ACK) => format!("PING ack {payload:?}"),
        kind::PING => format!("PING {payload:?}"),
        kind::GOAWAY => {
            let debug = String::from_utf8_lossy(&payload[8..]);
            format!("GOAWAY {} {:?} {debug}", number(0), Code(number(4)))
        }
        kind::WINDOW_UPDATE => format!("WINDOW_UPDATE {id} {}", number(0)),
        other => format!("kind {other}"),
    }
}

pub(super) fn event_text(event: &Event<'_, Plain>) -> String {
    let end_text = |end: &bool| if *end { " end" } else { "" };
    match event {
        Event::Whole { stream, body, .. } => format!("whole {} {}", stream.id(), body.len()),
        Event::Head { stream, end, .. } => format!("head {}{}", stream.id(), end_text(end)),
        Event::Data { stream, body, end } => {
            format!("data {} {}{}", stream.id(), body.len(), end_text(end))
        }
        Event::Reset { stream, code, slot } => {
            format!("reset {} {code:?} {}", stream.id(), slot.unwrap_or("-"))
        }
        Event::Writable { stream } => format!("writable {}", stream.id()),
        Event::Ping { forgiven } => format!("ping {}", if *forgiven { "forgiven" } else { "-" }),
        Event::Pong(data) => format!("pong {data:?}"),
    }
}
