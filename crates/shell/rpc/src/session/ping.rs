//! The PING policy: a client that pings too often is sent away.

use std::time::{Duration, Instant};

/// Counts strikes as grpc-go does: a PING sooner than `min_time` after the last one (two hours
/// without open streams) is a strike, a HEADERS or DATA frame of the server in between forgives, and
/// the third strike is one too many.
//= grpc-go 1.83: internal/transport/http2_server.go#handlePing
#[derive(Debug, Default)]
pub(super) struct Policy {
    last: Option<Instant>,
    strikes: u32,
}

const WITHOUT_STREAMS: Duration = Duration::from_secs(2 * 3600);
const MAX_STRIKES: u32 = 2;

impl Policy {
    /// Notes a PING; `min_time` is `--grpc-keepalive-min-time`, zero allows everything. Returns
    /// whether the connection must end.
    pub(super) fn ping(
        &mut self,
        min_time: Duration,
        now: Instant,
        sent_since: bool,
        open_streams: bool,
    ) -> bool {
        if min_time.is_zero() {
            return false;
        }
        let last = self.last.replace(now);
        if sent_since {
            self.strikes = 0;
            return false;
        }
        let wait = if open_streams { min_time } else { WITHOUT_STREAMS };
        if last.is_some_and(|last| now < last + wait) {
            self.strikes += 1;
        }
        self.strikes > MAX_STRIKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(5);

    #[test]
    fn the_third_strike_ends_the_connection_and_an_answer_forgives() {
        let start = Instant::now();
        let mut policy = Policy::default();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!policy.ping(MIN, at(0), false, true), "the first one is never too soon");
        assert!(!policy.ping(MIN, at(100), false, true));
        assert!(!policy.ping(MIN, at(200), true, true), "something was sent: strikes are forgiven");
        assert!(!policy.ping(MIN, at(300), false, true));
        assert!(!policy.ping(MIN, at(400), false, true));
        assert!(policy.ping(MIN, at(500), false, true));
    }

    #[test]
    fn without_streams_a_ping_every_minute_is_too_often() {
        let start = Instant::now();
        let mut policy = Policy::default();
        let ends: Vec<_> = (0..5)
            .map(|n| policy.ping(MIN, start + Duration::from_secs(60 * n), false, false))
            .collect();
        assert_eq!(ends, [false, false, false, true, true]);
    }
}
