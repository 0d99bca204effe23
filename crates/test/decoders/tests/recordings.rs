//! What real clients sent, replayed: every request is understood, and it is no matter how the
//! bytes are cut.

use std::collections::BTreeSet;

use bench::light::frame::HEAD_BYTES;
use decoders::recordings::{RECORDINGS, Recording};
use env::{Entropy, SplitMix};
use http2::fuzz::{Ran, replay};

/// Bytes at the front of each payload before every one of which is cut; headers are shorter.
const DENSE: usize = 300;
/// Beyond, before every so manyth.
const SPARSE: usize = 97;
/// Random splits of each recording, and the most cuts of one.
const SPLITS: u64 = 200;
const MOST_CUTS: u64 = 40;

fn cut_at(sent: &'static [u8], cuts: &BTreeSet<usize>) -> Vec<&'static [u8]> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for &to in cuts {
        pieces.push(&sent[from..to]);
        from = to;
    }
    pieces.push(&sent[from..]);
    pieces
}

fn assert_same(recording: Recording, whole: &Ran, pieces: Vec<&'static [u8]>, how: &str) {
    let cut = replay(pieces);
    let name = recording.name;
    assert_eq!(cut.failed, whole.failed, "{name}, {how}");
    assert_eq!(cut.events, whole.events, "{name}, {how}");
    assert!(cut.said == whole.said, "{name}, {how}: other bytes were said");
}

#[test]
fn every_request_is_read_as_other_decoders_read_it() {
    for recording in RECORDINGS {
        let ran = replay([recording.sent]);
        assert_eq!(ran.failed, None, "{}", recording.name);
        let is_of_requests =
            |event: &&str| ["head ", "data ", "reset "].iter().any(|of| event.starts_with(of));
        let events: Vec<_> = ran.events.iter().map(String::as_str).filter(is_of_requests).collect();
        let expected: Vec<_> = recording.requests.lines().collect();
        assert!(!expected.is_empty(), "{}", recording.name);
        assert_eq!(events, expected, "{}", recording.name);
    }
}

/// What each client did at least: it is in the list because it called this.
#[test]
fn recordings_hold_what_they_are_for() {
    for client in ["go", "go-old", "java", "node", "node-etcd3-", "python", "rust"] {
        let of_client = |recording: &&Recording| match client.strip_suffix('-') {
            Some(_) => recording.name.starts_with(client),
            None => recording.name == client,
        };
        let requests: Vec<_> =
            RECORDINGS.iter().filter(of_client).map(|recording| recording.requests).collect();
        let requests = requests.concat();
        for (method, calls) in [
            ("KV/Put", 6),
            ("KV/Range", 3),
            ("KV/DeleteRange", 2),
            ("KV/Txn", 1),
            ("Watch/Watch", 2),
            ("Lease/LeaseGrant", 1),
            ("Lease/LeaseKeepAlive", 1),
            ("Lease/LeaseRevoke", 1),
        ] {
            let found = requests.matches(&format!(":path=/etcdserverpb.{method} ")).count();
            assert!(found >= calls, "{client}: {method} {found} times");
        }
        // A value of more than one frame.
        assert!(requests.contains(" 16384 "), "{client}");
    }
}

#[test]
fn a_single_cut_anywhere_changes_nothing() {
    for &recording in RECORDINGS {
        let whole = replay([recording.sent]);
        let mut cuts: BTreeSet<_> = (1..http2::PREFACE.len()).collect();
        for (at, head, _) in recording.frames() {
            let end = at + HEAD_BYTES + head.length;
            cuts.extend(at..end.min(at + HEAD_BYTES + DENSE));
            cuts.extend((at..end).step_by(SPARSE));
        }
        for at in cuts {
            let pieces = cut_at(recording.sent, &BTreeSet::from([at]));
            assert_same(recording, &whole, pieces, &format!("cut at {at}"));
        }
    }
}

#[test]
fn pieces_of_any_size_change_nothing() {
    for &recording in RECORDINGS {
        let whole = replay([recording.sent]);
        for size in [1, 2, 3, 5, 8, 9, 10, 13, 24, 33, 100, 1_000, 1_448, 16_384, 16_393] {
            let pieces = recording.sent.chunks(size).collect();
            assert_same(recording, &whole, pieces, &format!("pieces of {size}"));
        }
    }
}

#[test]
fn random_splits_change_nothing() {
    for &recording in RECORDINGS {
        let whole = replay([recording.sent]);
        for seed in 0..SPLITS {
            let mut random = SplitMix::new(seed);
            let mut any = || random.below(recording.sent.len() as u64 + 1) as usize;
            let count = 1 + seed % MOST_CUTS;
            let cuts = (0..count).map(|_| any()).collect();
            assert_same(recording, &whole, cut_at(recording.sent, &cuts), &format!("seed {seed}"));
        }
    }
}

/// Also with answers of every length, echoes, resets and requests that nobody reads, each answer
/// within the windows that the client gave.
#[test]
fn every_answer_stays_within_the_clients_windows() {
    for recording in RECORDINGS {
        http2::fuzz::recording(recording.sent);
    }
}
