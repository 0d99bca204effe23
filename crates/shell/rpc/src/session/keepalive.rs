//! Pings to a client that says nothing, which is given up when it does not answer.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::Settings;

/// The payload of these PINGs.
const PING: [u8; 8] = *b"\0\0\0\0\0\0\0\0";

/// What a silent connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// A PING with this payload.
    Ping([u8; 8]),
    /// To be given up.
    End,
}

/// Looks whether the client is alive.
//= grpc-go 1.83: internal/transport/http2_server.go#keepalive
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// A PING was sent, and nothing heard since.
    is_waiting: bool,
    was_heard: bool,
}

impl Keepalive {
    pub(super) fn new(settings: &Settings) -> Self {
        let (interval, timeout) = (settings.keepalive_interval, settings.keepalive_timeout);
        let timer = Box::pin(tokio::time::sleep(interval));
        Self { interval, timeout, timer, is_waiting: false, was_heard: false }
    }

    /// The client has sent something.
    pub(super) fn heard(&mut self) {
        self.was_heard = true;
    }

    /// What is needed now; the task is woken when that may change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Need {
        let mut need = Need::Nothing;
        while self.timer.as_mut().poll(cx).is_ready() {
            let was_heard = std::mem::take(&mut self.was_heard);
            let wait = if was_heard {
                self.is_waiting = false;
                self.interval
            } else if self.is_waiting {
                return Need::End;
            } else {
                self.is_waiting = true;
                need = Need::Ping(PING);
                self.timeout
            };
            self.timer.as_mut().reset(Instant::now() + wait);
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
        let mut keepalive = Keepalive::new(&settings);
        let start = Instant::now();
        keepalive.heard();
        assert_eq!(next(&mut keepalive).await, Need::Ping(PING));
        assert_eq!(start.elapsed().as_secs(), 20, "it was heard in the first ten");
        keepalive.heard();
        assert_eq!(next(&mut keepalive).await, Need::Ping(PING));
        assert_eq!(start.elapsed().as_secs(), 32, "the answer came in time");
        assert_eq!(next(&mut keepalive).await, Need::End);
        assert_eq!(start.elapsed().as_secs(), 34);
    }
}
