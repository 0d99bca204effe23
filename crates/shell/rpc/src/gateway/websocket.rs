//! Websockets: each message of the client is a line of the request's body, each line of the answer
//! a message.
//!
//! //= grpc-websocket-proxy (2022-01-01): wsproxy/websocket_proxy.go
//! //= gorilla/websocket 1.5: server.go#Upgrader.Upgrade

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Asked, Came, Chunks, Content, Told, plain, serve as answer};
use crate::Dispatch;

/// What a key is joined with.
//= RFC 6455, 4.2.2
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key, decoded.
const KEY_BYTES: usize = 16;

/// A connection that is to be a websocket from now on.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    uri: Uri,
    headers: HeaderMap,
}

/// Whether a request asks for a websocket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}

/// Answers a request for a websocket. The connection finds in the answer that it becomes one.
pub(super) fn accept(head: Parts) -> Told {
    let Parts { method, uri, headers, .. } = head;
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let is_key = |key: &&[u8]| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES);
    if method != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(key) = key.filter(is_key) else { return refused(StatusCode::BAD_REQUEST) };
    if !has_token(&headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return refused(StatusCode::BAD_REQUEST);
    }
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(GUID);
    let accepted = BASE64_STANDARD.encode(digest.finish());
    let mut told = Told::default();
    *told.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = told.headers_mut();
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accepted = HeaderValue::try_from(accepted).expect("base64 is text");
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if protocol(&headers).is_some_and(|protocol| protocol.starts_with("Bearer")) {
        fields.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    let headers = forwarded(&headers);
    told.extensions_mut().insert(Upgrade { uri, headers });
    told
}

fn refused(status: StatusCode) -> Told {
    let mut told = plain(status, format!("{}\n", status.canonical_reason().unwrap_or_default()));
    let version = HeaderValue::from_static("13");
    told.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
    told
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok().filter(|text| !text.is_empty())
}

/// The header fields of the request that the messages make: a token, which a browser can only say
/// as a protocol or a cookie.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|list| list.to_str().ok());
    let mut cookies = cookies.flat_map(|list| list.split(';'));
    let cookie = cookies.find_map(|cookie| cookie.trim().strip_prefix("token="));
    let token = match (cookie, protocol(headers)) {
        (Some(cookie), _) => Some(format!("Bearer {cookie}")),
        (None, Some(protocol)) => Some(match protocol.split_once("Bearer,") {
            Some((_, token)) => format!("Bearer {}", token.trim_matches(' ')),
            None => String::new(),
        }),
        (None, None) => None,
    };
    let mut out = HeaderMap::new();
    if let Some(token) = token.and_then(|token| HeaderValue::try_from(token).ok()) {
        out.insert(header::AUTHORIZATION, token);
    }
    out
}

/// The last message that came, until the call takes it.
#[derive(Default)]
struct Inbox {
    messages: RefCell<VecDeque<Bytes>>,
    waiting: RefCell<Option<Waker>>,
}

impl Inbox {
    fn has_room(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    fn push(&self, message: Bytes) {
        let mut messages = self.messages.borrow_mut();
        messages.push_back(message);
        messages.push_back(Bytes::from_static(b"\n"));
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

struct FromInbox(Rc<Inbox>);

impl Chunks for FromInbox {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(message) = self.0.messages.borrow_mut().pop_front() {
            return Poll::Ready(Some(message));
        }
        *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing says that no more messages will come.
    fn is_finite(&self) -> bool {
        false
    }
}

/// Serves a websocket until its call has ended, the client is gone, or the server stops. `first` are
/// bytes behind the request that were read with it.
pub(crate) async fn serve<S, D>(
    socket: S,
    first: Bytes,
    upgrade: Upgrade,
    (dispatch, came): (Rc<D>, Came),
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dispatch,
{
    let bounds = came.bounds;
    let config = WebSocketConfig::default()
        .max_message_size(Some(bounds.value_bytes))
        .max_frame_size(Some(bounds.value_bytes));
    let mut socket =
        WebSocketStream::from_partially_read(socket, first.into(), Role::Server, Some(config))
            .await;
    let inbox = Rc::new(Inbox::default());
    let chunks: Box<dyn Chunks> = Box::new(FromInbox(Rc::clone(&inbox)));
    let mut asked = Asked::new(chunks);
    *asked.method_mut() = Method::POST;
    *asked.uri_mut() = upgrade.uri;
    *asked.headers_mut() = upgrade.headers;
    let mut answering = Answering::Begins(Box::pin(answer(dispatch, asked, came)));
    loop {
        tokio::select! {
            piece = poll_fn(|cx| answering.poll_piece(cx)) => {
                let Some(piece) = piece else { break };
                let line = piece.strip_suffix(b"\n").unwrap_or(&piece);
                let text = String::from_utf8_lossy(line).into_owned();
                if socket.send(Message::text(text)).await.is_err() {
                    break;
                }
            }
            message = socket.next(), if inbox.has_room() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    inbox.push(message.into_data());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => break,
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// An answer whose body is wanted alone.
enum Answering<'a> {
    Begins(calls::Local<'a, Told>),
    Goes(Content),
}

impl Answering<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Answering::Begins(told) = self {
            let told = std::task::ready!(told.as_mut().poll(cx));
            *self = Answering::Goes(told.into_body());
        }
        match self {
            Answering::Goes(content) => content.poll_piece(cx),
            Answering::Begins(_) => unreachable!("set above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::get("/v3/watch");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const ORDINARY: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    //= RFC 6455, 1.3
    #[test]
    fn a_key_is_accepted_as_the_specification_does() {
        let head = head(&ORDINARY);
        assert!(is_wanted(&head.headers));
        let told = accept(head);
        assert_eq!(told.status(), 101);
        assert_eq!(told.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_proper_request_is_refused() {
        assert!(!is_wanted(&head(&ORDINARY[..1]).headers));
        assert_eq!(accept(head(&ORDINARY[..3])).status(), 400);
        let mut old = ORDINARY;
        old[2].1 = "8";
        assert_eq!(accept(head(&old)).status(), 400);
        let mut short = ORDINARY;
        short[3].1 = "c2hvcnQ=";
        assert_eq!(accept(head(&short)).status(), 400);
    }

    #[test]
    fn a_browser_says_its_token_as_a_protocol_or_a_cookie() {
        let token = |fields: &[(&'static str, &'static str)]| {
            let headers = forwarded(&head(fields).headers);
            headers.get("authorization").map(|token| token.to_str().unwrap().to_owned())
        };
        assert_eq!(token(&[]), None);
        for (name, value, wanted) in [
            ("sec-websocket-protocol", "Bearer, a.7", "Bearer a.7"),
            ("sec-websocket-protocol", "Bearer,a.7", "Bearer a.7"),
            ("sec-websocket-protocol", "chat", ""),
            ("cookie", "x=1; token=b.7", "Bearer b.7"),
        ] {
            assert_eq!(token(&[(name, value)]).as_deref(), Some(wanted), "{value}");
        }
    }
}
