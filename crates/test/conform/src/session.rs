//! A scenario on a pair of servers: what each answers is written down, masked, and compared.
//!
//! A scenario asserts what etcd documents; the comparison of the transcripts then catches every
//! field that the assertions did not name. Most scenarios share one pair (starting the reference
//! takes a second): they begin on an empty key space, but not at revision 1.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use api::etcdserverpb as pb;
use prost::Message;

use crate::cluster::Cluster;
use crate::grpc::{Client, Failure};
use crate::process::{Kind, Server};

/// A response of which everything but the identity of the server can be compared.
pub trait Masked: Message + Default + Debug {
    /// Clears cluster id, member id and raft term.
    fn mask(&mut self);
}

macro_rules! masked {
    ($package:ident: $($response:ident)*) => {$(
        impl Masked for api::$package::$response {
            fn mask(&mut self) {
                if let Some(header) = &mut self.header {
                    (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
                }
            }
        }
    )*};
}

masked! { v3lockpb: LockResponse UnlockResponse }

masked! {
    v3electionpb: CampaignResponse ProclaimResponse LeaderResponse ResignResponse
}

masked! {
    etcdserverpb:
    RangeResponse PutResponse DeleteRangeResponse TxnResponse CompactionResponse HashKvResponse
    LeaseGrantResponse LeaseRevokeResponse LeaseTimeToLiveResponse LeaseLeasesResponse
    LeaseKeepAliveResponse SnapshotResponse WatchResponse AuthStatusResponse AuthenticateResponse
    AuthEnableResponse AuthDisableResponse AuthUserAddResponse AuthUserGetResponse
    AuthUserListResponse AuthUserDeleteResponse AuthUserChangePasswordResponse
    AuthUserGrantRoleResponse AuthUserRevokeRoleResponse AuthRoleAddResponse AuthRoleGetResponse
    AuthRoleListResponse AuthRoleDeleteResponse AuthRoleGrantPermissionResponse
    AuthRoleRevokePermissionResponse
}

impl Masked for pb::HashResponse {
    /// The hash covers the whole database, which holds ids: only that there is one is compared.
    fn mask(&mut self) {
        self.header = None;
        self.hash = u32::from(self.hash != 0);
    }
}

impl Masked for pb::AlarmResponse {
    /// Which member it is cannot be compared, whether one is named can.
    fn mask(&mut self) {
        if let Some(header) = &mut self.header {
            (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
        }
        for alarm in &mut self.alarms {
            alarm.member_id = u64::from(alarm.member_id != 0);
        }
    }
}

/// Where a scenario happens.
#[derive(Debug)]
enum Place {
    /// On a member that is alone.
    Alone(Server),
    /// On a follower in a cluster.
    Among(Cluster, usize),
}

impl Place {
    /// With `QUORATE_MEMBERS=3`, the same scenarios run on a follower of three.
    fn start(kind: Kind, args: &[&str]) -> Option<Self> {
        match std::env::var("QUORATE_MEMBERS").as_deref() {
            Err(_) | Ok("1") => Server::start(kind, args).map(Self::Alone),
            Ok(number) => {
                let size = number.parse().expect("QUORATE_MEMBERS is a number");
                let cluster = Cluster::start_patient(&vec![kind; size], args)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime can be made");
                let follower = runtime.block_on(cluster.follower());
                Some(Self::Among(cluster, follower))
            }
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Alone(server) => server.kind,
            Self::Among(cluster, n) => cluster.nodes[*n].kind,
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Alone(server) => (Ipv4Addr::LOCALHOST, server.port).into(),
            Self::Among(cluster, n) => cluster.nodes[*n].client,
        }
    }

    fn restart(&mut self, cleanly: bool) {
        match self {
            Self::Alone(server) => {
                if cleanly {
                    server.stop();
                }
                server.restart_as(server.kind);
            }
            Self::Among(cluster, n) => {
                if cleanly {
                    cluster.nodes[*n].stop();
                }
                cluster.nodes[*n].kill();
                cluster.restart(*n);
            }
        }
    }
}

/// One server of a pair, and what it answered so far.
#[derive(Debug)]
pub struct Session {
    place: Place,
    client: Option<Client>,
    transcript: Vec<String>,
}

type Answer<A> = Result<A, Failure>;

impl Session {
    fn start(kind: Kind, args: &[&str]) -> Option<Self> {
        let place = Place::start(kind, args)?;
        Some(Self { place, client: None, transcript: Vec::new() })
    }

    async fn begin(&mut self) {
        self.client = Some(Client::connect_to(self.place.address()).await);
        self.transcript.clear();
    }

    /// Another connection to the server, with a window of so many bytes per stream.
    ///
    /// # Panics
    /// If it does not serve.
    pub async fn connect(&self, window: u32) -> Client {
        let connected = Client::try_connect_to(self.place.address(), window).await;
        connected.expect("the server listens and speaks HTTP/2")
    }

    /// Which server it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.place.kind()
    }

    /// Whether this member is alone, and so leads.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        matches!(self.place, Place::Alone(_))
    }

    /// The body of an HTTP/1.0 GET, if it was answered.
    #[must_use]
    pub fn http_get(&self, path: &str) -> Option<String> {
        match &self.place {
            Place::Alone(server) => server.http_get(path),
            Place::Among(cluster, n) => cluster.nodes[*n].http_get(path),
        }
    }

    /// The connection.
    ///
    /// # Panics
    /// Before the scenario began.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("connected when the scenario began")
    }

    /// Stops the server cleanly, starts it again on its directory and connects anew.
    ///
    /// # Panics
    /// If it does not come back.
    pub async fn restart(&mut self) {
        self.place.restart(true);
        self.client = Some(Client::connect_to(self.place.address()).await);
    }

    /// Kills the server (SIGKILL), starts it again on its directory and connects anew.
    ///
    /// # Panics
    /// If it does not come back.
    pub async fn kill(&mut self) {
        self.place.restart(false);
        self.client = Some(Client::connect_to(self.place.address()).await);
    }

    /// Makes all further calls by this client.
    pub fn act_as(&mut self, client: Client) {
        self.client = Some(client);
    }

    /// Writes a line into the transcript.
    pub fn note(&mut self, line: impl Into<String>) {
        self.transcript.push(line.into());
    }

    /// A unary call; the masked answer goes into the transcript.
    ///
    /// # Errors
    /// The server's.
    pub async fn call<A: Masked>(&mut self, path: &str, request: &impl Message) -> Answer<A> {
        let mut answer = self.client().call::<A>(path, request).await;
        if let Ok(answer) = &mut answer {
            answer.mask();
        }
        self.note(format!("{path}: {answer:?}"));
        answer
    }

    /// Range.
    ///
    /// # Errors
    /// The server's; so for all calls below.
    pub async fn range(&mut self, request: &pb::RangeRequest) -> Answer<pb::RangeResponse> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// Put.
    #[allow(clippy::missing_errors_doc)]
    pub async fn put(&mut self, request: &pb::PutRequest) -> Answer<pb::PutResponse> {
        self.call("/etcdserverpb.KV/Put", request).await
    }

    /// A put of key and value that must succeed; returns its revision.
    ///
    /// # Panics
    /// If it fails.
    pub async fn set(&mut self, key: &str, value: &str) -> i64 {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let answer = self.put(&pb::PutRequest { key, value, ..Default::default() }).await;
        answer.expect("a plain put succeeds").header.expect("every answer has a header").revision
    }

    /// Deletes one key, which must succeed; returns the revision of the answer.
    ///
    /// # Panics
    /// If it fails.
    pub async fn unset(&mut self, key: &str) -> i64 {
        let key = key.to_owned().into();
        let answer = self.delete(&pb::DeleteRangeRequest { key, ..Default::default() }).await;
        answer.expect("a plain delete succeeds").header.expect("as for set").revision
    }

    /// The key-value of a key now.
    ///
    /// # Panics
    /// If the range fails.
    pub async fn get(&mut self, key: &str) -> Option<api::mvccpb::KeyValue> {
        let key = key.to_owned().into();
        let answer = self.range(&pb::RangeRequest { key, ..Default::default() }).await;
        answer.expect("a plain range succeeds").kvs.pop()
    }

    /// The store's revision.
    ///
    /// # Panics
    /// If the range fails.
    pub async fn revision(&mut self) -> i64 {
        let request = pb::RangeRequest { key: "?".into(), ..Default::default() };
        let answer = self.range(&request).await.expect("a plain range succeeds");
        answer.header.expect("every answer has a header").revision
    }

    /// `DeleteRange`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn delete(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Answer<pb::DeleteRangeResponse> {
        self.call("/etcdserverpb.KV/DeleteRange", request).await
    }

    /// `Txn`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn txn(&mut self, request: &pb::TxnRequest) -> Answer<pb::TxnResponse> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    /// `Compact`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn compact(
        &mut self,
        revision: i64,
        physical: bool,
    ) -> Answer<pb::CompactionResponse> {
        let request = pb::CompactionRequest { revision, physical };
        self.call("/etcdserverpb.KV/Compact", &request).await
    }

    /// `HashKV`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn hash_kv(&mut self, revision: i64) -> Answer<pb::HashKvResponse> {
        self.call("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest { revision }).await
    }

    /// `LeaseGrant`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn grant(&mut self, id: i64, ttl: i64) -> Answer<pb::LeaseGrantResponse> {
        self.call("/etcdserverpb.Lease/LeaseGrant", &pb::LeaseGrantRequest { id, ttl }).await
    }

    /// `LeaseRevoke`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn revoke(&mut self, id: i64) -> Answer<pb::LeaseRevokeResponse> {
        self.call("/etcdserverpb.Lease/LeaseRevoke", &pb::LeaseRevokeRequest { id }).await
    }

    /// `Alarm`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn alarm(
        &mut self,
        action: pb::alarm_request::AlarmAction,
        alarm: pb::AlarmType,
        member_id: u64,
    ) -> Answer<pb::AlarmResponse> {
        let (action, alarm) = (action as i32, alarm as i32);
        let request = pb::AlarmRequest { action, member_id, alarm };
        self.call("/etcdserverpb.Maintenance/Alarm", &request).await
    }

    /// `Status`, which is not written down: sizes and indexes belong to each server.
    ///
    /// # Panics
    /// If it fails.
    pub async fn status(&self) -> pb::StatusResponse {
        let path = "/etcdserverpb.Maintenance/Status";
        self.client().call(path, &pb::StatusRequest {}).await.expect("status always answers")
    }

    /// Removes every key.
    async fn clear(&mut self) {
        let zero = bytes::Bytes::from_static(b"\0");
        let all = pb::DeleteRangeRequest { key: zero.clone(), range_end: zero, prev_kv: false };
        self.delete(&all).await.expect("deleting succeeds");
    }
}

/// Says whose answer a scenario panicked about.
struct Blame(Kind);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was {:?}", self.0);
        }
    }
}

/// Ours, and the reference where it was built.
struct Pair {
    ours: Session,
    theirs: Option<Session>,
}

impl Pair {
    fn start(args: &[&str]) -> Self {
        // The reference takes a second to serve; meanwhile ours starts.
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| Session::start(Kind::Reference, args));
            let ours = Session::start(Kind::Quorate, args).expect("our own binary is built");
            Self { ours, theirs: theirs.join().expect("starting does not panic") }
        })
    }

    fn run(&mut self, shared: bool, scenario: &impl AsyncFn(&mut Session)) {
        let one = async |session: &mut Session| {
            session.begin().await;
            if shared {
                session.clear().await;
            }
            let blame = Blame(session.place.kind());
            scenario(session).await;
            drop(blame);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Some(theirs) = &mut self.theirs else {
            return runtime.expect("a runtime can be made").block_on(one(&mut self.ours));
        };
        runtime.expect("a runtime can be made").block_on(async {
            // The reference first, so that a wrong expectation shows as such.
            tokio::join!(biased; one(theirs), one(&mut self.ours));
        });
        for (n, (a, b)) in self.ours.transcript.iter().zip(&theirs.transcript).enumerate() {
            assert_eq!(a, b, "answer {n}: left is ours, right is etcd's");
        }
        assert_eq!(self.ours.transcript.len(), theirs.transcript.len());
    }
}

/// Runs a scenario on a fresh pair of servers with these flags.
///
/// # Panics
/// If the scenario panics on either, or their answers differ.
pub fn on_fresh_pair(args: &[&str], scenario: impl AsyncFn(&mut Session)) {
    Pair::start(args).run(false, &scenario);
}

/// The pair that scenarios share, and how many hold or want it: the last one stops it, because
/// nothing would at the end of the process.
static SHARED: Mutex<Option<Pair>> = Mutex::new(None);
static USERS: Mutex<u32> = Mutex::new(0);

struct User;

impl User {
    fn new() -> Self {
        *USERS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        *users -= 1;
        if *users == 0 {
            SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// Runs a scenario on the shared pair, after removing every key.
///
/// # Panics
/// As [`on_fresh_pair`].
pub fn on_shared_pair(scenario: impl AsyncFn(&mut Session)) {
    let _user = User::new();
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out while in use: after a failure the servers may differ, and the next starts anew.
    let mut pair = shared.take().unwrap_or_else(|| Pair::start(&[]));
    pair.run(true, &scenario);
    *shared = Some(pair);
}
