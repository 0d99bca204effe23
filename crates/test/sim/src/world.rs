//! The world of one seed: members, their disks, a network, clients, time, and what goes wrong.
//!
//! One step lets one thing happen that could happen now: an automaton's turn or the sending of one
//! of its outputs, a packet's arrival, a job on the pool, a client. What and when is drawn from the
//! seed. First everything may go wrong (safety), then nothing does, and all that is waited for must
//! happen in bounded time (liveness).
//!
//! The world is taken apart by topic: `members.rs` (processes), `mail.rs` (what travels between
//! them), `calls.rs` (clients), `faults.rs`, `admin.rs` (membership); here is the schedule.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::error::Status;
use env::mem::MemDisk;
use env::{Entropy, SplitMix};
use model::History;
use types::MemberId;

use crate::Case;
use crate::admin::Admin;
use crate::checks::Checks;
use crate::clients::{Client, Watcher};
use crate::crowd::Crowd;
use crate::faults::Heal;
use crate::gateway::Gateway;
use crate::network::{Network, Weather};
use crate::options::{Carrier, Http2Options, Options, UserOptions};
use crate::plant::Plant;
use crate::probes::Probes;
use crate::process::{Automaton, Process};
use crate::trace::Trace;
use crate::transfers::Transfer;
use crate::transport::Transport;
use crate::wire::CallResult;
use crate::workload::{self, Known};

/// Milliseconds between looks at who is connected.
const DIAL_MS: u64 = 500;
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
    /// What carries clients' calls to the gateway, if something does.
    pub(crate) transport: Option<Transport>,
    /// Whether clients may call: the member is ready, and the View shows that.
    pub(crate) serving: bool,
    /// Whether it is a learner by its own View: those serve no clients here.
    pub(crate) learns: bool,
    /// When it stops, once it was asked to.
    pub(crate) stop_at: Option<u64>,
    /// Planted: leases that it will end, and when.
    pub(crate) revokes: Vec<(u64, i64)>,
    /// When it looks next who is connected.
    pub(crate) next_dial: u64,
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
    /// Calls whose answers came over HTTP/2.
    pub carried: u64,
    /// Keep-alives that one member sent on to another.
    pub forwarded: u64,
    /// The last entry committed.
    pub entries: u64,
    /// States of two members that were compared.
    pub compared: u64,
    /// Changes of users and roles that were answered.
    pub user_changes: u64,
    /// Calls and watches that were permitted while authentication was on.
    pub let_in: u64,
    /// Those that were not.
    pub turned_away: u64,
    /// Entries of the log that were refused for who signed them.
    pub refused_entries: u64,
}

pub(crate) struct World {
    pub(crate) options: Options,
    /// Users, if they call.
    pub(crate) crowd: Option<Crowd>,
    /// If calls come over HTTP/2, and the numbers that this draws.
    pub(crate) http2: Option<(Http2Options, SplitMix)>,
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
    /// The results of calls that are not of the model, by call number.
    pub(crate) results: Vec<(u64, Result<CallResult, Status>)>,
    pub(crate) network: Network,
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) admin: Admin,
    pub(crate) checks: Checks,
    /// When the next fault comes, and what ends when.
    pub(crate) next_fault: u64,
    pub(crate) heals: Vec<(u64, Heal)>,
    /// The operations that calls belong to.
    pub(crate) places: BTreeMap<u64, usize>,
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
    Turn(usize),
    Job(usize),
    Connection(usize),
    Timer(usize),
    Dial(usize),
    Stop(usize),
    Revoke(usize),
    Client(usize),
    GiveUp(usize),
    Watcher(usize),
    Keeper,
    Packet,
    Transfer(usize),
    Admin,
    Fault,
    Heal(usize),
}

impl World {
    pub(crate) fn new(case: Case, trace: Trace) -> Self {
        let Case { seed, shape, plant, carrier, callers } = case;
        let mut entropy = SplitMix::new(seed);
        let mut options = Options::draw(&mut entropy, shape);
        if plant.is_some_and(Plant::leaves_hashes_alone) {
            (options.corrupt_check_ms, options.compact_check_ms) = (None, None);
        }
        let mut trace = trace;
        trace.event(0, format_args!("seed {seed} {options:?}"));
        let carrier =
            if plant.is_some_and(Plant::wants_connections) { Carrier::Http2 } else { carrier };
        let http2 = Http2Options::draw(seed, carrier);
        if let Some((http2, _)) = &http2 {
            trace.event(0, format_args!("over HTTP/2: {http2:?}"));
        }
        let crowd = UserOptions::draw(seed, callers, plant.is_some()).map(Crowd::new);
        if let Some(crowd) = &crowd {
            trace.event(0, format_args!("users: {:?}", crowd.options));
        }
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
            crowd,
            http2,
            entropy,
            now: 0,
            trace,
            members: Vec::new(),
            history: History { one_member, ..History::default() },
            known: Known { revision: 1, ..Known::default() },
            counts: Counts::default(),
            chaos: true,
            plant,
            results: Vec::new(),
            network: Network::new(weather),
            transfers: Vec::new(),
            admin: Admin { next_at: next_change, busy: None },
            checks: Checks::default(),
            next_fault,
            heals: Vec::new(),
            probes: Arc::new(Probes::new(seed)),
            places: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_error: None,
            boots: 0,
        };
        if world.crowd.is_some() {
            world.checks.keep_log();
        }
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
        if self.counts.crashes == crashes {
            self.act(act)?;
        }
        let mut running = self.members.iter_mut().filter_map(|m| m.running.as_mut());
        running.find_map(|running| running.gateway.violation.take()).map_or(Ok(()), Err)
    }

    /// Everything that can happen, and from when on.
    fn each_act(&self, each: &mut dyn FnMut(Act, u64, u64)) {
        let now = self.now;
        for (m, member) in self.members.iter().enumerate() {
            let Some(running) = &member.running else {
                if member.part != Part::Gone {
                    each(Act::Start(m), member.start_at, now);
                }
                continue;
            };
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
            if_any(running.gateway.has_turns(), Act::Turn(m));
            if_any(running.gateway.has_jobs(), Act::Job(m));
            let mut when = |due: Option<u64>, act: Act| {
                if let Some(at) = due {
                    each(act, at, now);
                }
            };
            when(running.connection_due(now), Act::Connection(m));
            when(running.gateway.due(process), Act::Timer(m));
            when(Some(running.next_dial), Act::Dial(m));
            when(running.stop_at, Act::Stop(m));
            when(running.revokes.first().map(|(at, _)| *at), Act::Revoke(m));
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
        if !self.members.iter().any(Member::serves) {
            return;
        }
        if self.chaos {
            each(Act::Admin, self.admin.next_at, now);
            let keeper = self.crowd.as_ref().map_or(u64::MAX, |crowd| crowd.keeper.next_at);
            each(Act::Keeper, keeper, now);
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
        match act {
            Act::Start(m) => return self.start(m),
            Act::Automaton(m, which) => return self.step_automaton(m, which),
            Act::Replies(m) => self.deliver(m),
            Act::Turn(m) => self.turn(m),
            Act::Job(m) => {
                let running = self.members[m].running.as_mut().expect("listed while it runs");
                running.gateway.run_job(&mut self.entropy);
            }
            Act::Connection(m) => self.carry(m),
            Act::Timer(m) => self.fire(m),
            Act::Dial(m) => {
                let running = self.members[m].running.as_mut().expect("listed while it runs");
                running.next_dial = self.now + DIAL_MS * MS;
                self.dial(m);
            }
            Act::Stop(m) => self.end(m, false),
            Act::Revoke(m) => self.revoke_as_deposed(m),
            Act::Client(c) => self.step_client(c),
            Act::GiveUp(c) => self.give_up(c),
            Act::Watcher(w) => self.step_watcher(w),
            Act::Keeper => self.step_keeper(),
            Act::Packet => self.deliver_packet(),
            Act::Transfer(t) => self.step_transfer(t),
            Act::Admin => self.step_admin(),
            Act::Fault => self.inflict(),
            Act::Heal(h) => {
                let (_, heal) = self.heals.swap_remove(h);
                self.heal(heal);
            }
        }
        Ok(())
    }
}
