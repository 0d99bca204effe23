//! One request of a method, and what came of it.

use std::time::Duration;

use api::etcdserverpb as pb;
use api::method::{CallType, Method, Need};
use bytes::Bytes;
use conform::grpc::envelope;
use conform::{Client, Failure};
use prost::Message;

use crate::model::Span;

/// What a request needs of its caller.
#[derive(Clone, Debug)]
pub enum Needs {
    /// These permissions, which the naive model can tell.
    Keys(Vec<(Need, Span)>),
    /// The role root.
    Root,
    /// To be somebody.
    User,
    /// Not told by the model: the two servers are compared.
    Untold,
}

/// How much of a good answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// All but the ids of its header.
    Whole,
    /// That it is good.
    Status,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Cell {
    pub method: Method,
    pub name: String,
    pub body: Vec<u8>,
    pub needs: Needs,
    pub compared: Compared,
    /// What root does before, whatever comes of it.
    pub before: Vec<(Method, Vec<u8>)>,
}

impl Cell {
    pub fn new(method: Method, name: impl Into<String>, request: &impl Message) -> Self {
        Self {
            method,
            name: name.into(),
            body: request.encode_to_vec(),
            needs: Needs::Untold,
            compared: Compared::Whole,
            before: Vec::new(),
        }
    }

    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    pub fn status_only(mut self) -> Self {
        self.compared = Compared::Status;
        self
    }

    pub fn after(mut self, method: Method, request: &impl Message) -> Self {
        self.before.push((method, request.encode_to_vec()));
        self
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The gRPC code; 998 if nothing came.
    pub code: u16,
    pub text: String,
    /// What is compared of a good answer.
    pub answer: String,
}

/// Longest wait for who leads: etcd says nothing to those who may not know, and goes on asking.
const OBSERVED: Duration = Duration::from_millis(500);

/// Nothing came in time.
pub const SILENCE: u16 = 998;

impl Outcome {
    fn failed(failure: Failure) -> Self {
        Self { code: failure.code, text: failure.message, answer: String::new() }
    }

    /// Whether the caller was turned away for who it is.
    pub fn is_refused(&self) -> bool {
        const REFUSALS: [&str; 4] = [
            "permission denied",
            "user name is empty",
            "invalid auth token",
            "revision of auth store is old",
        ];
        // A watch is refused within its stream.
        REFUSALS.iter().any(|refusal| self.text.contains(refusal) || self.answer.contains(refusal))
    }

    /// Whether it waited for somebody who did not come.
    pub fn is_in_vain(&self) -> bool {
        self.code == SILENCE || self.text.contains("request timed out")
    }
}

/// Sends a cell's request in a caller's name.
pub async fn run(client: &Client, cell: &Cell, patience: Duration) -> Outcome {
    let patience = if cell.method == Method::Observe { OBSERVED.min(patience) } else { patience };
    let is_unary_or_listens = cell.method.row().kind != CallType::BidiStream;
    let asked = async {
        let body = Some(envelope(&cell.body));
        let stream = client.try_open(cell.method.row().path, body, is_unary_or_listens).await;
        let mut stream = stream?;
        let first = stream.next_raw().await?;
        if cell.method.row().kind == CallType::Unary {
            // The status behind the message.
            stream.next_raw().await?;
        }
        Ok(first)
    };
    match tokio::time::timeout(patience, asked).await {
        Err(_) => Outcome { code: SILENCE, text: "nothing came".into(), answer: String::new() },
        Ok(Err(failure)) => Outcome::failed(failure),
        Ok(Ok(message)) => {
            let answer = match (cell.compared, message) {
                (Compared::Status, _) => String::new(),
                (Compared::Whole, None) => "no message".into(),
                (Compared::Whole, Some(message)) => shown(cell.method, message),
            };
            Outcome { code: 0, text: String::new(), answer }
        }
    }
}

/// A message without the ids of its header, as text.
fn shown(method: Method, message: Bytes) -> String {
    /// Any message: field 1 is the header.
    #[derive(Clone, PartialEq, Message)]
    struct Headed {
        #[prost(message, optional, tag = "1")]
        header: Option<pb::ResponseHeader>,
    }
    if method == Method::Watch {
        let watched = pb::WatchResponse::decode(message).expect("the method's message");
        let reason = &watched.cancel_reason;
        let compacted = watched.compact_revision;
        return format!("{} {} {compacted} {reason}", watched.created, watched.canceled);
    }
    if method == Method::RangeStream {
        let part = pb::RangeStreamResponse::decode(message).expect("the method's message");
        return format!("{:?}", part.range_response.map(|r| (r.count, r.kvs)));
    }
    if method == Method::LeaseTimeToLive || method == Method::LeaseKeepAlive {
        let lease = pb::LeaseTimeToLiveResponse::decode(&message[..]);
        // Seconds pass.
        let shown = |l: pb::LeaseTimeToLiveResponse| format!("{} {} {:?}", l.id, l.ttl > 0, l.keys);
        return lease.map_or_else(|e| e.to_string(), shown);
    }
    if method == Method::LeaseLeases {
        let listed = pb::LeaseLeasesResponse::decode(message).expect("the method's message");
        let mut ids: Vec<i64> = listed.leases.iter().map(|lease| lease.id).collect();
        // Members may list them in another order.
        ids.sort_unstable();
        return format!("{ids:?}");
    }
    if method.row().service == "grpc.health.v1.Health" {
        return message.escape_ascii().to_string();
    }
    let header = Headed::decode(&message[..]).expect("a message of the API").header;
    let revision = header.map_or(0, |h| h.revision);
    let body = without_header(&message);
    format!("revision {revision} {}", body.escape_ascii())
}

/// The bytes behind field 1, which stands first.
fn without_header(message: &[u8]) -> &[u8] {
    const FIRST: u8 = 0x0a;
    match message {
        [FIRST, len, rest @ ..] if *len < 0x80 => rest.get(usize::from(*len)..).unwrap_or(rest),
        _ => message,
    }
}
