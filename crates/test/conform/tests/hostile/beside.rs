//! A normal client beside the attack, and what the server's process uses meanwhile.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use conform::{Client, Kind, Server};

use crate::attacker::{PUT, RANGE};

/// Pairs of calls that a normal client must have made while an attack's connections stand.
const CALLS: usize = 20;
/// Pairs of calls without an attack and under it from which the long form tells a latency.
const LONG_CALLS: usize = 1_000;
/// Rounds of the long form, at most: a percentile of fewer calls is better than an hour.
const LONG_ROUNDS: usize = 60;
/// Time between two of its calls, so that it is no load.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest time that anything may take to come true: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks of `/proc/PID/stat` in a second.
const TICKS: u64 = 100;

/// The trials of the long form run one at a time, since it compares latencies.
static ALONE: Mutex<()> = Mutex::new(());

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

/// What the normal client and the trial tell each other.
#[derive(Default)]
struct Shared {
    calls: AtomicUsize,
    /// The largest memory that was seen.
    peak: AtomicI64,
    is_attacked: AtomicBool,
    stop: AtomicBool,
}

/// How long the pairs of calls took: without the attack, and under it.
type Times = [Vec<Duration>; 2];

/// The normal client, at work on a thread of its own.
pub struct Beside {
    shared: Arc<Shared>,
    thread: JoinHandle<Times>,
}

impl Beside {
    /// Begins to put and to read, on one connection that must last.
    fn start(server: &Server) -> Self {
        let (port, pid, shared) = (server.port, server.pid(), Arc::new(Shared::default()));
        let work = work(port, pid, Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(work)
        });
        Self { shared, thread }
    }

    /// Waits until it was answered some times more: whatever stands now does not keep it from that.
    pub fn answered(&self) {
        self.made(CALLS);
    }

    fn calls(&self) -> usize {
        self.shared.calls.load(SeqCst)
    }

    fn made(&self, more: usize) {
        let wanted = self.calls() + more;
        until("the client beside is answered", || {
            assert!(!self.thread.is_finished(), "a call of the client beside failed");
            self.calls() >= wanted
        });
    }

    /// Ends it; its times, and the largest memory.
    fn end(self) -> (Times, i64) {
        self.shared.stop.store(true, SeqCst);
        let times = self.thread.join().expect("every call beside the attack is answered");
        (times, self.shared.peak.load(SeqCst))
    }
}

/// The normal client's life.
async fn work(port: u16, pid: u32, shared: Arc<Shared>) -> Times {
    let client = Client::connect(port).await;
    let mut times = Times::default();
    let mut n = 0;
    while !shared.stop.load(SeqCst) {
        let was_attacked = shared.is_attacked.load(SeqCst);
        let began = Instant::now();
        put_and_get(&client, n).await;
        // A call in which an attack began or ended belongs to neither.
        if shared.is_attacked.load(SeqCst) == was_attacked {
            times[usize::from(was_attacked)].push(began.elapsed());
        }
        shared.peak.fetch_max(anonymous_of(pid), SeqCst);
        n += 1;
        shared.calls.store(n, SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    times
}

/// The median and the 99th percentile.
fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |hundredths| times.get(times.len() * hundredths / 100).copied().unwrap_or_default();
    (at(50), at(99))
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
pub fn trial<A>(name: &str, cost: &Cost, attack: impl Fn(&Server, &Beside) -> (A, usize)) {
    trial_on(name, cost, |_| {}, attack);
}

/// As [`trial`], with something to prepare before memory is looked at.
pub fn trial_on<A>(
    name: &str,
    cost: &Cost,
    prepare: impl FnOnce(&Server),
    attack: impl Fn(&Server, &Beside) -> (A, usize),
) {
    let _alone = is_long().then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    let server = Server::start(kind(), &[]).expect("the server's program is built");
    prepare(&server);
    let beside = Beside::start(&server);
    beside.answered();
    let before = anonymous(&server);
    let (mut count, mut cpu, mut attacked) = (0, 0, 0);
    for _ in 0..LONG_ROUNDS {
        let (calls, used) = (beside.calls(), cpu_us(&server));
        beside.shared.is_attacked.store(true, SeqCst);
        let (standing, more) = attack(&server, &beside);
        count += more;
        cpu += cpu_us(&server) - used;
        beside.answered();
        let under_it = beside.calls() - calls;
        drop(standing);
        beside.shared.is_attacked.store(false, SeqCst);
        attacked += under_it;
        // As many calls without it in the same minutes.
        beside.made(if is_long() { under_it } else { CALLS });
        if !is_long() || attacked >= LONG_CALLS {
            break;
        }
    }
    let after = || anonymous(&server) - before;
    let is_ours = server.kind == Kind::Quorate;
    if is_ours {
        until(&format!("{name}: no more than {} KiB are kept", cost.after >> 10), || {
            after() <= cost.after
        });
    }
    let after = after();
    let ([mut quiet, mut hostile], peak) = beside.end();
    let peak = peak - before;
    let (quiet_calls, calls) = (quiet.len(), hostile.len());
    let (quiet, hostile) = (percentiles(&mut quiet), percentiles(&mut hostile));
    eprintln!(
        "{name}: {count} times, {:.2} us CPU each; memory {} KiB, peak +{} KiB, after +{} KiB; \
         p50 and p99 of {quiet_calls} puts and reads without it {quiet:.1?}, of {calls} under it \
         {hostile:.1?}: p99 {:.2} times",
        cpu as f64 / count.max(1) as f64,
        before >> 10,
        peak >> 10,
        after >> 10,
        hostile.1.as_secs_f64() / quiet.1.as_secs_f64(),
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

/// By how much the long form does more of each thing; 1 in the short one.
fn factor() -> usize {
    std::env::var("QUORATE_HOSTILE").map_or(1, |v| v.parse().expect("QUORATE_HOSTILE is a number"))
}

/// Whether this is the long form.
fn is_long() -> bool {
    factor() > 1
}

/// A number of the short form, or of the long one.
pub fn times(short: usize) -> usize {
    short * factor()
}
