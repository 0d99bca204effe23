//! A gRPC client of few microseconds per call: HTTP/2 on 127.0.0.1, no retries.
//!
//! Never decodes what the load does not ask for.

use bytes::Bytes;
use grpc::{Encoding, Messages, PREFIX_BYTES};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use prost::Message;

use crate::access::Access;

pub use grpc::envelope::of as envelope;

/// Bytes that a server may send of one response unasked.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all responses of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// One connection; clones share it. Its driver runs on the `LocalSet` that opened it.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    /// Of the user in whose name calls are made.
    token: Option<http::HeaderValue>,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// Whether the status was OK.
    pub ok: bool,
    /// Bytes of the message, with its envelope.
    pub bytes: u64,
}

/// A method's path, made once per load.
///
/// # Panics
/// If `path` is no path.
#[must_use]
pub fn uri(path: &str) -> http::Uri {
    format!("http://localhost{path}").parse().expect("a well-formed path")
}

fn is_ok(headers: &http::HeaderMap) -> Option<bool> {
    headers.get(grpc::status::GRPC_STATUS).map(|v| v == "0")
}

impl Connection {
    /// Connects to a port of 127.0.0.1 in the clear, as nobody.
    ///
    /// # Errors
    /// Nobody serves HTTP/2 there.
    pub async fn open(port: u16) -> std::io::Result<Self> {
        Self::nameless(port, &Access::default()).await
    }

    /// Connects to a port of 127.0.0.1, with a token if calls are made in a user's name.
    ///
    /// # Errors
    /// Nobody serves HTTP/2 there, or the handshake fails.
    pub async fn open_as(port: u16, access: &Access, token: Option<&str>) -> std::io::Result<Self> {
        let mut connection = Self::nameless(port, access).await?;
        let value = token.map(http::HeaderValue::from_str).transpose();
        connection.token = value.map_err(std::io::Error::other)?;
        Ok(connection)
    }

    /// Connects without a token.
    pub(crate) async fn nameless(port: u16, access: &Access) -> std::io::Result<Self> {
        let socket = access.dial(port).await?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake::<_, Bytes>(socket)
            .await;
        let (send, driver) = handshake.map_err(std::io::Error::other)?;
        tokio::task::spawn_local(driver);
        Ok(Self { send, token: None })
    }

    async fn begin(
        &mut self,
        uri: &http::Uri,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        std::future::poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        headers.insert("te", http::HeaderValue::from_static("trailers"));
        if let Some(token) = &self.token {
            headers.insert("token", token.clone());
        }
        self.send.send_request(request, false)
    }

    /// Sends one request in its envelope and reads the answer to its end; its message goes to
    /// `keep`, if given.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn call(
        &mut self,
        uri: &http::Uri,
        body: Bytes,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<Answer, h2::Error> {
        let (response, mut stream) = self.begin(uri).await?;
        stream.send_data(body, true)?;
        let response = response.await?;
        if let Some(ok) = is_ok(response.headers()) {
            return Ok(Answer { ok, bytes: 0 });
        }
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            bytes += chunk.len() as u64;
            let _ = body.flow_control().release_capacity(chunk.len());
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(&chunk);
            }
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        Ok(Answer { ok: is_ok(&trailers).unwrap_or(false), bytes })
    }

    /// A unary call with messages at both ends.
    ///
    /// # Errors
    /// The connection is gone, the status is not OK, or the answer is no such message.
    pub async fn unary<R: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> std::io::Result<R> {
        let mut message = Vec::new();
        let answer = self.call(&uri(path), envelope(request), Some(&mut message)).await;
        let answer = answer.map_err(std::io::Error::other)?;
        if !answer.ok || message.len() < PREFIX_BYTES {
            return Err(std::io::Error::other(format!("{path} was refused")));
        }
        R::decode(&message[PREFIX_BYTES..]).map_err(std::io::Error::other)
    }

    /// Opens a stream in both directions; its first message goes with it.
    ///
    /// # Errors
    /// The connection is gone or the call is refused at once.
    pub async fn stream(&mut self, uri: &http::Uri, first: Bytes) -> Result<Stream, h2::Error> {
        let (response, mut send) = self.begin(uri).await?;
        send.send_data(first, false)?;
        let receive = response.await?.into_body();
        let messages = Messages::new(Encoding::Identity, usize::MAX);
        Ok(Stream { send, receive, messages })
    }
}

/// An open stream.
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    messages: Messages,
}

impl Stream {
    /// Sends a message in its envelope.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send(&mut self, envelope: Bytes) -> Result<(), h2::Error> {
        self.send.send_data(envelope, false)
    }

    /// Waits for the next message; `None` at the end.
    ///
    /// # Errors
    /// The stream was reset, the connection is gone, or what comes is no message.
    pub async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.messages.take_next().map_err(std::io::Error::other)? {
                return Ok(Some(message));
            }
            let Some(chunk) = self.receive.data().await else { return Ok(None) };
            let chunk = chunk.map_err(std::io::Error::other)?;
            let _ = self.receive.flow_control().release_capacity(chunk.len());
            self.messages.push(&chunk);
        }
    }
}
