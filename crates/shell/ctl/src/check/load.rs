//! Puts by many clients, and how long they took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::etcdserverpb::{PutRequest, PutResponse};
use api::method::Method;
use bytes::Bytes;
use cli::progress::Bar;
use client::Client;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::zeroes;

/// Longest delay of the runtime's clock that is made up for, by puts that follow at once.
const CATCH_UP: Duration = Duration::from_millis(5);

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Most bytes of a varint.
const VARINT_BYTES: usize = 10;

/// How many puts there are to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many in a second, until then.
    PerSecond { rate: u32, until: Instant },
    /// So many, as fast as they are taken.
    Count(u64),
}

/// What came of a load.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stats {
    /// Puts that succeeded, in a second.
    pub per_second: f64,
    /// The longest put, in seconds.
    pub slowest: f64,
    /// The standard deviation of their times, in seconds.
    pub stddev: f64,
    /// Failures by their text.
    pub errors: BTreeMap<String, u64>,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    seconds: Vec<f64>,
    errors: BTreeMap<String, u64>,
}

/// Puts with all clients, until the pace ends it or SIGINT comes.
pub(super) async fn run(
    clients: &[Arc<Client>],
    prefix: &str,
    (key_bytes, value_bytes): (usize, usize),
    pace: Pace,
) -> Stats {
    let (sender, receiver) = mpsc::channel(clients.len().max(1));
    let receiver = Arc::new(Mutex::new(receiver));
    let (began, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let value = zeroes(value_bytes);
    let mut workers = JoinSet::new();
    for client in clients {
        let (client, value) = (Arc::clone(client), value.clone());
        workers.spawn(work(client, Arc::clone(&receiver), value, Arc::clone(&done)));
    }
    let keys = Keys { prefix: prefix.as_bytes(), len: key_bytes, random: osenv::seed() };
    let total = match pace {
        Pace::PerSecond { until, .. } => until.saturating_duration_since(began).as_secs() + 1,
        Pace::Count(count) => count,
    };
    let mut bar = Bar::start(total);
    let shown = |done: &AtomicU64| match pace {
        Pace::PerSecond { .. } => began.elapsed().as_secs().min(total),
        Pace::Count(_) => done.load(Ordering::Relaxed),
    };
    let mut all = Seen::default();
    let producing = produce(keys, pace, sender);
    tokio::pin!(producing);
    let mut is_produced = false;
    loop {
        tokio::select! {
            () = &mut producing, if !is_produced => is_produced = true,
            joined = workers.join_next() => match joined {
                None => break,
                Some(seen) => all.add(seen.unwrap_or_default()),
            },
            () = tokio::time::sleep(LOOK) => bar.set(shown(&done)),
        }
    }
    let took = began.elapsed();
    bar.set(shown(&done));
    bar.finish();
    all.stats(took)
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.seconds.extend(other.seconds);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }

    //= etcd 3.7.3: pkg/report/report.go#processResults
    fn stats(self, took: Duration) -> Stats {
        let count = self.seconds.len() as f64;
        let mean = self.seconds.iter().sum::<f64>() / count;
        let square = |seconds: &f64| (seconds - mean) * (seconds - mean);
        let stddev = (self.seconds.iter().map(square).sum::<f64>() / count).sqrt();
        let slowest = self.seconds.iter().copied().fold(0.0, f64::max);
        Stats { per_second: count / took.as_secs_f64(), slowest, stddev, errors: self.errors }
    }
}

/// Puts what comes, until nothing comes any more.
async fn work(
    client: Arc<Client>,
    keys: Arc<Mutex<mpsc::Receiver<Bytes>>>,
    value: Bytes,
    done: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen::default();
    loop {
        let key = keys.lock().await.recv().await;
        let Some(key) = key else { return seen };
        let request = PutRequest { key, value: value.clone(), ..PutRequest::default() };
        let began = Instant::now();
        match client.call::<PutResponse>(Method::Put, &request, None).await {
            Ok(_) => seen.seconds.push(began.elapsed().as_secs_f64()),
            Err(error) => *seen.errors.entry(error.to_string()).or_default() += 1,
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Hands out keys at the pace that is asked for.
async fn produce(mut keys: Keys<'_>, pace: Pace, sender: mpsc::Sender<Bytes>) {
    let handing_out = async {
        match pace {
            Pace::Count(count) => {
                for _ in 0..count {
                    // Nobody takes them only if every worker panicked.
                    let _ = sender.send(keys.next()).await;
                }
            }
            Pace::PerSecond { rate, until } => {
                let period = Duration::from_secs(1) / rate.max(1);
                let mut next = Instant::now();
                while next < until {
                    tokio::time::sleep_until(next).await;
                    let _ = sender.send(keys.next()).await;
                    let earliest = Instant::now().checked_sub(CATCH_UP).unwrap_or(next);
                    next = (next + period).max(earliest);
                }
            }
        }
    };
    tokio::select! {
        () = handing_out => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Random keys behind a prefix.
struct Keys<'a> {
    prefix: &'a [u8],
    /// Bytes behind the prefix.
    len: usize,
    random: u64,
}

impl Keys<'_> {
    /// A random number as a varint, and zeroes.
    fn next(&mut self) -> Bytes {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut key = Vec::with_capacity(self.prefix.len() + self.len.max(VARINT_BYTES));
        key.extend_from_slice(self.prefix);
        while mixed >= 0x80 {
            key.push((mixed & 0x7f) as u8 | 0x80);
            mixed >>= 7;
        }
        key.push(mixed as u8);
        key.resize((self.prefix.len() + self.len).max(key.len()), 0);
        key.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_have_their_length() {
        let mut keys = Keys { prefix: b"p/", len: 256, random: 1 };
        let (first, second) = (keys.next(), keys.next());
        assert!(first != second && first.starts_with(b"p/"));
        assert_eq!((first.len(), second.len()), (258, 258));
    }

    #[test]
    fn times_are_summed_up() {
        let seen = Seen { seconds: vec![1.0, 3.0], errors: BTreeMap::new() };
        let stats = seen.stats(Duration::from_secs(4));
        assert_eq!((stats.per_second, stats.slowest, stats.stddev), (0.5, 3.0, 1.0));
    }
}
