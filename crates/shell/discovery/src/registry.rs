//! The registry of founding members in another etcd (discovery of etcd's third version).
//!
//! Under `/_etcd/registry/TOKEN` somebody has written how many members there are to be
//! (`_config/size`). Each member writes itself to `members/ID` and waits for the others; the first
//! so many, by the revision at which they were created, are the cluster, on every member the same.
//!
//! Invariant: a member that is not among the first finds the cluster full before it writes itself.
//! Limits: pauses between attempts grow to 256 s ([`Registry::pause`]); attempts have no end, as a
//! service that comes back is waited for; whoever waits can give up at any time.
//= etcd 3.7.3: server/etcdserver/api/v3discovery/discovery.go

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
    WatchResponse, watch_request,
};
use api::method::Method;
use client::{Client, Config, Credentials, Stream};
use observe::logging::Level;
use observe::{Log, Value};
use tls::TlsInfo;
use tokio::time::Instant;
use types::MemberId;

/// Where everything is.
const PREFIX: &str = "/_etcd/registry";
/// Pauses stop growing after so many attempts.
const MAX_EXPONENT: u32 = 8;
/// The longest message that the service may send.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The shortest time after which a silent watch is doubted.
const MIN_SILENCE: Duration = Duration::from_secs(1);

/// How the service is reached: the flags `--discovery-…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Service {
    /// `--discovery-token`.
    pub token: String,
    /// `--discovery-endpoints`.
    pub endpoints: Vec<String>,
    /// `--discovery-dial-timeout`.
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`.
    pub request_timeout: Duration,
    /// `--discovery-keepalive-time`: after how long a silent watch is doubted.
    pub keepalive_time: Duration,
    /// `--discovery-keepalive-timeout`: how long the service may then take to answer.
    pub keepalive_timeout: Duration,
    /// How TLS is spoken, if anything is said about it.
    pub tls: Option<TlsInfo>,
    /// `--discovery-user`, `--discovery-password`.
    pub credentials: Credentials,
}

impl fmt::Debug for Service {
    /// Without the token, which lets whoever knows it join.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Why no cluster is found, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// Nobody has written how many members there are to be.
    SizeNotFound,
    /// What was written is no number above 0.
    BadSize,
    /// All places are taken by others.
    Full,
    /// The service cannot be spoken with as it is configured.
    Client(client::Error),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeNotFound => f.write_str("discovery: size key not found"),
            Self::BadSize => f.write_str("discovery: size key is bad"),
            Self::Full => f.write_str("discovery: cluster is full"),
            Self::Client(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for RegistryError {}

/// A member that registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registered {
    key: String,
    /// `name=URL,name=URL`.
    urls: String,
    created: i64,
}

/// Those that registered, in the order in which they did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    prefix: String,
    members: Vec<Registered>,
}

impl Found {
    fn add(&mut self, member: Registered) -> Result<(), &'static str> {
        if !member.key.starts_with(&self.prefix) {
            return Err("invalid peer registry key");
        }
        if !member.urls.contains('=') {
            return Err("invalid peer info returned from discovery service");
        }
        if self.members.iter().any(|known| known.key == member.key) {
            return Err("found duplicate peer from discovery service");
        }
        self.members.push(member);
        self.members.sort_by_key(|member| member.created);
        Ok(())
    }

    /// The first `size` as `--initial-cluster` has them.
    fn cluster(&self, size: usize) -> String {
        let urls: Vec<&str> =
            self.members.iter().take(size).map(|member| member.urls.as_str()).collect();
        urls.join(",")
    }
}

/// One look at the registry.
struct Looked {
    found: Found,
    size: usize,
    revision: i64,
}

/// The registry of one cluster, as one member sees it.
pub struct Registry {
    service: Service,
    member: MemberId,
    client: Client,
    log: Arc<Log>,
    failures: u32,
}

impl Registry {
    /// The registry of the service's token. Nothing is sent yet.
    ///
    /// # Errors
    /// [`RegistryError::Client`].
    pub fn new(service: Service, member: MemberId, log: &Arc<Log>) -> Result<Self, RegistryError> {
        let config = Config {
            endpoints: service.endpoints.clone(),
            tls: service.tls.clone(),
            dial_timeout: service.dial_timeout,
            max_send_bytes: 0,
            max_receive_bytes: MAX_MESSAGE_BYTES,
            credentials: service.credentials.clone(),
            on_failure: None,
        };
        let client = Client::new(config).map_err(RegistryError::Client)?;
        Ok(Self { service, member, client, log: Arc::clone(log), failures: 0 })
    }

    /// Registers this member with its URLs as `name=URL,name=URL`, waits until all are there and
    /// gives the cluster in the same form. Waits as long as it takes.
    ///
    /// # Errors
    /// [`RegistryError`]; what may be over by itself is tried again instead.
    //= etcd 3.7.3: server/etcdserver/api/v3discovery/discovery.go#JoinCluster
    pub async fn join(mut self, urls: &str) -> Result<String, RegistryError> {
        let joined = self.joined(urls).await;
        match &joined {
            Ok(cluster) => {
                let text = "discovery joined cluster successfully";
                self.tell(Level::Info, text, &[("cluster", cluster.as_str().into())]);
            }
            Err(e) => {
                let fields = [("cluster", "".into()), ("error", e.to_string().into())];
                self.tell(Level::Error, "discovery failed to join cluster", &fields);
            }
        }
        joined
    }

    async fn joined(&mut self, urls: &str) -> Result<String, RegistryError> {
        self.look().await?;
        self.register(urls).await;
        let Looked { mut found, size, revision } = self.look().await?;
        if found.members.len() < size {
            self.wait_for_all(&mut found, size, revision).await;
        }
        Ok(found.cluster(size))
    }

    fn tell(&self, level: Level, text: &str, fields: &[(&str, Value)]) {
        let Service { token, endpoints, .. } = &self.service;
        let mut all = vec![
            ("discovery-token", token.as_str().into()),
            ("discovery-endpoints", endpoints.join(",").into()),
        ];
        all.extend(fields.iter().cloned());
        let caller = concat!(file!(), ":", line!()).trim_start_matches("crates/");
        self.log.line(level, caller, text, &all);
    }

    fn prefix(&self) -> String {
        clean(&format!("{PREFIX}/{}", self.service.token))
    }

    fn own_key(&self) -> String {
        format!("{}/members/{}", self.prefix(), self.member)
    }

    fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.service.request_timeout)
    }

    /// Waits before another attempt, twice as long as before the last.
    async fn pause(&mut self, reason: &str) {
        self.failures = self.failures.saturating_add(1);
        let backoff = Duration::from_secs(1 << self.failures.min(MAX_EXPONENT));
        let shown = format!("{}s", backoff.as_secs_f64());
        let fields = [("reason", reason.into()), ("backoff", shown.into())];
        self.tell(Level::Warn, "retry connecting to discovery service", &fields);
        tokio::time::sleep(backoff).await;
    }

    /// Who is registered, and whether this member is or can be.
    //= etcd 3.7.3: server/etcdserver/api/v3discovery/discovery.go#checkCluster
    async fn look(&mut self) -> Result<Looked, RegistryError> {
        let (size, (found, revision)) = loop {
            let size = match self.size().await {
                Ok(size) => size?,
                Err(()) => {
                    self.pause("cluster status check").await;
                    continue;
                }
            };
            match self.members(self.service.request_timeout).await {
                Ok(members) => break (size, members),
                Err(()) => self.pause("cluster status check").await,
            }
        };
        self.failures = 0;
        let own = self.own_key();
        let place = found.members.iter().position(|member| member.key == own);
        match place.unwrap_or(found.members.len()) {
            place if place < size => Ok(Looked { found, size, revision }),
            _ => Err(RegistryError::Full),
        }
    }

    /// How many members there are to be. The outer failure may be over by itself.
    async fn size(&self) -> Result<Result<usize, RegistryError>, ()> {
        let key = format!("{}/_config/size", self.prefix());
        let request = RangeRequest { key: key.clone().into(), ..RangeRequest::default() };
        let read: RangeResponse = self.range(&request, self.deadline()).await.map_err(|e| {
            let fields = [("clusterSizeKey", key.into()), ("error", e.to_string().into())];
            let text = "failed to get cluster size from discovery service";
            self.tell(Level::Warn, text, &fields);
        })?;
        let Some(pair) = read.kvs.first() else { return Ok(Err(RegistryError::SizeNotFound)) };
        let size = std::str::from_utf8(&pair.value).ok().and_then(|text| text.parse().ok());
        Ok(size.filter(|&size: &usize| size > 0).ok_or(RegistryError::BadSize))
    }

    /// Who is registered, at which revision.
    async fn members(&self, patience: Duration) -> Result<(Found, i64), ()> {
        let prefix = format!("{}/members", self.prefix());
        let request = RangeRequest {
            key: prefix.clone().into(),
            range_end: end_of(&prefix).into(),
            ..RangeRequest::default()
        };
        let deadline = Some(Instant::now() + patience);
        let read = self.range(&request, deadline).await.map_err(|e| {
            let text = "failed to get cluster members from discovery service";
            let fields =
                [("membersKeyPrefix", prefix.as_str().into()), ("error", e.to_string().into())];
            self.tell(Level::Warn, text, &fields);
        })?;
        let mut found = Found { prefix, members: Vec::new() };
        for pair in &read.kvs {
            self.add(&mut found, &pair.key, &pair.value, pair.create_revision);
        }
        Ok((found, read.header.map_or(0, |header| header.revision)))
    }

    fn add(&self, found: &mut Found, key: &[u8], value: &[u8], created: i64) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let member = Registered { key: text(key), urls: text(value), created };
        let fields = [
            ("memberKey", member.key.as_str().into()),
            ("memberInfo", member.urls.as_str().into()),
        ];
        match found.add(member) {
            Ok(()) => self.tell(Level::Info, "found peer from discovery service", &fields),
            Err(why) => self.tell(Level::Warn, why, &fields),
        }
    }

    async fn range(
        &self,
        request: &RangeRequest,
        deadline: Option<Instant>,
    ) -> Result<RangeResponse, client::Error> {
        self.client.authenticate(deadline).await?;
        self.client.call(Method::Range, request, deadline).await
    }

    /// Writes this member down. Doing so twice does no harm.
    //= etcd 3.7.3: server/etcdserver/api/v3discovery/discovery.go#registerSelf
    async fn register(&mut self, urls: &str) {
        let key = self.own_key();
        let request = PutRequest {
            key: key.clone().into(),
            value: urls.to_owned().into(),
            ..PutRequest::default()
        };
        loop {
            let put: Result<PutResponse, _> =
                self.client.call(Method::Put, &request, self.deadline()).await;
            let Err(e) = put else { break };
            let fields = [("memberKey", key.as_str().into()), ("error", e.to_string().into())];
            let text = "failed to register members itself to the discovery service";
            self.tell(Level::Warn, text, &fields);
            self.pause("register member itself").await;
        }
        self.failures = 0;
        let fields = [("memberKey", key.into()), ("memberInfo", urls.into())];
        self.tell(Level::Info, "register member itself successfully", &fields);
    }

    /// Waits until `size` members are registered. Watches from the revision behind the last look;
    /// a watch that ends, or is silent for long, is followed by another look.
    //= etcd 3.7.3: server/etcdserver/api/v3discovery/discovery.go#waitPeers
    async fn wait_for_all(&mut self, found: &mut Found, size: usize, mut revision: i64) {
        let count = |found: &Found| {
            [("clusterSize", size.into()), ("found-peers", found.members.len().into())]
        };
        self.tell(Level::Info, "waiting for peers from discovery service", &count(found));
        while found.members.len() < size {
            if let Ok(mut watch) = self.watch(&found.prefix, revision + 1).await {
                self.follow(&mut watch, found, size).await;
            }
            if found.members.len() >= size {
                break;
            }
            match self.members(self.service.keepalive_timeout.max(MIN_SILENCE)).await {
                // Whoever is known already is not told of again.
                Ok((now, at)) => {
                    self.failures = 0;
                    revision = at;
                    for member in now.members {
                        let _ = found.add(member);
                    }
                }
                Err(()) => self.pause("wait for peers").await,
            }
        }
        self.tell(Level::Info, "found all needed peers from discovery service", &count(found));
    }

    async fn watch(&self, prefix: &str, start_revision: i64) -> Result<Stream, client::Error> {
        let create = WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: end_of(prefix).into(),
            start_revision,
            ..WatchCreateRequest::default()
        };
        let union = watch_request::RequestUnion::CreateRequest(create);
        let request = WatchRequest { request_union: Some(union) };
        self.client.stream(Method::Watch, &request, true, self.deadline()).await
    }

    /// Takes what a watch tells until all are there, it ends, or it is silent for long.
    async fn follow(&self, watch: &mut Stream, found: &mut Found, size: usize) {
        let silence = self.service.keepalive_time.max(MIN_SILENCE);
        while found.members.len() < size {
            let next = watch.next::<WatchResponse>(Some(Instant::now() + silence)).await;
            let Ok(Some(response)) = next else { return };
            if response.canceled {
                return;
            }
            for pair in response.events.iter().filter_map(|event| event.kv.as_ref()) {
                self.add(found, &pair.key, &pair.value, pair.create_revision);
            }
        }
    }
}

/// The end of the range of keys with a prefix, which does not end with the highest byte.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// A path without empty parts, `.` and `..`, as Go joins them.
//= go 1.26: src/path/path.go#Clean
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, urls: &str, created: i64) -> Registered {
        Registered { key: format!("/p/members/{id}"), urls: urls.to_owned(), created }
    }

    #[test]
    fn the_first_to_register_are_the_cluster() {
        let mut found = Found { prefix: "/p/members".to_owned(), members: Vec::new() };
        found.add(member(1, "a=http://a:1", 9)).unwrap();
        found.add(member(2, "b=http://b:1,b=http://b:2", 7)).unwrap();
        found.add(member(3, "c=http://c:1", 8)).unwrap();
        assert_eq!(found.cluster(2), "b=http://b:1,b=http://b:2,c=http://c:1");
        assert_eq!(found.cluster(3), "b=http://b:1,b=http://b:2,c=http://c:1,a=http://a:1");
        let refused = [
            (member(3, "c=x", 10), "found duplicate peer from discovery service"),
            (member(4, "", 10), "invalid peer info returned from discovery service"),
            (
                Registered { key: "/q".to_owned(), ..member(5, "e=x", 10) },
                "invalid peer registry key",
            ),
        ];
        for (member, why) in refused {
            assert_eq!(found.add(member), Err(why));
        }
        assert_eq!(found.members.len(), 3);
    }

    #[test]
    fn a_token_is_a_path() {
        assert_eq!(clean("/_etcd/registry/abc"), "/_etcd/registry/abc");
        assert_eq!(clean("/_etcd/registry//a/./b/"), "/_etcd/registry/a/b");
        assert_eq!(clean("/_etcd/registry/../x"), "/_etcd/x");
        assert_eq!(end_of("/members"), b"/membert");
    }
}
