//! The thread of Applier, and the turns of Applier that the log's thread takes.

use std::sync::Arc;
use std::time::Duration;

use env::{Instant, MayBlock};
use handover::{Notifier, Seat};
use member::{Applier, ApplierInput, ApplierOutput, CommitterInput, NodeInput, Reply};
use observe::Turn;
use osenv::{Clock, RecvBlocking};
use types::{ReplyToken, Revision};

use super::{CANNOT_GO_ON, Fatal, Queues, until};

/// Inputs of a turn that the log's thread takes instead of waking Applier's. It writes nothing
/// meanwhile, so they are few.
const BORROWED_INPUTS: usize = 8;

/// Applier with what its turns need.
pub(super) struct ApplierHost {
    applier: Applier,
    inputs: Vec<ApplierInput>,
    out: ApplierOutput,
    sorted: Vec<Vec<(ReplyToken, Reply)>>,
    is_ready: bool,
    revision: Revision,
    turn: Turn,
    /// Operations that the committer was not woken for.
    untold: usize,
    /// Operations for which the committer is woken before its time.
    tell_at: usize,
    /// When its own thread looks by itself.
    looks_at: Option<Instant>,
}

impl ApplierHost {
    pub(super) fn new(q: &Queues, applier: Applier, tell_at: usize) -> Self {
        Self {
            applier,
            inputs: Vec::new(),
            out: ApplierOutput::default(),
            sorted: q.reply_buffers(),
            is_ready: false,
            revision: q.view.load().store.revision(),
            turn: Turn::default(),
            untold: 0,
            tell_at,
            looks_at: None,
        }
    }

    /// Applies what is queued and gives out what follows.
    fn turn(&mut self, q: &Queues, may: &MayBlock) -> Result<(), Fatal> {
        q.applier.take(&mut self.inputs);
        let began = Clock.now();
        let applied = self.applier.handle(may, began, &mut self.inputs, &mut self.out);
        applied.map_err(|e| Fatal { message: CANNOT_GO_ON, error: e.to_string() })?;
        let took = Clock.now().since(began);
        q.reporter.note(&self.out, &mut self.turn);
        // Told before others can act on it, or the log would tell the story out of order.
        q.reporter.applied(&mut self.turn, took);
        // Invariant: events, then the View, then the replies; watchers last.
        self.tell_node(q);
        let out = &mut self.out;
        let mut news = false;
        if let Some(view) = out.view.take() {
            q.report_view(&view, out.compacted.take());
            let revision = view.store.revision();
            news = std::mem::replace(&mut self.revision, revision) != revision;
            drop(q.view.store(view));
        }
        q.reply(&mut out.replies, &mut self.sorted);
        if news {
            q.notifiers.iter().for_each(Notifier::notify);
        }
        self.give_committer(q);
        self.out.released.clear();
        Ok(())
    }

    fn tell_node(&mut self, q: &Queues) {
        self.is_ready = self.is_ready || q.status.load().ready;
        for input in self.out.node.drain(..) {
            match &input {
                // Nobody waits until Node knows of it; its tick is soon enough.
                NodeInput::Applied(applied) if self.is_ready && applied.effects.is_empty() => {
                    q.node.push_lazily(input);
                }
                _ => q.node.push_event(input),
            }
        }
    }

    fn give_committer(&mut self, q: &Queues) {
        let out = &mut self.out;
        if let Some(holds) = out.holds.take() {
            q.reporter.installed(holds.index);
            q.committer.push_event(CommitterInput::Holds(holds));
        }
        for batch in out.batches.drain(..) {
            self.untold += batch.batch.op_count();
            let input = CommitterInput::Batch(batch);
            // Its time runs from the first batch on.
            if self.untold < self.tell_at {
                q.committer.push_lazily(input);
            } else {
                q.committer.push_event(input);
                self.untold = 0;
            }
        }
        if std::mem::take(&mut out.flush) {
            q.committer.push_event(CommitterInput::Flush);
        }
        if std::mem::take(&mut out.defragment) {
            q.committer.push_event(CommitterInput::Defragment);
        }
        if let Some(meta) = out.install.take() {
            q.reporter.installing(&meta);
            q.committer.push_event(CommitterInput::Install(meta));
        }
    }
}

/// The way to Applier for the log's thread.
#[derive(Clone)]
pub(super) struct ApplierDoor {
    queues: Queues,
    seat: Arc<Seat<ApplierHost>>,
}

impl ApplierDoor {
    pub(super) fn new(queues: &Queues, host: ApplierHost) -> Self {
        Self { queues: queues.clone(), seat: Arc::new(Seat::new(host)) }
    }

    /// Takes a turn, if it is short and nobody is at it; else Applier's thread is woken.
    ///
    /// # Errors
    /// What Applier cannot go on for.
    pub(super) fn take_turn(&self, may: &MayBlock) -> Result<(), Fatal> {
        let q = &self.queues;
        let turn = |host: &mut ApplierHost| {
            host.turn(q, may).inspect(|()| {
                let deadline = host.applier.deadline();
                if deadline.is_some_and(|at| host.looks_at.is_none_or(|looks| at < looks)) {
                    q.applier.rouse();
                }
            })
        };
        let is_short = q.applier.len() <= BORROWED_INPUTS;
        is_short.then(|| self.seat.try_run(turn)).flatten().unwrap_or_else(|| {
            q.applier.wake();
            Ok(())
        })
    }

    /// Runs Applier on this thread, its own, until its inbox is closed.
    pub(super) fn run(&self) -> Result<(), Fatal> {
        let may = MayBlock::on_this_thread();
        let q = &self.queues;
        let look = |host: &mut ApplierHost| {
            host.looks_at = host.applier.deadline();
            host.looks_at
        };
        let mut deadline = self.seat.run(look).flatten();
        let left = |deadline: Option<Instant>| -> Option<Duration> {
            deadline.map(|at| until(Clock.now(), at))
        };
        while q.applier.wait_blocking(left(deadline)) {
            let turn = |host: &mut ApplierHost| host.turn(q, &may).map(|()| look(host));
            let Some(turn) = self.seat.run(turn) else { break };
            deadline = turn?;
        }
        self.seat.end();
        q.committer.push_event(CommitterInput::Flush);
        q.committer.close();
        Ok(())
    }
}
