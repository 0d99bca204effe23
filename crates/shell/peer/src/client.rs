//! What one member asks of another outside of raft, as typed functions.
//!
//! Owns requests and the meaning of answers; works within any tokio runtime. Where a member has
//! several URLs they are tried in turn, each within `timeout`. Never retries otherwise.
//!
//! //= etcd 3.7.1: server/etcdserver/cluster_util.go
//! //= etcd 3.7.1: server/lease/leasehttp/http.go#RenewHTTP
//! //= etcd 3.7.1: server/etcdserver/corrupt.go#HashByRev

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use api::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use api::odd;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use net::Dialer;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tls::ClientTls;
use types::{ClusterId, LeaseId, MemberId, Revision, Url};

use crate::headers::{CLUSTER_ID, parse_id};
use crate::link::{Link, LinkError, once, repeatable};
use crate::reader::describe;

/// Bytes of an answer.
//= etcd 3.7.1: server/lease/leasehttp/http.go#maxLeaseHTTPResponseSize
const ANSWER_BYTES: usize = 100 << 20;

/// Why a question got no useful answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No URL, or none that can be reached in time.
    Unreachable(String),
    /// The peer refused, with this text.
    Refused(StatusCode, String),
    /// The answer cannot be understood.
    Malformed(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable(why) | ClientError::Malformed(why) => f.write_str(why),
            ClientError::Refused(status, text) => write!(f, "{}: {text}", status.as_u16()),
        }
    }
}

impl std::error::Error for ClientError {}

/// A member as `/members` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteMember {
    /// Its id.
    pub id: u64,
    /// Where other members reach it.
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_empty")]
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name; empty before it published itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it; empty before it published itself.
    #[serde(
        rename = "clientURLs",
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub client_urls: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The members of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCluster {
    /// The cluster.
    pub id: ClusterId,
    /// Its members; never empty.
    pub members: Vec<RemoteMember>,
}

/// What `/version` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Versions {
    /// Of the program.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// Of the cluster; `not_decided` before there is one.
    #[serde(rename = "etcdcluster")]
    pub cluster: String,
    /// Of the files.
    pub storage: String,
}

/// Why a learner was not promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromoteError {
    /// No member has this id.
    NotFound,
    /// It votes already.
    NotLearner,
    /// It is not in sync with the leader.
    NotReady,
    /// The leader ran out of time.
    Timeout,
    /// Anything else.
    Other(ClientError),
}

/// Why a lease's keeper did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseError {
    /// There is no such lease.
    NotFound,
    /// The peer is behind with applying.
    Timeout,
    /// Anything else; another peer may be the leader by now.
    Other(ClientError),
}

/// A hash of the key space up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteHash {
    /// The peer's revision.
    pub revision: Revision,
    /// The hash.
    pub hash: u32,
    /// Compactions up to this revision are in it.
    pub compact_revision: Revision,
    /// It is a hash up to this revision.
    pub hash_revision: Revision,
}

/// Why a peer told no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashError {
    /// The revision was compacted.
    Compacted,
    /// The revision is not there yet.
    FutureRevision,
    /// It is a member of another cluster.
    ClusterMismatch,
    /// Anything else.
    Other(ClientError),
}

/// Connections that are kept for the next question about a lease: a follower asks its leader
/// thousands of times a second, and a port that was closed is of no use for a minute.
const KEPT: usize = 8;

/// A connection, and where to.
type Kept = (Url, Link<Full<Bytes>>);

/// Asks other members. Each runtime has its own: a clone keeps other connections.
pub struct Client {
    dialer: Dialer,
    kept: Mutex<Vec<Kept>>,
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self { dialer: self.dialer.clone(), kept: Mutex::default() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that connects within `dial_timeout`, from `local_address` if there is one, and over
    /// TLS as `tls` says.
    #[must_use]
    pub fn new(
        dial_timeout: Duration,
        local_address: Option<IpAddr>,
        tls: Option<ClientTls>,
    ) -> Self {
        let dialer = Dialer { timeout: Some(dial_timeout), local_address, tls };
        Self { dialer, kept: Mutex::default() }
    }

    /// Asks one URL; the answer, whatever its status.
    ///
    /// # Errors
    /// Only [`ClientError::Unreachable`].
    pub async fn ask(
        &self,
        url: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let request = request.map(Full::new);
        within(url, timeout, async |url| once(&self.dialer, url, request, ANSWER_BYTES).await).await
    }

    /// As [`Client::ask`], for what may arrive twice; on a connection that was kept, if there is one.
    async fn ask_again(
        &self,
        url: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let request = request.map(Full::new);
        within(url, timeout, async |url| {
            let kept = self.kept(|kept| {
                let place = kept.iter().rposition(|(to, _)| to == url)?;
                Some(kept.remove(place).1)
            });
            let (answer, link) =
                repeatable(kept, &self.dialer, url, &request, ANSWER_BYTES).await?;
            self.kept(|kept| {
                if kept.len() >= KEPT {
                    // Perhaps one to a leader of former times.
                    kept.remove(0);
                }
                kept.push((url.clone(), link));
            });
            Ok(answer)
        })
        .await
    }

    /// The connections that are kept, for a moment.
    fn kept<T>(&self, work: impl FnOnce(&mut Vec<Kept>) -> T) -> T {
        work(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks URL after URL until `read` can use an answer; otherwise the last error.
    async fn first<T>(
        &self,
        urls: &[String],
        path: &str,
        timeout: Duration,
        read: impl Fn(Response<Bytes>) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut last = ClientError::Unreachable("no URL".to_owned());
        for url in urls {
            let asked = self.ask(url, request(Method::GET, path, Bytes::new()), timeout).await;
            match asked.and_then(&read) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The members of the cluster that the first URL to answer belongs to.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(
        &self,
        urls: &[String],
        timeout: Duration,
    ) -> Result<RemoteCluster, ClientError> {
        self.first(urls, "/members", timeout, |answer| {
            let members: Vec<RemoteMember> = json(answer.body())?;
            let id = answer.headers().get(CLUSTER_ID).and_then(|value| value.to_str().ok());
            let id = id.and_then(parse_id).ok_or_else(|| malformed("no cluster ID"))?;
            if members.is_empty() {
                return Err(malformed("no members"));
            }
            Ok(RemoteCluster { id: ClusterId(id), members })
        })
        .await
    }

    /// A member's versions.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(
        &self,
        urls: &[String],
        timeout: Duration,
    ) -> Result<Versions, ClientError> {
        self.first(urls, "/version", timeout, |answer| json(answer.body())).await
    }

    /// Whether a member knows of a downgrade that is going on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn downgrade_enabled(
        &self,
        urls: &[String],
        timeout: Duration,
    ) -> Result<bool, ClientError> {
        self.first(urls, "/downgrade/enabled", timeout, |answer| match &answer.body()[..] {
            b"true" | b"1" | b"t" | b"T" | b"TRUE" | b"True" => Ok(true),
            b"false" | b"0" | b"f" | b"F" | b"FALSE" | b"False" => Ok(false),
            _ => Err(refused(&answer)),
        })
        .await
    }

    /// Asks the leader to make a learner a voter; `token` is the caller's, if it has one.
    ///
    /// # Errors
    /// See [`PromoteError`].
    pub async fn promote(
        &self,
        url: &str,
        id: MemberId,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Vec<RemoteMember>, PromoteError> {
        let mut request =
            request(Method::POST, &format!("/members/promote/{}", id.0), Bytes::new());
        if let Some(token) = token.and_then(|token| HeaderValue::from_str(token).ok()) {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let answer = self.ask(url, request, timeout).await.map_err(PromoteError::Other)?;
        let says = |text: &str| String::from_utf8_lossy(answer.body()).contains(text);
        match answer.status() {
            StatusCode::OK => json(answer.body()).map_err(PromoteError::Other),
            StatusCode::REQUEST_TIMEOUT => Err(PromoteError::Timeout),
            StatusCode::NOT_FOUND => Err(PromoteError::NotFound),
            StatusCode::PRECONDITION_FAILED
                if says("can only promote a learner member which is in sync with leader") =>
            {
                Err(PromoteError::NotReady)
            }
            StatusCode::PRECONDITION_FAILED if says("can only promote a learner member") => {
                Err(PromoteError::NotLearner)
            }
            _ => Err(PromoteError::Other(refused(&answer))),
        }
    }

    /// Renews a lease at the leader; its time to live, seconds.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn renew(
        &self,
        url: &str,
        lease: LeaseId,
        timeout: Duration,
    ) -> Result<i64, LeaseError> {
        let body = LeaseKeepAliveRequest { id: lease.0 }.encode_to_vec();
        let answer: LeaseKeepAliveResponse = self.lease(url, "/leases", body, timeout).await?;
        if answer.id != lease.0 {
            return Err(LeaseError::Other(malformed("renew id mismatch")));
        }
        Ok(answer.ttl)
    }

    /// What the leader knows of a lease.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn time_to_live(
        &self,
        url: &str,
        lease: LeaseId,
        keys: bool,
        timeout: Duration,
    ) -> Result<LeaseTimeToLiveResponse, LeaseError> {
        let inner = LeaseTimeToLiveRequest { id: lease.0, keys };
        let request = LeaseInternalRequest { lease_time_to_live_request: Some(inner) };
        let body = request.encode_to_vec();
        let answer: LeaseInternalResponse =
            self.lease(url, "/leases/internal", body, timeout).await?;
        let answer = answer.lease_time_to_live_response.unwrap_or_default();
        if answer.id != lease.0 {
            return Err(LeaseError::Other(malformed("TTL id mismatch")));
        }
        Ok(answer)
    }

    async fn lease<M: prost::Message + Default + prost::Name>(
        &self,
        url: &str,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<M, LeaseError> {
        let mut request = request(Method::POST, path, body.into());
        let content_type = HeaderValue::from_static("application/protobuf");
        request.headers_mut().insert(header::CONTENT_TYPE, content_type);
        let answer = self.ask_again(url, request, timeout).await.map_err(LeaseError::Other)?;
        match answer.status() {
            StatusCode::OK => odd::decode(answer.into_body())
                .map_err(|e| LeaseError::Other(malformed(&e.to_string()))),
            StatusCode::REQUEST_TIMEOUT => Err(LeaseError::Timeout),
            StatusCode::NOT_FOUND => Err(LeaseError::NotFound),
            _ => Err(LeaseError::Other(refused(&answer))),
        }
    }

    /// A member's hash of the key space up to `revision` (0: its newest), as a member of `cluster`.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash_kv(
        &self,
        url: &str,
        cluster: ClusterId,
        revision: Revision,
        timeout: Duration,
    ) -> Result<RemoteHash, HashError> {
        let body = match revision.0 {
            0 => "{}".to_owned(),
            revision => format!("{{\"revision\":{revision}}}"),
        };
        let mut request = request(Method::GET, "/members/hashkv", body.into());
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let id = HeaderValue::from_str(&cluster.to_string()).expect("hex digits");
        headers.insert(CLUSTER_ID, id);
        let answer = self.ask(url, request, timeout).await.map_err(HashError::Other)?;
        let says = |text: &str| String::from_utf8_lossy(answer.body()).contains(text);
        match answer.status() {
            StatusCode::OK => {
                let found: HashAnswer = json(answer.body()).map_err(HashError::Other)?;
                Ok(RemoteHash {
                    revision: Revision(found.header.unwrap_or_default().revision),
                    hash: found.hash,
                    compact_revision: Revision(found.compact_revision),
                    hash_revision: Revision(found.hash_revision),
                })
            }
            StatusCode::BAD_REQUEST if says("required revision has been compacted") => {
                Err(HashError::Compacted)
            }
            StatusCode::BAD_REQUEST if says("required revision is a future revision") => {
                Err(HashError::FutureRevision)
            }
            StatusCode::PRECONDITION_FAILED if says(crate::headers::CLUSTER_ID_MISMATCH) => {
                Err(HashError::ClusterMismatch)
            }
            _ => Err(HashError::Other(refused(&answer))),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HashAnswer {
    header: Option<HashHeader>,
    hash: u32,
    compact_revision: i64,
    hash_revision: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HashHeader {
    revision: i64,
}

/// An exchange with one URL, which must end in time.
async fn within<T>(
    url: &str,
    timeout: Duration,
    exchange: impl AsyncFnOnce(&Url) -> Result<T, LinkError>,
) -> Result<T, ClientError> {
    let unreachable = |why: String| ClientError::Unreachable(format!("{url}: {why}"));
    let parsed = Url::parse(url).map_err(|e| unreachable(e.to_string()))?;
    match tokio::time::timeout(timeout, exchange(&parsed)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unreachable(describe(&*error))),
        Err(_) => Err(unreachable("no answer in time".to_owned())),
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(path).body(body);
    request.expect("a path of ours")
}

fn json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| malformed(&e.to_string()))
}

fn malformed(why: &str) -> ClientError {
    ClientError::Malformed(why.to_owned())
}

fn refused(answer: &Response<Bytes>) -> ClientError {
    let text = String::from_utf8_lossy(answer.body());
    ClientError::Refused(answer.status(), text.trim_end_matches('\n').to_owned())
}
