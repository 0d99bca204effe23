//! The world of one seed: members, their disks, a network, clients, time, and what goes wrong.
//!
//! One step lets one thing happen that could happen now: an automaton's turn or the sending of one
//! of its outputs, a packet's arrival, a job on the pool, a client. What and when is drawn from the
//! seed. First everything may go wrong (safety), then nothing does, and all that is waited for must
//! happen in bounded time (liveness).
//!
//! The world is taken apart by topic: `members.rs` (processes), `mail.rs` (what travels between
//! them), `faults.rs`, `admin.rs` (membership); here are the schedule and the clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::error::Status;
use api::etcdserverpb::CompactionRequest;
use env::mem::MemDisk;
use env::{Entropy, Instant, SplitMix};
use member::AutoCompaction;
use model::{History, Operation, Outcome, Request};
use types::{MemberId, Revision};

use crate::admin::Admin;
use crate::checks::Checks;
use crate::clients::{Busy, Client, Watcher};
use crate::faults::Heal;
use crate::gateway::{Ask, Gateway, Told};
use crate::network::{Network, Weather};
use crate::options::{Options, Shape};
use crate::plant::Plant;
use crate::probes::Probes;
use crate::process::{Automaton, Process};
use crate::trace::Trace;
use crate::transfers::Transfer;
use crate::watches::Watches;
use crate::workload::{self, Known};

/// The client that stands for the member's own compactions.
const COMPACTOR: u32 = 1_000;
/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// Whether a member belongs to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It founds the cluster.
    Founder,
    /// It waits until it is a member, and joins then.
    Joiner,
    /// It was removed, and never comes back.
    Gone,
}

/// A member: a disk that stays, and a process that comes and goes.
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) part: Part,
    pub(crate) disk: MemDisk,
    pub(crate) running: Option<Running>,
    pub(crate) boots: u64,
    /// When the next process is started.
    pub(crate) start_at: u64,
    /// The disk fails from some operation on; the crash is to follow by this step at the latest.
    pub(crate) doomed: Option<u64>,
    /// The process, or its machine, stands still until then.
    pub(crate) paused_until: u64,
    /// Thousandths at which its clock runs.
    pub(crate) clock_rate: u64,
}

impl Member {
    pub(crate) fn new(id: MemberId, part: Part, disk: MemDisk, clock_rate: u64) -> Self {
        Self {
            id,
            part,
            disk,
            running: None,
            boots: 0,
            start_at: 0,
            doomed: None,
            paused_until: 0,
            clock_rate,
        }
    }

    /// Whether its disk is about to fail.
    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.is_some()
    }

    /// Whether clients find it.
    pub(crate) fn serves(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.serving && !r.learns)
    }
}

/// What lives as long as a process.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) boot: u64,
    pub(crate) gateway: Gateway,
    pub(crate) watches: Watches,
    /// Whether clients may call: the member is ready, and the View shows that.
    pub(crate) serving: bool,
    /// Whether it is a learner by its own View: those serve no clients here.
    pub(crate) learns: bool,
    /// When it stops, once it was asked to.
    pub(crate) stop_at: Option<u64>,
    /// Planted: leases that it will end, and when.
    pub(crate) revokes: Vec<(u64, i64)>,
    pub(crate) auto: Option<AutoCompaction>,
    pub(crate) next_auto: u64,
    pub(crate) next_progress: u64,
    pub(crate) auto_call: Option<(u64, usize, Revision)>,
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
    /// Faults of all kinds: crashes, pauses, partitions, storms, slow disks.
    pub faults: u64,
    /// Packets that were lost, came twice or late, or found no way.
    pub packets_harmed: u64,
    /// Snapshots of peers that were installed.
    pub installs: u64,
    /// Snapshots on their way that broke off.
    pub broken: u64,
    /// Membership changes that were applied.
    pub changes: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Keep-alives that one member sent on to another.
    pub forwarded: u64,
    /// The last entry committed.
    pub entries: u64,
    /// States of two members that were compared.
    pub compared: u64,
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
    pub(crate) network: Network,
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) admin: Admin,
    pub(crate) checks: Checks,
    /// When the next fault comes, and what ends when.
    pub(crate) next_fault: u64,
    pub(crate) heals: Vec<(u64, Heal)>,
    /// The operations that requests in the log belong to.
    pub(crate) requests: BTreeMap<u64, usize>,
    /// What the members' hooks have told.
    pub(crate) probes: Arc<Probes>,
    /// The last error whose outcome is unknown.
    pub(crate) last_error: Option<Status>,
    /// Boots of all members; makes their calls and snapshot files distinct.
    pub(crate) boots: u64,
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
    Forward(usize),
    Stop(usize),
    Revoke(usize),
    Client(usize),
    GiveUp(usize),
    Watcher(usize),
    Packet,
    Transfer(usize),
    Admin,
    Fault,
    Heal(usize),
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape, plant: Option<Plant>, trace: Trace) -> Self {
        let mut entropy = SplitMix::new(seed);
        let options = Options::draw(&mut entropy, shape);
        let mut trace = trace;
        trace.event(0, format_args!("seed {seed} {options:?}"));
        let clients =
            (0..options.clients).map(|id| Client { id, next_at: 0, busy: None, member: 0 });
        let mut watchers = vec![Watcher::new(100, vec![workload::watch_all()])];
        for n in 0..options.watchers {
            let lanes = 1 + entropy.below(2);
            let requests = (0..lanes).map(|_| workload::watch(&mut entropy, &options)).collect();
            watchers.push(Watcher::new(101 + n, requests));
        }
        let cluster = options.cluster.as_ref();
        let founders = cluster.map_or(1, |c| c.founders);
        let weather = cluster.map_or_else(Weather::fine, Weather::usual);
        let (next_fault, next_change) = cluster.map_or((u64::MAX, u64::MAX), |c| {
            let change = c.change_ms.map_or(u64::MAX, |ms| ms * MS);
            (entropy.below(2 * c.fault_ms) * MS, change)
        });
        let one_member = cluster.is_none();
        let mut world = Self {
            clients: clients.collect(),
            watchers,
            options,
            entropy,
            now: 0,
            trace,
            members: Vec::new(),
            history: History { one_member, ..History::default() },
            known: Known { revision: 1, ..Known::default() },
            counts: Counts::default(),
            chaos: true,
            plant,
            told: Vec::new(),
            network: Network::new(weather),
            transfers: Vec::new(),
            admin: Admin { next_at: next_change, busy: None },
            checks: Checks::default(),
            next_fault,
            heals: Vec::new(),
            probes: Arc::new(Probes::new(seed)),
            requests: BTreeMap::new(),
            last_error: None,
            boots: 0,
        };
        for _ in 0..founders {
            world.add_member(Part::Founder);
        }
        world
    }

    /// Whether the safety phase has seen enough.
    pub(crate) fn is_done(&self) -> bool {
        let enough = |c: &crate::options::ClusterOptions| {
            self.now >= c.seconds * 1_000 * MS && self.counts.faults >= c.faults
        };
        self.known.operations as usize >= self.options.operations
            && self.options.cluster.as_ref().is_none_or(enough)
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
                if member.part != Part::Gone {
                    each(Act::Start(m), member.start_at, now);
                }
                continue;
            };
            serving |= member.serves();
            if member.paused_until > now {
                each(Act::Replies(m), member.paused_until, now);
                continue;
            }
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
            if let Some(at) = running.gateway.forwards.iter().map(|f| f.due.min(f.until)).min() {
                each(Act::Forward(m), at, now);
            }
            if let Some(at) = running.stop_at {
                each(Act::Stop(m), at, now);
            }
            if let Some((at, _)) = running.revokes.first() {
                each(Act::Revoke(m), *at, now);
            }
        }
        if let Some(at) = self.network.due() {
            each(Act::Packet, at, now);
        }
        for (t, transfer) in self.transfers.iter().enumerate() {
            each(Act::Transfer(t), transfer.due, now);
        }
        for (c, client) in self.clients.iter().enumerate() {
            if let Some(busy) = &client.busy {
                each(Act::GiveUp(c), busy.until, now);
            }
        }
        if self.chaos {
            each(Act::Fault, self.next_fault, now);
            for (h, (at, _)) in self.heals.iter().enumerate() {
                each(Act::Heal(h), *at, now);
            }
        }
        if !serving {
            return;
        }
        if self.chaos {
            each(Act::Admin, self.admin.next_at, now);
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
        self.fail_disk(0);
    }

    fn act(&mut self, act: Act) -> Result<(), String> {
        let member = match act {
            Act::Replies(m)
            | Act::PoolCall(m)
            | Act::PoolWatch(m)
            | Act::WatchTurn(m)
            | Act::Progress(m) => m,
            Act::Start(m) => return self.start(m),
            Act::Automaton(m, which) => return self.step_automaton(m, which),
            Act::Compact(m) => {
                self.compact_by_itself(m);
                return Ok(());
            }
            Act::Forward(m) => {
                self.forward(m);
                return Ok(());
            }
            Act::Stop(m) => {
                self.end(m, false);
                return Ok(());
            }
            Act::Revoke(m) => {
                self.revoke_as_deposed(m);
                return Ok(());
            }
            Act::Client(c) => {
                self.step_client(c);
                return Ok(());
            }
            Act::GiveUp(c) => {
                self.give_up(c);
                return Ok(());
            }
            Act::Watcher(w) => {
                self.step_watcher(w);
                return Ok(());
            }
            Act::Packet => {
                self.deliver_packet();
                return Ok(());
            }
            Act::Transfer(t) => {
                self.step_transfer(t);
                return Ok(());
            }
            Act::Admin => {
                self.step_admin();
                return Ok(());
            }
            Act::Fault => {
                self.inflict();
                return Ok(());
            }
            Act::Heal(h) => {
                let (_, heal) = self.heals.swap_remove(h);
                self.heal(heal);
                return Ok(());
            }
        };
        let running = self.members[member].running.as_mut().expect("listed while it runs");
        match act {
            Act::PoolWatch(_) => {
                running.watches.run_job(&running.process.view, &mut self.entropy);
            }
            Act::WatchTurn(_) => {
                let view = Arc::clone(&running.process.view);
                running.watches.turn(&view, &mut self.entropy);
            }
            Act::Progress(_) => {
                running.next_progress = self.now + self.options.progress_ms * MS;
                running.watches.tick();
                self.decide_version(member);
                self.dial(member);
            }
            Act::PoolCall(_) => {
                running.gateway.run_job(&mut self.entropy);
                self.collect(member);
            }
            _ => self.deliver(member),
        }
        Ok(())
    }

    /// Gives replies to those who wait.
    fn deliver(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let count = 1 + self.entropy.below(running.process.replies.len() as u64);
        for _ in 0..count {
            let Some((token, reply)) = running.process.replies.pop_front() else { break };
            running.gateway.reply(self.now, &mut running.process, token, reply);
        }
        self.collect(m);
    }

    /// Writes down what calls were told.
    pub(crate) fn collect(&mut self, m: usize) {
        self.send_answers(m);
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let done = std::mem::take(&mut running.gateway.done);
        for (call, told) in done {
            let running = self.members[m].running.as_mut().expect("it runs throughout");
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
                self.clients.iter_mut().find(|c| c.busy.is_some_and(|busy| busy.call == call));
            let Some(client) = owner else {
                if self.admin.busy.is_some_and(|(own, _)| own == call) {
                    self.admin_told(&told);
                    continue;
                }
                self.told.push((call, told));
                continue;
            };
            let no_space = api::error::ApiError::NoSpace.text();
            let refused = told.as_ref().is_err_and(|status| status.message == no_space);
            self.counts.no_space += u64::from(refused);
            self.last_error = told.as_ref().err().cloned();
            let place = client.busy.take().and_then(|busy| busy.place);
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
        self.note_requests(m, call, place);
        (call, place)
    }

    /// Remembers which request belongs to which operation.
    fn note_requests(&mut self, m: usize, call: u64, place: Option<usize>) {
        let Some(running) = &mut self.members[m].running else { return };
        for (id, token) in running.gateway.proposed.drain(..) {
            if let Some(place) = place.filter(|_| token == call) {
                self.requests.insert(id, place);
            }
        }
    }

    /// Some member that clients find, by place.
    pub(crate) fn some_server(&mut self) -> Option<usize> {
        let servers: Vec<usize> =
            (0..self.members.len()).filter(|m| self.members[*m].serves()).collect();
        let at = self.entropy.below(servers.len() as u64) as usize;
        servers.get(at).copied()
    }

    fn step_client(&mut self, c: usize) {
        let moves = self.members.len() > 1 && self.entropy.below(20) == 0;
        if moves || !self.members[self.clients[c].member].serves() {
            let Some(server) = self.some_server() else { return };
            self.clients[c].member = server;
        }
        self.known.operations += 1;
        let ask = workload::ask(&mut self.entropy, &self.options, &self.known);
        let (id, member) = (self.clients[c].id, self.clients[c].member);
        let (call, place) = self.call(member, id, ask);
        let patience = self.options.cluster.as_ref().map(|o| o.patience_ms * MS);
        let until = patience.map_or(u64::MAX, |p| self.now + p / 2 + self.entropy.below(p / 2));
        self.clients[c].busy = Some(Busy { call, place, member, until });
        self.collect(member);
    }

    /// A client does not wait any longer: what it asked for may have happened, or happen yet.
    fn give_up(&mut self, c: usize) {
        let Some(busy) = self.clients[c].busy.take() else { return };
        self.trace.event(self.now, format_args!("client {} gives up", self.clients[c].id));
        if let Some(running) = &mut self.members[busy.member].running {
            running.gateway.abandon(busy.call);
        }
        self.clients[c].next_at = self.now + self.entropy.below(self.options.think_ms * MS);
        self.clients[c].member = self.some_server().unwrap_or(busy.member);
        self.ask_again(c, busy);
    }

    /// Planted: a put that was not answered is asked for once more.
    pub(crate) fn ask_again(&mut self, c: usize, busy: Busy) {
        let Some(place) = busy.place.filter(|_| self.plant == Some(Plant::RetriedPut)) else {
            return;
        };
        let request = self.history.operations[place].request.clone();
        let member = self.clients[c].member;
        if !matches!(request, Request::Put(_)) || !self.members[member].serves() {
            return;
        }
        let running = self.members[member].running.as_mut().expect("it serves");
        let call = running.gateway.call(&mut running.process, Ask::Kv(request));
        self.note_requests(member, call, Some(place));
        let until = self.now + 5_000 * MS;
        self.clients[c].busy = Some(Busy { call, place: Some(place), member, until });
        self.collect(member);
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
        let pause = if self.chaos { self.options.think_ms.min(60) } else { 5 };
        let pause = self.entropy.below(pause * MS);
        self.watchers[w].next_at = self.now + pause;
        if self.watchers[w].stream.is_none() {
            let Some(server) = self.some_server() else { return };
            self.watchers[w].member = server;
        }
        let watcher = &mut self.watchers[w];
        if self.members[watcher.member].paused_until > self.now {
            return;
        }
        let running = self.members[watcher.member].running.as_mut();
        let running = running.expect("a stream ends with its process");
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
