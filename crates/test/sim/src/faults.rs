//! What goes wrong in a cluster, and when it is over again.

use env::Entropy;
use env::IoErrorKind;
use env::mem::Fault;
use member::NodeInput;

use crate::network::Weather;
use crate::process::Automaton;
use crate::world::{MS, World};

/// The end of a fault.
#[derive(Clone, Debug)]
pub(crate) enum Heal {
    /// These ways are open again.
    Ways(Vec<(usize, usize)>),
    /// The weather is as usual.
    Weather,
}

impl World {
    /// Lets one thing go wrong.
    pub(crate) fn inflict(&mut self) {
        let Some(cluster) = self.options.cluster.clone() else { return };
        self.next_fault = self.now + self.entropy.below(2 * cluster.fault_ms) * MS;
        let lasts = (50 + self.entropy.below(cluster.fault_lasts_ms)) * MS;
        let up: Vec<usize> =
            (0..self.members.len()).filter(|m| self.members[*m].running.is_some()).collect();
        let Some(m) = up.get(self.entropy.below(up.len() as u64) as usize).copied() else { return };
        // Leaders matter most.
        let leads = |m: &&usize| {
            self.members[**m].running.as_ref().is_some_and(|r| r.process.status.is_leader)
        };
        let leader = up.iter().find(leads).copied();
        let m = leader.filter(|_| self.entropy.below(3) == 0).unwrap_or(m);
        let id = self.members[m].id;
        match self.entropy.below(16) {
            0..=2 => self.crash(m),
            3 => {
                // Several at once, or everything.
                let all = self.entropy.below(2) == 0;
                for m in up {
                    if all || self.entropy.below(2) == 0 {
                        self.crash(m);
                    }
                }
            }
            4..=5 => self.fail_disk(m),
            6..=7 => self.pause(m, lasts),
            8..=9 => {
                self.trace.event(self.now, format_args!("{id} is cut off"));
                if self.entropy.below(2) == 0 {
                    // What it has still to do waits until it hears of others again.
                    let more = self.entropy.below(2_000) * MS;
                    self.slow_down(m, lasts + more);
                }
                self.cut(lasts, |from, to| from == m || to == m);
            }
            10 => {
                self.trace.event(self.now, format_args!("nothing comes from {id}"));
                self.cut(lasts, |from, _| from == m);
            }
            11 => {
                self.trace.event(self.now, format_args!("nothing comes to {id}"));
                self.cut(lasts, |_, to| to == m);
            }
            12 => {
                let sides = self.entropy.next_u64();
                self.trace.event(self.now, format_args!("the network falls in two: {sides:b}"));
                self.cut(lasts, |from, to| (sides >> from & 1) != (sides >> to & 1));
            }
            13 => {
                let ways = self.entropy.next_u64();
                self.trace.event(self.now, format_args!("some ways are closed: {ways:b}"));
                self.cut(lasts, |from, to| ways >> ((from * 8 + to) % 64) & 1 == 1);
            }
            14 => {
                self.counts.faults += 1;
                self.network.weather = Weather::bad(&mut self.entropy);
                let weather = self.network.weather;
                self.trace.event(self.now, format_args!("{weather:?}"));
                self.heals.push((self.now + lasts, Heal::Weather));
            }
            _ => self.slow_down(m, lasts),
        }
    }

    fn cut(&mut self, lasts: u64, is_cut: impl Fn(usize, usize) -> bool) {
        self.counts.faults += 1;
        let all = 0..self.members.len();
        let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        let ways: Vec<_> = pairs.filter(|(from, to)| from != to && is_cut(*from, *to)).collect();
        self.network.blocked.extend(ways.iter().copied());
        self.heals.push((self.now + lasts, Heal::Ways(ways)));
    }

    /// The process stands still, or its machine with its clock.
    fn pause(&mut self, m: usize, lasts: u64) {
        self.counts.faults += 1;
        let suspended = self.entropy.below(3) == 0;
        let member = &mut self.members[m];
        member.paused_until = self.now + lasts;
        if let Some(running) = member.running.as_mut().filter(|_| suspended) {
            running.process.clock.suspend(self.now, self.now + lasts);
        }
        let (id, now) = (member.id, self.now);
        self.trace
            .event(now, format_args!("{id} stands still for {lasts}, its clock: {suspended}"));
    }

    /// The disk, or the processor, is slow.
    pub(crate) fn slow_down(&mut self, m: usize, lasts: u64) {
        self.counts.faults += 1;
        let which = Automaton::ALL[self.entropy.below(4) as usize];
        let until = self.now + lasts;
        let member = &mut self.members[m];
        if let Some(running) = &mut member.running {
            running.process.stalled[which as usize] = until;
        }
        let (id, now) = (member.id, self.now);
        self.trace.event(now, format_args!("{which:?} of {id} is stuck until {until}"));
    }

    /// The disk fails in the midst of something, and takes the process with it.
    pub(crate) fn fail_disk(&mut self, m: usize) {
        if self.members[m].is_doomed() {
            return;
        }
        let at = self.entropy.below(40);
        let permanent = self.entropy.below(4) > 0;
        let kind =
            if self.entropy.below(2) == 0 { IoErrorKind::NoSpace } else { IoErrorKind::Other };
        let torn = self.entropy.below(2) == 0;
        let member = &mut self.members[m];
        member.disk.set_fault(Some(Fault { at, only: None, kind, permanent, torn }));
        member.doomed = Some(self.counts.steps + 300);
        let id = member.id;
        self.trace.event(self.now, format_args!("{id}: the disk will fail at operation {at}"));
    }

    pub(crate) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Ways(ways) => {
                for way in ways {
                    self.network.blocked.remove(&way);
                }
            }
            Heal::Weather => {
                if let Some(cluster) = &self.options.cluster {
                    self.network.weather = Weather::usual(cluster);
                }
            }
        }
    }

    /// Nothing is wrong any more.
    pub(crate) fn heal_all(&mut self) {
        self.chaos = false;
        self.probes.heal();
        self.heals.clear();
        self.network.blocked.clear();
        if self.options.cluster.is_some() {
            self.network.weather = Weather::fine();
        }
        for m in 0..self.members.len() {
            if self.members[m].running.is_some() && self.members[m].is_doomed() {
                // The disk that was to fail is replaced by way of a last crash.
                self.crash(m);
            }
            if self.members[m].running.as_ref().is_some_and(|r| r.stop_at.is_some()) {
                self.end(m, false);
            }
            self.members[m].paused_until = 0;
            if let Some(running) = &mut self.members[m].running {
                running.process.stalled = [0; 4];
            }
        }
    }

    /// A process is asked to stop: a leader hands over first.
    pub(crate) fn ask_to_stop(&mut self, m: usize, successor: Option<types::MemberId>) {
        let Some(running) = &mut self.members[m].running else { return };
        if running.stop_at.is_none() {
            running.process.to_node.push(NodeInput::Stop { successor });
            running.stop_at = Some(self.now + self.entropy.below(3_000) * MS);
        }
    }
}
