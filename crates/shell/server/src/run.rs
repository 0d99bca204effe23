//! Starting and stopping a member.
//!
//! Order of a start: disk (waiting for the lock), automata on their threads, sockets bound,
//! readiness (the member has published itself), then clients are served. A stop goes the other
//! way: no new calls, Node refuses, what is queued is written, the backend is committed.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Once, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::CompactionRequest;
use api::membershippb;
use cli::text::show_duration;
use env::{Disk, Failpoints, Hooks, MayBlock, SplitMix};
use handover::Inbox;
use machine::{ApplyConfig, Members};
use member::{
    AutoCompaction, CommitPolicy, MemberLimits, NodeConfig, Retention, StartConfig, StartError,
};
use osenv::Clock;
use peer::Plane;
use prost::Message;
use rpc::pool::Pool;
use rpc::runtime::{Handle, ReplyInbox, RequestLimits, Runtime, WatchLimits};
use rpc::services::Services;
use rpc::services::peers::PeerCall;
use rpc::{Metrics, Settings, serve};
use tokio::sync::watch;
use types::{ClusterId, MemberId, RequestId};

use crate::{Log, log_line};

use crate::bootstrap::{Identity, identify};
use crate::config::features::Features;
use crate::corruption::{self, Checks};
use crate::election::Advance;
use crate::listen::{Accepted, Address, Bound, Listener, bind};
use crate::metered::MeteredDisk;
use crate::peers::PeerSide;
use crate::report::Reporter;
use crate::threads::{CANNOT_GO_ON, Fatal, Keep, Queues, spawn_all};
use crate::versions;

/// What a member is run with: the configuration after parsing and checking.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, or `<data-dir>/member/wal`.
    pub wal_dir: PathBuf,
    /// `--listen-client-urls`, resolved.
    pub client_addresses: Vec<Address>,
    /// `--listen-peer-urls`, resolved.
    pub peer_addresses: Vec<Address>,
    /// `--initial-advertise-peer-urls`.
    pub advertise_peer_urls: Vec<String>,
    /// Where connections to peers leave from, if they must.
    pub local_address: Option<IpAddr>,
    /// `--raft-read-timeout`, `--raft-write-timeout`.
    pub raft_timeouts: (Duration, Duration),
    /// `--initial-cluster-state=existing`.
    pub joins: bool,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// `--downgrade-check-time`; 0 is never.
    pub downgrade_check: Duration,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<String>,
    /// `--initial-cluster`: names with their peer URLs.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election: Duration,
    /// `--initial-election-tick-advance`.
    pub election_tick_advance: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub catchup_entries: u64,
    /// `--max-wals`, `--max-snapshots`.
    pub keep: Keep,
    /// `--backend-batch-interval`, `--backend-batch-limit`.
    pub commit: CommitPolicy,
    /// `--auto-compaction-mode`, `--auto-compaction-retention`; `None` is off.
    pub auto_compaction: Option<Retention>,
    /// `--quota-backend-bytes`; no limit if negative.
    pub quota_bytes: i64,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--watch-progress-notify-interval`.
    pub watch_progress: Duration,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `--socket-reuse-port`, `--socket-reuse-address`.
    pub reuse: (bool, bool),
    /// Which members' data is compared, and when.
    pub checks: Checks,
    /// Whether a leader tells what is left of long leases, and whether that is stored whatever the
    /// cluster's version (gates `LeaseCheckpoint`, `LeaseCheckpointPersist`).
    pub lease_checkpoints: (bool, bool),
    /// `--feature-gates`.
    pub features: Features,
    /// `--warning-apply-duration`.
    pub slow_apply: Duration,
    /// How long a long list keeps the state it began with.
    pub list_pin: Duration,
    /// Limits and times of client connections.
    pub connections: Settings,
    /// Threads that serve clients; 0 for one per core.
    pub runtimes: usize,
    /// What tests from outside make fail; off unless `GOFAIL_…` is set.
    pub failpoints: Failpoints,
}

impl Default for Options {
    /// etcd's defaults: one member named `default` on 127.0.0.1:2379.
    fn default() -> Self {
        use types::limits as l;
        Self {
            name: "default".to_owned(),
            data_dir: PathBuf::from("default.etcd"),
            wal_dir: PathBuf::from("default.etcd/member/wal"),
            client_addresses: vec![Address::Tcp(([127, 0, 0, 1], 2379).into())],
            peer_addresses: vec![Address::Tcp(([127, 0, 0, 1], 2380).into())],
            advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
            local_address: None,
            raft_timeouts: (
                Duration::from_millis(l::RAFT_TIMEOUT_MS),
                Duration::from_millis(l::RAFT_TIMEOUT_MS),
            ),
            joins: false,
            strict_reconfig: true,
            downgrade_check: Duration::from_secs(5),
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            initial_cluster: vec![("default".to_owned(), vec!["http://localhost:2380".to_owned()])],
            initial_cluster_token: "etcd-cluster".to_owned(),
            heartbeat: Duration::from_millis(l::HEARTBEAT_MS),
            election: Duration::from_millis(l::ELECTION_MS),
            election_tick_advance: true,
            pre_vote: true,
            snapshot_count: l::SNAPSHOT_COUNT,
            catchup_entries: l::SNAPSHOT_CATCHUP_ENTRIES,
            keep: Keep { wals: l::MAX_WALS, snapshots: l::MAX_SNAPSHOTS },
            commit: CommitPolicy {
                interval: Duration::from_millis(l::BACKEND_BATCH_INTERVAL_MS),
                operations: l::BACKEND_BATCH_OPS,
            },
            auto_compaction: None,
            quota_bytes: l::DEFAULT_QUOTA_BYTES,
            max_request_bytes: l::MAX_REQUEST_BYTES as usize,
            max_txn_ops: l::MAX_TXN_OPS,
            watch_progress: Duration::from_millis(l::WATCH_PROGRESS_MS),
            max_learners: 1,
            unsafe_no_fsync: false,
            force_new_cluster: false,
            reuse: (false, false),
            checks: Checks { initial: false, periodic: Duration::ZERO, compaction: Duration::ZERO },
            lease_checkpoints: (false, false),
            features: Features::default(),
            slow_apply: Duration::from_millis(l::SLOW_APPLY_MS),
            list_pin: Duration::from_millis(l::LIST_PIN_MS),
            connections: Settings::default(),
            runtimes: 0,
            failpoints: Failpoints::default(),
        }
    }
}

/// Why a member did not start or ended.
#[derive(Debug)]
pub enum RunError {
    /// The member's own state.
    Start(StartError),
    /// A socket or thread.
    Io(String, io::Error),
    /// The configuration names this member nowhere.
    UnknownName(String),
    /// The cluster cannot be founded or joined.
    Bootstrap(String),
    /// The member could not go on.
    Fatal(Fatal),
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RunError::Start(e) => e.fmt(f),
            RunError::Io(what, e) => write!(f, "{what}: {e}"),
            RunError::UnknownName(name) => {
                write!(f, "couldn't find local name {name:?} in the initial cluster configuration")
            }
            RunError::Bootstrap(why) => f.write_str(why),
            RunError::Fatal(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

/// A running member.
pub struct Server {
    queues: Queues,
    plane: Plane,
    member: MemberId,
    /// How long a stop waits for another leader.
    patience: Duration,
    automata: Vec<JoinHandle<()>>,
    runtimes: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    fatal: Arc<OnceLock<Fatal>>,
    /// Where clients are served (TCP).
    pub addresses: Vec<std::net::SocketAddr>,
}

/// How often a locked database is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(50);

fn start_config(options: &Options, identity: &Identity) -> StartConfig {
    let member = identity.member;
    let ticks = options.election.as_millis() / options.heartbeat.as_millis().max(1);
    StartConfig {
        snap_dir: options.data_dir.join("member/snap"),
        wal_dir: options.wal_dir.clone(),
        member,
        cluster: identity.cluster,
        founders: identity.founders.clone(),
        node: NodeConfig {
            id: member,
            tick: options.heartbeat,
            election: options.election,
            snapshot_count: options.snapshot_count,
            catchup_entries: options.catchup_entries,
            attributes: membershippb::Attributes {
                name: options.name.clone(),
                client_urls: options.advertise_client_urls.clone(),
            },
            cluster_version: types::CLUSTER_VERSION.to_owned(),
            lease_checkpoints: options.lease_checkpoints.0,
            first_request_id: RequestId(first_request_id(member).wrapping_add(OWN_IDS)),
        },
        apply: ApplyConfig {
            id: member,
            min_lease_ttl: min_lease_ttl(options.election),
            max_learners: options.max_learners,
            quota_bytes: u64::try_from(options.quota_bytes).ok(),
            persist_checkpoints: options.lease_checkpoints.1,
        },
        commit: options.commit,
        limits: MemberLimits::default(),
        election_ticks: u32::try_from(ticks).unwrap_or(u32::MAX),
        pre_vote: options.pre_vote,
        unsafe_no_fsync: options.unsafe_no_fsync,
        force_new_cluster: options.force_new_cluster,
        hooks: Hooks::default(),
    }
}

/// Node counts its own ids far away from those of the runtimes: 2^46 is some eight years of
/// milliseconds ahead in the generator's clock.
const OWN_IDS: u64 = 1 << 46;

/// The first request id of this boot: the member, the time, and a counter from 0.
//= etcd 3.7.1: pkg/idutil/id.go#NewGenerator
fn first_request_id(member: MemberId) -> u64 {
    let ms = Clock.wall().unix_ms() & ((1 << 40) - 1);
    (member.0 & 0xffff) << 48 | ms << 8
}

/// Three halves of the election timeout, in whole seconds upwards.
//= etcd 3.7.1: server/etcdserver/server.go (minTTL)
fn min_lease_ttl(election: Duration) -> i64 {
    let ms = election.as_millis() * 3 / 2;
    i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// Starts a member on a disk and waits until it is ready; also until another process has let go of
/// the data directory.
///
/// # Errors
/// [`RunError`].
pub fn start(disk: &Arc<dyn Disk>, log: &Arc<Log>, options: &Options) -> Result<Server, RunError> {
    start_until(disk, log, options, watch::channel(false).0)
}

/// As [`start`], but gives up waiting for a quorum when `stop` says so; what is returned then only
/// has to be waited for.
///
/// # Errors
/// [`RunError`].
pub fn start_until(
    disk: &Arc<dyn Disk>,
    log: &Arc<Log>,
    options: &Options,
    stop: watch::Sender<bool>,
) -> Result<Server, RunError> {
    let may = MayBlock::on_this_thread();
    let metrics = Arc::new(Metrics::default());
    let disk: &Arc<dyn Disk> =
        &(Arc::new(MeteredDisk { disk: Arc::clone(disk), metrics: Arc::clone(&metrics) })
            as Arc<dyn Disk>);
    let identity = identify(&**disk, &may, options)?;
    let config = start_config(options, &identity);
    let began = Clock.now();
    let mut told = false;
    let mut parts = loop {
        let entropy = Box::new(SplitMix::new(osenv::seed()));
        let disk = Arc::clone(disk);
        match member::start(disk, &may, Clock.now(), config.clone(), entropy) {
            Err(StartError::Locked) => {
                if !told && Clock.now().since(began) > Duration::from_secs(10) {
                    told = true;
                    let path = config.snap_dir.join("db").display().to_string();
                    let took = show_duration(Clock.now().since(began));
                    let text = "db file is flocked by another process, or taking too long";
                    log_line!(log, Info, text, "path" = path, "took" = took);
                }
                std::thread::sleep(LOCK_RETRY);
            }
            result => break result.map_err(RunError::Start)?,
        }
    };
    parts.set_failpoints(&options.failpoints);
    report_recovery(log, &config, &parts, Clock.now().since(began));
    //= etcd 3.7.1: server/etcdserver/bootstrap.go#Finalize
    let learners = parts.applier.view().members.iter().filter(|m| m.is_learner).count();
    if learners > options.max_learners {
        let why = "membership: too many learner members in cluster";
        return Err(RunError::Bootstrap(why.to_owned()));
    }
    let mut bound = Vec::new();
    for address in &options.client_addresses {
        let socket = bind(address, options.reuse.0, options.reuse.1)
            .map_err(|e| RunError::Io(format!("listen {address:?}"), e))?;
        bound.push(socket);
    }
    let addresses = bound.iter().filter_map(Bound::local_addr).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if options.runtimes == 0 { cores } else { options.runtimes }.min(255);
    let inboxes: Vec<Arc<ReplyInbox>> =
        (0..count).map(|_| Arc::new(Inbox::new(usize::MAX))).collect();
    let fatal: Arc<OnceLock<Fatal>> = Arc::default();
    let stopped = stop.subscribe();
    let on_fatal = {
        let (fatal, stop) = (Arc::clone(&fatal), stop.clone());
        move |why: Fatal| {
            // The first reason is the one to tell; others follow from it.
            let _ = fatal.set(why);
            let _ = stop.send(true);
        }
    };
    let (member, cluster) = (parts.member, parts.cluster);
    let view = parts.applier.view();
    let reporter = Arc::new(Reporter::new(
        Arc::clone(log),
        Arc::clone(&metrics),
        (member, cluster),
        config.node.request_timeout(),
        options.slow_apply,
    ));
    let on_removed: Arc<dyn Fn() + Send + Sync> = {
        let (reporter, stop, told) = (Arc::clone(&reporter), stop.clone(), Once::new());
        Arc::new(move || {
            told.call_once(|| reporter.removed());
            let _ = stop.send(true);
        })
    };
    let members = Arc::clone(&view.members);
    let queues = Queues::new(
        member,
        view,
        inboxes.clone(),
        Arc::clone(&reporter),
        Arc::new(on_fatal),
        Arc::clone(&on_removed),
    );
    // One that has never run has nothing that could differ.
    let is_new = queues.view.load().store.applied_index().0 == 0;
    if is_new || !options.checks.initial {
        queues.set_checked();
    }
    let calls = Arc::new(Inbox::new(PEER_CALLS));
    let side = PeerSide {
        disk: Arc::clone(disk),
        node: Arc::clone(&queues.node),
        status: Arc::clone(&queues.status),
        view: Arc::clone(&queues.view),
        reporter,
        calls: Arc::clone(&calls),
        on_removed,
        on_fatal: {
            let queues = queues.clone();
            Arc::new(move |why| queues.fail(Fatal { message: CANNOT_GO_ON, error: why.to_owned() }))
        },
    };
    let plane = start_plane(disk, options, &config, (member, cluster), side)?;
    introduce(&plane, member, &members, &identity.remotes)?;
    let automata = spawn_all(&queues, parts, &plane, &options.failpoints, options.keep)
        .map_err(thread_error)?;
    let handle = Arc::new(Handle {
        member,
        cluster,
        node: Arc::clone(&queues.node),
        applier: Arc::clone(&queues.applier),
        view: Arc::clone(&queues.view),
        status: Arc::clone(&queues.status),
        pool: Pool::new(cores).map_err(thread_error)?,
        limits: RequestLimits {
            max_request_bytes: options.max_request_bytes,
            max_txn_ops: options.max_txn_ops,
            quota_bytes: options.quota_bytes,
        },
        metrics,
        ids: AtomicU64::new(first_request_id(member)),
        bells: Arc::clone(&queues.bells),
        watch: WatchLimits {
            progress_interval: options.watch_progress,
            election: options.election,
        },
        pins: rpc::runtime::Pins { age: options.list_pin, ..Default::default() },
        plane: plane.clone(),
        peers: peer::Client::new(dial_timeout(options), options.local_address),
        learner: Arc::clone(&queues.learner),
        strict_reconfig: options.strict_reconfig,
        features: options.features.iter().collect(),
        request_timeout: config.node.request_timeout(),
        failpoints: options.failpoints.clone(),
    });
    let sockets = Sockets { bound, calls };
    let runtimes = runtimes(options, &handle, &inboxes, sockets, &queues, &stopped);
    let runtimes = runtimes.map_err(thread_error)?;
    // Before a first start the members are yet to come through the log.
    let count = members.iter().count().max(options.initial_cluster.len());
    let advance = Advance::new(log, options, count, Clock.now());
    wait_ready(&queues, &plane, advance, &fatal, &stopped)?;
    let patience = config.node.request_timeout();
    Ok(Server { queues, plane, automata, runtimes, stop, fatal, addresses, member, patience })
}

/// Requests of other members that wait for an answer.
const PEER_CALLS: usize = 4_096;

fn dial_timeout(options: &Options) -> Duration {
    Duration::from_secs(1) + options.election
}

/// Listens for peers.
fn start_plane(
    disk: &Arc<dyn Disk>,
    options: &Options,
    config: &StartConfig,
    (id, cluster): (MemberId, ClusterId),
    side: PeerSide,
) -> Result<Plane, RunError> {
    let mut listeners = Vec::new();
    for address in &options.peer_addresses {
        let socket = bind(address, options.reuse.0, options.reuse.1)
            .map_err(|e| RunError::Io(format!("listen {address:?}"), e))?;
        listeners.push(match socket {
            Bound::Tcp(listener) => peer::Listener::Tcp(listener),
            Bound::Unix(listener) => peer::Listener::Unix(listener),
        });
    }
    let config = peer::Config {
        id,
        cluster,
        own_urls: options.advertise_peer_urls.clone(),
        snap_dir: config.snap_dir.clone(),
        disk: Arc::clone(disk),
        dial_timeout: dial_timeout(options),
        read_timeout: options.raft_timeouts.0,
        write_timeout: options.raft_timeouts.1,
        local_address: options.local_address,
        server_version: types::SERVER_VERSION.to_owned(),
    };
    Plane::start(config, Arc::new(side), listeners)
        .map_err(|e| RunError::Io("start the peer plane".to_owned(), e))
}

/// Tells the plane of the members that are known at the start; later ones come through the log.
//= etcd 3.7.1: server/etcdserver/server.go#NewServer (tr.AddRemote, tr.AddPeer)
fn introduce(
    plane: &Plane,
    own: MemberId,
    members: &Members,
    remotes: &[peer::RemoteMember],
) -> Result<(), RunError> {
    let bad = |e: peer::BadUrl| RunError::Bootstrap(e.to_string());
    for remote in remotes.iter().filter(|remote| remote.id != own.0) {
        plane.add_remote(MemberId(remote.id), &remote.peer_urls).map_err(bad)?;
    }
    for member in members.iter().filter(|member| member.id != own.0) {
        let urls = member.peer_urls.as_deref().unwrap_or_default();
        plane.add_peer(MemberId(member.id), urls).map_err(bad)?;
    }
    Ok(())
}

/// Tells what was found in the data directory.
//= etcd 3.7.1: server/etcdserver/bootstrap.go, server/storage/mvcc/kvstore.go#restore
fn report_recovery(log: &Log, config: &StartConfig, parts: &member::Parts, took: Duration) {
    let path = config.snap_dir.join("db").display().to_string();
    log_line!(log, Info, "opened backend db", "path" = path, "took" = show_duration(took));
    let view = parts.applier.view();
    let (member, cluster) = (parts.member.to_string(), parts.cluster.to_string());
    let index = view.store.applied_index().0;
    if index <= 1 {
        log_line!(
            log,
            Info,
            "starting local member",
            "local-member-id" = member.as_str(),
            "cluster-id" = cluster
        );
    } else {
        log_line!(
            log,
            Info,
            "restarting local member",
            "cluster-id" = cluster,
            "local-member-id" = member.as_str(),
            "commit-index" = index
        );
    }
    let revision = view.store.revision().0;
    log_line!(log, Info, "kvstore restored", "current-rev" = revision);
    let decided = view.members.cluster_version.clone();
    log_line!(
        log,
        Info,
        "starting etcd server",
        "local-member-id" = member,
        "local-server-version" = types::SERVER_VERSION,
        "cluster-version" = decided.unwrap_or_else(|| "to_be_decided".to_owned())
    );
}

fn thread_error(e: io::Error) -> RunError {
    RunError::Io("start a thread".to_owned(), e)
}

/// Waits until the member has published itself, and the View shows it: Node hears of applied
/// entries before their View is there, and a serializable read in between would show the state of
/// before the restart.
fn wait_ready(
    queues: &Queues,
    plane: &Plane,
    mut advance: Advance,
    fatal: &OnceLock<Fatal>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    while !is_ready(queues) && !*stopped.borrow() {
        if let Some(why) = fatal.get() {
            return Err(RunError::Fatal(why.clone()));
        }
        advance.step(Clock.now(), || plane.active_peers(), queues);
        std::thread::sleep(READY_STEP);
    }
    Ok(())
}

/// Pause between looks at whether the member is ready.
const READY_STEP: Duration = Duration::from_millis(1);

fn is_ready(queues: &Queues) -> bool {
    let status = queues.status.load();
    queues.is_checked()
        && status.ready
        && queues.view.load().store.applied_index() >= status.applied
}

/// The runtime threads: number 0 also accepts, and deals connections out in turn.
fn runtimes(
    options: &Options,
    handle: &Arc<Handle>,
    inboxes: &[Arc<ReplyInbox>],
    sockets: Sockets,
    queues: &Queues,
    stopped: &watch::Receiver<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let connections: Vec<Arc<Inbox<Accepted>>> =
        inboxes.iter().map(|_| Arc::new(Inbox::new(usize::MAX))).collect();
    let mut sockets = Some(sockets);
    let mut threads = Vec::new();
    for (number, inbox) in inboxes.iter().enumerate() {
        let seat = Seat {
            number: u8::try_from(number).expect("at most 255 runtimes"),
            handle: Arc::clone(handle),
            inbox: Arc::clone(inbox),
            settings: options.connections.clone(),
            connections: connections.clone(),
            sockets: sockets.take(),
            queues: queues.clone(),
            log: Arc::clone(&queues.reporter.log),
            downgrade_check: options.downgrade_check,
            checks: options.checks,
            retention: options.auto_compaction.filter(|_| number == 0),
        };
        let (name, stopped) = (format!("rpc-{number}"), stopped.clone());
        let serve = move || run_runtime(seat, stopped);
        threads.push(std::thread::Builder::new().name(name).spawn(serve)?);
    }
    Ok(threads)
}

/// Where clients come from, and other members.
struct Sockets {
    bound: Vec<Bound>,
    calls: Arc<Inbox<PeerCall>>,
}

/// What one runtime thread is given.
struct Seat {
    number: u8,
    handle: Arc<Handle>,
    inbox: Arc<ReplyInbox>,
    settings: Settings,
    /// Accepted connections on their way to each runtime.
    connections: Vec<Arc<Inbox<Accepted>>>,
    /// What to accept from; only the first runtime has any.
    sockets: Option<Sockets>,
    queues: Queues,
    log: Arc<Log>,
    downgrade_check: Duration,
    checks: Checks,
    retention: Option<Retention>,
}

fn run_runtime(seat: Seat, mut stopped: watch::Receiver<bool>) {
    let Seat {
        number,
        handle,
        inbox,
        settings,
        connections,
        sockets,
        queues,
        retention,
        log,
        downgrade_check,
        checks,
    } = seat;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs an epoll descriptor");
    let local = tokio::task::LocalSet::new();
    let election = handle.watch.election;
    let rt = Runtime::new(handle, number, inbox);
    let services = Services::new(Rc::clone(&rt));
    let settings = Rc::new(settings);
    if let Some(retention) = retention {
        local.spawn_local(compact_by_itself(Rc::clone(&rt), retention));
    }
    let rt_for_peers = Rc::clone(&rt);
    local.spawn_local(rt.pump());
    let serving = Rc::new(tokio::sync::Semaphore::new(0));
    let own = Arc::clone(&connections[usize::from(number)]);
    let accepting = {
        let (services, settings) = (Rc::clone(&services), Rc::clone(&settings));
        let (stopped, serving) = (stopped.clone(), Rc::clone(&serving));
        async move {
            let mut new = Vec::new();
            loop {
                own.recv(&mut new).await;
                for connection in new.drain(..) {
                    let (services, settings) = (Rc::clone(&services), Rc::clone(&settings));
                    let (stopped, serving) = (stopped.clone(), Rc::clone(&serving));
                    tokio::task::spawn_local(async move {
                        // Kept alive to the end: how many there are is how many are open.
                        let _open = serving;
                        // A connection that fails concerns its client, who sees it.
                        let _ = match connection {
                            Accepted::Tcp(s) => match Accepted::tcp(s) {
                                Ok(s) => serve(s, services, settings, stopped).await,
                                Err(e) => Err(e),
                            },
                            Accepted::Unix(s) => match Accepted::unix(s) {
                                Ok(s) => serve(s, services, settings, stopped).await,
                                Err(e) => Err(e),
                            },
                        };
                    });
                }
            }
        }
    };
    local.spawn_local(accepting);
    let bound = match sockets {
        Some(Sockets { bound, calls }) => {
            local.spawn_local(rpc::services::peers::serve(Rc::clone(&rt_for_peers), calls));
            let (rt, checked) = (Rc::clone(&rt_for_peers), Arc::clone(&log));
            local.spawn_local(corruption::watch_over(rt, checked, checks));
            if !queues.is_checked() {
                let (rt, log, queues) =
                    (Rc::clone(&rt_for_peers), Arc::clone(&log), queues.clone());
                local.spawn_local(async move {
                    match corruption::initial(rt, log).await {
                        Ok(()) => queues.set_checked(),
                        Err(error) => {
                            queues.fail(Fatal { message: "checkInitialHashKV failed", error });
                        }
                    }
                });
            }
            local.spawn_local(versions::watch_over(rt_for_peers, log, downgrade_check));
            bound
        }
        None => Vec::new(),
    };
    for (n, socket) in bound.into_iter().enumerate() {
        let (connections, queues) = (connections.clone(), queues.clone());
        local.spawn_local(async move {
            until_ready(&queues).await;
            let Ok(listener) = Listener::new(socket) else { return };
            let mut turn = n;
            loop {
                match listener.accept().await {
                    Ok(connection) => {
                        connections[turn % connections.len()].push_event(connection);
                        turn += 1;
                    }
                    // Out of descriptors, most likely: let some connections end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
    }
    local.block_on(&tokio, async move {
        let _ = stopped.wait_for(|stop| *stop).await;
        // Open calls get a while to be answered.
        let closed = async {
            while Rc::strong_count(&serving) > 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(STOP_GRACE + election * 2, closed).await;
    });
}

/// Waits until clients may be served; until then their connections wait in the socket's queue.
async fn until_ready(queues: &Queues) {
    while !is_ready(queues) {
        tokio::time::sleep(READY_STEP).await;
    }
}

/// Compacts as the policy says, for ever.
async fn compact_by_itself(rt: Rc<Runtime>, retention: Retention) {
    const COMPACTION_FIELD: u32 = 7;
    let mut auto = AutoCompaction::new(retention, Clock.now());
    loop {
        let revision = rt.view().store.revision();
        let is_leader = rt.handle.status.load().is_leader;
        if let Some(target) = auto.step(Clock.now(), revision, is_leader) {
            let request = CompactionRequest { revision: target.0, physical: false };
            let done = match rt.propose(COMPACTION_FIELD, &request.encode_to_vec()).await {
                Ok(outcome) => matches!(outcome.reply, Ok(_) | Err(ApiError::Compacted)),
                Err(_) => false,
            };
            if done {
                auto.succeeded(Clock.now(), target);
            }
        }
        tokio::time::sleep(auto.interval()).await;
    }
}

/// How long a stop waits for open calls, besides two election timeouts.
//= etcd 3.7.1: server/config/config.go#ReqTimeout
const STOP_GRACE: Duration = Duration::from_secs(5);

impl Server {
    /// The voter that was connected for the longest time.
    //= etcd 3.7.1: server/etcdserver/util.go#longestConnected
    fn successor(&self) -> Option<MemberId> {
        let members = Arc::clone(&self.queues.view.load().members);
        let voters = members.iter().filter(|m| !m.is_learner && m.id != self.member.0);
        let since = voters.filter_map(|m| Some((self.plane.active_since(MemberId(m.id))?, m.id)));
        since.min().map(|(_, id)| MemberId(id))
    }

    /// A sender that stops the member from anywhere, for signal handlers.
    #[must_use]
    pub fn stopper(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Waits until the member is stopped, then ends everything in order: clients, automata, and
    /// the backend's last commit.
    ///
    /// # Errors
    /// [`RunError::Fatal`] if it could not go on.
    pub fn wait(mut self) -> Result<(), RunError> {
        for thread in std::mem::take(&mut self.runtimes) {
            let _ = thread.join();
        }
        if let Some(why) = self.fatal.get() {
            return Err(RunError::Fatal(why.clone()));
        }
        if let Some(successor) = self.successor() {
            self.queues.hand_over(successor, self.patience);
        }
        self.queues.close();
        for thread in self.automata {
            let _ = thread.join();
        }
        self.plane.stop();
        match self.fatal.get() {
            Some(why) => Err(RunError::Fatal(why.clone())),
            None => Ok(()),
        }
    }
}
