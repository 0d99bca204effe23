//! The network between members: packets that get lost, come twice, come late, or find no way.
//!
//! A packet is what one member's peer plane hands over for another's: a raft message as bytes, or a
//! question that is no part of raft. Snapshots are in `transfers.rs`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use calls::peers::{Answered, Question};
use env::{Entropy, SplitMix};
use machine::Secret;

use crate::gateway::Asker;
use crate::options::ClusterOptions;

/// What a packet carries.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A raft message, and whether it may come twice: planes say nothing twice, so proposals that are
    /// sent on never do, and raft would take each for one of its own; other messages may.
    Raft(Bytes, bool),
    /// A question between members, and who asks.
    Question(Asker, Question, Option<Secret>),
    /// Its answer.
    Answer(Asker, Answered),
}

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Places of members in the world's list.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) content: Content,
}

/// How bad the network is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    pub(crate) lost_permille: u64,
    pub(crate) twice_permille: u64,
    pub(crate) late_permille: u64,
    pub(crate) travel_us: u64,
}

impl Weather {
    /// As it is when nothing special happens.
    pub(crate) fn usual(options: &ClusterOptions) -> Self {
        Self {
            lost_permille: options.lost_permille,
            twice_permille: options.twice_permille,
            late_permille: options.late_permille,
            travel_us: options.travel_us,
        }
    }

    /// A network that works.
    pub(crate) fn fine() -> Self {
        Self { lost_permille: 0, twice_permille: 0, late_permille: 0, travel_us: 200 }
    }

    /// A storm.
    pub(crate) fn bad(entropy: &mut SplitMix) -> Self {
        Self {
            lost_permille: entropy.below(400),
            twice_permille: entropy.below(200),
            late_permille: entropy.below(300),
            travel_us: 100 + entropy.below(60_000),
        }
    }
}

/// Nanoseconds that a late packet is late at most.
const LATE_NS: u64 = 3_000_000_000;

#[derive(Debug)]
pub(crate) struct Network {
    packets: BTreeMap<(u64, u64), Packet>,
    number: u64,
    pub(crate) weather: Weather,
    /// From whom to whom nothing comes through.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    /// Packets that were lost, came twice, came late, or met a blocked way.
    pub(crate) harmed: u64,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        Self { packets: BTreeMap::new(), number: 0, weather, blocked: BTreeSet::new(), harmed: 0 }
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// When the next packet arrives.
    pub(crate) fn due(&self) -> Option<u64> {
        self.packets.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<Packet> {
        self.packets.pop_first().map(|(_, packet)| packet)
    }

    /// Sends a packet; whether it has left in the sender's eyes.
    pub(crate) fn send(&mut self, now: u64, packet: Packet, entropy: &mut SplitMix) -> bool {
        if self.is_blocked(packet.from, packet.to) {
            self.harmed += 1;
            return false;
        }
        let weather = self.weather;
        if entropy.below(1_000) < weather.lost_permille {
            self.harmed += 1;
            return true;
        }
        let once = !matches!(packet.content, Content::Raft(_, true));
        let copies = 1 + u64::from(!once && entropy.below(1_000) < weather.twice_permille);
        self.harmed += copies - 1;
        for _ in 0..copies {
            // Mostly in order, as on a stream.
            let mut at = now + weather.travel_us * 1_000;
            if entropy.below(1_000) < weather.late_permille {
                self.harmed += 1;
                let most = LATE_NS >> entropy.below(12);
                at += entropy.below(most);
            }
            self.number += 1;
            self.packets.insert((at, self.number), packet.clone());
        }
        true
    }
}
