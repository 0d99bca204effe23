//! Plain HTTP over HTTP/2, which connections over TLS may speak beside calls.
//!
//! Bodies of requests are waited for, and forgotten unless the gateway wants them. What it answers
//! in lines goes out as the client's window allows.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use api::error::Status;
use bytes::Bytes;
use calls::Sink;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use http2::{End, Field, ResponseHead, StreamKey};

use super::gathered::Share;
use super::head::Head;
use super::stream::Channel;
use super::unary::{Answering, place};
use super::{Session, Slot};
use crate::conn::{gateway_of, is_of_gateway};
use crate::gateway::{self, Asked, Bounds, Came, Chunks, Content};
use crate::http1::Settled;
use crate::{Dispatch, Door, HttpRequest, HttpResponse, Origin, Settings, http1};

/// A request whose body is still to come.
#[derive(Debug)]
pub(crate) struct Waiting {
    head: Option<Parts>,
    came: Came,
    body: Vec<u8>,
    /// What the body counts; none if nobody reads it.
    share: Option<Share>,
    /// Why no more of it is kept.
    refusal: Option<Status>,
}

impl Waiting {
    fn new(dispatch: &impl Dispatch, session: &Rc<Session>, head: &Head, door: Door) -> Self {
        let came = Came {
            door,
            names_user: session.names_user,
            bounds: session.bounds(),
            caller: session.caller.clone().through_gateway(),
            authorization: head.authorization(),
            timeout: head.timeout,
        };
        let head = head.to_http().and_then(|request| request.body(()).ok());
        let head = head.map(|request| request.into_parts().0);
        let is_read = head.as_ref().is_some_and(|head| is_of_gateway(dispatch, door, head));
        let share = is_read.then(|| Share::new(session));
        Self { head, came, body: Vec::new(), share, refusal: None }
    }

    /// More of the body has come. A byte beyond what may be is kept, to tell that there was.
    pub(super) fn push(&mut self, body: &[u8], limit: usize) {
        let Some(share) = &mut self.share else { return };
        let room = (limit + 1).saturating_sub(self.body.len());
        self.body.extend_from_slice(&body[..body.len().min(room)]);
        if let Err(status) = share.set(self.body.len()) {
            (self.body, self.share, self.refusal) = (Vec::new(), None, Some(status));
        }
    }
}

/// A body that is there.
struct Whole(Option<Bytes>);

impl Chunks for Whole {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(self.0.take())
    }
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
    /// A request over HTTP has come, or its head and what of its body came with it.
    pub(super) fn web(&mut self, stream: StreamKey, head: &Head, body: &[u8], ended: bool) {
        let Some(door) = self.session.answers.by_http(head) else { return };
        let mut waiting = Waiting::new(&*self.dispatch, &self.session, head, door);
        waiting.push(body, self.session.settings.max_body_bytes);
        if ended {
            return self.begin_web(stream, waiting);
        }
        let slot = Slot::Web(Box::new(waiting));
        self.session.wire.borrow_mut().set_slot(stream, slot);
    }

    /// Answers a request over HTTP, all of which has come.
    pub(super) fn begin_web(&mut self, stream: StreamKey, waiting: Waiting) {
        let Waiting { head, came, body, share, refusal } = waiting;
        let (session, dispatch) = (Rc::clone(&self.session), Rc::clone(&self.dispatch));
        let Some(mut head) = head else {
            let mut response = HttpResponse::default();
            *response.status_mut() = StatusCode::BAD_REQUEST;
            let stream = place(&mut self.session.wire.borrow_mut(), stream, Slot::Ended);
            return self.session.respond(stream, &Method::GET, response);
        };
        // What a target must be told of its host does not concern this version of HTTP.
        head.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let method = head.method.clone();
        match http1::settle(&mut head, gateway_of(&*self.dispatch, came.door)) {
            Settled::Handled => {}
            Settled::Answered(answer) => {
                let stream = place(&mut self.session.wire.borrow_mut(), stream, Slot::Ended);
                return self.session.respond(stream, &method, *answer);
            }
            Settled::Redirected(answer) => {
                let stream = place(&mut self.session.wire.borrow_mut(), stream, Slot::Ended);
                return self.push(Box::pin(async move {
                    let request = http::Request::from_parts(head, ());
                    let response = dispatch.redirect(request, came.door, *answer).await;
                    session.respond(stream, &method, response);
                }));
            }
        }
        if share.is_none() && refusal.is_none() {
            let stream = place(&mut self.session.wire.borrow_mut(), stream, Slot::Ended);
            return self.push(Box::pin(async move {
                let request = HttpRequest::from_parts(head, Bytes::new());
                let response = dispatch.http(request, came.door).await;
                session.respond(stream, &method, response);
            }));
        }
        let channel = Channel::for_web(&self.session, stream);
        let slot = Slot::Future(Rc::clone(&channel));
        let stream = place(&mut self.session.wire.borrow_mut(), stream, slot);
        channel.set_stream(stream);
        self.push(Box::pin(async move {
            let chunks: Box<dyn Chunks> = Box::new(Whole(Some(body.into())));
            let asked = Asked::from_parts(head, chunks);
            let mut answering = match refusal {
                Some(status) => Box::pin(std::future::ready(gateway::refused(&status.into()))) as _,
                None => dispatch.gateway(asked, came),
            };
            let told = until_gone(&channel, |cx| answering.as_mut().poll(cx)).await;
            let Some(told) = told else { return };
            drop(share);
            let (parts, content) = told.into_parts();
            match content {
                Content::Whole(body) => {
                    session.respond(stream, &method, HttpResponse::from_parts(parts, body));
                }
                lines @ Content::Lines(_) => {
                    session.begin_lines(stream, &http::Response::from_parts(parts, ()));
                    send_lines(&session, &channel, stream, lines).await;
                }
            }
        }));
    }
}

/// Waits for something, or until the client is gone: `None` then.
async fn until_gone<T>(
    channel: &Channel,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(value) = poll(cx) {
            return Poll::Ready(Some(value));
        }
        channel.poll_gone(cx).map(|()| None)
    })
    .await
}

/// Sends the lines of an answer that has begun, and ends it.
async fn send_lines(session: &Session, channel: &Channel, stream: StreamKey, mut lines: Content) {
    while let Some(line) = until_gone(channel, |cx| lines.poll_piece(cx)).await {
        let Some(mut line) = line else {
            session.wire.borrow_mut().trailers(stream, &[]);
            session.wake();
            return;
        };
        if poll_fn(|cx| channel.poll_send(cx, &mut line)).await.is_err() {
            return;
        }
    }
}

impl Session {
    /// Whether a request is answered over HTTP.
    #[inline]
    pub(super) fn is_web(&self, head: &Head) -> bool {
        self.answers.by_http(head).is_some()
    }

    /// What bounds a call of the gateway.
    fn bounds(&self) -> Bounds {
        let Settings { max_message_bytes, max_body_bytes, .. } = *self.settings;
        Bounds { message_bytes: max_message_bytes, value_bytes: max_body_bytes }
    }

    /// Sends the head of an answer whose lines follow.
    fn begin_lines(&self, stream: StreamKey, response: &http::Response<()>) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut fields: Vec<Field<'_>> = response
            .headers()
            .iter()
            .map(|(name, value)| Field::literal(name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        fields.push(Field::literal(b"date", date.as_bytes()));
        let head = ResponseHead { status: response.status().as_u16(), fields: &fields };
        self.wire.borrow_mut().headers(stream, &head, End::Open);
        self.wake();
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
