//! What travels between members: handed over by one, delivered to another.

use bytes::Bytes;
use calls::peers::Question;
use env::Entropy;
use member::NodeInput;
use raft::{Body, Message};
use types::MemberId;

use crate::gateway::Asker;
use crate::network::{Content, Packet};
use crate::process::place_of;
use crate::transfers::{Moved, Transfer};
use crate::wire::Ask;
use crate::world::{MS, World};

/// How long a connection without an answer lasts at most.
const MOST_PATIENCE_NS: u64 = 4_000_000_000;
/// One in so many members crashes when it has voted.
const VOTERS_CRASH: u64 = 6;

impl World {
    /// Puts what a process has handed over on its way.
    pub(crate) fn post(&mut self, m: usize) {
        let Some(running) = &mut self.members[m].running else { return };
        let out = std::mem::take(&mut running.process.out);
        let boot = running.boot;
        let mut voted = false;
        for message in out.messages {
            voted |= matches!(message.body, Body::VoteReply { reject: false });
            let running = self.members[m].running.as_mut().expect("it runs");
            let peers = &running.process.peers;
            let is_peer = peers.contains(&message.to);
            // The plane writes to peers, and answers remotes; of others it knows nothing.
            if !is_peer && !running.process.remotes.contains(&message.to) {
                continue;
            }
            let Some(to) = self.place(message.to) else { continue };
            let content =
                Content::Raft(message.encode().into(), !matches!(message.body, Body::Propose(_)));
            let packet = Packet { from: m, to, content };
            let left = self.network.send(self.now, packet, &mut self.entropy);
            let gone = !left || self.members[to].running.is_none();
            if gone && is_peer && self.entropy.below(2) == 0 {
                let running = self.members[m].running.as_mut().expect("it runs");
                running.process.to_node.push(NodeInput::Unreachable(message.to));
            }
        }
        if voted && self.chaos && self.entropy.below(VOTERS_CRASH) == 0 {
            // A promise is best tested by who is gone right after it, and back at once.
            self.crash(m);
            self.members[m].start_at = self.now + self.entropy.below(100) * MS;
            return;
        }
        for snapshot in out.snapshots {
            let to = snapshot.message.to;
            let running = self.members[m].running.as_ref().expect("it runs");
            let known = running.process.peers.contains(&to);
            let place = self.place(to).filter(|_| known);
            let open = place.filter(|to| {
                !self.network.is_blocked(m, *to) && self.members[*to].running.is_some()
            });
            let Some(place) = open else {
                self.snapshot_sent(m, boot, to, false);
                continue;
            };
            let boots = (boot, self.members[place].running.as_ref().map(|r| r.boot));
            let due = self.now + self.network.weather.travel_us * 1_000;
            self.trace
                .event(self.now, format_args!("{} sends a snapshot to {to}", self.members[m].id));
            let ends = (m, place);
            self.transfers.push(Transfer::new(ends, boots, snapshot, due, &mut self.entropy));
        }
    }

    /// What is rarely under way when a snapshot is to be installed is begun now.
    fn disturb_install(&mut self, m: usize) {
        let lasts = self.entropy.below(2_500) * MS;
        let steps = self.counts.steps + self.entropy.below(400);
        let token = self.crowd.as_ref().and_then(|crowd| crowd.token(crate::admin::ADMIN));
        let member = &mut self.members[m];
        let Some(running) = &mut member.running else { return };
        match self.entropy.below(3) {
            0 => {
                let call = running.gateway.number();
                let ask = (call, Ask::Defragment);
                running.gateway.call(self.now, &mut running.process, ask, token.as_deref());
            }
            // It crashes soon, its disk being as good as ever.
            1 => member.doomed = member.doomed.or(Some(steps)),
            _ => self.slow_down(m, lasts),
        }
    }

    fn snapshot_sent(&mut self, m: usize, boot: u64, peer: MemberId, arrived: bool) {
        self.counts.broken += u64::from(!arrived);
        let running = self.members[m].running.as_mut().filter(|r| r.boot == boot);
        if let Some(running) = running {
            running.process.to_node.push(NodeInput::SnapshotSent { peer, arrived });
        }
    }

    /// Ends the transfers of a process that has ended.
    pub(crate) fn cut_transfers(&mut self, m: usize) {
        let (cut, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.transfers).into_iter().partition(|t| t.from == m || t.to == m);
        self.transfers = rest;
        for mut transfer in cut {
            let to = transfer.snapshot.message.to;
            if transfer.from == m {
                transfer.give_up(&self.members[transfer.to].disk);
            } else {
                self.snapshot_sent(transfer.from, transfer.boots.0, to, false);
            }
        }
    }

    pub(crate) fn step_transfer(&mut self, t: usize) {
        let mut transfer = self.transfers.swap_remove(t);
        let (from, to) = (transfer.from, transfer.to);
        let receiver = &self.members[to];
        if receiver.paused_until > self.now || self.members[from].paused_until > self.now {
            transfer.due = self.now + 50 * MS;
            self.transfers.push(transfer);
            return;
        }
        let blocked = self.network.is_blocked(from, to) || self.network.is_blocked(to, from);
        let moved = if blocked {
            transfer.give_up(&receiver.disk);
            Moved::Failed
        } else {
            transfer.step(&receiver.disk, self.counts.steps)
        };
        let message = transfer.snapshot.message.clone();
        match moved {
            Moved::More => {
                let pause = self.entropy.below(2 * self.network.weather.travel_us * 1_000 + 1);
                transfer.due = self.now + pause;
                self.transfers.push(transfer);
            }
            Moved::Failed => {
                self.trace.event(self.now, format_args!("a snapshot to {} breaks off", message.to));
                self.snapshot_sent(from, transfer.boots.0, message.to, false);
            }
            Moved::Arrived => {
                self.trace.event(self.now, format_args!("a snapshot arrives at {}", message.to));
                let bytes: Bytes = message.encode().into();
                self.deliver_raft(from, to, bytes);
                if self.chaos && self.entropy.below(4) == 0 {
                    self.disturb_install(to);
                }
                self.snapshot_sent(from, transfer.boots.0, message.to, true);
            }
        }
    }

    pub(crate) fn deliver_packet(&mut self) {
        let Some(packet) = self.network.pop() else { return };
        let Packet { from, to, content } = packet;
        // What is on its way when the cable is cut does not arrive.
        if self.network.is_blocked(from, to) || self.members[to].running.is_none() {
            return;
        }
        match content {
            Content::Raft(bytes, _) => self.deliver_raft(from, to, bytes),
            Content::Question(asker, question, token) => {
                let running = self.members[to].running.as_mut().expect("looked at above");
                running.gateway.answer(asker, question, token.as_ref().map(|token| &token.0[..]));
            }
            Content::Answer(asker, answer) => {
                let running = self.members[to].running.as_mut().expect("looked at above");
                // The connection ended with the process that asked.
                if running.boot == asker.boot {
                    running.gateway.answered(self.now, &running.process, asker.token, answer);
                }
            }
        }
    }

    fn deliver_raft(&mut self, from: usize, to: usize, bytes: Bytes) {
        let sender = self.members[from].id;
        let running = self.members[to].running.as_mut().expect("looked at by the caller");
        let process = &mut running.process;
        if process.view.members.is_removed(sender) {
            // It is told so, and ends.
            if let Some(removed) = &mut self.members[from].running {
                removed.process.removed = true;
            }
            return;
        }
        if !process.peers.contains(&sender) {
            process.remotes.insert(sender);
        }
        let message = Message::decode(bytes).expect("raft reads what raft wrote");
        if matches!(message.body, Body::Snapshot { .. }) {
            self.trace.event(self.now, format_args!("{} gets {:?}", process.id, message.body));
        }
        process.to_node.push(NodeInput::Step(message));
    }

    /// Sends what members ask each other on its way, and the answers back.
    pub(crate) fn exchange(&mut self, m: usize) {
        let Some(running) = &mut self.members[m].running else { return };
        let boot = running.boot;
        let asked = std::mem::take(&mut running.gateway.asked);
        let answers = std::mem::take(&mut *running.gateway.answers.borrow_mut());
        for asked in asked {
            let place = asked.urls.iter().find_map(|url| place_of(url));
            let to = place
                .filter(|to| self.members.get(*to).is_some_and(|member| member.running.is_some()));
            let asker = Asker { place: m, boot, token: asked.token };
            let content = Content::Question(asker, asked.question, asked.authorization);
            let left = to.is_some_and(|to| {
                self.counts.forwarded += u64::from(matches!(asked.question, Question::Renew(_)));
                let packet = Packet { from: m, to, content };
                self.network.send(self.now, packet, &mut self.entropy)
            });
            // A connection that breaks is noticed sooner than the patience ends, mostly.
            let patience = u64::try_from(asked.patience.as_nanos()).unwrap_or(u64::MAX);
            let breaks = self.entropy.below(MOST_PATIENCE_NS);
            let until = self.now + if left { patience.min(breaks) } else { 0 };
            let running = self.members[m].running.as_mut().expect("it runs throughout");
            running.gateway.expect_answer(asked.token, until);
        }
        for (asker, answer) in answers {
            let content = Content::Answer(asker, answer);
            let packet = Packet { from: m, to: asker.place, content };
            self.network.send(self.now, packet, &mut self.entropy);
        }
    }
}
