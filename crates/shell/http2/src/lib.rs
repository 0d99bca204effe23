//! The server's half of an HTTP/2 connection (RFC 9113) as an automaton: bytes in, events out, and
//! what is to be sent in one buffer. No I/O, no clock, no threads, no tasks.
//!
//! Owns: frames, header compression, windows, streams, and every limit on what a client can make a
//! connection hold or do. Never: what a request means ([`Protocol`] says that, gRPC's is in `rpc`),
//! sockets, deadlines, the policy on PINGs. Read next: [`Connection`], then [`Limits`].
//!
//! # HTTP/2 in two minutes
//!
//! One connection carries many requests at once. Everything on it is a **frame**: nine bytes of head
//! (length, kind, flags, number of a stream) and a payload of at most 16 KiB. A **stream** is one
//! request with its answer; the client numbers them 1, 3, 5 … and never uses a number again.
//! A gRPC call looks like this:
//!
//! ```text
//! client                                           server
//! preface, SETTINGS                                SETTINGS, WINDOW_UPDATE    once
//! HEADERS 1 :method=POST :path=/…KV/Put …
//! DATA 1 (a message), END_STREAM                                              the request
//!                                                  HEADERS 1 :status=200 …
//!                                                  DATA 1 (a message)
//!                                                  HEADERS 1 grpc-status=0, END_STREAM
//! ```
//!
//! - **Header blocks** are compressed (HPACK, RFC 7541): a field that was sent before is a number
//!   into a table that both sides keep. So every block must be followed, in order, even those of
//!   requests that are refused. A block that does not fit one frame goes on in CONTINUATION frames,
//!   with nothing between.
//! - **Windows**: DATA may be sent only as far as the receiver has allowed, per stream and for the
//!   connection. WINDOW_UPDATE allows more; SETTINGS_INITIAL_WINDOW_SIZE changes what every stream
//!   is allowed at first, open ones included.
//! - **RST_STREAM** ends one stream, **GOAWAY** the connection: it names the last stream that is
//!   still dealt with. An error costs its stream where the connection's state is still sound, else
//!   the connection.
//! - **PING** is answered. SETTINGS are answered when they are in force.
//!
//! # How it is driven
//!
//! ```text
//! loop {
//!     while let Some(event) = connection.next(&mut input)? { … answer, open, data … }
//!     write connection.out(); if anything was written, try next() again, else read more
//! }
//! ```
//!
//! Events borrow from the input and never from the connection, so that a call is answered while the
//! buffer is walked. All answers of one read leave in one write. What the windows do not allow yet
//! waits in its stream; long answers are better pulled: [`Connection::room`], and
//! [`Connection::want_room`] until [`Event::Writable`]. Streams take turns, a frame each.
//!
//! The usual request is one HEADERS and one DATA frame. It is told as [`Event::Whole`], and if it is
//! answered at once its stream never enters the table. A field that a client repeats costs a look
//! at a tag that was found when the field came first; a whole block that repeats costs a comparison.
//!
//! # What guards against what
//!
//! | attack | guard |
//! |---|---|
//! | opening and resetting streams (rapid reset), or making the server reset them (MadeYouReset) | a stream that is gone holds nothing; work that goes on is counted ([`Limits::abandoned_calls`]) and stops the input |
//! | CONTINUATION frames without end, empty ones | [`Limits::continuation_frames`] and one for each KiB; [`Limits::header_block_bytes`]; a block is decoded while it comes |
//! | a large list, or one byte that stands for 4 KiB (HPACK bomb) | each field is charged before it is handed on, [`Limits::header_list_bytes`]; beyond, fields are only followed |
//! | churning the table | entries' texts lie in one buffer of at most twice the table's 4 KiB |
//! | PING, SETTINGS, errors, each answered | answers count as unsent: from [`Limits::unsent_bytes`] on nothing is read |
//! | empty DATA frames | [`Limits::empty_data_frames`] in a row |
//! | windows of one byte, initial windows that are toggled | a turn is given only to who can send: O(log n) for each frame that leaves, however many wait |
//! | answers that are never read | [`Limits::held_bytes`], then new requests are refused, and [`Connection::takes_answers`] tells the layer above to make no others; pulled answers hold nothing |
//! | requests that never end | [`Limits::stream_window`]; over all streams two of [`Limits::connection_window`]; of what is released before its message is whole, the layer above bounds the sum |
//! | idle connections | [`Connection::shrink`], and [`Connection::rest`] after a while: what is left is the tables that both sides count on |
//! | many streams | [`Limits::concurrent_streams`]; an open one is some 150 bytes and its slot |
//! | stream numbers chosen to collide | there is no hash: the index is sorted, as numbers only rise |
//!
//! # Where grpc-go and the standard differ
//!
//! Clients were made for grpc-go, which does not check all that the standard demands, and ends most
//! broken connections without a word. This crate does as it does:
//!
//! | what comes | the standard | here, as grpc-go 1.82 |
//! |---|---|---|
//! | an error of the connection | GOAWAY, close | close; GOAWAY only for the number of a stream, and for our own limits |
//! | trailers of a request, a number that was used or is even | the former are allowed | GOAWAY with PROTOCOL_ERROR |
//! | DATA on a stream that has ended or never was, or whose whole answer waits for a window | STREAM_CLOSED or PROTOCOL_ERROR | ignored, but counted for the connection's window |
//! | DATA behind END_STREAM, while the answer is to come | STREAM_CLOSED | RST_STREAM with STREAM_CLOSED |
//! | RST_STREAM, WINDOW_UPDATE on a stream that never was | PROTOCOL_ERROR | ignored |
//! | WINDOW_UPDATE of 0 on such a stream | PROTOCOL_ERROR | RST_STREAM with PROTOCOL_ERROR |
//! | a window beyond 2^31-1 | FLOW_CONTROL_ERROR | tolerated |
//! | HEADERS with too much padding | PROTOCOL_ERROR, connection | RST_STREAM; the block is skipped |
//! | `:path`, `:scheme`, `:method` missing or odd, `content-length` that is wrong | malformed | handed on |
//! | a malformed field in a block that goes on | RST_STREAM | close |
//! | a list that is too long | anything | RST_STREAM with FRAME_SIZE_ERROR |
//! | PUSH_PROMISE | PROTOCOL_ERROR | ignored if it is well-formed |
//! | PRIORITY of 4 bytes, on itself | RST_STREAM | close; ignored |
//! | SETTINGS_ENABLE_PUSH, SETTINGS_MAX_FRAME_SIZE out of range | PROTOCOL_ERROR | ignored; frames have at most 16 KiB |
//! | a new stream behind our GOAWAY | ignored | ignored |
//! | SETTINGS_MAX_HEADER_LIST_SIZE that an answer exceeds | advisory | RST_STREAM with INTERNAL_ERROR |
//!
//! Not as grpc-go: two changes of the table's size at the beginning of a block are taken as the
//! standard says, where Go refuses the second unless its table is empty; more DATA than the
//! connection's window ends the connection, where Go does not count; an answer that is made while
//! the buffer is walked, before the frame that ends its request, is followed by RST_STREAM with
//! NO_ERROR, where Go's handler mostly answers behind that frame; a second END_STREAM while an answer waits
//! for its window is ignored, where Go reads no more from the connection; and the limits above.

mod connection;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod hpack;
mod limits;
mod protocol;
mod steps;
mod streams;

pub use connection::Connection;
pub use error::{Code, Fatal};
pub use hpack::StaticTags;
pub use limits::Limits;
pub use protocol::{End, Event, Field, Indexing, LastStream, Protocol, ResponseHead, Verdict};
pub use streams::StreamKey;

/// The bytes that a client sends first.
//= RFC 9113, 3.4
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
