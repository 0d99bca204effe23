//! Starting and stopping a member.
//!
//! Order of a start: sockets bound, disk (waiting for the lock), automata on their threads,
//! readiness (the member has published itself), then clients are served. A stop goes the other
//! way: no new calls, Node refuses, what is queued is written, the backend is committed.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Once, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use api::membershippb;
use calls::{LargeResults, Limits, Logins, Pins, Shared, ViewSlot};
use cli::text::show_duration;
use env::{Disk, HashSeed, Hooks, MayBlock, SplitMix};
use handover::Inbox;
use machine::{ApplyConfig, Members};
use member::{MemberLimits, MemberView, NodeConfig, StartConfig, StartError};
use net::{Bound, Limit, Security};
use observe::Metrics;
use osenv::Clock;
use peer::Plane;
use rpc::peers::PeerCall;
use tls::ClientTls;
use tokio::sync::{Semaphore, watch};
use types::{ClusterId, MemberId, RequestId};

use crate::auth;
use crate::bootstrap::{self, Identity, identify};
use crate::election::Advance;
use crate::error::RunError;
use crate::host::ReplyInbox;
use crate::listen::{self, Served};
use crate::options::Options;
use crate::peers::PeerSide;
use crate::pool::Pool;
use crate::runtimes::{self, Parts, READY_STEP, Sockets};
use crate::threads::{CANNOT_GO_ON, Fatal, Queues, spawn_all};
use observe::MeteredDisk;
use observe::Reporter;
use observe::{AuditLog, Log, log_line};

/// A running member.
pub struct Server {
    queues: Queues,
    plane: Plane,
    member: MemberId,
    /// How long a stop waits for another leader.
    patience: Duration,
    audit: Option<Arc<AuditLog>>,
    automata: Vec<JoinHandle<()>>,
    runtimes: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    fatal: Arc<OnceLock<Fatal>>,
    /// Where clients are served (TCP).
    pub addresses: Vec<std::net::SocketAddr>,
    /// What is served there.
    pub served: Vec<Served>,
}

/// How often a locked database is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(50);

fn start_config(options: &Options, identity: &Identity) -> StartConfig {
    let member = identity.member;
    let hash_seed = HashSeed::draw(&mut SplitMix::new(osenv::seed()));
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
            lease_checkpoints: options.lease_checkpoints.replicated,
            first_request_id: RequestId(first_request_id(member).wrapping_add(OWN_IDS)),
        },
        apply: ApplyConfig {
            id: member,
            min_lease_ttl: min_lease_ttl(options.election),
            max_learners: options.max_learners,
            quota_bytes: options.quota.limit(),
            persist_checkpoints: options.lease_checkpoints.persisted,
            hash_seed,
        },
        commit: options.commit,
        limits: MemberLimits { compaction: options.compaction, ..MemberLimits::default() },
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

/// Ends the member and keeps why: the first reason is the one to tell, others follow from it.
fn stop_with_reason(
    fatal: &Arc<OnceLock<Fatal>>,
    stop: &watch::Sender<bool>,
) -> Arc<dyn Fn(Fatal) + Send + Sync> {
    let (fatal, stop) = (Arc::clone(fatal), stop.clone());
    Arc::new(move |why| {
        let _ = fatal.set(why);
        stop.send_replace(true);
    })
}

/// Ends a member that was removed from its cluster, and says so once.
fn stop_when_removed(
    reporter: &Arc<Reporter>,
    stop: &watch::Sender<bool>,
) -> Arc<dyn Fn() + Send + Sync> {
    let (reporter, stop, told) = (Arc::clone(reporter), stop.clone(), Once::new());
    Arc::new(move || {
        told.call_once(|| reporter.removed());
        stop.send_replace(true);
    })
}

/// Starts the automata. A database that another process has is waited for, as in etcd.
fn start_member(
    disk: &Arc<dyn Disk>,
    may: &MayBlock,
    log: &Arc<Log>,
    config: &StartConfig,
) -> Result<member::Parts, RunError> {
    let began = Clock.now();
    let mut told = false;
    loop {
        let entropy = Box::new(SplitMix::new(osenv::seed()));
        match member::start(Arc::clone(disk), may, Clock.now(), config.clone(), entropy) {
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
            result => return result.map_err(RunError::Start),
        }
    }
}

fn metered(disk: &Arc<dyn Disk>, metrics: &Arc<Metrics>) -> Arc<dyn Disk> {
    Arc::new(MeteredDisk { disk: Arc::clone(disk), metrics: Arc::clone(metrics) })
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
    let metrics = Arc::new(Metrics::new(options.metrics));
    let disk = &metered(disk, &metrics);
    let connections = net::limit::of_process().map_err(RunError::Descriptors)?;
    // Before anything is written: an address that somebody else has leaves no directory behind.
    //= etcd 3.7.3: server/embed/etcd.go#StartEtcd
    let named = bootstrap::named_by_dns(disk, &may, options, log)?;
    let options = named.as_ref().unwrap_or(options);
    let listening = listen::open(options, log)?;
    let audit = open_audit(options, log)?;
    let identity = identify(disk, &may, options, &listening.dialing, (log, &stop))?;
    let config = start_config(options, &identity);
    let began = Clock.now();
    let mut parts = start_member(disk, &may, log, &config)?;
    let logins = prepare(&mut parts, log, options)?;
    report_recovery(log, &config, &parts, Clock.now().since(began));
    check_learners(&parts.applier.view(), options)?;
    let addresses = listening.addresses();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let inboxes = reply_inboxes(options, cores);
    let fatal: Arc<OnceLock<Fatal>> = Arc::default();
    let stopped = stop.subscribe();
    let (member, cluster, view) = (parts.member, parts.cluster, parts.applier.view());
    let timeout = config.node.request_timeout();
    let reporter = reporter(log, &metrics, (member, cluster), timeout, options);
    let on_removed = stop_when_removed(&reporter, &stop);
    let members = Arc::clone(&view.members);
    let fail = stop_with_reason(&fatal, &stop);
    let removed = Arc::clone(&on_removed);
    let queues = Queues::new(member, view, inboxes.clone(), Arc::clone(&reporter), fail, removed);
    if is_trusted(&queues, options) {
        queues.set_checked();
    }
    let calls = Arc::new(Inbox::new(PEER_CALLS));
    let side = peer_side(disk, &queues, reporter, &calls, on_removed);
    let dialing = listening.dialing;
    let peers = PeerSockets::new(listening.peers, dialing.clone(), connections.peers);
    let plane = start_plane(disk, options, &config, (member, cluster), side, peers)?;
    introduce(&plane, member, &members, &identity.remotes)?;
    let spawned = spawn_all(&queues, parts, &plane, &options.failpoints, options.keep);
    let (automata, node) = spawned.map_err(thread_error)?;
    let parts = Parts {
        shared: Arc::new(shared(options, &config, (member, cluster), &queues, &plane, logins)),
        node,
        pool: Arc::new(Pool::new(cores).map_err(thread_error)?),
        metrics,
        peers: peer::Client::new(dial_timeout(options), options.local_address, dialing),
        cors: options.cors.clone(),
        hosts: Arc::new(options.hosts.clone()),
        audit: audit.clone(),
        gateway: gateway_turns(options),
    };
    let (clients, metrics) = (listening.clients, listening.metrics);
    let sockets = Sockets { clients, metrics, limit: Limit::new(connections.clients), calls };
    let runtimes = runtimes::start(options, &parts, &inboxes, sockets, &queues, &stopped);
    let runtimes = runtimes.map_err(thread_error)?;
    let advance = advance(log, options, &members);
    wait_ready(&queues, &plane, advance, &fatal, &stopped)?;
    Ok(Server {
        queues,
        plane,
        automata,
        runtimes,
        stop,
        fatal,
        addresses,
        served: listening.served,
        member,
        patience: timeout,
        audit,
    })
}

/// Opens the audit log, if one is kept.
fn open_audit(options: &Options, log: &Arc<Log>) -> Result<Option<Arc<AuditLog>>, RunError> {
    let Some(path) = &options.audit_log else { return Ok(None) };
    let opened = AuditLog::open(path, log).map_err(|e| {
        let why = format!("open {}: {}", path.display(), osenv::error_text(&e));
        RunError::Refused("cannot open the audit log", why)
    });
    Ok(Some(Arc::new(opened?)))
}

/// Gives the automata what the options say, and tells how users log in.
fn prepare(
    parts: &mut member::Parts,
    log: &Arc<Log>,
    options: &Options,
) -> Result<Logins, RunError> {
    parts.set_failpoints(&options.failpoints);
    let (logins, tokens) = auth::logins(log, &options.auth).map_err(RunError::Bootstrap)?;
    parts.applier.set_tokens(tokens);
    Ok(logins)
}

fn reporter(
    log: &Arc<Log>,
    metrics: &Arc<Metrics>,
    who: (MemberId, ClusterId),
    request_timeout: Duration,
    options: &Options,
) -> Arc<Reporter> {
    let (log, metrics) = (Arc::clone(log), Arc::clone(metrics));
    Arc::new(Reporter::new(log, metrics, who, request_timeout, options.slow_apply))
}

/// The replies' way to each runtime.
fn reply_inboxes(options: &Options, cores: usize) -> Vec<Arc<ReplyInbox>> {
    let count = if options.runtimes == 0 { cores } else { options.runtimes }.min(255);
    (0..count).map(|_| Arc::new(Inbox::new(runtimes::REPLIES_INBOX))).collect()
}

/// Whether a member may serve without a look at the others' data. One that has never run has
/// nothing that could differ.
fn is_trusted(queues: &Queues, options: &Options) -> bool {
    queues.view.load().store.applied_index().0 == 0 || !options.checks.initial
}

//= etcd 3.7.3: server/etcdserver/bootstrap.go#Finalize
fn check_learners(view: &MemberView, options: &Options) -> Result<(), RunError> {
    if view.members.iter().filter(|m| m.is_learner).count() > options.max_learners {
        let why = "membership: too many learner members in cluster";
        return Err(RunError::Bootstrap(why.to_owned()));
    }
    Ok(())
}

/// What the peer plane is given of the member.
fn peer_side(
    disk: &Arc<dyn Disk>,
    queues: &Queues,
    reporter: Arc<Reporter>,
    calls: &Arc<Inbox<PeerCall>>,
    on_removed: Arc<dyn Fn() + Send + Sync>,
) -> PeerSide {
    let failing = queues.clone();
    PeerSide {
        disk: Arc::clone(disk),
        node: Arc::clone(&queues.node),
        status: Arc::clone(&queues.status),
        view: Arc::clone(&queues.view),
        reporter,
        calls: Arc::clone(calls),
        on_removed,
        on_fatal: Arc::new(move |why| {
            failing.fail(Fatal { message: CANNOT_GO_ON, error: why.to_owned() });
        }),
    }
}

/// What the calls of all runtimes share.
fn shared(
    options: &Options,
    config: &StartConfig,
    (id, cluster): (MemberId, ClusterId),
    queues: &Queues,
    plane: &Plane,
    logins: Logins,
) -> Shared {
    let plane = plane.clone();
    Shared {
        id,
        cluster,
        view: ViewSlot::new(Arc::clone(&queues.view)),
        status: Arc::clone(&queues.status),
        notifiers: Arc::clone(&queues.notifiers),
        learner: Arc::clone(&queues.learner),
        limits: Limits {
            max_request_bytes: options.max_request_bytes,
            max_txn_ops: options.max_txn_ops,
            quota_bytes: options.quota.number(),
            request_timeout: config.node.request_timeout(),
            reader_progress: options.connections.reader_progress,
            progress_interval: options.watch_progress,
            //= etcd 3.7.3: server/etcdserver/api/v3rpc/watch.go#NewWatchServer
            fragment_bytes: options.max_request_bytes + types::limits::GRPC_OVERHEAD_BYTES as usize,
            election: options.election,
        },
        ids: AtomicU64::new(first_request_id(id)),
        features: options.features.iter().collect(),
        strict_reconfig: options.strict_reconfig,
        pins: Pins { age: options.list_pin, ..Pins::default() },
        large: LargeResults::default(),
        logins,
        connected: Box::new(move |id| plane.active_since(id).map(|since| since.elapsed())),
        failpoints: options.failpoints.clone(),
        hooks: Hooks::default(),
    }
}

/// Requests of other members that wait for an answer.
const PEER_CALLS: usize = 4_096;

/// How the first election is hurried on. Before a first start the members are yet to come through
/// the log.
fn advance(log: &Arc<Log>, options: &Options, members: &Members) -> Advance {
    let count = members.iter().count().max(options.initial_cluster.len());
    Advance::new(log, options, count, Clock.now())
}

/// As many turns as a connection may have calls.
fn gateway_turns(options: &Options) -> Option<Arc<Semaphore>> {
    let calls = usize::try_from(options.connections.max_concurrent_streams).unwrap_or(usize::MAX);
    options.gateway.then(|| Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))))
}

fn dial_timeout(options: &Options) -> Duration {
    Duration::from_secs(1) + options.election
}

/// Where peers come from, and how many connections they may have.
struct PeerSockets {
    bound: Vec<(Bound, Security)>,
    dialing: Option<ClientTls>,
    connections: usize,
}

impl PeerSockets {
    fn new(bound: Vec<(Bound, Security)>, dialing: Option<ClientTls>, connections: usize) -> Self {
        Self { bound, dialing, connections }
    }
}

/// Serves peers.
fn start_plane(
    disk: &Arc<dyn Disk>,
    options: &Options,
    config: &StartConfig,
    (id, cluster): (MemberId, ClusterId),
    side: PeerSide,
    sockets: PeerSockets,
) -> Result<Plane, RunError> {
    let config = peer::Config {
        id,
        cluster,
        own_urls: options.advertise_peer_urls.clone(),
        snap_dir: config.snap_dir.clone(),
        disk: Arc::clone(disk),
        dial_timeout: dial_timeout(options),
        read_timeout: options.raft_timeouts.read,
        write_timeout: options.raft_timeouts.write,
        local_address: options.local_address,
        tls: sockets.dialing,
        connections: sockets.connections,
        server_version: types::SERVER_VERSION.to_owned(),
    };
    Plane::start(config, Arc::new(side), sockets.bound)
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
    let bad = |e: types::BadUrl| RunError::Bootstrap(e.to_string());
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
    while !queues.is_ready() && !*stopped.borrow() {
        if let Some(why) = fatal.get() {
            return Err(RunError::Fatal(why.clone()));
        }
        advance.step(Clock.now(), || plane.active_peers(), queues);
        std::thread::sleep(READY_STEP);
    }
    Ok(())
}

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
        // No call ends after this.
        if let Some(audit) = &self.audit {
            audit.flush();
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
