//! Kill and restart, again and again, under clients that remember everything: no acknowledged
//! write is lost, revisions never go back, and what clients and watches saw fits one order.
//! `QUORATE_KILL_ROUNDS` sets the rounds (10 by default), `QUORATE_KILL_SEED` where they begin.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use api::etcdserverpb::WatchCreateRequest;
use common::{Lossy, block_on};
use conform::record::{self, Caller, Clock, Watcher, everything};
use conform::{Client, join_all};
use env::{Entropy, SplitMix};
use model::{Report, Request, Violation};

/// Clients, each on its own connection.
const CLIENTS: u32 = 16;
/// Kills of one directory, in turn; then another one begins empty, so that histories stay
/// checkable: short ones also by the general search for an order of all operations.
const PER_DIRECTORY: [u64; 2] = [4, 20];
/// How long a watch may take to show everything.
const PATIENCE: Duration = Duration::from_secs(5);

fn watches() -> [WatchCreateRequest; 3] {
    let [all, prefix] = record::watches();
    // filters: 1 is NODELETE.
    let one = WatchCreateRequest {
        key: "k11".into(),
        filters: vec![1],
        start_revision: 1,
        ..Default::default()
    };
    [all, prefix, one]
}

/// Kills one directory so many times and checks what was seen.
fn kill_one_directory(args: &[&str], seed: u64, rounds: u64) -> Result<Report, Violation> {
    let mut entropy = SplitMix::new(seed);
    let mut lossy = Lossy::new(args);
    let clock = Clock::start();
    let newest = Rc::new(Cell::new(1));
    let mut callers: Vec<Caller> =
        (0..=CLIENTS).map(|n| Caller::new(n, seed, clock, &newest)).collect();
    let mut watchers: Vec<Watcher> = watches().map(|w| Watcher::new(w, clock)).into();
    let mut silent = false;
    for round in 0..=rounds {
        // Half of the lives also write unsynced sectors back early, as kernels do.
        let writeback = entropy.next_u64().to_string();
        let more: &[_] =
            if round % 2 == 0 { &[] } else { &[("QUORATE_LOSSY_WRITEBACK", writeback.as_str())] };
        assert!(lossy.start("", more), "seed {seed}, round {round}: {}", lossy.server.log());
        let server = (std::net::Ipv4Addr::LOCALHOST, lossy.server.port).into();
        let wait = Duration::from_millis(40 + entropy.below(500));
        let last = round == rounds;
        block_on(async {
            let (reader, rest) = callers.split_last_mut().expect("there are clients");
            let client = Client::connect_to(server).await;
            reader.call(&client, Request::Range(everything())).await;
            if last {
                let reached = newest.get();
                for watcher in &mut watchers {
                    let finish = watcher.finish(server, reached);
                    silent |= tokio::time::timeout(PATIENCE, finish).await.is_err();
                }
                return;
            }
            let calls = rest.iter_mut().map(|caller| caller.run(server, || true));
            let watch = watchers.iter_mut().map(|watcher| watcher.run(server));
            let kill = async {
                tokio::time::sleep(wait).await;
                lossy.server.kill();
            };
            tokio::join!(join_all(calls), join_all(watch), kill);
        });
    }
    let (mut history, unclear) = record::history(callers, watchers);
    assert!(unclear.is_empty(), "seed {seed}: {unclear:?}");
    history.one_member = true;
    let report = model::check(&history)?;
    assert!(!silent, "seed {seed}: a watch that has seen everything is told nothing");
    Ok(report)
}

#[test]
fn killed_again_and_again_it_keeps_every_promise() {
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (rounds, mut seed) = (number("QUORATE_KILL_ROUNDS", 10), number("QUORATE_KILL_SEED", 1));
    let (mut done, mut operations, mut events, mut searched) = (0, 0, 0, 0);
    while done < rounds {
        let now = PER_DIRECTORY[usize::from(done > 0 && seed % 2 == 0)].min(rounds - done);
        let checked = kill_one_directory(&["--snapshot-count", "200"], seed, now);
        let report = checked.unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
        eprintln!("seed {seed}: {report:?}");
        (done, seed) = (done + now, seed + 1);
        (operations, events) = (operations + report.operations, events + report.events);
        searched += u64::from(report.searched);
    }
    eprintln!("{done} kills, {operations} operations, {events} events, {searched} searched");
    assert!(searched > 0, "no history was searched to its end");
    assert!(operations as u64 > 100 * rounds, "only {operations} operations");
    assert!(events as u64 > 20 * rounds, "only {events} events");
}

#[test]
fn a_server_that_does_not_sync_its_log_is_caught() {
    let caught = (1..10).any(|seed| {
        let checked = kill_one_directory(&["--unsafe-no-fsync"], seed, 2);
        checked.inspect_err(|violation| eprintln!("{violation:?}")).is_err()
    });
    assert!(caught, "the disk loses nothing, or the checkers see nothing");
}
