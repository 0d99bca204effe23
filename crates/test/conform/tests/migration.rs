//! Three members of etcd become ours one by one, on their directories and under load, and etcd's
//! again: no acknowledged write is lost, no event is lost or doubled, and what fails may be tried
//! again. `QUORATE_MIGRATION_ROUNDS` goes there and back more often, `QUORATE_MIGRATION_SEED` draws
//! other operations.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conform::record::{Caller, Clock, Watcher, everything, history, watches};
use conform::{Client, Cluster, Failure, Kind, join_all};
use model::{History, Request};

/// Clients, each of which goes to the next member when its own is gone.
const CLIENTS: u32 = 8;
/// Time between two members.
const PAUSE: Duration = Duration::from_millis(400);

/// What clients did and saw until they were told to stop.
fn load(members: &[SocketAddr], seed: u64, stop: &AtomicBool) -> (History, Vec<Failure>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let clock = Clock::start();
    let newest = Rc::new(Cell::new(1));
    // Number 0 defragments, which stops a whole member of etcd.
    let mut callers: Vec<Caller> =
        (1..=CLIENTS + 1).map(|n| Caller::new(n, seed, clock, &newest)).collect();
    let mut watchers: Vec<Watcher> = watches().map(|w| Watcher::new(w, clock)).into();
    let stopped = async || {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    runtime.block_on(async {
        let (reader, rest) = callers.split_last_mut().expect("there are clients");
        let calls = rest.iter_mut().enumerate().map(async |(n, caller)| {
            // Never dropped within a call: it may have had an effect.
            let wants_more = || !stop.load(Ordering::Relaxed);
            let mut turn = n;
            while wants_more() {
                caller.run(members[turn % members.len()], wants_more).await;
                turn += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let watch = watchers.iter_mut().enumerate().map(async |(n, watcher)| {
            for turn in n.. {
                tokio::select! {
                    () = stopped() => return,
                    () = watcher.run(members[turn % members.len()]) => {}
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        tokio::join!(join_all(calls), join_all(watch));
        // Everything is there, on each member, and each watch gets to its end.
        for &member in members {
            let client = Client::connect_to(member).await;
            reader.call(&client, Request::Range(everything())).await;
        }
        let reached = newest.get();
        for (n, watcher) in watchers.iter_mut().enumerate() {
            let finish = watcher.finish(members[n], reached);
            let done = tokio::time::timeout(Duration::from_secs(10), finish).await;
            assert!(done.is_ok(), "a watch does not get to its end");
        }
    });
    history(callers, watchers)
}

/// Whether a client of etcd tries again, or says that it may be tried again.
fn is_retryable(failure: &Failure) -> bool {
    const UNAVAILABLE: u16 = 14;
    const DEADLINE_EXCEEDED: u16 = 4;
    // A leader that hands over drops proposals, in these words of raft's.
    let is_dropped = failure.message == "raft proposal dropped";
    let is_elsewhere = failure.message == "etcdserver: not a primary lessor";
    [UNAVAILABLE, DEADLINE_EXCEEDED].contains(&failure.code) || is_dropped || is_elsewhere
}

/// Starts three of one kind and goes through others, all three members each time.
fn migrate(first: Kind, others: &[Kind], seed: u64) {
    let args = ["--snapshot-count", "200", "--snapshot-catchup-entries", "50"];
    let Some(mut cluster) = Cluster::start(&[first; 3], &args) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let members: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.client).collect();
    let stop = AtomicBool::new(false);
    let (history, unclear) = std::thread::scope(|scope| {
        // Told to stop also if this thread panics.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let load = scope.spawn(|| load(&members, seed, &stop));
        let stop = Stop(&stop);
        std::thread::sleep(PAUSE);
        for &kind in others {
            for n in 0..3 {
                cluster.nodes[n].stop();
                cluster.nodes[n].kind = kind;
                cluster.restart(n);
                std::thread::sleep(PAUSE);
            }
        }
        drop(stop);
        load.join().expect("the clients saw what they may see")
    });
    runtime.block_on(cluster.assert_equal());
    let report = model::check(&history).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
    let strange: Vec<_> = unclear.iter().filter(|failure| !is_retryable(failure)).collect();
    assert!(strange.is_empty(), "seed {seed}: {strange:?}");
    eprintln!("seed {seed}: {report:?}, {} calls to be tried again", unclear.len());
    assert!(report.operations > 1_000 && report.events > 300, "{report:?}");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn there_and_back_under_load() {
    let seed = number("QUORATE_MIGRATION_SEED", 1);
    for round in 0..number("QUORATE_MIGRATION_ROUNDS", 1) {
        migrate(Kind::Reference, &[Kind::Quorate, Kind::Reference], seed + round);
    }
}

#[test]
fn from_the_older_etcd_under_load() {
    migrate(Kind::Reference36, &[Kind::Quorate], number("QUORATE_MIGRATION_SEED", 1));
}

#[test]
fn from_an_older_patch_of_etcd_under_load() {
    migrate(Kind::Reference371, &[Kind::Quorate], number("QUORATE_MIGRATION_SEED", 1));
}
