//! The plane's thread, and the handle by which others reach it.
//!
//! Invariants: a call on the handle never blocks, but for [`Plane::stop`]; calls take effect in the
//! order in which one thread makes them.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use handover::Inbox;
use net::{Bound, Dialer, Limit, Listener, Security};
use raft::{Body, Message};
use tls::ClientTls;
use tokio::task::LocalSet;
use types::{BadUrl, ClusterId, Index, MemberId, Url};

use crate::core::Core;
use crate::event::Event;
use crate::headers::Identity;
use crate::{serve, tasks};

/// Calls of [`Plane::send`] that wait for the plane's thread; more are lost as if by the network.
const QUEUED_SENDS: usize = 4_096;
/// Threads for files and names: each snapshot on its way takes one.
const BLOCKING_THREADS: usize = 32;
/// Time that messages which are queued are given when the plane stops.
const FAREWELL: Duration = Duration::from_millis(100);
/// Pause between looks at what is still queued then.
const FAREWELL_STEP: Duration = Duration::from_millis(5);

/// Why a message was not taken; it is lost then as if the network had dropped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// The inbox is full.
    Full,
    /// The member stops.
    Stopped,
}

/// An answer that takes its time.
pub type Answer = Pin<Box<dyn Future<Output = http::Response<Bytes>> + Send>>;

/// What the plane needs of its member. All calls but one come from the plane's thread, and none
/// may block; `unreachable` may also come from within [`Plane::send`].
pub trait Member: Send + Sync + 'static {
    /// A message for raft arrived. It is for this member and its sender was not removed.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    fn receive(&self, message: Message) -> Result<(), ReceiveError>;

    /// Messages to a peer were lost.
    fn unreachable(&self, peer: MemberId);

    /// Nobody listens at a peer's only URL, though it is a peer: its process has ended, or was not
    /// started yet. Told at every attempt to reach it.
    fn ended(&self, peer: MemberId);

    /// What became of a snapshot given to [`Plane::send_snapshot`].
    fn snapshot_sent(&self, peer: MemberId, arrived: bool);

    /// A peer says that this member was removed from the cluster.
    fn removed(&self);

    /// Whether a received file, which is durable, can be the database of the snapshot at `index`.
    /// May block: it is called on a thread for files.
    ///
    /// # Errors
    /// Why not; the sender is told.
    fn check_snapshot(&self, path: &Path, index: Index) -> Result<(), String>;

    /// Whether a member was removed from the cluster.
    fn is_removed(&self, id: MemberId) -> bool;

    /// Answers a request of another member that is not about raft, whose method and headers were
    /// checked and whose body was read: `/members`, `/members/promote/…`, `/leases`,
    /// `/leases/internal`, `/downgrade/enabled`, `/members/hashkv`, `/version`.
    /// The plane adds the cluster's id to the answer.
    fn other(&self, request: http::Request<Bytes>) -> Answer;

    /// The plane panicked and cannot go on.
    fn fatal(&self, why: &str);

    /// Something happened, for logs and metrics.
    fn event(&self, event: Event<'_>);
}

/// Who this member is, and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its peer URLs, which others are told.
    pub own_urls: Vec<String>,
    /// Where received databases go; it exists.
    pub snap_dir: PathBuf,
    /// The disk of that directory.
    pub disk: Arc<dyn env::Disk>,
    /// Time for a connection (etcd: 1 s + election timeout).
    pub dial_timeout: Duration,
    /// Time without a byte after which a stream is lost (`--raft-read-timeout`).
    pub read_timeout: Duration,
    /// Time after which a peer that takes nothing is given up (`--raft-write-timeout`).
    pub write_timeout: Duration,
    /// The address from which connections leave (`--experimental-set-member-localaddr`).
    pub local_address: Option<IpAddr>,
    /// How TLS is spoken with peers; without it as with any server on the net.
    pub tls: Option<ClientTls>,
    /// Connections of peers at once, on all listeners; more wait.
    pub connections: usize,
    /// The version that others are told, such as `3.7.1`.
    pub server_version: String,
}

/// What the plane's thread is to do.
pub(crate) enum Command {
    Send(Vec<Message>),
    SendSnapshot(Box<Message>, bolt::ReadTx),
    AddPeer(MemberId, Vec<Url>),
    AddRemote(MemberId, Vec<Url>),
    UpdatePeer(MemberId, Vec<Url>),
    RemovePeer(MemberId),
    RemoveAllPeers,
    Stop,
}

/// Since when each active peer is.
pub(crate) type Active = Arc<Mutex<BTreeMap<MemberId, Instant>>>;

struct Handle {
    inbox: Arc<Inbox<Command>>,
    active: Active,
    member: Arc<dyn Member>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A member's connections to the others. Clones are handles of the same plane.
#[derive(Clone)]
pub struct Plane(Arc<Handle>);

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").finish_non_exhaustive()
    }
}

impl Plane {
    /// Serves the listeners on a thread of its own. There are no peers yet.
    ///
    /// # Errors
    /// A thread or a socket that cannot be had; a configuration that cannot be told to others.
    pub fn start(
        config: Config,
        member: Arc<dyn Member>,
        listeners: Vec<(Bound, Security)>,
    ) -> io::Result<Self> {
        let (id, cluster) = (config.id, config.cluster);
        let identity = Identity::new(id, cluster, &config.server_version, &config.own_urls)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("peer-files")
            .build()?;
        let listening = {
            let _within = runtime.enter();
            let limit = Limit::new(config.connections);
            let listen = |(bound, security)| Listener::new(bound, limit.clone(), security);
            listeners.into_iter().map(listen).collect::<io::Result<Vec<_>>>()?
        };
        let inbox = Arc::new(Inbox::new(QUEUED_SENDS));
        let active = Active::default();
        let dialer = Dialer {
            timeout: Some(config.dial_timeout),
            local_address: config.local_address,
            tls: config.tls.clone(),
        };
        let thread = {
            let (inbox, active) = (Arc::clone(&inbox), Arc::clone(&active));
            let member = Arc::clone(&member);
            std::thread::Builder::new().name("peer".into()).spawn(move || {
                let told = Arc::clone(&member);
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let core = Rc::new(Core::new(config, identity, dialer, member, active));
                    LocalSet::new().block_on(&runtime, run(core, inbox, listening));
                }));
                if let Err(payload) = outcome {
                    told.fatal(&tasks::said(&*payload));
                }
                // A snapshot that is being written is not waited for: it was not acknowledged.
                runtime.shutdown_background();
            })?
        };
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Handle { inbox, active, member, thread })))
    }

    /// Sends messages, in order for each peer and way. Those to unknown members are dropped; of
    /// answers to appends only the newest to each peer is sent. If the plane does not keep up they
    /// are lost, and the peers reported unreachable.
    pub fn send(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        if let Err(handover::Full(Command::Send(lost))) = self.0.inbox.push(Command::Send(messages))
        {
            let mut peers: Vec<_> = lost.iter().map(|message| message.to).collect();
            peers.sort_unstable();
            peers.dedup();
            peers.into_iter().for_each(|peer| self.0.member.unreachable(peer));
        }
    }

    /// Sends a snapshot: the message, then the database as that transaction sees it. The outcome is
    /// [`Member::snapshot_sent`].
    ///
    /// # Panics
    /// If the message is no snapshot.
    pub fn send_snapshot(&self, message: Message, db: bolt::ReadTx) {
        assert!(matches!(message.body, Body::Snapshot { .. }), "{message:?} is no snapshot");
        self.0.inbox.push_event(Command::SendSnapshot(Box::new(message), db));
    }

    /// Makes a member a peer: streams are opened, messages sent to it.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn add_peer<S: AsRef<str>>(&self, id: MemberId, urls: &[S]) -> Result<(), BadUrl> {
        self.0.inbox.push_event(Command::AddPeer(id, Url::parse_all(urls)?));
        Ok(())
    }

    /// Lets messages be sent to a member that is not known to be in the cluster yet.
    ///
    /// # Errors
    /// As [`Plane::add_peer`].
    pub fn add_remote<S: AsRef<str>>(&self, id: MemberId, urls: &[S]) -> Result<(), BadUrl> {
        self.0.inbox.push_event(Command::AddRemote(id, Url::parse_all(urls)?));
        Ok(())
    }

    /// Gives a peer other URLs; nothing happens if there is no such peer.
    ///
    /// # Errors
    /// As [`Plane::add_peer`].
    pub fn update_peer<S: AsRef<str>>(&self, id: MemberId, urls: &[S]) -> Result<(), BadUrl> {
        self.0.inbox.push_event(Command::UpdatePeer(id, Url::parse_all(urls)?));
        Ok(())
    }

    /// Ends all connections to a peer.
    pub fn remove_peer(&self, id: MemberId) {
        self.0.inbox.push_event(Command::RemovePeer(id));
    }

    /// Ends all connections to all peers.
    pub fn remove_all_peers(&self) {
        self.0.inbox.push_event(Command::RemoveAllPeers);
    }

    /// Since when messages pass to and from a peer; `None` while they do not.
    #[must_use]
    pub fn active_since(&self, id: MemberId) -> Option<Instant> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// Peers to and from which messages pass.
    #[must_use]
    pub fn active_peers(&self) -> usize {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends everything and waits for it; what is queued is given a moment. Never call this from
    /// within a [`Member`]'s methods.
    pub fn stop(&self) {
        self.0.inbox.push_event(Command::Stop);
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().expect("a panic is caught and told");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inbox.push_event(Command::Stop);
    }
}

async fn run(core: Rc<Core>, inbox: Arc<Inbox<Command>>, listening: Vec<Listener>) {
    for listener in listening {
        tasks::spawn(&core, serve::accept(Rc::clone(&core), listener));
    }
    let mut commands = Vec::new();
    loop {
        inbox.recv(&mut commands).await;
        for command in commands.drain(..) {
            match command {
                Command::Send(messages) => core.send(messages),
                Command::SendSnapshot(message, db) => core.send_snapshot(*message, db),
                Command::AddPeer(id, urls) => core.add_peer(id, urls),
                Command::AddRemote(id, urls) => core.add_remote(id, urls),
                Command::UpdatePeer(id, urls) => core.update_peer(id, urls),
                Command::RemovePeer(id) => core.remove_peer(id),
                Command::RemoveAllPeers => core.remove_all_peers(),
                Command::Stop => {
                    inbox.close();
                    farewell(&core).await;
                    return;
                }
            }
        }
    }
}

async fn farewell(core: &Core) {
    let until = tokio::time::Instant::now() + FAREWELL;
    loop {
        tokio::time::sleep(FAREWELL_STEP).await;
        if !core.has_queued() || tokio::time::Instant::now() >= until {
            break;
        }
    }
    core.stop_all_peers();
    core.forget_remotes();
}
