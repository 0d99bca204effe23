//! Somebody who changes the cluster: members come, are promoted and go, and leaders hand over.
//!
//! One change at a time is asked for, of any member that serves. A cluster of fewer than three
//! voters loses none of them: if the last but one never hears that it alone is left, nobody can
//! help it, in etcd neither.

use api::error::Status;
use env::Entropy;
use types::MemberId;

use crate::process::peer_url;
use crate::wire::{Ask, CallResult, Change};
use crate::world::{MS, Part, World};

/// Machines that there are in all.
const MACHINES: usize = 10;
/// The client that changes the cluster.
pub(crate) const ADMIN: u32 = 1_002;

/// What is being changed.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) next_at: u64,
    /// The call in flight, and the place of the member that was asked.
    pub(crate) busy: Option<(u64, usize)>,
}

impl World {
    pub(crate) fn step_admin(&mut self) {
        let Some(cluster) = self.options.cluster.clone() else { return };
        let pause = cluster.change_ms.unwrap_or(60_000);
        self.admin.next_at = self.now + (pause / 2 + self.entropy.below(pause)) * MS;
        // What takes longer is left to itself.
        self.admin.busy = None;
        let Some(m) = self.some_server() else { return };
        if !self.is_known(m, ADMIN) {
            self.admin.next_at = self.look_again();
            return;
        }
        let Some(running) = &self.members[m].running else { return };
        let members = &running.process.view.members;
        let all: Vec<MemberId> = members.iter().map(|m| MemberId(m.id)).collect();
        let learner = members.iter().find(|m| m.is_learner).map(|m| MemberId(m.id));
        let voters: Vec<MemberId> =
            members.iter().filter(|m| !m.is_learner).map(|m| MemberId(m.id)).collect();
        let some =
            |world: &mut World, of: &[MemberId]| of[world.entropy.below(of.len() as u64) as usize];
        let ask = match self.entropy.below(8) {
            0..=1 if learner.is_some() => learner.map(|id| Ask::Change(Change::Promote(id))),
            0..=3 if all.len() < cluster.most && self.members.len() < MACHINES => {
                let place = self.add_member(Part::Joiner);
                let (url, voter) = (peer_url(place), self.entropy.below(2) == 0);
                Some(Ask::Change(if voter { Change::Add(url) } else { Change::AddLearner(url) }))
            }
            4..=5 if voters.len() >= 3 => Some(Ask::Change(Change::Remove(some(self, &all)))),
            6 => {
                let to = some(self, &voters);
                self.ask_to_stop(m, Some(to).filter(|to| *to != self.members[m].id));
                None
            }
            _ => Some(Ask::Transfer(some(self, &voters))),
        };
        if let Some(ask) = ask {
            // Promotions and transfers concern the leader.
            let leader = (0..self.members.len()).find(|m| {
                let running = self.members[*m].running.as_ref();
                running.is_some_and(|r| r.process.status.is_leader)
            });
            let asked = leader.filter(|_| self.entropy.below(4) > 0).unwrap_or(m);
            let (call, _) = self.call(asked, ADMIN, ask);
            self.admin.busy = Some((call, asked));
            self.collect(asked);
        }
    }

    /// How a change went.
    pub(crate) fn admin_done(&mut self, result: &Result<CallResult, Status>) {
        self.admin.busy = None;
        self.counts.changes += u64::from(result.is_ok());
        self.trace.event(self.now, format_args!("admin told {result:?}"));
    }
}
