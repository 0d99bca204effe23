//! Calls: unary with a deadline, and streams.
//!
//! Invariant: a call that may have reached a server is sent again only if [`repeat`] allows it.

use std::sync::Mutex;
use std::time::Duration;

use api::error::{Code, Status};
use api::etcdserverpb::WatchRequest;
use api::method::Method;
use bytes::Bytes;
use grpc::{Encoding, Messages};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message;
use tls::TlsInfo;
use tokio::time::Instant;

use crate::auth::{self, Credentials};
use crate::endpoint::{Endpoint, Undialed};
use crate::error::{self, Error};
use crate::repeat::{self, MAX_ATTEMPTS};

/// Which servers, and what goes with every call.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`, `http://host:port`, `https://host:port`, `unix://path` or `unixs://path`.
    pub endpoints: Vec<String>,
    /// How TLS is spoken, if anything is said about it. An `https` endpoint needs nothing said:
    /// whom the system trusts is believed.
    pub tls: Option<TlsInfo>,
    /// Longest time to connect to one endpoint.
    pub dial_timeout: Duration,
    /// Longest request, in bytes; 0 means 2 MiB.
    pub max_send_bytes: usize,
    /// Longest response message, in bytes; 0 means 2^31 - 1.
    pub max_receive_bytes: usize,
    /// Who calls.
    pub credentials: Credentials,
    /// Hears of each failed attempt of a unary call; nothing is printed here.
    pub on_failure: Option<fn(&FailedAttempt<'_>)>,
}

/// Connections to the members of one cluster.
#[derive(Debug)]
pub struct Client {
    config: Config,
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
}

struct State {
    connections: Vec<Option<SendRequest<Bytes>>>,
    next: usize,
    /// Why the last attempt to connect failed, until one succeeds.
    unconnected: Option<String>,
    /// Metadata `token` of every call.
    token: Option<String>,
}

impl std::fmt::Debug for State {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.connections.iter().filter(|c| c.is_some()).count();
        f.debug_struct("State").field("open", &open).finish_non_exhaustive()
    }
}

/// Whether a stream of watches ends where its member has no leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    /// It does, with `etcdserver: no leader`.
    Required,
    /// It waits for one.
    Awaited,
}

/// An attempt of a unary call that failed, for the log.
#[derive(Debug)]
pub struct FailedAttempt<'a> {
    /// The first endpoint, as it was configured.
    pub target: &'a str,
    /// The method's path.
    pub method: &'static str,
    /// Attempts before this one.
    pub number: u32,
    /// Why, in gRPC's words.
    pub error: String,
}

/// Time between rounds over all endpoints.
const BACKOFF: Duration = Duration::from_millis(25);

impl Client {
    /// A client. It connects when it is used.
    ///
    /// # Errors
    /// There is no endpoint, or the files of TLS cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        let endpoints = Endpoint::all(&config.endpoints, config.tls.as_ref())?;
        if endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let token = match &config.credentials {
            Credentials::Token(token) => Some(token.clone()),
            Credentials::None | Credentials::Password { .. } => None,
        };
        let connections = vec![None; endpoints.len()];
        let state = State { connections, next: 0, unconnected: None, token };
        Ok(Self { config, endpoints, state: Mutex::new(state) })
    }

    /// The endpoints as they were configured.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.config.endpoints
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.config.credentials
    }

    /// Sends this token with every call from now on.
    pub(crate) fn set_token(&self, token: Option<String>) {
        self.state().token = token;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// An open connection to the next endpoint that has or takes one. Fails after one round.
    async fn connection(&self) -> Result<(usize, SendRequest<Bytes>), Error> {
        let first = {
            let mut state = self.state();
            state.next = (state.next + 1) % self.endpoints.len();
            state.next
        };
        let mut last = String::new();
        for step in 0..self.endpoints.len() {
            let at = (first + step) % self.endpoints.len();
            let known = self.state().connections[at].clone();
            let known = match known {
                Some(send) => send.ready().await.ok(),
                None => None,
            };
            if let Some(send) = known {
                return Ok((at, send));
            }
            let dialed =
                tokio::time::timeout(self.config.dial_timeout, self.endpoints[at].connect()).await;
            match dialed {
                Ok(Ok(send)) => {
                    self.connected(at, send.clone());
                    match send.ready().await {
                        Ok(send) => return Ok((at, send)),
                        Err(e) => last = e.to_string(),
                    }
                }
                Ok(Err(why)) => last = self.endpoints[at].not_dialed(&why),
                Err(_) => {
                    let why = Undialed::Socket("i/o timeout".to_owned());
                    last = self.endpoints[at].not_dialed(&why);
                }
            }
        }
        self.state().unconnected = Some(last.clone());
        Err(Error::Broken(last))
    }

    fn connected(&self, at: usize, send: SendRequest<Bytes>) {
        let mut state = self.state();
        state.connections[at] = Some(send);
        state.unconnected = None;
    }

    /// As [`Client::connection`], until it succeeds.
    async fn patient_connection(&self) -> (usize, SendRequest<Bytes>) {
        loop {
            match self.connection().await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(BACKOFF).await,
            }
        }
    }

    /// A unary call. Without a deadline it waits for a server as long as it takes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn call<A: Message + Default>(
        &self,
        method: Method,
        request: &impl Message,
        deadline: Option<Instant>,
    ) -> Result<A, Error> {
        let body = self.envelope(request)?;
        let mut attempt = 0;
        loop {
            let answer = within(deadline, self.once::<A>(method, body.clone())).await;
            let Err(error) = answer else { return answer };
            self.report(method, attempt, &error);
            attempt += 1;
            // A call that was refused for its token has done nothing.
            let is_refused =
                auth::carries_token(method) && auth::needs_new_token(self.credentials(), &error);
            let repeats = is_refused || is_unavailable(&error) && repeat::is_repeatable(method);
            if !repeats || attempt >= MAX_ATTEMPTS {
                return Err(error);
            }
            if is_refused {
                within(deadline, Box::pin(self.authenticate(None))).await?;
            }
            // The next attempt goes to the next endpoint.
            if (attempt as usize).is_multiple_of(self.endpoints.len()) {
                let pause = async {
                    tokio::time::sleep(BACKOFF).await;
                    Ok(())
                };
                within(deadline, pause).await?;
            }
        }
    }

    fn report(&self, method: Method, number: u32, error: &Error) {
        let Some(on_failure) = self.config.on_failure else { return };
        let unconnected = self.state().unconnected.clone();
        let error = match (error, unconnected) {
            (Error::Deadline, Some(why)) => {
                let code = Code::DeadlineExceeded;
                error::grpc_text(code, &format!("latest balancer error: {why}"))
            }
            (error, _) => error.grpc_text(),
        };
        let target = self.config.endpoints.first().map_or("", String::as_str);
        on_failure(&FailedAttempt { target, method: method.row().path, number, error });
    }

    async fn once<A: Message + Default>(&self, method: Method, body: Bytes) -> Result<A, Error> {
        let mut stream = self.open(method, Some(body), false, Leader::Awaited).await?;
        let message = stream.raw().await?;
        let message = message.ok_or_else(|| broken("no message"))?;
        while stream.raw().await?.is_some() {}
        A::decode(message).map_err(|_| broken("malformed message"))
    }

    /// Opens a stream with a first message. With `is_bidi` more can be sent.
    ///
    /// # Errors
    /// [`Error`]; refusals may also come with the first message.
    pub async fn stream(
        &self,
        method: Method,
        first: &impl Message,
        is_bidi: bool,
        deadline: Option<Instant>,
    ) -> Result<Stream, Error> {
        let body = self.envelope(first)?;
        // A token may have ended since the last stream.
        within(deadline, self.authenticate(None)).await?;
        within(deadline, self.open(method, Some(body), is_bidi, Leader::Awaited)).await
    }

    /// Opens a stream of watches with a first message.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub async fn watch_stream(
        &self,
        first: &WatchRequest,
        leader: Leader,
    ) -> Result<Stream, Error> {
        let body = self.envelope(first)?;
        self.authenticate(None).await?;
        self.open(Method::Watch, Some(body), true, leader).await
    }

    fn envelope(&self, message: &impl Message) -> Result<Bytes, Error> {
        let len = message.encoded_len();
        let max =
            if self.config.max_send_bytes == 0 { 2 << 20 } else { self.config.max_send_bytes };
        if len > max {
            let text = format!("trying to send message larger than max ({len} vs. {max})");
            return Err(Error::Status(Status::new(Code::ResourceExhausted, text)));
        }
        Ok(grpc::envelope::of(message))
    }

    async fn open(
        &self,
        method: Method,
        body: Option<Bytes>,
        is_bidi: bool,
        leader: Leader,
    ) -> Result<Stream, Error> {
        let (at, mut send) = self.patient_connection().await;
        let gone = |e: h2::Error| {
            self.state().connections[at] = None;
            Error::Broken(e.to_string())
        };
        let uri = format!("{}{}", self.endpoints[at].origin(), method.row().path);
        let mut request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("grpc-quorate/", env!("CARGO_PKG_VERSION")))
            .header("client-api-version", "3.7");
        if leader == Leader::Required {
            request = request.header("hasleader", "true");
        }
        if let Some(token) = self.state().token.as_ref().filter(|_| auth::carries_token(method)) {
            request = request.header("token", token);
        }
        let request = request.body(()).map_err(|e| Error::BadEndpoint(e.to_string()))?;
        let (response, mut stream) = send.send_request(request, false).map_err(gone)?;
        if let Some(body) = body {
            stream.send_data(body, !is_bidi).map_err(gone)?;
        }
        Ok(Stream {
            response: Some(response),
            send: stream,
            body: None,
            messages: Messages::new(
                Encoding::Identity,
                match self.config.max_receive_bytes {
                    0 => i32::MAX as usize,
                    max => max,
                },
            ),
        })
    }
}

async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match deadline {
        None => work.await,
        Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or(Err(Error::Deadline)),
    }
}

fn broken(text: &str) -> Error {
    Error::Broken(text.to_owned())
}

fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::Status(status) => status.code == Code::Unavailable,
        Error::Broken(_) => true,
        _ => false,
    }
}

/// An open call.
#[derive(Debug)]
pub struct Stream {
    response: Option<ResponseFuture>,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    messages: Messages,
}

impl Stream {
    /// Sends one more message.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send(&mut self, message: &impl Message) -> Result<(), Error> {
        self.send
            .send_data(grpc::envelope::of(message), false)
            .map_err(|e| Error::Broken(e.to_string()))
    }

    /// The next message; `None` at a good end.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn next<A: Message + Default>(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<A>, Error> {
        match within(deadline, self.raw()).await? {
            None => Ok(None),
            Some(message) => A::decode(message).map(Some).map_err(|_| broken("malformed message")),
        }
    }

    async fn raw(&mut self) -> Result<Option<Bytes>, Error> {
        let gone = |e: h2::Error| Error::Broken(e.to_string());
        // Awaited in place, so that a caller may give up and come back.
        if let Some(response) = &mut self.response {
            let response = response.await.map_err(gone)?;
            self.response = None;
            if response.status() != http::StatusCode::OK {
                return Err(Error::Broken(format!("unexpected HTTP status {}", response.status())));
            }
            if let Some(status) = grpc::status::stated(response.headers()) {
                status.map_err(Error::Status)?;
            }
            self.body = Some(response.into_body());
        }
        let body = self.body.as_mut().ok_or_else(|| broken("the stream is over"))?;
        loop {
            if let Some(message) = self.messages.take_next().map_err(Error::Status)? {
                return Ok(Some(message));
            }
            match body.data().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(gone)?;
                    let _ = body.flow_control().release_capacity(chunk.len());
                    self.messages.push(&chunk);
                }
                None => {
                    let trailers = body.trailers().await.map_err(gone)?;
                    grpc::status::at_end(&trailers.unwrap_or_default()).map_err(Error::Status)?;
                    return Ok(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use api::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};

    use super::*;

    /// Answers Unavailable `refusals` times and then with an empty message; counts requests.
    async fn server(refusals: usize) -> (Client, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let refused = seen.fetch_add(1, Ordering::SeqCst) < refusals;
                let status = if refused { "14" } else { "0" };
                let head = http::Response::builder();
                if refused {
                    let head = head.header("grpc-status", status).body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                    continue;
                }
                let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                send.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", status.parse().unwrap());
                send.send_trailers(trailers).unwrap();
            }
        });
        let config = Config {
            tls: None,
            endpoints: vec![endpoint],
            dial_timeout: Duration::from_secs(2),
            max_send_bytes: 0,
            max_receive_bytes: 0,
            credentials: Credentials::None,
            on_failure: None,
        };
        (Client::new(config).unwrap(), count)
    }

    fn wait<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn reads_are_sent_again_while_the_server_is_unavailable() {
        wait(async {
            let (client, count) = server(3).await;
            let request = RangeRequest::default();
            let read: Result<RangeResponse, _> = client.call(Method::Range, &request, None).await;
            assert_eq!(read, Ok(RangeResponse::default()));
            assert_eq!(count.load(Ordering::SeqCst), 4);
        });
    }

    #[test]
    fn writes_that_may_have_arrived_are_never_sent_again() {
        wait(async {
            let (client, count) = server(3).await;
            let request = PutRequest::default();
            let put: Result<PutResponse, _> = client.call(Method::Put, &request, None).await;
            assert_eq!(put.unwrap_err().code(), Some(Code::Unavailable));
            assert_eq!(count.load(Ordering::SeqCst), 1);
        });
    }
}
