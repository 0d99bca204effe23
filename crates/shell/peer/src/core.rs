//! Who the peers are and which way each message takes. Lives on the plane's thread.
//!
//! Invariants: nothing here is shared with another thread but the table of active peers; no
//! `RefCell` stays borrowed over a call of the member or an `await`.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/transport.go#Transport
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/peer.go#peer

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use raft::{Body, Message};
use tokio::task::AbortHandle;
use types::{MemberId, Url};

use crate::event::{Channel, Event};
use crate::headers::Identity;
use crate::picker::Picker;
use crate::pipeline::Pipeline;
use crate::plane::{Active, Config, Member, ReceiveError};
use crate::probe;
use crate::reader;
use crate::snapshot_send::{self, SnapshotSlots};
use crate::tasks;
use crate::writer::Writer;
use net::Dialer;

/// Senders that are no peers but get answers. Ours: etcd has no limit.
const MAX_REMOTES: usize = 256;

/// Everything on the plane's thread.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) dialer: Dialer,
    pub(crate) member: Arc<dyn Member>,
    pub(crate) snapshots_out: SnapshotSlots,
    /// Snapshots that are being received.
    pub(crate) snapshots_in: Cell<usize>,
    active: Active,
    peers: RefCell<BTreeMap<MemberId, Rc<Peer>>>,
    remotes: RefCell<BTreeMap<MemberId, Rc<Pipeline>>>,
}

/// A member that we have streams with.
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) picker: Rc<Picker>,
    pub(crate) appends: Rc<Writer>,
    pub(crate) messages: Rc<Writer>,
    pipeline: Rc<Pipeline>,
    tasks: RefCell<Vec<AbortHandle>>,
    probes: RefCell<Vec<AbortHandle>>,
}

impl Peer {
    fn writer(&self, message: &Message) -> Option<&Rc<Writer>> {
        let is_append = matches!(message.body, Body::Append { .. });
        if is_append && self.appends.is_attached() {
            return Some(&self.appends);
        }
        self.messages.is_attached().then_some(&self.messages)
    }

    /// Keeps a task until the peer is removed.
    pub(crate) fn own(&self, task: AbortHandle) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    fn stop(&self) {
        self.tasks.take().iter().for_each(AbortHandle::abort);
        self.probes.take().iter().for_each(AbortHandle::abort);
        self.appends.close();
        self.messages.close();
        self.pipeline.stop();
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

impl Core {
    pub(crate) fn new(
        config: Config,
        identity: Identity,
        dialer: Dialer,
        member: Arc<dyn Member>,
        active: Active,
    ) -> Self {
        Self {
            config,
            identity,
            dialer,
            member,
            snapshots_out: SnapshotSlots::default(),
            snapshots_in: Cell::new(0),
            active,
            peers: RefCell::default(),
            remotes: RefCell::default(),
        }
    }

    pub(crate) fn peer(&self, id: MemberId) -> Option<Rc<Peer>> {
        self.peers.borrow().get(&id).cloned()
    }

    pub(crate) fn event(&self, event: Event<'_>) {
        self.member.event(event);
    }

    /// Gives each message to its peer.
    pub(crate) fn send(self: &Rc<Self>, mut messages: Vec<Message>) {
        newest_append_reply_only(&mut messages);
        let mut cached: Option<Rc<Peer>> = None;
        for message in messages {
            if cached.as_ref().is_none_or(|peer| peer.id != message.to) {
                cached = self.peer(message.to);
            }
            match &cached {
                Some(peer) => self.send_to_peer(peer, message),
                None => {
                    let to = message.to;
                    let remote = self.remotes.borrow().get(&to).cloned();
                    // A removed member hears of it when it opens a stream, and from nowhere else.
                    let remote = remote.filter(|_| !self.member.is_removed(to));
                    if remote.is_some_and(|remote| !remote.push(message)) {
                        self.event(Event::SendFailed(to, Channel::Pipeline));
                    }
                }
            }
        }
    }

    fn send_to_peer(&self, peer: &Peer, message: Message) {
        let is_snapshot = matches!(message.body, Body::Snapshot { .. });
        let writer = if is_snapshot { None } else { peer.writer(&message) };
        let (queued, channel) = match writer {
            Some(writer) => (writer.push(message), writer.channel()),
            None => (peer.pipeline.push(message), Channel::Pipeline),
        };
        if !queued {
            self.event(Event::SendFailed(peer.id, channel));
            self.member.unreachable(peer.id);
            if is_snapshot {
                self.member.snapshot_sent(peer.id, false);
            }
        }
    }

    pub(crate) fn send_snapshot(self: &Rc<Self>, message: Message, db: bolt::ReadTx) {
        let to = message.to;
        match self.peer(to) {
            Some(peer) if self.snapshots_out.take() => {
                let task = snapshot_send::send(Rc::clone(self), Rc::clone(&peer), message, db);
                peer.own(tasks::spawn(self, task));
            }
            Some(_) => {
                self.event(Event::SendFailed(to, Channel::Snapshot));
                self.member.unreachable(to);
                self.member.snapshot_sent(to, false);
            }
            None => self.member.snapshot_sent(to, false),
        }
    }

    pub(crate) fn add_peer(self: &Rc<Self>, id: MemberId, urls: Vec<Url>) {
        if self.peers.borrow().contains_key(&id) {
            return;
        }
        if let Some(remote) = self.remotes.borrow_mut().remove(&id) {
            remote.stop();
        }
        let named = texts(&urls);
        let picker = Rc::new(Picker::new(urls));
        let peer = Rc::new(Peer {
            id,
            appends: Writer::new(Rc::clone(self), id, Channel::Appends),
            messages: Writer::new(Rc::clone(self), id, Channel::Messages),
            pipeline: Pipeline::start(Rc::clone(self), id, Rc::clone(&picker), true),
            picker,
            tasks: RefCell::default(),
            probes: RefCell::default(),
        });
        self.peers.borrow_mut().insert(id, Rc::clone(&peer));
        for channel in [Channel::Appends, Channel::Messages] {
            let task = reader::run(Rc::clone(self), id, Rc::clone(&peer.picker), channel);
            peer.own(tasks::spawn(self, task));
        }
        *peer.probes.borrow_mut() = probe::start(self, id, &peer.picker.all());
        self.event(Event::PeerAdded(id, &named));
    }

    pub(crate) fn add_remote(self: &Rc<Self>, id: MemberId, urls: Vec<Url>) {
        let known =
            self.peers.borrow().contains_key(&id) || self.remotes.borrow().contains_key(&id);
        if known || id == self.config.id || self.remotes.borrow().len() >= MAX_REMOTES {
            return;
        }
        let named = texts(&urls);
        let picker = Rc::new(Picker::new(urls));
        let pipeline = Pipeline::start(Rc::clone(self), id, picker, false);
        self.remotes.borrow_mut().insert(id, pipeline);
        self.event(Event::RemoteAdded(id, &named));
    }

    pub(crate) fn update_peer(self: &Rc<Self>, id: MemberId, urls: Vec<Url>) {
        let Some(peer) = self.peer(id) else { return };
        let named = texts(&urls);
        peer.picker.update(urls);
        peer.probes.take().iter().for_each(AbortHandle::abort);
        *peer.probes.borrow_mut() = probe::start(self, id, &peer.picker.all());
        self.event(Event::PeerUpdated(id, &named));
    }

    pub(crate) fn remove_peer(&self, id: MemberId) {
        let peer = self.peers.borrow_mut().remove(&id);
        if let Some(peer) = &peer {
            self.stop_peer(id, peer);
        }
        self.event(Event::PeerRemoved(id, peer.is_some()));
    }

    fn stop_peer(&self, id: MemberId, peer: &Peer) {
        peer.stop();
        self.active().remove(&id);
        self.event(Event::PeerStopped(id));
    }

    /// Ends all connections to peers, which go on being members.
    pub(crate) fn stop_all_peers(&self) {
        for (id, peer) in self.peers.take() {
            self.stop_peer(id, &peer);
        }
    }

    pub(crate) fn remove_all_peers(&self) {
        let ids: Vec<_> = self.peers.borrow().keys().copied().collect();
        ids.into_iter().for_each(|id| self.remove_peer(id));
    }

    pub(crate) fn forget_remotes(&self) {
        self.remotes.take().values().for_each(|remote| remote.stop());
    }

    /// Whether messages wait for a stream.
    pub(crate) fn has_queued(&self) -> bool {
        self.peers.borrow().values().any(|p| p.appends.has_queued() || p.messages.has_queued())
    }

    /// Gives a message that arrived to the member.
    pub(crate) fn deliver(&self, message: Message) -> Result<(), &'static str> {
        let from = message.from;
        if self.member.is_removed(from) {
            self.event(Event::Ignored(from, "cannot process message from removed member"));
            return Err("cannot process message from removed member");
        }
        if message.to != self.config.id {
            self.event(Event::Ignored(from, "cannot process message to mismatch member"));
            return Err("cannot process message to mismatch member");
        }
        match self.member.receive(message) {
            Ok(()) => Ok(()),
            Err(ReceiveError::Full) => {
                self.event(Event::ReceiveFailed(from));
                Err("raft: inbox full")
            }
            Err(ReceiveError::Stopped) => Err("raft: stopped"),
        }
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberId, Instant>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages pass to or from a peer.
    pub(crate) fn activate(&self, id: MemberId) {
        if !self.peers.borrow().contains_key(&id) {
            return;
        }
        let was_active = {
            let mut active = self.active();
            let was_active = active.contains_key(&id);
            active.entry(id).or_insert_with(Instant::now);
            was_active
        };
        if !was_active {
            self.event(Event::Active(id));
        }
    }

    /// A message did not pass.
    pub(crate) fn deactivate(
        &self,
        id: MemberId,
        channel: Channel,
        action: &'static str,
        reason: &str,
    ) {
        if self.active().remove(&id).is_some() {
            self.event(Event::Inactive { peer: id, channel, action, reason });
        }
    }
}

/// Of the answers to appends, only the last to each member.
//= etcd 3.7.1: server/etcdserver/raft.go#processMessages
fn newest_append_reply_only(messages: &mut Vec<Message>) {
    let is_reply = |message: &Message| matches!(message.body, Body::AppendReply { .. });
    if messages.iter().filter(|message| is_reply(message)).count() < 2 {
        return;
    }
    let mut answered = BTreeSet::new();
    messages.reverse();
    messages.retain(|message| !is_reply(message) || answered.insert(message.to));
    messages.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Index, Term};

    fn reply(to: u64, index: u64) -> Message {
        let body = Body::AppendReply { index: Index(index), rejected: None };
        Message { from: MemberId(1), to: MemberId(to), term: Term(1), body }
    }

    #[test]
    fn only_the_newest_answer_to_appends_is_sent_to_each_peer() {
        let vote = Message { body: Body::VoteReply { reject: false }, ..reply(2, 0) };
        let mut messages = vec![reply(2, 1), vote.clone(), reply(3, 5), reply(2, 2), vote.clone()];
        newest_append_reply_only(&mut messages);
        assert_eq!(messages, [vote.clone(), reply(3, 5), reply(2, 2), vote]);
    }
}
