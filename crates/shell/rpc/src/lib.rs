//! Connections, gRPC framing and HTTP on one port.
//!
//! Owns what happens between a socket and a call: telling HTTP/1.1 from HTTP/2, framing of gRPC
//! messages with grpc-go's reactions to bad ones, statuses and trailers, compression, deadlines,
//! limits, the PING policy, what is answered over plain HTTP, and how members' questions travel.
//! Never decides what a call does: that is `calls`, which a [`Dispatch`] leads to; and knows frames
//! only as events: those are `http2`'s. Read next: [`conn`] (which protocol a connection speaks),
//! `session` (the calls of one over HTTP/2), [`http`], [`gateway`], [`peers`].

pub mod conn;
mod cors;
pub mod gateway;
pub mod http;
mod http1;
pub mod metadata;
mod origin;
pub mod peers;
mod session;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api::error::Status;
use api::method::Row;
use bytes::Bytes;
use calls::{Calls, Local};
use tokio::sync::Semaphore;

pub use conn::{Settings, serve};
pub use cors::Cors;
#[doc(hidden)]
pub use http1::fuzz as fuzz_targets;
pub use origin::{Agreed, Door, Origin, Serves};

/// An HTTP/1.1 (or plain HTTP/2) request with its whole body.
pub type HttpRequest = ::http::Request<Bytes>;
/// The answer to it.
pub type HttpResponse = ::http::Response<Bytes>;

/// Where calls lead to. Lives on one runtime thread and is shared by its connections.
pub trait Dispatch: 'static {
    /// The calls of the runtime.
    fn calls(&self) -> &Rc<Calls>;

    /// Answers a request that is not gRPC, and came in by this door.
    fn http(self: Rc<Self>, request: HttpRequest, door: Door) -> Local<'static, HttpResponse>;

    /// Gives `answer` to a request that is sent elsewhere, unless its host or its origin says
    /// otherwise.
    fn redirect(
        self: Rc<Self>,
        request: ::http::Request<()>,
        door: Door,
        answer: HttpResponse,
    ) -> Local<'static, HttpResponse>;

    /// What the calls that come as JSON take turns with; `None` if none may.
    fn gateway_turns(&self) -> Option<&Arc<Semaphore>>;

    /// Answers a request below the gateway's paths.
    fn gateway(
        self: Rc<Self>,
        request: gateway::Asked,
        came: gateway::Came,
    ) -> Local<'static, gateway::Told>;

    /// Where calls and messages are counted.
    fn metrics(&self) -> &Arc<observe::Metrics>;

    /// Called once per call with how it ended and, if calls are timed, when it began, for metrics.
    fn finished(&self, row: &'static Row, status: Option<&Status>, began: Option<Instant>);
}
