//! Prints what a message costs, as CPU time of both planes' threads, and what a snapshot costs, as
//! time and memory: `cargo bench -p quorate-peer --bench cost`.

#[path = "../tests/support/samples.rs"]
mod samples;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use peer::{Answer, Event, Member, Plane, ReceiveError};
use raft::{Body, Entry, EntryKind, Message};
use types::{Index, MemberId, Term};

#[derive(Default)]
struct Counter {
    received: AtomicU64,
    lost: AtomicU64,
    writers: AtomicU64,
}

impl Member for Counter {
    fn ended(&self, _: MemberId) {}

    fn receive(&self, _: Message) -> Result<(), ReceiveError> {
        self.received.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn unreachable(&self, _: MemberId) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
    fn snapshot_sent(&self, _: MemberId, _: bool) {}
    fn removed(&self) {}
    fn check_snapshot(&self, _: &std::path::Path, _: types::Index) -> Result<(), String> {
        Ok(())
    }

    fn is_removed(&self, _: MemberId) -> bool {
        false
    }
    fn other(&self, _: http::Request<Bytes>) -> Answer {
        Box::pin(async { http::Response::default() })
    }
    fn fatal(&self, why: &str) {
        panic!("{why}");
    }
    fn event(&self, event: Event<'_>) {
        if let Event::StreamEstablished(_, _, peer::Side::Writer) = event {
            self.writers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn start(id: u64) -> (Plane, Arc<Counter>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = support::config(id, &url, &std::env::temp_dir());
    let counter = Arc::new(Counter::default());
    let listeners = vec![(net::Bound::Tcp(listener), net::Security::Plain)];
    (Plane::start(config, Arc::clone(&counter) as _, listeners).unwrap(), counter, url)
}

/// CPU time of the threads called `peer`, oldest first.
fn cpu() -> Vec<Duration> {
    let mut threads: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path())
        .filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "peer")
        .collect();
    threads.sort();
    let ns = |task: &std::path::PathBuf| {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    threads.iter().map(ns).collect()
}

/// Appends of several shapes, paced and as fast as they go.
fn appends() {
    let (sender, told, url) = start(1);
    let (receiver, counter, other) = start(2);
    sender.add_peer(MemberId(2), &[other]).unwrap();
    receiver.add_peer(MemberId(1), &[url]).unwrap();
    while told.writers.load(Ordering::Relaxed) < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let payload = Bytes::from(vec![b'v'; 256]);
    let mut index = 0;
    for (entries, per_send, sends, pace_us) in [
        (1, 1, 50_000, 50),
        (1, 1, 200_000, 0),
        (1, 16, 20_000, 0),
        (10, 1, 50_000, 100),
        (10, 16, 5_000, 0),
    ] {
        let before = cpu();
        let (from, lost) =
            (counter.received.load(Ordering::Relaxed), told.lost.load(Ordering::Relaxed));
        let began = Instant::now();
        for n in 0..sends {
            let messages = (0..per_send)
                .map(|_| {
                    let entry = |n| Entry {
                        index: Index(index + 1 + n),
                        term: Term(7),
                        kind: EntryKind::Normal,
                        data: payload.clone(),
                    };
                    let body = Body::Append {
                        prev_index: Index(index),
                        prev_term: Term(7),
                        entries: (0..entries).map(entry).collect(),
                        commit: Index(index),
                    };
                    index += entries;
                    Message { from: MemberId(1), to: MemberId(2), term: Term(7), body }
                })
                .collect();
            sender.send(messages);
            let due = began + Duration::from_micros(pace_us) * n;
            while Instant::now() < due {
                std::thread::yield_now();
            }
            // As raft's window: no queue overflows.
            let sent = u64::from(n + 1) * per_send;
            while sent > counter.received.load(Ordering::Relaxed) - from + 2_000 {
                std::thread::yield_now();
            }
        }
        let total = u64::from(sends) * per_send;
        let until = Instant::now() + Duration::from_secs(5);
        while counter.received.load(Ordering::Relaxed) - from < total && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = began.elapsed();
        let arrived = counter.received.load(Ordering::Relaxed) - from;
        let spent: Vec<_> = cpu().iter().zip(&before).map(|(a, b)| *a - *b).collect();
        let each = |d: Duration| d.as_nanos() as f64 / 1e3 / total as f64;
        println!(
            "{entries} entries, {per_send} per send, pace {pace_us} us: {arrived} of {total} in \
             {took:?}; sender {:.2} us, receiver {:.2} us, lost {}",
            each(spent[0]),
            each(spent[1]),
            told.lost.load(Ordering::Relaxed) - lost
        );
    }
    sender.stop();
    receiver.stop();
}

/// Bytes of anonymous memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// One snapshot of half a gibibyte.
fn snapshot() {
    let (one, two) = (support::Ours::start(1), support::Ours::start(2));
    one.add(2, &two.url);
    two.add(1, &one.url);
    one.wait_streams(1);
    let db = samples::unread_database(one.dir.path(), 512);
    let (bytes, before) = (db.file_len_of_snapshot(), resident());
    let began = Instant::now();
    one.plane.send_snapshot(samples::snapshot(1, 2, 9), db);
    let mut most = 0;
    while one.member.with(|told| told.snapshots.is_empty()) {
        most = most.max(resident().saturating_sub(before));
        std::thread::sleep(Duration::from_millis(2));
    }
    one.member.with(|told| assert_eq!(told.snapshots, [(2, true)]));
    println!("{} MiB in {:?}, {} KiB more memory", bytes >> 20, began.elapsed(), most >> 10);
}

fn main() {
    appends();
    snapshot();
}
