//! Puts at a fixed rate beside clients that keep the server busy with something else.

use std::time::Duration;

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::access::Access;
use crate::client::{Connection, envelope, uri};
use crate::figures::{Figures, name};
use crate::generator::told;
use crate::light::{Pace, Plan, Work};
use crate::server::SERVER_CORE;
use crate::shape::Shape;
use crate::{load, million, process};

/// Keys that are put and listed.
const KEYS: u64 = 5_000;
/// Bytes of their values.
const VALUE_BYTES: usize = 1_024;
/// Puts per second, and the connections that they take turns on.
const PUTS_PER_SECOND: u64 = 1_000;
const PUT_CONNECTIONS: usize = 10;
/// Clients that list, each on a thread of its own: one asks again as soon as it has its list.
const LISTERS: usize = 2;
/// How much longer they list than is put.
const LONGER: Duration = Duration::from_secs(2);
/// Clients that watch and do not read, and that read slowly.
const STALLED: usize = 100;
const SLOW: usize = 100;
/// Rest of a slow one between two responses.
const SLOWNESS: Duration = Duration::from_millis(100);
/// Versions of each key that they have to catch up with.
const VERSIONS: usize = 4;
/// The cores where server and clients share them.
const SHARED_CORES: [usize; 2] = [0, 1];

/// Which cores server and clients have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The server its own, the clients the generator's.
    Apart,
    /// All of them the first two.
    Shared,
}

impl Placement {
    /// The server's cores, as `taskset -c` takes them.
    #[must_use]
    pub fn server_cores(self) -> &'static str {
        match self {
            Placement::Apart => SERVER_CORE,
            Placement::Shared => "0,1",
        }
    }
}

fn puts(port: u16, pid: u32, time: Duration, seed: u64) -> Plan {
    Plan {
        ports: vec![port],
        access: Access::default(),
        pids: vec![pid],
        work: Work::Calls(Shape::Put),
        pace: Pace::Open { per_second: PUTS_PER_SECOND },
        connections: PUT_CONNECTIONS,
        time,
        keys: KEYS,
        value_bytes: VALUE_BYTES,
        seed,
    }
}

/// Puts a thousand values of 1 KB per second to five thousand keys, while two clients list them in
/// the way of `shape`, and tells the latency of the puts from their intended times and how many
/// lists there were. Lists are not decoded, so they come faster than real clients would ask.
///
/// # Errors
/// The server refuses, or the cores are not there.
pub fn beside_lists(
    port: u16,
    pid: u32,
    time: Duration,
    seed: u64,
    shape: Shape,
    placement: Placement,
) -> std::io::Result<Figures> {
    load::block_on(million::fill(port, &Access::default(), KEYS, VALUE_BYTES))?;
    let puts = puts(port, pid, time, seed);
    let lists = Plan {
        pids: Vec::new(),
        work: Work::Calls(shape),
        pace: Pace::Closed { in_flight: 1 },
        connections: 1,
        time: time + LONGER,
        ..puts.clone()
    };
    std::thread::scope(|scope| {
        // A thread of its own, so that the cores of the caller stay as they are.
        let all = scope.spawn(|| {
            if placement == Placement::Shared {
                let mut cores = CpuSet::new();
                SHARED_CORES.into_iter().for_each(|core| cores.set(core));
                sched_setaffinity(None, &cores)?;
            }
            let listers: Vec<_> = (0..LISTERS).map(|_| scope.spawn(|| told(&lists))).collect();
            let mut figures = told(&puts)?;
            let mut listed = 0.0;
            for lister in listers {
                let lists = lister.join().map_err(|_| std::io::Error::other("a lister died"))??;
                listed += lists.get(name::PER_SECOND).unwrap_or_default();
                let failed = figures.get(name::FAILED).unwrap_or_default();
                let lists_failed = lists.get(name::FAILED).unwrap_or_default();
                figures.set(name::FAILED, failed + lists_failed);
            }
            figures.set(name::LISTS_PER_SECOND, listed);
            Ok(figures)
        });
        all.join().map_err(|_| std::io::Error::other("the puts' thread died"))?
    })
}

/// Puts as [`beside_lists`] does, beside clients that watch all keys from revision 2 on with the
/// values before: a hundred that read nothing, and a hundred that take a response every tenth of a
/// second, each on a connection of its own. Tells the latency of the puts, and how much more
/// anonymous memory the server had at its peak than before they came.
///
/// # Errors
/// The server refuses.
pub fn beside_watchers(port: u16, pid: u32, time: Duration, seed: u64) -> std::io::Result<Figures> {
    for _ in 0..VERSIONS {
        load::block_on(million::fill(port, &Access::default(), KEYS, VALUE_BYTES))?;
    }
    let before = process::memory(pid).map_or(0, |memory| memory.anonymous);
    let (ready, all_watch) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        let watchers = scope.spawn(move || load::block_on(watch(port, ready, stopped)));
        if all_watch.recv().is_err() {
            let died = std::io::Error::other("the watchers' thread died");
            return Err(watchers.join().map_or(died, |ended| ended.err().unwrap_or_else(refused)));
        }
        let mut figures = told(&puts(port, pid, time, seed))?;
        let peak = figures.get(name::PEAK_ANON).unwrap_or_default();
        figures.set(name::EXTRA_ANON, peak - before as f64 / 1e6);
        // They may have ended by themselves.
        let _ = stop.send(());
        watchers.join().map_err(|_| std::io::Error::other("the watchers' thread died"))??;
        Ok(figures)
    })
}

fn refused() -> std::io::Error {
    std::io::Error::other("a watch was refused")
}

/// Keeps the watchers until told to stop.
async fn watch(
    port: u16,
    ready: std::sync::mpsc::Sender<()>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let create = WatchCreateRequest {
        key: b"\0".as_slice().into(),
        range_end: b"\0".as_slice().into(),
        start_revision: 2,
        prev_kv: true,
        ..Default::default()
    };
    let create =
        envelope(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    let mut stalled = Vec::new();
    for number in 0..STALLED + SLOW {
        let mut connection = Connection::open(port).await?;
        let stream = connection.stream(&uri("/etcdserverpb.Watch/Watch"), create.clone()).await;
        let mut stream = stream.map_err(std::io::Error::other)?;
        if number < STALLED {
            stalled.push((stream, connection));
            continue;
        }
        tokio::task::spawn_local(async move {
            let _open = connection;
            while let Ok(Some(_)) = stream.next().await {
                tokio::time::sleep(SLOWNESS).await;
            }
        });
    }
    ready.send(()).map_err(std::io::Error::other)?;
    // An error means the same: nobody measures any more.
    let _ = stopped.await;
    Ok(())
}
