//! The PING policy: a client that pings too often is sent away.
//!
//! The sniffer follows frame headers in the byte stream that h2 reads, because h2 answers PINGs
//! by itself and tells nobody.

use std::time::{Duration, Instant};

/// Bytes of the preface that opens an HTTP/2 connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_BYTES: usize = 9;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Counts PING frames in a stream of bytes that is cut anywhere.
#[derive(Debug)]
pub(crate) struct Sniffer {
    /// Bytes to skip before the next frame header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
}

impl Sniffer {
    /// For a stream whose preface is still to come.
    pub(crate) fn new() -> Self {
        Self { skip: PREFACE.len(), header: [0; HEADER_BYTES], have: 0 }
    }

    /// PINGs (not their acknowledgements) whose header ended within `bytes`.
    pub(crate) fn pings(&mut self, mut bytes: &[u8]) -> u32 {
        let mut pings = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let take = (HEADER_BYTES - self.have).min(bytes.len());
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == HEADER_BYTES {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                pings += u32::from(kind == PING && flags & ACK == 0);
            }
        }
        pings
    }
}

/// Counts strikes as grpc-go does: a PING sooner than `min_time` after the last one (two hours
/// without open streams) is a strike, anything the server sent in between forgives, and the third
/// strike is one too many.
//= grpc-go 1.82: internal/transport/http2_server.go#handlePing
#[derive(Debug)]
pub(crate) struct Policy {
    min_time: Duration,
    last: Option<Instant>,
    strikes: u32,
}

const WITHOUT_STREAMS: Duration = Duration::from_secs(2 * 3600);
const MAX_STRIKES: u32 = 2;

impl Policy {
    /// A policy with `--grpc-keepalive-min-time`; zero allows everything.
    pub(crate) fn new(min_time: Duration) -> Self {
        Self { min_time, last: None, strikes: 0 }
    }

    /// Notes a PING. Returns whether the connection must end.
    pub(crate) fn ping(&mut self, now: Instant, sent_since: bool, open_streams: bool) -> bool {
        if self.min_time.is_zero() {
            return false;
        }
        let last = self.last.replace(now);
        if sent_since {
            self.strikes = 0;
            return false;
        }
        let wait = if open_streams { self.min_time } else { WITHOUT_STREAMS };
        if last.is_some_and(|last| now < last + wait) {
            self.strikes += 1;
        }
        self.strikes > MAX_STRIKES
    }
}

/// Follows arbitrary bytes cut in two ways, which must not matter; for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let cut = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
    let mut pieces = Sniffer::new();
    let counted: u32 = bytes.chunks(cut).map(|chunk| pieces.pings(chunk)).sum();
    assert_eq!(Sniffer::new().pings(bytes), counted);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut out = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 0];
        out.resize(HEADER_BYTES + payload, PING);
        out
    }

    #[test]
    fn pings_are_found_however_the_stream_is_cut() {
        let frames = [frame(4, 0, 18), frame(6, 0, 8), frame(0, 0, 700), frame(6, 1, 8)];
        let stream = [PREFACE, &frames.concat(), &frame(6, 0, 8)].concat();
        for cut in 1..stream.len() {
            let mut sniffer = Sniffer::new();
            let pings: u32 = stream.chunks(cut).map(|c| sniffer.pings(c)).sum();
            assert_eq!(pings, 2, "cut every {cut} bytes");
        }
    }

    #[test]
    fn the_third_strike_ends_the_connection_and_an_answer_forgives() {
        let start = Instant::now();
        let mut policy = Policy::new(Duration::from_secs(5));
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!policy.ping(at(0), false, true), "the first one is never too soon");
        assert!(!policy.ping(at(100), false, true));
        assert!(!policy.ping(at(200), true, true), "something was sent: strikes are forgiven");
        assert!(!policy.ping(at(300), false, true));
        assert!(!policy.ping(at(400), false, true));
        assert!(policy.ping(at(500), false, true));
    }

    #[test]
    fn without_streams_a_ping_every_minute_is_too_often() {
        let start = Instant::now();
        let mut policy = Policy::new(Duration::from_secs(5));
        let ends: Vec<_> = (0..5)
            .map(|n| policy.ping(start + Duration::from_secs(60 * n), false, false))
            .collect();
        assert_eq!(ends, [false, false, false, true, true]);
    }
}
