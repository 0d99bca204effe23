//! Processes of members: how they start, run and end.

use std::sync::Arc;

use env::mem::{Fault, MemDisk};
use env::{Disk, Entropy, Hook, Hooks, Instant, IoErrorKind, MayBlock, SplitMix};
use member::AutoCompaction;
use types::MemberId;

use crate::clock::Clock;
use crate::gateway::{Ask, Gateway};
use crate::plant::{self, Plant};
use crate::process::{Automaton, Identity, Process, wal_dir};
use crate::watches::Watches;
use crate::world::{MS, Member, Part, Running, World};

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
        let mut member = Member::new(MemberId(7 + place as u64), part, disk, 1_000 - loss);
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

    /// The members of the cluster that one joins, if some member that runs knows it already.
    fn to_join(&self, id: MemberId) -> Option<Vec<MemberId>> {
        let mut views = self.members.iter().filter_map(|m| m.running.as_ref());
        let view = views.find(|r| r.process.view.members.get(id).is_some())?;
        Some(view.process.view.members.iter().map(|m| MemberId(m.id)).collect())
    }

    pub(crate) fn start(&mut self, m: usize) -> Result<(), String> {
        let founders = self.options.cluster.as_ref().map_or(1, |c| c.founders) as usize;
        let founders: Vec<MemberId> = self.members[..founders].iter().map(|m| m.id).collect();
        let (id, part) = (self.members[m].id, self.members[m].part);
        let mut identity = Identity { id, founders, remotes: Vec::new() };
        if part == Part::Joiner {
            identity.founders.clear();
            // Whoever has a log asks nobody.
            if !has_log(&self.members[m].disk) {
                let Some(remotes) = self.to_join(id) else {
                    self.members[m].start_at = self.now + 100 * MS;
                    return Ok(());
                };
                identity.remotes = remotes;
            }
        }
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
        let hooks = (self.plant, Hooks::new(Arc::clone(&self.probes) as Arc<dyn Hook>));
        let started = Process::start(options, &identity, &member.disk, boot, begin, entropy, hooks);
        match started {
            Ok(process) => {
                let window = self.options.window;
                let watches =
                    Watches::new(&process.view, window, self.options.fragment_bytes, self.plant);
                self.trace.event(
                    self.now,
                    format_args!(
                        "{id} starts {boot} at revision {}, entry {}",
                        process.view.store.revision(),
                        process.view.store.applied_index()
                    ),
                );
                let now = Instant(self.now);
                let (first, quota) = (self.boots << 32, self.options.quota_bytes);
                member.running = Some(Running {
                    process,
                    boot,
                    gateway: Gateway::new(id, boot, first, quota, self.plant),
                    watches,
                    serving: false,
                    learns: false,
                    stop_at: None,
                    revokes: Vec::new(),
                    auto: self.options.retention.map(|r| AutoCompaction::new(r, now)),
                    next_auto: self.now,
                    next_progress: self.now,
                    auto_call: None,
                });
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
        match failed {
            Some(why) if member.doomed.is_some() => {
                self.trace.event(self.now, format_args!("{which:?} ended: {why}"));
                self.crash(m);
            }
            Some(why) => return Err(format!("{which:?} ended on a healthy disk: {why}")),
            None if doomed => self.crash(m),
            None if removed => self.retire(m),
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
        running.gateway.call(&mut running.process, Ask::Kv(model::Request::LeaseRevoke(request)));
    }

    /// A member keeps streams to its peers, and is refused by those that know of its removal: so one
    /// hears of it that has nothing to say.
    pub(crate) fn dial(&mut self, m: usize) {
        let Some(running) = &self.members[m].running else { return };
        let id = running.process.id;
        let refuses = |peer: &MemberId| {
            let to = self
                .place(*peer)
                .filter(|to| !self.network.is_blocked(m, *to) && !self.network.is_blocked(*to, m));
            let member = to.map(|to| &self.members[to]).filter(|p| p.paused_until <= self.now);
            let peer = member.and_then(|member| member.running.as_ref());
            peer.is_some_and(|peer| peer.process.view.members.is_removed(id))
        };
        if running.process.peers.iter().any(refuses) {
            self.retire(m);
        }
    }

    /// Among several members the leader decides on the cluster's version, as
    /// `shell/server/src/versions.rs` does.
    pub(crate) fn decide_version(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let view = &running.process.view;
        let is_alone = view.members.iter().count() == 1;
        if running.process.status.is_leader && view.members.cluster_version.is_none() && !is_alone {
            running.gateway.call(&mut running.process, Ask::ClusterVersion);
        }
    }
}
