//! One HTTP/1.1 connection to a peer, driven by whoever uses it.
//!
//! Invariant: there is no task of its own; dropping a link or a request closes the socket at once.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use net::{Dialer, Remote, Timed, dial};
use types::Url;

/// Bytes of the buffer for one read.
const READ_BYTES: usize = 128 * 1024;
/// A piece below this is copied: it would keep its whole buffer for as long as raft's log keeps one
/// of its entries.
const KEEP_BYTES: usize = READ_BYTES / 4;

/// A piece that keeps no more memory than a few times its length.
pub(crate) fn compact(piece: Bytes) -> Bytes {
    if piece.len() < KEEP_BYTES { Bytes::copy_from_slice(&piece) } else { piece }
}

/// Why a request got no answer.
pub(crate) type LinkError = Box<dyn std::error::Error + Send + Sync>;

/// What moves the bytes; gone once the connection has ended.
type Moving<B> = Option<Pin<Box<Connection<TokioIo<Timed>, B>>>>;

/// A connection that takes one request at a time.
pub(crate) struct Link<B>
where
    B: Body + Send + 'static,
{
    sender: SendRequest<B>,
    connection: Moving<B>,
    host: HeaderValue,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<LinkError>,
{
    /// Connects.
    pub(crate) async fn open(
        dialer: &Dialer,
        url: &Url,
        read: Option<Duration>,
        write: Option<Duration>,
    ) -> Result<Self, LinkError> {
        let stream = Timed::new(dial(dialer, &Remote::of(url)).await?, read, write);
        let (sender, connection) = Builder::new()
            .title_case_headers(true)
            .read_buf_exact_size(Some(READ_BYTES))
            .handshake(TokioIo::new(stream))
            .await?;
        let host = HeaderValue::from_str(url.host())?;
        Ok(Self { sender, connection: Some(Box::pin(connection)), host })
    }

    /// Whether another request may be tried.
    pub(crate) fn is_usable(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Runs `work` while the connection moves.
    pub(crate) async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        drive(&mut self.connection, work).await
    }

    /// Sends a request; the answer's head.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, LinkError> {
        request.headers_mut().insert(http::header::HOST, self.host.clone());
        let answer = self.sender.send_request(request);
        Ok(drive(&mut self.connection, answer).await?)
    }

    /// Sends a request; the whole answer, of at most `limit` bytes.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<B>,
        limit: usize,
    ) -> Result<Response<Bytes>, LinkError> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = self.drive(read_body(body, limit)).await?;
        Ok(Response::from_parts(head, body))
    }
}

async fn drive<B, F>(connection: &mut Moving<B>, work: F) -> F::Output
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<LinkError>,
    F: Future,
{
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Some(alive) = connection
            && alive.as_mut().poll(cx).is_ready()
        {
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// A whole body.
///
/// # Errors
/// The connection's; [`io::ErrorKind::FileTooLarge`] above `limit` bytes.
pub(crate) async fn read_body(mut body: Incoming, limit: usize) -> Result<Bytes, LinkError> {
    let mut whole = BytesMut::new();
    let mut only = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + only.len() + data.len() > limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        if only.is_empty() && whole.is_empty() {
            only = compact(data);
        } else {
            whole.extend_from_slice(&std::mem::take(&mut only));
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() { only } else { whole.freeze() })
}

/// One request that may arrive twice, on the connection that was kept, or on a new one: the peer may
/// have closed the former meanwhile. The whole answer, and what can be kept.
pub(crate) async fn repeatable(
    kept: Option<Link<Full<Bytes>>>,
    dialer: &Dialer,
    url: &Url,
    request: &Request<Full<Bytes>>,
    limit: usize,
) -> Result<(Response<Bytes>, Link<Full<Bytes>>), LinkError> {
    if let Some(mut link) = kept.filter(Link::is_usable)
        && let Ok(answer) = link.exchange(request.clone(), limit).await
    {
        return Ok((answer, link));
    }
    let mut link = Link::open(dialer, url, None, None).await?;
    let answer = link.exchange(request.clone(), limit).await?;
    Ok((answer, link))
}

/// One request on a connection of its own; the whole answer.
pub(crate) async fn once(
    dialer: &Dialer,
    url: &Url,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Response<Bytes>, LinkError> {
    Link::open(dialer, url, None, None).await?.exchange(request, limit).await
}
