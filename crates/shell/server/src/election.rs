//! The first election after a start: once others can be reached, waiting out a whole timeout for a
//! leader that they do not have is of no use.

use std::time::Duration;

use cli::text::show_duration;
use env::Instant;
use member::NodeInput;
use types::limits::RAFT_TIMEOUT_MS;

use crate::Options;
use crate::threads::Queues;
use observe::{Log, log_line};

/// Pause between looks at who can be reached.
const LOOK: Duration = Duration::from_millis(50);
/// Others that must be reachable.
const PEERS: usize = 2;

/// Lets the election clock run ahead, once, if others can be reached soon after the start.
//= etcd 3.7.1: server/etcdserver/server.go#adjustTicks
pub(crate) struct Advance {
    /// When the next look is due, and when none is any more. `None` when it is over.
    looks: Option<(Instant, Instant)>,
    ticks: u64,
    tick: Duration,
}

impl Advance {
    /// For a start at `now` of a member among `members`. One that is alone campaigns at once.
    pub(crate) fn new(log: &Log, options: &Options, members: usize, now: Instant) -> Self {
        let tick = options.heartbeat;
        let ticks = (options.election.as_millis() / tick.as_millis().max(1)) as u64;
        let mut looks = None;
        if members > 1 && options.election_tick_advance {
            log_line!(
                log,
                Info,
                "starting initial election tick advance",
                "election-ticks" = ticks
            );
            looks = Some((now + LOOK, now + Duration::from_millis(RAFT_TIMEOUT_MS)));
        } else if members > 1 {
            log_line!(
                log,
                Info,
                "skipping initial election tick advance",
                "election-ticks" = ticks
            );
        }
        Self { looks, ticks, tick }
    }

    /// Looks, if that is due.
    pub(crate) fn step(&mut self, now: Instant, active: impl Fn() -> usize, queues: &Queues) {
        let Some((next, until)) = self.looks else { return };
        if now < next {
            return;
        }
        self.looks = (now < until).then_some((now + LOOK, until));
        let active = active();
        if active < PEERS {
            return;
        }
        self.looks = None;
        let forward = self.ticks.saturating_sub(2);
        let duration = |ticks: u64| show_duration(self.tick * u32::try_from(ticks).unwrap_or(0));
        log_line!(
            queues.reporter.log,
            Info,
            "initialized peer connections; fast-forwarding election ticks",
            "local-member-id" = queues.member().to_string(),
            "forward-ticks" = forward,
            "forward-duration" = duration(forward),
            "election-ticks" = self.ticks,
            "election-timeout" = duration(self.ticks),
            "active-remote-members" = active as u64,
        );
        queues.node.push_event(NodeInput::AdvanceElection);
    }
}
