//! The world of one seed: a member, its disk, its clients, time, and what goes wrong.
//!
//! One step lets one thing happen that could happen now: an automaton's turn or the sending of one
//! of its outputs, a job on the pool, a client. What and when is drawn from the seed. First
//! everything may go wrong (safety), then nothing does, and all that is waited for must happen in
//! bounded time (liveness). Members are values in a list, so that there can be more than one.

use std::sync::Arc;

use api::error::Status;
use api::etcdserverpb::CompactionRequest;
use env::mem::{Fault, MemDisk};
use env::{Entropy, Instant, IoErrorKind, SplitMix};
use member::AutoCompaction;
use model::{History, Operation, Outcome, Request};
use types::Revision;

use crate::clients::{Client, Watcher};
use crate::gateway::{Ask, Gateway, Told};
use crate::options::Options;
use crate::plant::Plant;
use crate::process::{Automaton, Process};
use crate::trace::Trace;
use crate::watches::Watches;
use crate::workload::{self, Known};

/// The client that stands for the member's own compactions.
const COMPACTOR: u32 = 1_000;
/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// A member: a disk that stays, and a process that comes and goes.
pub(crate) struct Member {
    pub(crate) disk: MemDisk,
    pub(crate) running: Option<Running>,
    pub(crate) boots: u64,
    /// When the next process is started.
    start_at: u64,
    /// The disk fails from some operation on; the crash is to follow by then at the latest.
    doomed: Option<u64>,
}

impl Member {
    /// Whether its disk is about to fail.
    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.is_some()
    }
}

/// What lives as long as a process.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) gateway: Gateway,
    pub(crate) watches: Watches,
    /// Whether clients may call: the member is ready, and the View shows that.
    pub(crate) serving: bool,
    auto: Option<AutoCompaction>,
    next_auto: u64,
    next_progress: u64,
    auto_call: Option<(u64, usize, Revision)>,
}

/// Counters for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scheduler steps.
    pub steps: u64,
    /// Crashes, of all kinds.
    pub crashes: u64,
    /// Compactions that were answered.
    pub compactions: u64,
    /// Defragmentations that were answered.
    pub defragmentations: u64,
    /// Raft snapshots that were recorded.
    pub snapshots: u64,
    /// Writes refused for want of space.
    pub no_space: u64,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) entropy: SplitMix,
    pub(crate) now: u64,
    pub(crate) trace: Trace,
    pub(crate) members: Vec<Member>,
    pub(crate) clients: Vec<Client>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) history: History,
    pub(crate) known: Known,
    pub(crate) counts: Counts,
    /// Whether things go wrong.
    pub(crate) chaos: bool,
    pub(crate) plant: Option<Plant>,
    /// What was told to calls that are not of the model, by call number.
    pub(crate) told: Vec<(u64, Result<Told, Status>)>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Start(usize),
    Automaton(usize, Automaton),
    Replies(usize),
    PoolCall(usize),
    PoolWatch(usize),
    WatchTurn(usize),
    Progress(usize),
    Compact(usize),
    Client(usize),
    Watcher(usize),
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, print: bool) -> Self {
        let mut entropy = SplitMix::new(seed);
        let options = Options::draw(&mut entropy);
        let disk = MemDisk::new();
        disk.set_cold(options.cold);
        // Segments begin with a real sync: a log that never appears would be found too easily.
        disk.set_lying((plant == Some(Plant::SkippedFsync)).then_some("wal"));
        let mut trace = Trace::new(print);
        trace.event(0, format_args!("seed {seed} {options:?}"));
        let clients = (0..options.clients).map(|id| Client { id, next_at: 0, busy: None });
        let mut watchers = vec![Watcher::new(100, vec![workload::watch_all()])];
        for n in 0..options.watchers {
            let lanes = 1 + entropy.below(2);
            let requests = (0..lanes).map(|_| workload::watch(&mut entropy, &options)).collect();
            watchers.push(Watcher::new(101 + n, requests));
        }
        let member = Member { disk, running: None, boots: 0, start_at: 0, doomed: None };
        Self {
            clients: clients.collect(),
            watchers,
            options,
            entropy,
            now: 0,
            trace,
            members: vec![member],
            history: History { one_member: true, ..History::default() },
            known: Known { revision: 1, ..Known::default() },
            counts: Counts::default(),
            chaos: true,
            plant,
            told: Vec::new(),
        }
    }

    /// Lets one thing happen.
    ///
    /// # Errors
    /// What went wrong that must not.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.counts.steps += 1;
        let mut ready: Vec<Act> = Vec::new();
        let mut soonest = u64::MAX;
        self.each_act(&mut |act, due, now| {
            soonest = soonest.min(due);
            if due <= now {
                ready.push(act);
            }
        });
        if ready.is_empty() {
            assert!(soonest < u64::MAX, "a member always ticks");
            self.now = soonest;
            return Ok(());
        }
        let act = ready[self.entropy.below(ready.len() as u64) as usize];
        self.now += self.entropy.below(60_000);
        let crashes = self.counts.crashes;
        if self.chaos {
            self.go_wrong();
        }
        // What was about to happen may be gone.
        if self.counts.crashes > crashes { Ok(()) } else { self.act(act) }
    }

    /// Everything that can happen, and from when on.
    fn each_act(&self, each: &mut dyn FnMut(Act, u64, u64)) {
        let now = self.now;
        let mut serving = false;
        for (m, member) in self.members.iter().enumerate() {
            let Some(running) = &member.running else {
                each(Act::Start(m), member.start_at, now);
                continue;
            };
            let process = &running.process;
            for which in Automaton::ALL {
                if let Some(due) = process.due(which, now) {
                    each(Act::Automaton(m, which), due, now);
                }
            }
            let mut if_any = |any: bool, act: Act| {
                if any {
                    each(act, now, now);
                }
            };
            if_any(!process.replies.is_empty(), Act::Replies(m));
            if_any(running.gateway.has_jobs(), Act::PoolCall(m));
            if_any(running.watches.has_jobs(), Act::PoolWatch(m));
            if_any(running.watches.has_news(&process.view), Act::WatchTurn(m));
            each(Act::Progress(m), running.next_progress, now);
            if running.auto.is_some() && running.auto_call.is_none() && self.chaos {
                each(Act::Compact(m), running.next_auto, now);
            }
            serving |= running.serving;
        }
        if !serving {
            return;
        }
        for (c, client) in self.clients.iter().enumerate() {
            if client.busy.is_none() && self.chaos {
                each(Act::Client(c), client.next_at, now);
            }
        }
        for (w, watcher) in self.watchers.iter().enumerate() {
            each(Act::Watcher(w), watcher.next_at, now);
        }
    }

    /// Draws whether something goes wrong now.
    fn go_wrong(&mut self) {
        if self.entropy.below(100_000) < self.options.jump_per_100k {
            let jump = (100 + self.entropy.below(11_900)) * MS;
            self.now += jump;
            self.trace.event(self.now, format_args!("the clock jumped by {jump}"));
        }
        let Some(steps) = self.options.crash_steps else { return };
        if self.entropy.below(steps) > 0 {
            return;
        }
        let member = &mut self.members[0];
        if member.running.is_none() || member.doomed.is_some() {
            return;
        }
        if self.entropy.below(3) > 0 {
            self.crash(0);
            return;
        }
        // The disk fails in the midst of something, and takes the process with it.
        let at = self.entropy.below(40);
        let permanent = self.entropy.below(4) > 0;
        let kind =
            if self.entropy.below(2) == 0 { IoErrorKind::NoSpace } else { IoErrorKind::Other };
        let torn = self.entropy.below(2) == 0;
        member.disk.set_fault(Some(Fault { at, only: None, kind, permanent, torn }));
        member.doomed = Some(self.counts.steps + 300);
        self.trace.event(self.now, format_args!("the disk will fail at operation {at}"));
    }

    fn act(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Start(m) => return self.start(m),
            Act::Automaton(m, which) => return self.step_automaton(m, which),
            Act::Replies(m) => self.deliver(m),
            Act::PoolCall(m) => {
                let running = self.members[m].running.as_mut().expect("listed while it runs");
                running.gateway.run_job(&mut self.entropy);
                self.collect(m);
            }
            Act::PoolWatch(m) => {
                let running = self.members[m].running.as_mut().expect("listed while it runs");
                running.watches.run_job(&running.process.view, &mut self.entropy);
            }
            Act::WatchTurn(m) => {
                let running = self.members[m].running.as_mut().expect("listed while it runs");
                let view = Arc::clone(&running.process.view);
                running.watches.turn(&view, &mut self.entropy);
            }
            Act::Progress(m) => {
                let running = self.members[m].running.as_mut().expect("listed while it runs");
                running.next_progress = self.now + self.options.progress_ms * MS;
                running.watches.tick();
            }
            Act::Compact(m) => self.compact_by_itself(m),
            Act::Client(c) => self.step_client(c),
            Act::Watcher(w) => self.step_watcher(w),
        }
        Ok(())
    }

    fn start(&mut self, m: usize) -> Result<(), String> {
        let faulty = self.chaos && self.entropy.below(100) < self.options.recovery_fault_percent;
        let member = &mut self.members[m];
        if faulty {
            let (at, torn) = (self.entropy.below(80), self.entropy.below(2) == 0);
            let kind = IoErrorKind::Other;
            let fault = Fault { at, only: None, kind, permanent: true, torn };
            member.disk.set_fault(Some(fault));
            member.doomed = Some(self.counts.steps + 200);
            self.trace.event(self.now, format_args!("the disk will fail at operation {at}"));
        }
        let boot = member.boots;
        member.boots += 1;
        // Each boot has a monotonic clock of its own.
        let offset = self.entropy.below(1 << 40);
        let entropy = SplitMix::new(self.entropy.next_u64());
        let clock = (self.now, offset);
        let started = Process::start(&self.options, &member.disk, boot, clock, entropy, self.plant);
        match started {
            Ok(process) => {
                let window = self.options.window;
                let watches =
                    Watches::new(&process.view, window, self.options.fragment_bytes, self.plant);
                self.trace.event(
                    self.now,
                    format_args!("start {boot} at revision {}", process.view.store.revision()),
                );
                let now = Instant(self.now);
                member.running = Some(Running {
                    process,
                    gateway: Gateway::new(boot, self.options.quota_bytes),
                    watches,
                    serving: false,
                    auto: self.options.retention.map(|r| AutoCompaction::new(r, now)),
                    next_auto: self.now,
                    next_progress: self.now,
                    auto_call: None,
                });
                Ok(())
            }
            Err(why) if member.doomed.is_some() => {
                self.trace.event(self.now, format_args!("start {boot} failed: {why}"));
                self.crash(m);
                Ok(())
            }
            Err(why) => Err(format!("the member cannot start: {why}")),
        }
    }

    /// Ends a process: the power goes, or only the process does.
    pub(crate) fn crash(&mut self, m: usize) {
        let power = self.entropy.below(100) < self.options.power_percent;
        self.counts.crashes += 1;
        self.trace.event(self.now, format_args!("crash, power lost: {power}"));
        let member = &mut self.members[m];
        // Handles first: a killed process lets go of its locks.
        let running = member.running.take();
        drop(running);
        member.disk.set_fault(None);
        member.doomed = None;
        if power {
            let whole = self.entropy.below(4) == 0;
            let tearing: Option<&mut dyn Entropy> =
                if whole { None } else { Some(&mut self.entropy) };
            member.disk.crash(tearing);
        }
        member.start_at = self.now + self.entropy.below(500) * MS;
        for client in &mut self.clients {
            // Nobody will know what became of it: it was written down as unknown.
            client.busy = None;
            client.next_at = self.now + self.entropy.below(self.options.think_ms) * MS;
        }
        for watcher in &mut self.watchers {
            watcher.disconnected();
        }
    }

    fn step_automaton(&mut self, m: usize, which: Automaton) -> Result<(), String> {
        let stall = self.chaos && self.entropy.below(1_000) < self.options.stall_permille;
        let until = self.now + self.entropy.below(self.options.stall_ms + 1) * MS;
        let member = &mut self.members[m];
        let running = member.running.as_mut().expect("listed while it runs");
        let result = running.process.step(which, self.now, &mut self.entropy, &mut self.trace);
        if stall {
            running.process.stalled[which as usize] = until;
        }
        // As `shell/server/src/run.rs#wait_ready`.
        let (status, view) = (&running.process.status, &running.process.view);
        running.serving |= status.ready && view.store.applied_index() >= status.applied;
        let failed = result.err();
        let doomed = member.doomed.is_some_and(|by| by <= self.counts.steps);
        self.counts.snapshots += std::mem::take(&mut running.process.snapshots);
        match failed {
            Some(why) if member.doomed.is_some() => {
                self.trace.event(self.now, format_args!("{which:?} ended: {why}"));
                self.crash(m);
            }
            Some(why) => return Err(format!("{which:?} ended on a healthy disk: {why}")),
            None if doomed => self.crash(m),
            None => {}
        }
        Ok(())
    }

    /// Gives replies to those who wait.
    fn deliver(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let count = 1 + self.entropy.below(running.process.replies.len() as u64);
        for _ in 0..count {
            let Some((token, reply)) = running.process.replies.pop_front() else { break };
            running.gateway.reply(&mut running.process, token, reply);
        }
        self.collect(m);
    }

    /// Writes down what calls were told.
    pub(crate) fn collect(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        for (call, told) in std::mem::take(&mut running.gateway.done) {
            let by_itself = running.auto_call.filter(|(own, ..)| *own == call);
            if let Some((_, place, target)) = by_itself {
                running.auto_call = None;
                let compacted = api::error::ApiError::Compacted;
                let done = match &told {
                    Ok(_) => true,
                    Err(status) => status.message == compacted.text(),
                };
                if let Some(auto) = running.auto.as_mut().filter(|_| done) {
                    auto.succeeded(Instant(self.now), target);
                }
                note(&mut self.history.operations[place], self.now, told, &mut self.known);
                continue;
            }
            let owner =
                self.clients.iter_mut().find(|c| c.busy.is_some_and(|(own, _)| own == call));
            let Some(client) = owner else {
                self.told.push((call, told));
                continue;
            };
            let no_space = api::error::ApiError::NoSpace.text();
            let refused = told.as_ref().is_err_and(|status| status.message == no_space);
            self.counts.no_space += u64::from(refused);
            let place = client.busy.take().and_then(|(_, place)| place);
            client.next_at = self.now + self.entropy.below(self.options.think_ms * MS);
            self.trace.event(self.now, format_args!("client {} told {told:?}", client.id));
            match place {
                Some(place) => {
                    let op = &mut self.history.operations[place];
                    if matches!((&op.request, &told), (Request::Compact(_), Ok(_))) {
                        self.counts.compactions += 1;
                    }
                    note(op, self.now, told, &mut self.known);
                }
                None => self.counts.defragmentations += u64::from(told.is_ok()),
            }
        }
    }

    /// Begins a call that is written down if the model knows what it means.
    pub(crate) fn call(&mut self, m: usize, client: u32, ask: Ask) -> (u64, Option<usize>) {
        let place = match &ask {
            Ask::Kv(request) => {
                self.history.operations.push(Operation {
                    client,
                    call: self.now,
                    returned: None,
                    request: request.clone(),
                    outcome: Outcome::Unknown,
                });
                Some(self.history.operations.len() - 1)
            }
            _ => None,
        };
        self.trace.event(self.now, format_args!("client {client} asks {ask:?}"));
        let running = self.members[m].running.as_mut().expect("called while it runs");
        let call = running.gateway.call(&mut running.process, ask);
        (call, place)
    }

    fn step_client(&mut self, c: usize) {
        self.known.operations += 1;
        let ask = workload::ask(&mut self.entropy, &self.options, &self.known);
        let id = self.clients[c].id;
        let (call, place) = self.call(0, id, ask);
        self.clients[c].busy = Some((call, place));
        self.collect(0);
    }

    fn compact_by_itself(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let auto = running.auto.as_mut().expect("listed if there is one");
        // By revisions it looks only every five minutes: here time passes faster.
        let interval = u64::try_from(auto.interval().as_nanos()).unwrap_or(u64::MAX);
        running.next_auto = self.now + interval.min(1_000 * MS);
        let revision = running.process.view.store.revision();
        let leads = running.process.status.is_leader;
        let Some(target) = auto.step(Instant(self.now), revision, leads) else { return };
        let request = CompactionRequest { revision: target.0, physical: false };
        let (call, place) = self.call(m, COMPACTOR, Ask::Kv(Request::Compact(request)));
        let running = self.members[m].running.as_mut().expect("it still runs");
        running.auto_call = place.map(|place| (call, place, target));
        self.collect(m);
    }

    fn step_watcher(&mut self, w: usize) {
        let pause = self.entropy.below(self.options.think_ms * MS);
        let running = self.members[0].running.as_mut().expect("listed while it runs");
        let watcher = &mut self.watchers[w];
        watcher.next_at = self.now + pause;
        let Some(stream) = watcher.stream else {
            watcher.connect(self.now, &running.process.view, &mut running.watches);
            return;
        };
        let roll = self.entropy.below(if self.chaos { 200 } else { 20 });
        // The first of them is asked for nothing that could disturb it in vain.
        let mut again = self.chaos && roll == 199;
        if roll < 10 {
            running.watches.want_progress(stream);
        }
        for _ in 0..1 + self.entropy.below(4) {
            let Some(response) = running.watches.take(stream) else { break };
            let revision = response.header.as_ref().map_or(0, |h| h.revision);
            self.trace.event(
                self.now,
                format_args!("watch {w} {} events at {revision}", response.events.len()),
            );
            self.known.revision = self.known.revision.max(revision);
            again |= watcher.take(self.now, &response);
        }
        if again {
            running.watches.close(stream);
            watcher.disconnected();
        }
    }
}

/// Writes an outcome down, and what everyone learns from it.
fn note(op: &mut Operation, now: u64, told: Result<Told, Status>, known: &mut Known) {
    op.returned = Some(now);
    op.outcome = match told {
        Ok(Told::Kv(response)) => {
            known.revision = known.revision.max(response.revision());
            match &op.request {
                Request::LeaseGrant(r) => known.leases.push(r.id),
                Request::Compact(r) => known.compact = known.compact.max(r.revision),
                _ => {}
            }
            Outcome::Answered(response)
        }
        Ok(other) => unreachable!("no operation of the model is told {other:?}"),
        Err(status) => Outcome::of_error(status),
    };
}
