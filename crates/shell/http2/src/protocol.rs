//! What the layer above says about requests, and what it is told.

use crate::Code;
use crate::hpack::StaticTags;
use crate::streams::StreamKey;

/// The protocol that is spoken over HTTP/2: what header fields mean to it.
pub trait Protocol: Sized {
    /// What a field means.
    type Tag: Clone + 'static;
    /// A request's fields, as far as they matter.
    type Head: Default + Clone;
    /// What the layer above keeps with a stream.
    type Slot;

    /// What a field means. Asked once for each field that enters the dynamic table, where the tag
    /// stays: a client that repeats a field by its index costs no comparison of text.
    fn tag(name: &[u8], value: &[u8]) -> Self::Tag;

    /// The tags of HPACK's static table, made once in a process: a
    /// `static TAGS: LazyLock<StaticTags<Tag>> = LazyLock::new(StaticTags::of::<Self>)`.
    fn static_tags() -> &'static StaticTags<Self::Tag>;

    /// Adds a field to a request's head, pseudo-header fields (`:path`) among them. Names are
    /// lower-case tokens and values have no control characters but tabs; pseudo-header fields are
    /// known, come first and once, but may be missing and may be any text.
    fn field(head: &mut Self::Head, tag: &Self::Tag, name: &[u8], value: &[u8]);

    /// What becomes of a request, as far as its head alone decides. Asked when the head is complete,
    /// before the number of streams and a goodbye are looked at.
    fn judge(_head: &Self::Head) -> Verdict {
        Verdict::Serve
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is served if it may.
    Serve,
    /// The layer above refuses it with an answer: it is told even if the connection takes no new
    /// streams any more, always by [`Event::Head`] and must be answered at once, and its answer
    /// forgives no PINGs.
    //= grpc-go 1.82: internal/transport/http2_server.go#writeEarlyAbort
    Refuse,
    /// Its stream is reset; the layer above hears nothing of it.
    Reset(Code),
}

/// What [`Connection::next`](crate::Connection::next) found. Bodies borrow from the input.
#[derive(Debug)]
pub enum Event<'a, P: Protocol> {
    /// A request that is complete: headers and one DATA frame. It has no place in the table of
    /// streams: [`answer`](crate::Connection::answer) it now, or
    /// [`open`](crate::Connection::open) it.
    Whole {
        /// Its stream.
        stream: StreamKey,
        /// Its fields.
        head: P::Head,
        /// All of its body.
        body: &'a [u8],
    },
    /// A request's head. Its stream is open and has no slot yet
    /// ([`set_slot`](crate::Connection::set_slot)).
    Head {
        /// Its stream.
        stream: StreamKey,
        /// Its fields.
        head: P::Head,
        /// Whether nothing follows.
        end: bool,
    },
    /// A part of a request's body. Its bytes count against the stream's window until they are
    /// [`release`](crate::Connection::release)d.
    Data {
        /// Its stream.
        stream: StreamKey,
        /// The part, empty where only the end was sent.
        body: &'a [u8],
        /// Whether nothing follows.
        end: bool,
    },
    /// A stream is gone before its answer was complete: the client reset it, or broke the protocol
    /// on it and was told so. Only [`abandoned`](crate::Connection::abandoned) may still be called
    /// for it.
    Reset {
        /// Its stream.
        stream: StreamKey,
        /// Why.
        code: Code,
        /// Its slot, unless it was taken.
        slot: Option<P::Slot>,
    },
    /// There is room again on a stream for which [`want_room`](crate::Connection::want_room) was
    /// called: see [`room`](crate::Connection::room).
    Writable {
        /// The stream.
        stream: StreamKey,
    },
    /// A PING, which was answered already.
    Ping {
        /// Whether a HEADERS or DATA frame was put out since the last PING, which forgives it.
        //= grpc-go 1.82: internal/transport/http2_server.go#handlePing
        forgiven: bool,
    },
    /// The answer to a PING of ours.
    Pong([u8; 8]),
}

/// A field of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// A lower-case token.
    pub name: &'a [u8],
    /// Any text.
    pub value: &'a [u8],
    /// Whether the client is told to keep it.
    pub indexing: Indexing,
}

/// Whether a field goes into the client's dynamic table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// It does if there is room: from the second time on it is one byte. For the few fields that
    /// nearly every answer has.
    Indexed,
    /// It does not.
    Literal,
}

impl<'a> Field<'a> {
    /// A field that nearly every answer has, such as `content-type: application/grpc`.
    #[must_use]
    pub const fn indexed(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { name, value, indexing: Indexing::Indexed }
    }

    /// A field that belongs to one answer, such as an error's text.
    #[must_use]
    pub const fn literal(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { name, value, indexing: Indexing::Literal }
    }
}

/// A response's head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The HTTP status, 100 to 999.
    pub status: u16,
    /// What comes behind it.
    pub fields: &'a [Field<'a>],
}

/// Whether an answer ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More follows.
    Open,
    /// This was the last.
    Stream,
}

/// Which streams a GOAWAY says were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastStream {
    /// All that the client has opened or will: a first warning; new streams are still served.
    Any,
    /// Those that were seen; from now on new ones are ignored, as the client knows.
    Seen,
}
