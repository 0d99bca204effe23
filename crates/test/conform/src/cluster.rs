//! Clusters of several members, of one kind or mixed.
//!
//! Owns the processes, their directories and their logs (kept if the test fails; with
//! `QUORATE_KEEP_DATA` the directories too). Each test process has a loopback address of its own, so that ports stay a member's over its restarts and
//! nobody else takes them. Never ends a process that it did not start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use prost::Message;
use tempfile::TempDir;

use crate::child::Process;
use crate::grpc::{Client, Failure};
use crate::process::Kind;

/// Short times, so that a lost leader costs little; not so short that a busy machine loses one.
const TIMES: [&str; 4] = ["--heartbeat-interval", "50", "--election-timeout", "500"];

/// Longest time anything of a cluster may take in a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody else uses, on [`address`].
fn new_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_000, "the ports from which connections leave are not to be used");
    port
}

/// The loopback address of this process.
fn address() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | b, c, d)
}

/// One member: its process, if it runs, and what it is started with.
#[derive(Debug)]
pub struct Node {
    /// What it runs.
    pub kind: Kind,
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Where it serves clients.
    pub client: SocketAddr,
    /// Where it serves peers.
    pub peer: SocketAddr,
    /// More flags of this member alone, behind those of the cluster.
    pub args: Vec<String>,
    process: Process,
    /// `--initial-cluster`, `--initial-cluster-state`.
    initial: (String, &'static str),
}

impl Node {
    fn new(dir: &Path, kind: Kind, name: String) -> Self {
        let data_dir = dir.join(&name);
        let [client, peer] = [new_port(), new_port()].map(|port| (address(), port).into());
        let initial = (String::new(), "new");
        let process = Process::default();
        Self { kind, name, data_dir, client, peer, args: Vec::new(), process, initial }
    }

    /// `http://address` of its peers.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }

    /// Gives it another address for its peers, from its next start on.
    pub fn move_peer(&mut self) {
        self.peer = (address(), new_port()).into();
    }

    /// `http://address` of its clients.
    #[must_use]
    pub fn client_url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Whether a process was started and not ended by the test.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// All that it ever logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn spawn(&mut self, args: &[String]) {
        assert!(!self.runs(), "{} runs", self.name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let (client, peer) = (self.client_url(), self.peer_url());
        let mut command = Command::new(self.kind.program().expect("asked for at the start"));
        command
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.initial.0])
            .args(["--initial-cluster-state", self.initial.1])
            .args(args)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the directory of the log exists"));
        self.process.spawn(&mut command);
    }

    /// Sends a signal to its process, by name.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Its exit code once it has ended by itself; `None` if it has not after `patience`. The code
    /// is `None` within if a signal ended it.
    ///
    /// # Panics
    /// If it was never started.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<Option<i32>> {
        self.process.wait_exit(patience)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to stop and waits until it has. Its exit code, if it had one.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait_exit(PATIENCE).unwrap_or_else(|| panic!("{} does not stop", self.name))
    }

    /// The body of an HTTP/1.0 GET on its clients' port, if it was answered.
    #[must_use]
    pub fn http_get(&self, path: &str) -> Option<String> {
        get(self.client, path)
    }

    /// As [`Node::http_get`], on its peers' port.
    #[must_use]
    pub fn peer_get(&self, path: &str) -> Option<String> {
        get(self.peer, path)
    }

    fn is_ready(&self) -> bool {
        // A learner is never healthy, for its reads are refused; but it tells why.
        let healthy = |body: String| {
            ["\"true\"", "ALARM", "LEARNER", "learner"].iter().any(|text| body.contains(text))
        };
        self.http_get("/health").is_some_and(healthy)
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let patience = Duration::from_secs(2);
    let mut stream = std::net::TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // A server that hangs up early has answered all the same.
    let _ = stream.read_to_string(&mut answer);
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Members that know each other.
#[derive(Debug)]
pub struct Cluster {
    /// All of them, in the order in which they came; removed ones stay in it.
    pub nodes: Vec<Node>,
    /// What a scenario wrote down, to be compared with another cluster's.
    pub notes: Vec<String>,
    /// The token that goes with [`Cluster::call`], once authentication is on.
    pub token: Option<String>,
    args: Vec<String>,
    dir: Option<TempDir>,
}

impl Cluster {
    /// Founds a cluster and waits until every member serves; `None` if a program was not built.
    ///
    /// # Panics
    /// If they do not come up.
    #[must_use]
    pub fn start(kinds: &[Kind], args: &[&str]) -> Option<Self> {
        let mut cluster = Self::prepare(kinds, args)?;
        cluster.spawn_all();
        cluster.wait_ready();
        Some(cluster)
    }

    /// A cluster of which no member runs yet.
    ///
    /// # Panics
    /// If there is no room for its directories.
    #[must_use]
    pub fn prepare(kinds: &[Kind], args: &[&str]) -> Option<Self> {
        Self::prepare_with(kinds, &[&TIMES, args].concat())
    }

    /// As [`Cluster::start`], with etcd's own heartbeats and elections.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn start_patient(kinds: &[Kind], args: &[&str]) -> Option<Self> {
        let mut cluster = Self::prepare_with(kinds, args)?;
        cluster.spawn_all();
        cluster.wait_ready();
        Some(cluster)
    }

    fn prepare_with(kinds: &[Kind], args: &[&str]) -> Option<Self> {
        if kinds.iter().any(|kind| kind.program().is_none()) {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let node = |(n, &kind): (usize, &Kind)| Node::new(dir.path(), kind, format!("m{n}"));
        let mut nodes: Vec<Node> = kinds.iter().enumerate().map(node).collect();
        let all = initial_cluster(&nodes);
        for node in &mut nodes {
            node.initial.0.clone_from(&all);
        }
        let args = args.iter().map(|&a| a.to_owned()).collect();
        Some(Self { nodes, notes: Vec::new(), token: None, args, dir: Some(dir) })
    }

    /// Writes a line down.
    pub fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// Starts every member that does not run, without waiting for any.
    pub fn spawn_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.runs()) {
            node.spawn(&self.args);
        }
    }

    /// Waits until all members that run serve clients.
    ///
    /// # Panics
    /// If one ends, or does not in time.
    pub fn wait_ready(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].runs() {
                self.wait_ready_one(n);
            }
        }
    }

    /// Waits until a member serves clients.
    ///
    /// # Panics
    /// If it ends, or does not in time.
    pub fn wait_ready_one(&mut self, n: usize) {
        let until = Instant::now() + PATIENCE;
        while !self.nodes[n].is_ready() {
            let node = &mut self.nodes[n];
            let ended = node.wait_exit(Duration::from_millis(20));
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", node.name, tail(&node.log()));
            assert!(Instant::now() < until, "{} does not serve\n{}", node.name, tail(&node.log()));
        }
    }

    /// Starts a member again on its directory and waits until it serves.
    ///
    /// # Panics
    /// If it runs, or does not come back.
    pub fn restart(&mut self, n: usize) {
        self.nodes[n].spawn(&self.args);
        self.wait_ready_one(n);
    }

    /// As [`Cluster::restart`], without waiting.
    ///
    /// # Panics
    /// If it runs.
    pub fn spawn(&mut self, n: usize) {
        self.nodes[n].spawn(&self.args);
    }

    /// Stops a member cleanly and starts it again.
    ///
    /// # Panics
    /// If it does not stop or come back.
    pub fn restart_clean(&mut self, n: usize) {
        self.nodes[n].stop();
        self.restart(n);
    }

    /// Leaves out a flag and its value, from the next start of each member on.
    pub fn drop_arg(&mut self, flag: &str) {
        if let Some(place) = self.args.iter().position(|arg| arg == flag) {
            self.args.drain(place..place + 2);
        }
    }

    /// Starts members again and waits until they serve.
    ///
    /// # Panics
    /// As [`Cluster::restart`].
    pub fn restart_all(&mut self, members: &[usize]) {
        for &n in members {
            self.nodes[n].spawn(&self.args);
        }
        for &n in members {
            self.wait_ready_one(n);
        }
    }

    /// A member that would join all that there are, but was not added and does not run.
    ///
    /// # Panics
    /// If the program was not built.
    pub fn push_joining(&mut self, kind: Kind, args: &[&str]) -> usize {
        let dir = self.dir.as_ref().expect("there until the end").path();
        let mut node = Node::new(dir, kind, format!("m{}", self.nodes.len()));
        node.args = args.iter().map(|&a| a.to_owned()).collect();
        self.nodes.push(node);
        let initial = (initial_cluster(&self.nodes), "existing");
        let node = self.nodes.last_mut().expect("pushed above");
        node.initial = initial;
        self.nodes.len() - 1
    }

    /// Adds a member through member `through` and starts it as `kind` without waiting for it. Its
    /// place among the nodes.
    ///
    /// # Errors
    /// Those of `MemberAdd`.
    ///
    /// # Panics
    /// If the program was not built.
    pub async fn add(
        &mut self,
        through: usize,
        kind: Kind,
        is_learner: bool,
    ) -> Result<usize, Failure> {
        // Once it is a member, the new one has a say in a version that is not decided yet.
        self.wait_cluster_version(through).await;
        let dir = self.dir.as_ref().expect("there until the end").path();
        let mut node = Node::new(dir, kind, format!("m{}", self.nodes.len()));
        let request = pb::MemberAddRequest { peer_ur_ls: vec![node.peer_url()], is_learner };
        let path = "/etcdserverpb.Cluster/MemberAdd";
        let added: pb::MemberAddResponse = self.call(through, path, &request).await?;
        // As etcdctl prints it: everyone by name, the new one by its own.
        let all = added.members.iter().flat_map(|member| {
            let name = if member.name.is_empty() { &node.name } else { &member.name };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        });
        node.initial = (all.collect::<Vec<_>>().join(","), "existing");
        node.spawn(&self.args);
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Waits until a member knows the cluster's version: nobody is added or joins before. A new
    /// leader needs a moment to ask all members for theirs.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn wait_cluster_version(&self, n: usize) {
        let until = Instant::now() + PATIENCE;
        let is_known = |text: String| text.contains("\"etcdcluster\":\"3.");
        while !self.nodes[n].http_get("/version").is_some_and(is_known) {
            assert!(Instant::now() < until, "{} knows no cluster version", self.nodes[n].name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Adds a member as soon as the cluster lets one in: new peers do not count as healthy for
    /// five seconds.
    ///
    /// # Panics
    /// If it is refused for other reasons, or for too long.
    pub async fn add_in_time(&mut self, through: usize, kind: Kind, is_learner: bool) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.add(through, kind, is_learner).await {
                Ok(n) => return n,
                Err(e) if e.message == "etcdserver: unhealthy cluster" => {}
                Err(e) => panic!("{e:?}"),
            }
            assert!(Instant::now() < until, "the cluster stays unhealthy");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A connection to a member.
    ///
    /// # Panics
    /// If it does not serve.
    pub async fn client(&self, n: usize) -> Client {
        Client::connect_to(self.nodes[n].client).await
    }

    /// A unary call of a member, on a connection of its own.
    ///
    /// # Errors
    /// The member's; code 999 if it is not there.
    ///
    /// # Panics
    /// As [`Client::raw`].
    pub async fn call<A: Message + Default>(
        &self,
        n: usize,
        path: &str,
        request: &impl Message,
    ) -> Result<A, Failure> {
        let client = Client::try_connect_to(self.nodes[n].client, 1 << 24).await?;
        match &self.token {
            Some(token) => client.with("token", token).call(path, request).await,
            None => client.call(path, request).await,
        }
    }

    /// Status of a member.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn status(&self, n: usize) -> pb::StatusResponse {
        let path = "/etcdserverpb.Maintenance/Status";
        self.call(n, path, &pb::StatusRequest {}).await.expect("status is always answered")
    }

    /// The id of a member that runs.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn id(&self, n: usize) -> u64 {
        self.status(n).await.header.expect("every answer has a header").member_id
    }

    /// Where the member with this id is.
    ///
    /// # Panics
    /// If no member that runs has it.
    pub async fn place_of(&self, id: u64) -> usize {
        for n in (0..self.nodes.len()).filter(|&n| self.nodes[n].runs()) {
            if self.id(n).await == id {
                return n;
            }
        }
        panic!("no member has the id {id:x}")
    }

    /// Waits until all members that run follow the same leader; its place.
    ///
    /// # Panics
    /// If they do not in time.
    pub async fn leader(&self) -> usize {
        self.leadership().await.0
    }

    /// As [`Cluster::leader`]: its place, and its term.
    ///
    /// # Panics
    /// As there.
    pub async fn leadership(&self) -> (usize, u64) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            let mut leader = None;
            for n in (0..self.nodes.len()).filter(|&n| self.nodes[n].runs()) {
                let path = "/etcdserverpb.Maintenance/Status";
                let status: Result<pb::StatusResponse, _> =
                    self.call(n, path, &pb::StatusRequest {}).await;
                let Ok(status) = status else {
                    seen.push((0, 0));
                    continue;
                };
                seen.push((status.leader, status.raft_term));
                if status.header.is_some_and(|h| h.member_id == status.leader) {
                    leader = Some(n);
                }
            }
            if let Some(n) = leader.filter(|_| seen.windows(2).all(|pair| pair[0] == pair[1])) {
                return (n, seen[0].1);
            }
            assert!(Instant::now() < until, "no agreement on a leader: {seen:x?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A member that runs and does not lead.
    ///
    /// # Panics
    /// If there is none.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let is_it = |&n: &usize| n != leader && self.nodes[n].runs();
        (0..self.nodes.len()).find(is_it).expect("somebody follows")
    }

    /// Hands leadership to a member, if it does not lead already.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn lead(&self, n: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            if leader == n {
                return;
            }
            let request = pb::MoveLeaderRequest { target_id: self.id(n).await };
            let path = "/etcdserverpb.Maintenance/MoveLeader";
            let moved: Result<pb::MoveLeaderResponse, _> = self.call(leader, path, &request).await;
            // The leader may have changed by itself meanwhile.
            assert!(moved.is_ok() || Instant::now() < until, "{moved:?}");
        }
    }

    /// Waits until all members that run have applied the same and agree on what they hold: hash,
    /// revision and compacted revision.
    ///
    /// # Panics
    /// If they do not in time; then they differ.
    pub async fn assert_equal(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for n in (0..self.nodes.len()).filter(|&n| self.nodes[n].runs()) {
                let newest = self.status(n).await.header.map_or(0, |h| h.revision);
                let path = "/etcdserverpb.Maintenance/HashKV";
                let request = pb::HashKvRequest { revision: newest };
                let hash: Result<pb::HashKvResponse, _> = self.call(n, path, &request).await;
                seen.push((newest, hash.map(|h| (h.hash, h.compact_revision))));
            }
            let is_known = seen.iter().all(|(_, hash)| hash.is_ok());
            if is_known && seen.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < until, "members differ: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once: one that waits for another would take its time.
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            // Three logs of 64 MB a failure would fill a disk soon.
            if std::env::var_os("QUORATE_KEEP_DATA").is_none() {
                for node in &self.nodes {
                    let _ = std::fs::remove_dir_all(&node.data_dir);
                }
            }
            eprintln!("the members' logs stay in {}", dir.keep().display());
        }
    }
}

fn initial_cluster(nodes: &[Node]) -> String {
    let all = nodes.iter().map(|node| format!("{}={}", node.name, node.peer_url()));
    all.collect::<Vec<_>>().join(",")
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
