//! Plain HTTP over HTTP/2, which connections over TLS may speak beside calls.
//!
//! Bodies of requests are waited for and forgotten: nothing that is served here reads one.

use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http2::{End, Field, ResponseHead, StreamKey};

use super::head::Head;
use super::unary::{Answering, place};
use super::{Session, Slot};
use crate::{Dispatch, Door, HttpResponse, Origin, http1};

/// A request whose body is still to come.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(super) head: Head,
    pub(super) door: Door,
}

/// What a connection's requests are to whom they reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// Calls, or nothing.
    Calls,
    /// Calls, and requests over HTTP, which come by this door.
    Both(Door),
    /// Requests over HTTP alone.
    Http(Door),
}

impl Answers {
    pub(super) fn of(origin: &Origin) -> Self {
        match (origin.tls.is_some() && origin.takes_http(), origin.takes_calls()) {
            (false, _) => Self::Calls,
            (true, true) => Self::Both(origin.door()),
            (true, false) => Self::Http(origin.door()),
        }
    }

    pub(super) fn has_http(self) -> bool {
        self != Self::Calls
    }

    /// The door of a request that is no call.
    //= etcd 3.7.3: server/embed/serve.go#grpcHandlerFunc
    #[inline]
    pub(super) fn by_http(self, head: &Head) -> Option<Door> {
        match self {
            Self::Calls => None,
            Self::Both(door) => Some(door).filter(|_| !head.is_call()),
            Self::Http(door) => Some(door),
        }
    }
}

impl<D: Dispatch> Answering<D> {
    /// A request over HTTP has come, or its head has.
    pub(super) fn web(&mut self, stream: StreamKey, head: Head, ended: bool) {
        if let Some(door) = self.session.answers.by_http(&head) {
            self.begin_web(stream, Waiting { head, door }, ended);
        }
    }

    /// Answers a request over HTTP once all of it has come.
    pub(super) fn begin_web(&mut self, stream: StreamKey, waiting: Waiting, ended: bool) {
        if !ended {
            let slot = Slot::Web(Box::new(waiting));
            self.session.wire.borrow_mut().set_slot(stream, slot);
            return;
        }
        let Waiting { head, door } = waiting;
        let stream = place(&mut self.session.wire.borrow_mut(), stream, Slot::Ended);
        let request = head.to_http().and_then(|request| request.body(Bytes::new()).ok());
        let (session, dispatch) = (Rc::clone(&self.session), Rc::clone(&self.dispatch));
        self.push(Box::pin(async move {
            let Some(request) = request else {
                let mut response = HttpResponse::default();
                *response.status_mut() = StatusCode::BAD_REQUEST;
                return session.respond(stream, &Method::GET, response);
            };
            let method = request.method().clone();
            let (mut parts, body) = request.into_parts();
            // What a target must be told of its host does not concern this version of HTTP.
            parts.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
            let response = match http1::settle(parts) {
                Ok(parts) => dispatch.http(http::Request::from_parts(parts, body), door).await,
                Err(answer) => *answer,
            };
            session.respond(stream, &method, response);
        }));
    }
}

impl Session {
    /// Whether a request is answered over HTTP.
    #[inline]
    pub(super) fn is_web(&self, head: &Head) -> bool {
        self.answers.by_http(head).is_some()
    }

    /// Sends an answer over HTTP, all of it.
    fn respond(&self, stream: StreamKey, method: &Method, response: HttpResponse) {
        let (parts, body) = response.into_parts();
        let length = body.len().to_string();
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut fields: Vec<Field<'_>> = parts
            .headers
            .iter()
            .map(|(name, value)| Field::literal(name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        fields.push(Field::literal(b"content-length", length.as_bytes()));
        fields.push(Field::literal(b"date", date.as_bytes()));
        let head = ResponseHead { status: parts.status.as_u16(), fields: &fields };
        let mut wire = self.wire.borrow_mut();
        if body.is_empty() || method == Method::HEAD {
            wire.headers(stream, &head, End::Stream);
        } else {
            wire.headers(stream, &head, End::Open);
            wire.data(stream, body);
            wire.trailers(stream, &[]);
        }
        drop(wire);
        self.wake();
    }
}
