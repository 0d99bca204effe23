//! The thread of Node, and the turns of Node that others take.

use std::sync::Arc;
use std::time::Duration;

use env::{Failpoint, Failpoints, Instant};
use handover::Seat;
use member::{ApplierInput, CommitterInput, Node, NodeInput, NodeOutput, PeerChange, Reply};
use osenv::{Clock, RecvBlocking};
use peer::Plane;
use raft::StepError;
use types::ReplyToken;

use super::{Fatal, Queues, until};

/// Time after which a commit index is written though nothing else is; Node's ticks come as often.
const LAZY_LOG: Duration = Duration::from_millis(100);

/// Inputs of a turn that a thread takes instead of waking Node's. More are worth a wake: Node works
/// on them while that thread goes on.
const BORROWED_INPUTS: usize = 64;

/// Whether a turn has given Applier something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Committed {
    Something,
    Nothing,
}

/// Node with what its turns need.
pub(super) struct NodeHost {
    node: Node,
    plane: Plane,
    failpoints: Failpoints,
    inputs: Vec<NodeInput>,
    out: NodeOutput,
    sorted: Vec<Vec<(ReplyToken, Reply)>>,
    next_nudge: Instant,
    /// When its own thread looks by itself.
    looks_at: Instant,
}

impl NodeHost {
    pub(super) fn new(q: &Queues, node: Node, plane: Plane, failpoints: Failpoints) -> Self {
        let now = Clock.now();
        Self {
            node,
            plane,
            failpoints,
            inputs: Vec::new(),
            out: NodeOutput::default(),
            sorted: q.reply_buffers(),
            next_nudge: now,
            looks_at: now,
        }
    }

    /// Handles what is queued. Applier is not woken for what it is given.
    fn turn(&mut self, q: &Queues) -> Result<Committed, Fatal> {
        let now = Clock.now();
        q.node.take(&mut self.inputs);
        self.node.handle(now, &mut self.inputs, &mut self.out);
        // The log first: its flush is what everything else waits for.
        for input in self.out.log.drain(..) {
            if input.is_awaited() {
                q.log.push_event(input);
            } else {
                q.log.push_lazily(input);
            }
        }
        self.tell_peers(q)?;
        if now >= self.next_nudge {
            self.next_nudge = now + LAZY_LOG;
            q.log.nudge();
        }
        let committed = self.give_applier(q);
        self.give_committer(q);
        let out = &mut self.out;
        if let Some(status) = out.status.take() {
            q.reporter.status(&q.status.load(), &status);
            q.status.store(status);
        }
        q.reply(&mut out.replies, &mut self.sorted);
        if std::mem::take(&mut out.removed) {
            (q.removed)();
        }
        Ok(committed)
    }

    fn tell_peers(&mut self, q: &Queues) -> Result<(), Fatal> {
        let out = &mut self.out;
        for change in out.peers.drain(..) {
            q.reporter.peer_changed(&change, change_peer(&self.plane, &change));
        }
        if !out.messages.is_empty() {
            self.failpoints.hit(match self.node.is_leader() {
                true => Failpoint::RaftBeforeLeaderSend,
                false => Failpoint::RaftBeforeFollowerSend,
            });
            q.reporter.sent(&out.messages);
            self.plane.send(std::mem::take(&mut out.messages));
        }
        for (peer, why) in out.refused.drain(..) {
            q.reporter.refused(peer, &why);
            if let StepError::CommitBeyondLog { .. } = why {
                return Err(log_lost(&why));
            }
        }
        Ok(())
    }

    fn give_applier(&mut self, q: &Queues) -> Committed {
        let out = &mut self.out;
        let mut given = Committed::Nothing;
        let entries = out.committed.drain(..).map(ApplierInput::Committed);
        let install = out.install.take().map(ApplierInput::Install);
        let saved = out.snapshot_saved.take().map(ApplierInput::SnapshotSaved);
        for input in entries.chain(install).chain(saved) {
            q.applier.push_event_quietly(input);
            given = Committed::Something;
        }
        given
    }

    fn give_committer(&mut self, q: &Queues) {
        let out = &mut self.out;
        for wanted in out.snapshots.drain(..) {
            q.committer.push_event(CommitterInput::Snapshot(wanted));
        }
        if let Some(snapshot) = out.save_snapshot.take() {
            q.committer.push_event(CommitterInput::SaveSnapshot(snapshot));
        }
        if std::mem::take(&mut out.flush) {
            q.committer.push_event(CommitterInput::Flush);
        }
    }
}

/// The way to Node for those who may take its turn.
#[derive(Clone)]
pub(crate) struct NodeDoor {
    queues: Queues,
    seat: Arc<Seat<NodeHost>>,
    /// Failpoints may hold Node up, and nobody else.
    takes_turns: bool,
}

impl NodeDoor {
    pub(super) fn new(queues: &Queues, host: NodeHost) -> Self {
        let takes_turns = !host.failpoints.is_on();
        Self { queues: queues.clone(), seat: Arc::new(Seat::new(host)), takes_turns }
    }

    /// Brings requests. What does not fit stays in `inputs`.
    pub(crate) fn push_all(&self, inputs: &mut Vec<NodeInput>) {
        if inputs.len() > BORROWED_INPUTS {
            return self.queues.node.push_all(inputs);
        }
        self.queues.node.push_all_quietly(inputs);
        if self.take_turn() == Committed::Something {
            self.queues.applier.wake();
        }
    }

    /// Brings what a flush has made durable. Whether Applier was given something, and was not woken.
    pub(super) fn flushed(&self, inputs: &mut Vec<NodeInput>) -> Committed {
        inputs.drain(..).for_each(|input| self.queues.node.push_event_quietly(input));
        self.take_turn()
    }

    /// Takes a turn, if it is short and nobody is at it; else Node's thread is woken.
    fn take_turn(&self) -> Committed {
        let q = &self.queues;
        let is_short = self.takes_turns && q.node.len() <= BORROWED_INPUTS;
        let turn = |host: &mut NodeHost| {
            host.turn(q).inspect(|_| {
                if host.node.deadline() < host.looks_at {
                    q.node.rouse();
                }
            })
        };
        match is_short.then(|| self.seat.try_run(turn)).flatten() {
            Some(Ok(committed)) => committed,
            Some(Err(why)) => {
                self.seat.end();
                q.fail(why);
                Committed::Nothing
            }
            None => {
                q.node.wake();
                Committed::Nothing
            }
        }
    }

    /// Runs Node on this thread, its own, until its inbox is closed.
    pub(super) fn run(&self) -> Result<(), Fatal> {
        let q = &self.queues;
        loop {
            let turn = |host: &mut NodeHost| {
                host.turn(q).map(|committed| {
                    host.looks_at = host.node.deadline();
                    (committed, host.looks_at)
                })
            };
            let Some(turn) = self.seat.run(turn) else { break };
            let (committed, deadline) = turn?;
            if committed == Committed::Something {
                q.applier.wake();
            }
            if !q.node.wait_blocking(Some(until(Clock.now(), deadline))) {
                break;
            }
        }
        self.seat.end();
        q.log.close();
        Ok(())
    }
}

/// The leader knows that this member once had entries that it has not: they were acknowledged, and
/// its vote for others may be lost with them, so it must not go on under this name.
//= raft 3.7.0: log.go#commitTo (etcd panics)
fn log_lost(why: &StepError) -> Fatal {
    let error = format!(
        "{why}; if the data directory was lost or emptied, remove this member from the cluster \
         (etcdctl member remove), add it again (etcdctl member add) and start it with an empty \
         data directory"
    );
    Fatal { message: "Was the raft log corrupted, truncated, or lost?", error }
}

/// Tells the peer plane who the members are now.
fn change_peer(plane: &Plane, change: &PeerChange) -> Result<(), types::BadUrl> {
    match change {
        // Adding one that is there changes nothing, updating one that is not there neither.
        PeerChange::Set { id, urls } => {
            plane.add_peer(*id, urls)?;
            plane.update_peer(*id, urls)
        }
        PeerChange::Remove(id) => {
            plane.remove_peer(*id);
            Ok(())
        }
    }
}
