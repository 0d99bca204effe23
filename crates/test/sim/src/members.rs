//! Processes of members: how they start, run and end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use calls::corruption::{self, Checks};
use calls::{compact_by_itself, versions};
use env::mem::{Fault, MemDisk};
use env::{Disk, Entropy, Hook, Hooks, IoErrorKind, MayBlock, SplitMix};
use member::Tokens;
use types::MemberId;

use crate::clock::Clock;
use crate::gateway::{Gateway, Settings};
use crate::plant::{self, Plant};
use crate::process::{Automaton, Identity, Process, founder_id, peer_url, wal_dir};
use crate::transport::Transport;
use crate::wire::Ask;
use crate::world::{MS, Member, Part, Running, World};

/// `--downgrade-check-time`.
const DOWNGRADE_CHECK: Duration = Duration::from_secs(5);

/// As `shell/server/src/bootstrap.rs#has_log`.
fn has_log(disk: &MemDisk) -> bool {
    let entries = disk.read_dir(&MayBlock::on_this_thread(), &wal_dir());
    entries.is_ok_and(|entries| entries.iter().any(|entry| entry.name.ends_with(".wal")))
}

impl World {
    /// A machine for one more member; its place.
    pub(crate) fn add_member(&mut self, part: Part) -> usize {
        let place = self.members.len();
        let disk = MemDisk::new();
        disk.set_cold(self.options.cold);
        // Segments begin with a real sync: a log that never appears would be found too easily.
        disk.set_lying((self.plant == Some(Plant::SkippedFsync)).then_some("wal"));
        let loss =
            self.options.cluster.as_ref().map_or(0, |c| self.entropy.below(c.clock_loss + 1));
        let mut member = Member::new(founder_id(place), part, disk, 1_000 - loss);
        if self.options.cluster.is_some() {
            member.start_at = self.now + self.entropy.below(1_000) * MS;
        }
        self.members.push(member);
        place
    }

    /// The place of a member.
    pub(crate) fn place(&self, id: MemberId) -> Option<usize> {
        self.members.iter().position(|m| m.id == id)
    }

    /// The own id of one who joins, and the members of the cluster, if some member that runs knows
    /// of it already.
    fn to_join(&self, m: usize) -> Option<(MemberId, Vec<MemberId>)> {
        let url = peer_url(m);
        let running = self.members.iter().filter_map(|m| m.running.as_ref());
        let mut found = running.filter_map(|r| {
            let members = &r.process.view.members;
            let own = members.iter().find(|m| m.peer_urls.iter().flatten().any(|u| *u == url))?;
            Some((MemberId(own.id), members.iter().map(|m| MemberId(m.id)).collect()))
        });
        found.next()
    }

    pub(crate) fn start(&mut self, m: usize) -> Result<(), String> {
        let founders = self.options.cluster.as_ref().map_or(1, |c| c.founders) as usize;
        let mut remotes = Vec::new();
        // Whoever has a log asks nobody.
        let joins = self.members[m].part == Part::Joiner;
        if joins && !has_log(&self.members[m].disk) {
            let Some((own, others)) = self.to_join(m) else {
                self.members[m].start_at = self.now + 100 * MS;
                return Ok(());
            };
            self.members[m].id = own;
            remotes = others;
        }
        let id = self.members[m].id;
        let identity = Identity { id, founders: if joins { 0 } else { founders }, remotes };
        let faulty = self.chaos && self.entropy.below(100) < self.options.recovery_fault_percent;
        let member = &mut self.members[m];
        if self.plant == Some(Plant::AppliedTwice) && self.entropy.below(2) == 0 {
            plant::set_index_back(&member.disk);
        }
        if faulty {
            let (at, torn) = (self.entropy.below(80), self.entropy.below(2) == 0);
            let kind = IoErrorKind::Other;
            let fault = Fault { at, only: None, kind, permanent: true, torn };
            member.disk.set_fault(Some(fault));
            member.doomed = Some(self.counts.steps + 200);
            self.trace.event(self.now, format_args!("{id}: the disk will fail at operation {at}"));
        }
        let boot = member.boots;
        member.boots += 1;
        self.boots += 1;
        // Each boot has a monotonic clock of its own.
        let clock = Clock::new(self.now, self.entropy.below(1 << 40), member.clock_rate);
        let entropy = SplitMix::new(self.entropy.next_u64());
        let begin = (self.now, clock);
        let options = &self.options;
        let hooks = Hooks::new(Arc::clone(&self.probes) as Arc<dyn Hook>);
        let (disk, ttl) = (&member.disk, self.crowd.as_ref().map(|c| c.options.token_ttl_secs));
        let tokens = ttl.map(|secs| Arc::new(Tokens::new(Duration::from_secs(secs))));
        let around = (self.plant, hooks, tokens);
        let started = Process::start(options, &identity, disk, boot, begin, entropy, around);
        match started {
            Ok(process) => {
                self.begin(m, boot, process);
                Ok(())
            }
            Err(why) if member.doomed.is_some() => {
                self.trace.event(self.now, format_args!("{id} start {boot} failed: {why}"));
                self.crash(m);
                Ok(())
            }
            Err(why) => Err(format!("{id} cannot start: {why}")),
        }
    }

    /// Lets a process that has started run.
    fn begin(&mut self, m: usize, boot: u64, process: Process) {
        let settings = Settings {
            options: &self.options,
            boot,
            first: self.boots << 32,
            seed: self.entropy.next_u64(),
            hooks: Hooks::new(Arc::clone(&self.probes) as Arc<dyn Hook>),
            plant: self.plant,
        };
        let transport = self.http2.as_mut().map(|(options, entropy)| {
            Transport::new(options.clone(), self.plant, SplitMix::new(entropy.next_u64()))
        });
        let gateway = Gateway::new(&process, &settings);
        let (id, view) = (process.id, &process.view.store);
        let (revision, index) = (view.revision(), view.applied_index());
        self.trace.event(
            self.now,
            format_args!("{id} starts {boot} at revision {revision}, entry {index}"),
        );
        self.members[m].running = Some(Running {
            process,
            boot,
            gateway,
            transport,
            serving: false,
            learns: false,
            stop_at: None,
            revokes: Vec::new(),
            next_dial: self.now,
        });
        self.begin_chores(m);
    }

    /// Begins what a member does by itself, as `shell/server/src/runtimes.rs#run_runtime`.
    fn begin_chores(&mut self, m: usize) {
        let retention = self.options.retention.filter(|_| self.chaos);
        let millis = |ms: Option<u64>| Duration::from_millis(ms.unwrap_or(0));
        let checks = Checks {
            initial: false,
            periodic: millis(self.options.corrupt_check_ms),
            compaction: millis(self.options.compact_check_ms),
        };
        let running = self.members[m].running.as_mut().expect("it has just begun");
        let member = Rc::clone(&running.gateway.member);
        let (own, gateway) = (|| Rc::clone(&member), &mut running.gateway);
        gateway.spawn(Box::pin(versions::watch_over(own(), DOWNGRADE_CHECK)));
        gateway.spawn(Box::pin(corruption::watch_over(own(), checks)));
        if let Some(retention) = retention {
            gateway.spawn(Box::pin(compact_by_itself(own(), retention)));
        }
    }

    /// Ends a process: the power goes, or only the process does.
    pub(crate) fn crash(&mut self, m: usize) {
        let power = self.entropy.below(100) < self.options.power_percent;
        self.counts.crashes += 1;
        self.counts.faults += 1;
        self.end(m, power);
    }

    /// Ends a process, for whatever reason.
    pub(crate) fn end(&mut self, m: usize, power: bool) {
        let member = &mut self.members[m];
        self.trace.event(self.now, format_args!("{} ends, power lost: {power}", member.id));
        // Handles first: a killed process lets go of its locks.
        let running = member.running.take();
        drop(running);
        member.disk.set_fault(None);
        (member.doomed, member.paused_until) = (None, 0);
        self.cut_transfers(m);
        let now = self.now;
        let member = &mut self.members[m];
        if power {
            let whole = self.entropy.below(4) == 0;
            let tearing: Option<&mut dyn Entropy> =
                if whole { None } else { Some(&mut self.entropy) };
            member.disk.crash(tearing);
        }
        let longest = match &self.options.cluster {
            Some(cluster) if self.chaos => 1 + cluster.fault_lasts_ms / 2,
            _ => 500,
        };
        member.start_at = now + self.entropy.below(longest) * MS;
        for c in 0..self.clients.len() {
            // Nobody will know what became of it: it was written down as unknown.
            let Some(busy) = self.clients[c].busy.take_if(|busy| busy.member == m) else {
                continue;
            };
            self.clients[c].next_at = now + self.entropy.below(self.options.think_ms) * MS;
            self.clients[c].member = self.some_server().unwrap_or(m);
            self.ask_again(c, busy);
        }
        self.admin.busy.take_if(|(_, member)| *member == m);
        if let Some(crowd) = &mut self.crowd {
            crowd.keeper.busy.take_if(|(_, member, _)| *member == m);
        }
        for watcher in self.watchers.iter_mut().filter(|w| w.member == m) {
            watcher.disconnected();
        }
    }

    pub(crate) fn step_automaton(&mut self, m: usize, which: Automaton) -> Result<(), String> {
        let stall = self.chaos && self.entropy.below(1_000) < self.options.stall_permille;
        let until = self.now + self.entropy.below(self.options.stall_ms + 1) * MS;
        let member = &mut self.members[m];
        let running = member.running.as_mut().expect("listed while it runs");
        let led = running.process.status.is_leader;
        running.gateway.has_led |= led;
        let result = running.process.step(
            which,
            self.now,
            &mut self.entropy,
            &mut self.trace,
            &mut self.checks,
        );
        if stall {
            running.process.stalled[which as usize] = until;
        }
        // As `shell/server/src/run.rs#wait_ready`.
        let (status, view) = (&running.process.status, &running.process.view);
        running.serving |= status.ready && view.store.applied_index() >= status.applied;
        if which == Automaton::Applier {
            let own = view.members.get(running.process.id);
            running.learns = own.is_some_and(|own| own.is_learner);
        }
        if self.plant == Some(Plant::DeposedRevoke) && led && !status.is_leader {
            running.revokes = running.process.leases(self.now);
        }
        let failed = result.err();
        let doomed = member.doomed.is_some_and(|by| by <= self.counts.steps);
        self.counts.snapshots += std::mem::take(&mut running.process.snapshots);
        self.counts.installs += std::mem::take(&mut running.process.installs);
        let removed = running.process.removed;
        let lost_vote = std::mem::take(&mut running.process.lost_vote);
        match failed {
            Some(why) if member.doomed.is_some() => {
                self.trace.event(self.now, format_args!("{which:?} ended: {why}"));
                self.crash(m);
            }
            Some(why) => return Err(format!("{which:?} ended on a healthy disk: {why}")),
            None if doomed => self.crash(m),
            None if removed => self.retire(m),
            // Planted, and shown where it matters: while others still ask for votes.
            None if lost_vote && self.entropy.below(3) == 0 => {
                self.crash(m);
                self.members[m].start_at = self.now + self.entropy.below(20) * MS;
            }
            None => self.post(m),
        }
        Ok(())
    }

    /// A member was removed: it ends for good.
    pub(crate) fn retire(&mut self, m: usize) {
        self.trace.event(self.now, format_args!("{} was removed", self.members[m].id));
        self.end(m, false);
        self.members[m].part = Part::Gone;
    }

    /// Planted: ends a lease by the clock of a time as leader.
    pub(crate) fn revoke_as_deposed(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let (_, lease) = running.revokes.remove(0);
        let request = api::etcdserverpb::LeaseRevokeRequest { id: lease };
        let ask = Ask::Kv(model::Request::LeaseRevoke(request));
        let call = running.gateway.number();
        running.gateway.call(self.now, &mut running.process, (call, ask), None);
        self.collect(m);
    }

    /// A member keeps streams to its peers, and is refused by those that know of its removal: so one
    /// hears of it that has nothing to say.
    pub(crate) fn dial(&mut self, m: usize) {
        let Some(running) = &self.members[m].running else { return };
        let id = running.process.id;
        let reached = |peer: &MemberId| {
            let to = self
                .place(*peer)
                .filter(|to| !self.network.is_blocked(m, *to) && !self.network.is_blocked(*to, m));
            let member = to.map(|to| &self.members[to]).filter(|p| p.paused_until <= self.now);
            member.and_then(|member| member.running.as_ref())
        };
        let peers = &running.process.peers;
        let refuses = |peer: &Running| peer.process.view.members.is_removed(id);
        if peers.iter().filter_map(reached).any(refuses) {
            return self.retire(m);
        }
        let connected = peers.iter().copied().filter(|peer| reached(peer).is_some()).collect();
        let running = self.members[m].running.as_mut().expect("looked at above");
        running.gateway.set_connected(self.now, &connected);
    }
}
