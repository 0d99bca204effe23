//! The PING policy: a client that pings too often is sent away.
//!
//! The sniffer follows frame headers in the byte streams that h2 reads and writes: h2 answers PINGs
//! by itself and tells nobody, and only the frames that leave say how long an answer goes on.

use std::time::{Duration, Instant};

/// Bytes of the preface that opens an HTTP/2 connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Follows the frame headers of one direction in a stream of bytes that is cut anywhere.
#[derive(Debug)]
pub(crate) struct Sniffer {
    /// Bytes to skip before the next frame header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
}

impl Sniffer {
    /// For what a client sends, from the preface on.
    pub(crate) fn of_client() -> Self {
        Self { skip: PREFACE.len(), header: [0; HEADER_BYTES], have: 0 }
    }

    /// For what a server sends: frames from the first byte on.
    pub(crate) fn of_server() -> Self {
        Self { skip: 0, header: [0; HEADER_BYTES], have: 0 }
    }

    /// Calls `seen` with type and flags of each frame whose header ended within `bytes`.
    fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, u8)) {
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
                seen(kind, flags);
            }
        }
    }

    /// PINGs (not their acknowledgements) whose header ended within `bytes`.
    pub(crate) fn pings(&mut self, bytes: &[u8]) -> u32 {
        let mut pings = 0;
        self.follow(bytes, |kind, flags| pings += u32::from(kind == PING && flags & ACK == 0));
        pings
    }

    /// Whether a HEADERS or DATA frame begins within `bytes`.
    pub(crate) fn has_answer(&mut self, bytes: &[u8]) -> bool {
        let mut found = false;
        self.follow(bytes, |kind, _| found |= kind == DATA || kind == HEADERS);
        found
    }
}

/// Counts strikes as grpc-go does: a PING sooner than `min_time` after the last one (two hours
/// without open streams) is a strike, a HEADERS or DATA frame of the server in between forgives, and
/// the third strike is one too many.
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
    let mut pieces = Sniffer::of_client();
    let counted: u32 = bytes.chunks(cut).map(|chunk| pieces.pings(chunk)).sum();
    assert_eq!(Sniffer::of_client().pings(bytes), counted);
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
            let mut sniffer = Sniffer::of_client();
            let pings: u32 = stream.chunks(cut).map(|c| sniffer.pings(c)).sum();
            assert_eq!(pings, 2, "cut every {cut} bytes");
        }
    }

    #[test]
    fn answers_are_found_however_the_stream_is_cut() {
        let quiet = [frame(4, 0, 18), frame(6, 1, 8), frame(8, 0, 4)].concat();
        for (kind, payload) in [(DATA, 16_384), (HEADERS, 5), (DATA, 0)] {
            let stream = [&quiet[..], &frame(kind, 1, payload)].concat();
            for cut in [1, 2, 8, 9, 10, 17, 4_096, stream.len()] {
                let mut sniffer = Sniffer::of_server();
                let found = stream.chunks(cut).filter(|c| sniffer.has_answer(c)).count();
                assert_eq!(found, 1, "cut every {cut} bytes");
            }
        }
        assert!(!Sniffer::of_server().has_answer(&quiet));
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
