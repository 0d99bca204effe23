//! Clients that stop reading cost little: what files and memory grow by beside a steady load, and
//! what the writers feel of it. `QUORATE_BOUNDED_SECS` sets how long the readers stop (4 by
//! default; the calm phase before lasts at most 4 minutes); the ratio of latencies is asserted only
//! in the long form, from 60 seconds on.

use std::path::Path;
use std::time::{Duration, Instant};

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, PutRequest, PutResponse, RangeRequest, SnapshotRequest,
    WatchCreateRequest, WatchRequest,
};
use bytes::Bytes;
use conform::{Client, Kind, Server, Stream, join_all};
use prost::Message;

/// Puts per second that the writers try.
const RATE: u32 = 5_000;
const WRITERS: u32 = 32;
const VALUE: usize = 256;
/// Longest phase without stopped readers: enough for a 99th percentile, and for the log to have
/// as many segments as it keeps.
const CALM: Duration = Duration::from_secs(240);
/// Keys that the load writes again and again, with a compaction each second.
const KEYS: u32 = 5_000;
/// Keys beside them that the list and the snapshot carry.
const LISTED: u32 = 20_000;
const LISTED_BYTES: usize = 1_000;
/// What a stopped reader may cost beyond the load's own growth: one state of the database (the
/// 20 MB listed and the load's), in the file and in memory, and what sockets buffer.
const LIMIT_BYTES: i64 = 64 << 20;

/// What a server uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    db: i64,
    wal: i64,
    anonymous: i64,
}

fn usage(server: &Server) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("Linux tells it");
    let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len() as i64);
    let wal = std::fs::read_dir(server.data_dir.join("member/wal")).unwrap();
    Usage {
        db: size(&server.data_dir.join("member/snap/db")),
        wal: wal.map(|e| size(&e.unwrap().path())).sum(),
        anonymous: kib * 1024,
    }
}

async fn put(client: &Client, key: String, size: usize) -> i64 {
    let request =
        PutRequest { key: key.into(), value: vec![b'v'; size].into(), ..Default::default() };
    let answer: Result<PutResponse, _> = client.call("/etcdserverpb.KV/Put", &request).await;
    answer.expect("a plain put succeeds").header.expect("every answer has one").revision
}

/// When a put was due, since the load began, and how long it took from then.
type Put = (Duration, Duration);

/// Writes at the rate for a time.
async fn load(port: u16, time: Duration) -> Vec<Put> {
    let began = Instant::now();
    let writer = async |number: u32| {
        let client = Client::connect(port).await;
        let pause = Duration::from_secs(1) * WRITERS / RATE;
        let (mut latencies, mut due) = (Vec::new(), began + pause * number / WRITERS);
        let mut last_compaction = began;
        let mut n = number;
        while began.elapsed() < time {
            tokio::time::sleep_until(due.into()).await;
            let revision = put(&client, format!("load/{}", n % KEYS), VALUE).await;
            latencies.push((due - began, due.elapsed()));
            n += WRITERS;
            due += pause;
            if number == 0 && last_compaction.elapsed() > Duration::from_secs(1) {
                last_compaction = Instant::now();
                let request = CompactionRequest { revision, physical: false };
                let answer: Result<CompactionResponse, _> =
                    client.call("/etcdserverpb.KV/Compact", &request).await;
                answer.expect("revisions grow");
            }
        }
        latencies
    };
    join_all((0..WRITERS).map(writer)).await.concat()
}

/// The 99th percentile of each window, then the median of those: a pause of the machine falls into
/// one window, what readers cost into all.
fn p99(puts: &[Put]) -> Duration {
    const WINDOW: Duration = Duration::from_secs(2);
    let mut windows: Vec<Vec<Duration>> = Vec::new();
    for (due, took) in puts {
        let window = (due.as_millis() / WINDOW.as_millis()) as usize;
        windows.resize_with(windows.len().max(window + 1), Vec::new);
        windows[window].push(*took);
    }
    windows.retain(|took| !took.is_empty());
    let mut all: Vec<Duration> = windows
        .into_iter()
        .map(|mut took| {
            took.sort_unstable();
            took[took.len() * 99 / 100]
        })
        .collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// A call whose answer is begun and then not read.
async fn stopped(port: u16, path: &str, request: &impl Message, end: bool) -> (Client, Stream) {
    let client = Client::try_connect(port, 65_535).await.unwrap();
    let body = conform::grpc::envelope(&request.encode_to_vec());
    let stream = client.open(path, Some(body), end).await;
    (client, stream)
}

/// The readers that stop: a list, a snapshot, a watch.
async fn stopped_readers(port: u16) -> Vec<(Client, Stream)> {
    let list = RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let zero = Bytes::from_static(b"\0");
    let watch = WatchCreateRequest {
        key: zero.clone(),
        range_end: zero,
        prev_kv: true,
        ..Default::default()
    };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch)) };
    let snapshot = "/etcdserverpb.Maintenance/Snapshot";
    vec![
        stopped(port, "/etcdserverpb.KV/Range", &list, true).await,
        stopped(port, snapshot, &SnapshotRequest {}, true).await,
        stopped(port, "/etcdserverpb.Watch/Watch", &watch, false).await,
    ]
}

#[test]
fn readers_that_stop_hold_no_more_than_one_state_and_slow_nobody() {
    let secs = std::env::var("QUORATE_BOUNDED_SECS").ok().and_then(|v| v.parse().ok());
    let time = Duration::from_secs(secs.unwrap_or(4));
    let server = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.port).await;
        for n in 0..LISTED / 100 {
            join_all((0..100).map(|m| put(&client, format!("a/{n:03}/{m:02}"), LISTED_BYTES)))
                .await;
        }
        // Once round all keys, and until files and memory have the size of this load.
        load(server.port, time.min(Duration::from_secs(20))).await;
        let mut phases = Vec::new();
        for with_readers in [false, true] {
            let before = usage(&server);
            let readers =
                if with_readers { stopped_readers(server.port).await } else { Vec::new() };
            let time = if with_readers { time } else { time.min(CALM) };
            let puts = load(server.port, time).await;
            let after = usage(&server);
            drop(readers);
            let longest = puts.iter().map(|(_, took)| *took).max().expect("there were puts");
            eprintln!(
                "stopped readers: {with_readers}; {} puts/s, p99 {:?}, longest {longest:?}; \
                 db +{} KiB, wal +{} KiB, anonymous +{} KiB (now {} MiB)",
                puts.len() as u64 / time.as_secs(),
                p99(&puts),
                (after.db - before.db) >> 10,
                (after.wal - before.wal) >> 10,
                (after.anonymous - before.anonymous) >> 10,
                after.anonymous >> 20,
            );
            phases.push((before, after, p99(&puts)));
        }
        let [(b0, a0, calm), (b1, a1, beside)] = phases[..] else { panic!("two phases") };
        let more = |of: fn(&Usage) -> i64| (of(&a1) - of(&b1)) - (of(&a0) - of(&b0)).max(0);
        assert!(more(|u| u.db) <= LIMIT_BYTES, "the database grew by more than one state");
        assert!(more(|u| u.anonymous) <= LIMIT_BYTES, "memory grew by more than one state");
        // A segment may begin in one phase and not in the other.
        assert!(more(|u| u.wal) <= 2 * 64_000_000, "the log grows by what is written");
        if time >= Duration::from_secs(60) {
            let ratio = beside.as_secs_f64() / calm.as_secs_f64();
            assert!(ratio <= 1.2, "writers waited {ratio:.2} times as long at the 99th percentile");
        }
    });
}
