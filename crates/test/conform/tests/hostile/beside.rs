//! A normal client beside the attack, and what the server's process uses meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use conform::{Client, Kind, Server};

use crate::attacker::{PUT, RANGE};

/// Calls that a normal client must have made while an attack's connections stand.
const CALLS: usize = 20;
/// Time between two of its calls, so that it is no load.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest time that anything may take to come true: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks of `/proc/PID/stat` in a second.
const TICKS: u64 = 100;

/// Anonymous memory of the server, in bytes.
pub fn anonymous(server: &Server) -> i64 {
    anonymous_of(server.pid())
}

fn anonymous_of(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux tells it");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<i64>().ok());
    kib.expect("a number") << 10
}

/// CPU that the server has used, in microseconds.
pub fn cpu_us(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("the program's name stands in brackets");
    let ticks = |at| fields.split_whitespace().nth(at).and_then(|n| n.parse::<u64>().ok());
    // Behind the state, which is the first: utime is the twelfth, then stime.
    let (user, system) = (ticks(11).expect("a number"), ticks(12).expect("a number"));
    (user + system) * 1_000_000 / TICKS
}

/// Waits until something is true.
///
/// # Panics
/// If it never is.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The normal client, at work on a thread of its own.
pub struct Beside {
    calls: Arc<AtomicUsize>,
    peak: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Beside {
    /// Begins to put and to read, on one connection that must last.
    pub fn start(server: &Server) -> Self {
        let (port, pid) = (server.port, server.pid());
        let (calls, peak, stop): (Arc<AtomicUsize>, Arc<AtomicI64>, Arc<AtomicBool>) =
            Default::default();
        let shared = (Arc::clone(&calls), Arc::clone(&peak), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let (calls, peak, stop) = shared;
                let client = Client::connect(port).await;
                let mut took = Vec::new();
                while !stop.load(SeqCst) {
                    let began = Instant::now();
                    let n = took.len();
                    put_and_get(&client, n).await;
                    took.push(began.elapsed());
                    peak.fetch_max(anonymous_of(pid), SeqCst);
                    calls.store(n + 1, SeqCst);
                    tokio::time::sleep(PAUSE).await;
                }
                took
            })
        });
        Self { calls, peak, stop, thread }
    }

    /// Waits until it was answered some times more: whatever stands now does not keep it from that.
    pub fn answered(&self) {
        let wanted = self.calls.load(SeqCst) + CALLS;
        until("the client beside is answered", || {
            assert!(!self.thread.is_finished(), "a call of the client beside failed");
            self.calls.load(SeqCst) >= wanted
        });
    }

    /// Ends it; how many pairs of calls it made, their 99th percentile, and the largest memory.
    fn end(self) -> (usize, Duration, i64) {
        self.stop.store(true, SeqCst);
        let mut took = self.thread.join().expect("every call beside the attack is answered");
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100];
        (took.len(), p99, self.peak.load(SeqCst))
    }
}

async fn put_and_get(client: &Client, n: usize) {
    let key = format!("beside/{}", n % 100);
    let value = n.to_string();
    let put =
        PutRequest { key: key.clone().into(), value: value.clone().into(), ..Default::default() };
    let put: Result<PutResponse, _> = client.call(PUT, &put).await;
    put.expect("a put beside the attack");
    let get = RangeRequest { key: key.into(), ..Default::default() };
    let got: Result<RangeResponse, _> = client.call(RANGE, &get).await;
    assert_eq!(got.expect("a read beside the attack").kvs[0].value, value);
}

/// What an attack may cost, in bytes of anonymous memory.
pub struct Cost {
    pub peak: i64,
    /// Once the attacker is gone.
    pub after: i64,
}

/// Runs an attack beside a normal client and checks what it cost. `attack` returns with its
/// connections still open, as a value that closes them when dropped, and how many things it did.
pub fn trial<A>(name: &str, cost: &Cost, attack: impl FnOnce(&Server, &Beside) -> (A, usize)) {
    trial_on(name, cost, |_| {}, attack);
}

/// As [`trial`], with something to prepare before memory is looked at.
pub fn trial_on<A>(
    name: &str,
    cost: &Cost,
    prepare: impl FnOnce(&Server),
    attack: impl FnOnce(&Server, &Beside) -> (A, usize),
) {
    let server = Server::start(kind(), &[]).expect("the server's program is built");
    prepare(&server);
    let beside = Beside::start(&server);
    beside.answered();
    let (before, cpu) = (anonymous(&server), cpu_us(&server));
    let (standing, times) = attack(&server, &beside);
    let spent = cpu_us(&server) - cpu;
    beside.answered();
    let peak = anonymous(&server);
    drop(standing);
    beside.answered();
    let after = || anonymous(&server) - before;
    let is_ours = server.kind == Kind::Quorate;
    if is_ours {
        until(&format!("{name}: memory is given back ({} KiB)", after() >> 10), || {
            after() <= cost.after
        });
    }
    let (calls, p99, seen) = beside.end();
    let peak = peak.max(seen) - before;
    eprintln!(
        "{name}: {times} times, {:.2} us CPU each; memory {} KiB, peak +{} KiB, after +{} KiB; \
         beside it {calls} puts and reads, p99 {p99:?}",
        spent as f64 / times.max(1) as f64,
        before >> 10,
        peak >> 10,
        after() >> 10,
    );
    assert!(!is_ours || peak <= cost.peak, "{name}: {peak} bytes at the peak");
}

/// The server that is attacked: ours, unless `QUORATE_HOSTILE_KIND` says `reference`, whose figures
/// are only told.
pub fn kind() -> Kind {
    match std::env::var("QUORATE_HOSTILE_KIND").as_deref() {
        Ok("reference") => Kind::Reference,
        _ => Kind::Quorate,
    }
}

/// A number of the short form, multiplied by `QUORATE_HOSTILE` in the long one.
pub fn times(short: usize) -> usize {
    let factor = std::env::var("QUORATE_HOSTILE").ok().and_then(|v| v.parse().ok());
    short * factor.unwrap_or(1)
}
