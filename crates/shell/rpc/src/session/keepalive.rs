//! What a client's silence means: an idle connection gives memory back, then the client is pinged,
//! and given up when it does not answer; as is one that does not introduce itself.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::Settings;

/// The payload of these PINGs.
const PING: [u8; 8] = *b"\0\0\0\0\0\0\0\0";

/// Silence after which a connection rests: what it keeps for its next calls is given back.
const REST: Duration = Duration::from_secs(5);

/// What a silent connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// To give back what it does not need while nothing comes.
    Rest,
    /// A PING with this payload.
    Ping([u8; 8]),
    /// To be given up.
    End,
}

/// What the timer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client's first SETTINGS is to come, within the time for that.
    Handshake,
    /// The next look whether something came.
    Busy,
    /// The PING that is due if nothing comes.
    Resting,
    /// The end, if nothing comes behind a PING.
    Waiting,
}

/// Looks whether the client is alive.
//= grpc-go 1.83: internal/transport/http2_server.go#keepalive
#[derive(Debug)]
pub(super) struct Keepalive {
    settings: Rc<Settings>,
    timer: Pin<Box<Sleep>>,
    phase: Phase,
    was_heard: bool,
}

impl Keepalive {
    pub(super) fn new(settings: &Rc<Settings>) -> Self {
        let timer = Box::pin(tokio::time::sleep(settings.handshake_timeout));
        Self { settings: Rc::clone(settings), timer, phase: Phase::Handshake, was_heard: false }
    }

    /// The client has introduced itself.
    pub(super) fn introduced(&mut self) {
        if self.phase == Phase::Handshake {
            self.enter(Phase::Busy, self.step());
        }
    }

    /// The client has sent something.
    pub(super) fn heard(&mut self) {
        self.was_heard = true;
        if matches!(self.phase, Phase::Resting | Phase::Waiting) {
            self.enter(Phase::Busy, self.step());
        }
    }

    /// Time between two looks at a busy connection.
    fn step(&self) -> Duration {
        REST.min(self.settings.keepalive_interval)
    }

    fn enter(&mut self, phase: Phase, wait: Duration) {
        self.phase = phase;
        self.timer.as_mut().reset(Instant::now() + wait);
    }

    /// What is needed now; the task is woken when that may change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Need {
        let mut need = Need::Nothing;
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.phase {
                Phase::Busy if std::mem::take(&mut self.was_heard) => {
                    self.enter(Phase::Busy, self.step());
                }
                Phase::Busy => {
                    need = Need::Rest;
                    let interval = self.settings.keepalive_interval;
                    self.enter(Phase::Resting, interval - self.step());
                }
                Phase::Resting => {
                    need = Need::Ping(PING);
                    self.enter(Phase::Waiting, self.settings.keepalive_timeout);
                }
                Phase::Handshake | Phase::Waiting => return Need::End,
            }
        }
        need
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn next(keepalive: &mut Keepalive) -> Need {
        poll_fn(|cx| match keepalive.poll(cx) {
            Need::Nothing => Poll::Pending,
            need => Poll::Ready(need),
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_pinged_and_then_given_up() {
        let settings = Settings {
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(2),
            ..Settings::default()
        };
        let mut keepalive = Keepalive::new(&Rc::new(settings));
        let start = Instant::now();
        keepalive.introduced();
        keepalive.heard();
        assert_eq!(next(&mut keepalive).await, Need::Rest);
        assert_eq!(start.elapsed().as_secs(), 10, "it was heard in the first five");
        assert_eq!(next(&mut keepalive).await, Need::Ping(PING));
        assert_eq!(start.elapsed().as_secs(), 15, "ten without a word");
        keepalive.heard();
        assert_eq!(next(&mut keepalive).await, Need::Rest);
        assert_eq!(next(&mut keepalive).await, Need::Ping(PING));
        assert_eq!(start.elapsed().as_secs(), 30, "the answer came in time");
        assert_eq!(next(&mut keepalive).await, Need::End);
        assert_eq!(start.elapsed().as_secs(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_introduce_itself_is_given_up_whatever_it_sends() {
        let settings = Rc::new(Settings::default());
        let mut keepalive = Keepalive::new(&settings);
        let start = Instant::now();
        keepalive.heard();
        assert_eq!(next(&mut keepalive).await, Need::End);
        assert_eq!(start.elapsed(), settings.handshake_timeout);
    }
}
