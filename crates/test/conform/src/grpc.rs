//! A gRPC client that hides nothing: any bytes in, exact statuses out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ::grpc::{Encoding, Messages};
use api::error::Status;
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use prost::Message;

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The gRPC code.
    pub code: u16,
    /// The text, decoded.
    pub message: String,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { code: status.code as u16, message: status.message.into_owned() }
    }
}

/// A connection, and what goes with each call on it.
#[derive(Clone, Debug)]
pub struct Client {
    send: SendRequest<Bytes>,
    /// Fields that go with each call.
    metadata: Vec<(String, String)>,
}

/// The server is gone, or hung up.
fn gone(e: &dyn std::error::Error) -> Failure {
    Failure { code: 999, message: e.to_string() }
}

/// Longest time any call of a test may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl Client {
    /// Connects to 127.0.0.1:`port`. Must run within a runtime.
    ///
    /// # Panics
    /// If nobody answers.
    pub async fn connect(port: u16) -> Self {
        Self::connect_to((Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// Connects to any address. Must run within a runtime.
    ///
    /// # Panics
    /// If nobody answers.
    pub async fn connect_to(address: SocketAddr) -> Self {
        let connected = Self::try_connect_to(address, 1 << 24).await;
        connected.expect("the server listens and speaks HTTP/2")
    }

    /// Connects to a server that may be gone, with a window of so many bytes per stream.
    ///
    /// # Errors
    /// Code 999 with the reason.
    pub async fn try_connect(port: u16, window: u32) -> Result<Self, Failure> {
        Self::try_connect_to((Ipv4Addr::LOCALHOST, port).into(), window).await
    }

    /// As [`Client::try_connect`], to any address.
    ///
    /// # Errors
    /// As [`Client::try_connect`].
    pub async fn try_connect_to(address: SocketAddr, window: u32) -> Result<Self, Failure> {
        let socket = tokio::net::TcpStream::connect(address).await;
        let socket = socket.map_err(|e| gone(&e))?;
        socket.set_nodelay(true).map_err(|e| gone(&e))?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(1 << 26)
            .handshake(socket)
            .await
            .map_err(|e| gone(&e))?;
        tokio::spawn(connection);
        Ok(Self { send, metadata: Vec::new() })
    }

    /// The same connection, for calls that carry this field too.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same connection in somebody's name, by a token; `None` calls without one.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        let mut client = self.clone();
        client.metadata.retain(|(name, _)| name != "token");
        match token {
            Some(token) => client.with("token", token),
            None => client,
        }
    }

    /// Opens a call and sends `body` as it is.
    ///
    /// # Panics
    /// If the connection is gone.
    pub async fn open(&self, path: &str, body: Option<Bytes>, end: bool) -> Stream {
        self.try_open(path, body, end).await.expect("the connection is open")
    }

    /// As [`Client::open`], on a connection that may be gone.
    ///
    /// # Errors
    /// Code 999 with the reason.
    ///
    /// # Panics
    /// If the path is no path.
    pub async fn try_open(
        &self,
        path: &str,
        body: Option<Bytes>,
        end: bool,
    ) -> Result<Stream, Failure> {
        let mut request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &self.metadata {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a well-formed request");
        self.try_begin(request, body, end).await
    }

    /// As [`Client::try_open`], with a request of any headers.
    ///
    /// # Errors
    /// As there.
    pub async fn try_begin(
        &self,
        request: http::Request<()>,
        body: Option<Bytes>,
        end: bool,
    ) -> Result<Stream, Failure> {
        let mut send = self.send.clone().ready().await.map_err(|e| gone(&e))?;
        let (response, mut stream) = send.send_request(request, false).map_err(|e| gone(&e))?;
        if let Some(body) = body {
            stream.send_data(body, end).map_err(|e| gone(&e))?;
        }
        let messages = Messages::new(Encoding::Identity, usize::MAX);
        Ok(Stream { response: Some(response), send: stream, body: None, messages })
    }

    /// A unary call with any message bytes.
    ///
    /// # Errors
    /// The status, if it is not OK; code 999 if the connection is gone.
    ///
    /// # Panics
    /// If the server does not answer in time or says OK without a message.
    pub async fn raw(&self, path: &str, message: &[u8]) -> Result<Bytes, Failure> {
        let call = async {
            let mut stream = self.try_open(path, Some(envelope(message)), true).await?;
            let answer = stream.next_raw().await;
            match answer {
                Ok(Some(message)) => {
                    stream.next_raw().await?;
                    Ok(message)
                }
                Ok(None) => panic!("{path}: OK without a message"),
                Err(failure) => Err(failure),
            }
        };
        tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("{path}: no answer"))
    }

    /// A unary call.
    ///
    /// # Errors
    /// As [`Client::raw`].
    ///
    /// # Panics
    /// As [`Client::raw`], or if the answer is not an `A`.
    pub async fn call<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
    ) -> Result<A, Failure> {
        let bytes = self.raw(path, &request.encode_to_vec()).await?;
        Ok(A::decode(bytes).expect("the answer is the message of the method"))
    }
}

/// All of an answer that a client can see, apart from dates and the order of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The HTTP status; 0 if the stream was reset.
    pub http: u16,
    /// The content type.
    pub content_type: String,
    /// The coding of the messages.
    pub encoding: String,
    /// The gRPC code, from headers or trailers.
    pub code: Option<u16>,
    /// The text beside it, decoded.
    pub text: String,
    /// The body as it came.
    pub body: Bytes,
}

impl Client {
    /// Sends a request as it is and waits for the end of the answer.
    ///
    /// # Panics
    /// If the connection is gone, or no answer comes in time.
    pub async fn exchange(&self, request: http::Request<()>, body: Bytes) -> Exchange {
        let what = format!("{request:?}");
        let exchange = async {
            let mut send = self.send.clone().ready().await.expect("the connection is open");
            let (response, mut stream) = send.send_request(request, false).expect("still open");
            // The server may have answered and closed before it read all.
            let _ = stream.send_data(body, true);
            collect(response).await.unwrap_or_else(|e| Exchange {
                http: 0,
                content_type: String::new(),
                encoding: String::new(),
                code: None,
                text: e.to_string(),
                body: Bytes::new(),
            })
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{what}: silence"))
    }
}

async fn collect(response: h2::client::ResponseFuture) -> Result<Exchange, h2::Error> {
    let response = response.await?;
    let header = |name| {
        let value = response.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (http, content_type) = (response.status().as_u16(), header("content-type"));
    let encoding = header("grpc-encoding");
    let mut headers = response.headers().clone();
    let mut incoming = response.into_body();
    let mut body = BytesMut::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk?;
        let _ = incoming.flow_control().release_capacity(chunk.len());
        body.extend_from_slice(&chunk);
    }
    headers.extend(incoming.trailers().await?.unwrap_or_default());
    let code = headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse().ok());
    let text = headers.get("grpc-message").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let text = comparable(text);
    Ok(Exchange { http, content_type, encoding, code, text, body: body.freeze() })
}

/// A message in its envelope.
#[must_use]
pub fn envelope(message: &[u8]) -> Bytes {
    ::grpc::envelope::seal(message, Encoding::Identity)
}

/// An open call.
#[derive(Debug)]
pub struct Stream {
    response: Option<h2::client::ResponseFuture>,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    messages: Messages,
}

impl Stream {
    /// Sends one message.
    ///
    /// # Panics
    /// If the stream is closed.
    pub fn send(&mut self, message: &impl Message) {
        let bytes = envelope(&message.encode_to_vec());
        self.send.send_data(bytes, false).expect("the stream is open");
    }

    /// Ends the sending side.
    ///
    /// # Panics
    /// If the stream is closed.
    pub fn half_close(&mut self) {
        self.send.send_data(Bytes::new(), true).expect("the stream is open");
    }

    /// The next message, `None` at the end with status OK.
    ///
    /// # Errors
    /// The status, if it is not OK; code 999 stands for a reset stream.
    pub async fn next_raw(&mut self) -> Result<Option<Bytes>, Failure> {
        // Kept until it is there: whoever waits for this may give up and ask again.
        if let Some(response) = &mut self.response {
            let response = response.await.map_err(|e| gone(&e))?;
            self.response = None;
            let stated = ::grpc::status::stated(response.headers());
            self.body = Some(response.into_body());
            if let Some(status) = stated {
                return status.map(|()| None).map_err(Failure::from);
            }
        }
        let body = self.body.as_mut().expect("set above");
        loop {
            if let Some(message) = self.messages.take_next().map_err(Failure::from)? {
                return Ok(Some(message));
            }
            match body.data().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(|e| gone(&e))?;
                    let _ = body.flow_control().release_capacity(chunk.len());
                    self.messages.push(&chunk);
                }
                None => {
                    let trailers = body.trailers().await.map_err(|e| gone(&e))?;
                    ::grpc::status::at_end(&trailers.unwrap_or_default())?;
                    return Ok(None);
                }
            }
        }
    }

    /// The next message, decoded; `None` at the end, or if none comes within `patience`.
    ///
    /// # Errors
    /// As [`Stream::next_raw`].
    ///
    /// # Panics
    /// If the message is not an `A`.
    pub async fn next<A: Message + Default>(
        &mut self,
        patience: Duration,
    ) -> Result<Option<A>, Failure> {
        match tokio::time::timeout(patience, self.next_raw()).await {
            Ok(message) => Ok(message?.map(|m| A::decode(m).expect("the method's message"))),
            Err(_) => Ok(None),
        }
    }
}

/// A status's text as it can be compared: protobuf-go writes a space or a no-break space behind
/// `proto:`, whichever a hash of the whole program says, so each build of an oracle has its own.
//= google.golang.org/protobuf 1.36.11: internal/errors/errors.go#New
fn comparable(text: &str) -> String {
    ::grpc::status::percent_decode(text).replace("proto:\u{a0}", "proto: ")
}
