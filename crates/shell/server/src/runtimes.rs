//! The threads that serve clients.
//!
//! Number 0 also accepts, deals connections out in turn, answers other members' calls, and runs
//! what a member does by itself: compaction, versions, checks for corruption.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use calls::corruption::Checks;
use calls::{Calls, Member, Shared, compact_by_itself, corruption, versions};
use handover::{Full, Inbox};
use member::Retention;
use net::listener::Detached;
use net::{Handshake, Limit, Listener, Opened, Stream};
use observe::{AuditLog, Endpoint, Log, Metrics, tell_refused};
use rpc::peers::PeerCall;
use rpc::{Agreed, Cors, Origin, Serves, Settings, serve};
use tokio::sync::{Semaphore, watch};

use crate::config::words::Hosts;
use crate::hearing::Hearing;
use crate::host::{Doors, ReplyInbox, Services, pump};
use crate::listen::ClientSocket;
use crate::options::Options;
use crate::pool::Pool;
use crate::threads::{Fatal, NodeDoor, Queues};

/// How long a stop waits for open calls, besides two election timeouts.
//= etcd 3.7.1: server/config/config.go#ReqTimeout
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Accepted connections that wait for one runtime to take them. Beyond it a connection is closed
/// at once: a runtime that is so far behind would serve none of them in time.
const CONNECTIONS_INBOX: usize = 4_096;

/// Replies that wait for one runtime: no limit of their own. Each is of a call that waits for it
/// there, so there are never more than open calls, and none may be lost.
pub(crate) const REPLIES_INBOX: usize = usize::MAX;

/// Gives `item` to the inbox whose turn it is, or if that is full to the next one that is not.
fn deal<T>(inboxes: &[Arc<Inbox<T>>], turn: usize, item: T) -> Result<(), Full<T>> {
    let mut left = Full(item);
    for n in 0..inboxes.len() {
        match inboxes[(turn + n) % inboxes.len()].push(left.0) {
            Ok(()) => return Ok(()),
            Err(full) => left = full,
        }
    }
    Err(left)
}

/// Pause between looks at whether the member is ready.
pub(crate) const READY_STEP: Duration = Duration::from_millis(1);

/// Starts them, one per inbox.
pub(crate) fn start(
    options: &Options,
    parts: &Parts,
    inboxes: &[Arc<ReplyInbox>],
    sockets: Sockets,
    queues: &Queues,
    stopped: &watch::Receiver<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let connections: Vec<Arc<Inbox<Dealt>>> =
        inboxes.iter().map(|_| Arc::new(Inbox::new(CONNECTIONS_INBOX))).collect();
    let mut sockets = Some(sockets);
    let mut threads = Vec::new();
    for (number, inbox) in inboxes.iter().enumerate() {
        let seat = Seat {
            number: u8::try_from(number).expect("at most 255 runtimes"),
            parts: parts.clone(),
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

/// What all runtimes share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: NodeDoor,
    pub(crate) pool: Arc<Pool>,
    pub(crate) metrics: Arc<Metrics>,
    /// Asks other members; each runtime has connections of its own.
    pub(crate) peers: peer::Client,
    pub(crate) cors: Cors,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) gateway: Option<Arc<Semaphore>>,
    pub(crate) audit: Option<Arc<AuditLog>>,
}

/// Where clients come from, and other members.
pub(crate) struct Sockets {
    pub(crate) clients: Vec<ClientSocket>,
    pub(crate) metrics: Vec<ClientSocket>,
    /// Of clients' connections.
    pub(crate) limit: Limit,
    pub(crate) calls: Arc<Inbox<PeerCall>>,
}

/// What one runtime thread is given.
struct Seat {
    number: u8,
    parts: Parts,
    inbox: Arc<ReplyInbox>,
    settings: Settings,
    /// Accepted connections on their way to each runtime.
    connections: Vec<Arc<Inbox<Dealt>>>,
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
        parts,
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
    let Parts { shared, node, pool, metrics, peers, cors, hosts, gateway, audit } = parts;
    let election = shared.limits.election;
    let tells_remote = audit.is_some();
    let hearing = Hearing::new(shared.id, Arc::clone(&log), Arc::clone(&metrics), audit);
    let member = Member::new(shared, Rc::new(hearing), number, osenv::seed());
    let calls = Calls::new(Rc::clone(&member));
    let services = Rc::new(Services { calls, metrics, cors, hosts, gateway, log });
    let settings = Rc::new(settings);
    if let Some(retention) = retention {
        local.spawn_local(compact_by_itself(Rc::clone(&member), retention));
    }
    let doors = Doors {
        replies: inbox,
        node,
        applier: Arc::clone(&queues.applier),
        pool,
        peers: Rc::new(peers),
    };
    local.spawn_local(pump(Rc::clone(&member), doors));
    let serving = Rc::new(tokio::sync::Semaphore::new(0));
    let own = Arc::clone(&connections[usize::from(number)]);
    let open = Rc::clone(&serving);
    let stop = stopped.clone();
    let serving_own = Serving { services, settings, stopped: stop, tells_remote, open };
    local.spawn_local(serve_own(own, serving_own));
    if let Some(Sockets { clients, metrics, limit, calls }) = sockets {
        local.spawn_local(rpc::peers::serve(Rc::clone(&member), calls));
        begin_chores(&local, &member, &queues, checks, downgrade_check);
        for (first, socket) in metrics.into_iter().chain(clients).enumerate() {
            let (limit, connections) = (limit.clone(), connections.clone());
            local.spawn_local(accept(socket, limit, connections, first, queues.clone()));
        }
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

/// An accepted connection on its way to its runtime.
struct Dealt {
    connection: Detached,
    serves: Serves,
    /// Whether the common name of its certificate may stand for a user.
    names: bool,
}

/// What a runtime's connections are served with.
struct Serving {
    services: Rc<Services>,
    settings: Rc<Settings>,
    stopped: watch::Receiver<bool>,
    /// Whether a connection keeps where it comes from: an idle one costs 100 bytes more for it, so
    /// only with an audit log.
    tells_remote: bool,
    /// Kept alive by each connection to its end: how many there are is how many are open.
    open: Rc<tokio::sync::Semaphore>,
}

/// Serves the connections that were dealt to this runtime, for ever.
async fn serve_own(own: Arc<Inbox<Dealt>>, serving: Serving) {
    let mut new = Vec::new();
    loop {
        own.recv(&mut new).await;
        for dealt in new.drain(..) {
            // A connection that fails concerns its client, who sees it.
            let Ok(accepted) = dealt.connection.attach() else { continue };
            let from = serving.tells_remote.then(|| shown(accepted.from));
            match accepted.open() {
                Opened::Plain(stream) => {
                    let (serves, remote) = (dealt.serves, from);
                    serving.serve(stream, Origin { serves, remote, ..Origin::default() });
                }
                Opened::Handshake(handshake) => {
                    serving.secure(handshake, (dealt.serves, from), dealt.names);
                }
            }
        }
    }
}

impl Serving {
    fn serve(&self, stream: Stream, origin: Origin) {
        let (services, settings) = (Rc::clone(&self.services), Rc::clone(&self.settings));
        let served = serve(stream, origin, services, settings, self.stopped.clone());
        let open = Rc::clone(&self.open);
        tokio::task::spawn_local(async move {
            let _open = open;
            let _ = served.await;
        });
    }

    /// Serves a connection once it is secure, on its own task from the first byte.
    fn secure(&self, handshake: Handshake, of: (Serves, Option<Arc<str>>), names: bool) {
        let (services, settings) = (Rc::clone(&self.services), Rc::clone(&self.settings));
        let (mut stopped, open) = (self.stopped.clone(), Rc::clone(&self.open));
        tokio::task::spawn_local(async move {
            let _open = open;
            let secured = tokio::select! {
                secured = handshake.run() => secured,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            match secured {
                Ok(stream) => {
                    let origin = origin(&stream, of, names);
                    let _ = serve(stream, origin, services, settings, stopped).await;
                }
                Err(refused) => tell_refused(&services.log, Endpoint::Client, &refused),
            }
        });
    }
}

/// Where a connection comes from, as logs have it.
fn shown(from: Option<SocketAddr>) -> Arc<str> {
    from.map_or_else(|| "unix".into(), |from| from.to_string().into())
}

/// What is known of a connection that was made secure, or turned out not to need it.
fn origin(stream: &Stream, (serves, remote): (Serves, Option<Arc<str>>), names: bool) -> Origin {
    let Some(session) = stream.session() else {
        return Origin { serves, remote, ..Origin::default() };
    };
    let tls = Some(if session.http2 { Agreed::Http2 } else { Agreed::Nothing });
    let certificate = session.common_name.clone().filter(|_| names).into_iter().collect();
    Origin { serves, tls, certificate, remote }
}

/// Accepts from one socket, and deals connections out, the first to runtime `first`. Clients are
/// accepted once they may be served; who looks at metrics may do so before.
async fn accept(
    socket: ClientSocket,
    limit: Limit,
    connections: Vec<Arc<Inbox<Dealt>>>,
    first: usize,
    queues: Queues,
) {
    let ClientSocket { bound, security, serves, names } = socket;
    if serves != Serves::Metrics {
        until_ready(&queues).await;
    }
    let Ok(listener) = Listener::new(bound, limit, security) else { return };
    let mut turn = first;
    loop {
        match listener.accept().await.and_then(net::Accepted::detach) {
            Ok(connection) => {
                // Whoever finds all of them full is closed by being dropped.
                let _ = deal(&connections, turn, Dealt { connection, serves, names });
                turn += 1;
            }
            // Out of descriptors, most likely: let some connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Begins what a member does by itself besides compacting: comparing hashes, deciding on versions.
fn begin_chores(
    local: &tokio::task::LocalSet,
    member: &Rc<Member>,
    queues: &Queues,
    checks: Checks,
    downgrade_check: Duration,
) {
    local.spawn_local(corruption::watch_over(Rc::clone(member), checks));
    local.spawn_local(versions::watch_over(Rc::clone(member), downgrade_check));
    if queues.is_checked() {
        return;
    }
    let (member, queues) = (Rc::clone(member), queues.clone());
    local.spawn_local(async move {
        match corruption::initial(member).await {
            Ok(()) => queues.set_checked(),
            Err(error) => queues.fail(Fatal { message: "checkInitialHashKV failed", error }),
        }
    });
}

/// Waits until clients may be served; until then their connections wait in the socket's queue.
async fn until_ready(queues: &Queues) {
    while !queues.is_ready() {
        tokio::time::sleep(READY_STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use osenv::RecvBlocking;

    #[test]
    fn connections_go_round_and_what_no_runtime_has_room_for_is_refused() {
        let inboxes: Vec<_> = (0..3).map(|_| Arc::new(Inbox::new(2))).collect();
        for turn in 0..4 {
            deal(&inboxes, turn, turn).expect("there is room");
        }
        // The first is full.
        deal(&inboxes, 3, 4).expect("the second has room");
        deal(&inboxes, 4, 5).expect("the third has room");
        assert_eq!(deal(&inboxes, 6, 6), Err(Full(6)));
        let held = inboxes.iter().map(|inbox| {
            let mut items = Vec::new();
            inbox.recv_blocking(&mut items, None);
            items
        });
        assert_eq!(held.collect::<Vec<_>>(), [vec![0, 3], vec![1, 4], vec![2, 5]]);
    }
}
