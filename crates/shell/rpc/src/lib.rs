//! Connections, gRPC framing and HTTP on one port.
//!
//! Owns what happens between a socket and a handler: telling HTTP/1.1 from HTTP/2, framing of gRPC
//! messages with grpc-go's reactions to bad ones, statuses and trailers, compression, deadlines,
//! limits and the PING policy. Never holds state of the member: a [`Dispatch`] answers the calls.
//! Read next: [`conn`] (a connection's life), [`grpc`] (a call's life), [`message`] (the envelope).

pub mod conn;
pub mod grpc;
mod http1;
pub mod identity;
mod io;
pub mod message;
pub mod metadata;
mod ping;
pub mod pool;
mod progress;
pub mod runtime;
pub mod services;
mod wakes;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::error::Status;
use api::method::Row;
use bytes::Bytes;

pub use crate::grpc::{Gone, Requests, Sender};
pub use conn::{Settings, serve};
#[doc(hidden)]
pub use http1::fuzz as fuzz_targets;
pub use message::Draft;
pub use metadata::Metadata;
#[doc(hidden)]
pub use ping::fuzz as fuzz_frames;
pub use services::cors::Cors;

/// A future on the connection's own thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a call brings besides its messages.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method's row in the table.
    pub row: &'static Row,
    /// Request metadata.
    pub metadata: Metadata,
    /// Time left when the request came, from `grpc-timeout`.
    pub timeout: Option<Duration>,
}

/// An HTTP/1.1 (or plain HTTP/2) request with its whole body.
pub type HttpRequest = http::Request<Bytes>;
/// The answer to it.
pub type HttpResponse = http::Response<Bytes>;

/// The response to a unary call, encoded.
pub enum Body {
    /// All of it.
    Whole(Draft),
    /// Piece by piece, as the client's window allows.
    Pieces(Box<dyn Pieces>),
}

/// Produces a long response in pieces of bounded size.
pub trait Pieces {
    /// Bytes still to come; before the first piece, the length of the whole message.
    fn remaining(&self) -> u64;

    /// The next piece, or `None` at the end. An error in the middle cuts the message, which
    /// clients see as `unexpected EOF`.
    fn next(&mut self) -> Local<'_, Result<Option<Bytes>, Status>>;
}

/// Answers calls. Lives on one runtime thread and is shared by its connections.
pub trait Dispatch: 'static {
    /// Answers a unary call: the encoded request in, the encoded response out.
    fn unary(self: Rc<Self>, call: Call, request: Bytes) -> Local<'static, Result<Body, Status>>;

    /// Runs a streaming call until its status. Server-streaming calls get their one request as the
    /// only message of `requests`.
    fn stream(
        self: Rc<Self>,
        call: Call,
        requests: Requests,
        sender: Sender,
    ) -> Local<'static, Result<(), Status>>;

    /// Answers a request that is not gRPC.
    fn http(self: Rc<Self>, request: HttpRequest) -> Local<'static, HttpResponse>;

    /// Where calls and messages are counted.
    fn metrics(&self) -> &Arc<observe::Metrics>;

    /// Called once per call with how it ended, for metrics.
    fn finished(&self, row: &'static Row, status: Option<&Status>);
}
