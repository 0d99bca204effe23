//! Three members, each in a network namespace of its own and on a disk that loses what was not
//! synced, under clients that remember everything: killed, stopped, cut off one way or both ways,
//! on slow and full disks, replaced. After each fault a leader within three election timeouts and
//! writes within ten seconds; in the end what clients and watches saw fits one order.
//!
//! `QUORATE_CLUSTER_ROUNDS` sets the rounds (3 by default), `QUORATE_CLUSTER_SEED` where they begin.
//! Needs root and `unshare`, `nsenter`, `ip`; all it makes lives in a namespace of its own and goes
//! with it.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberRemoveRequest, MemberRemoveResponse, StatusRequest,
    StatusResponse,
};
use conform::record::{Caller, Clock, Watcher, history, watches};
use conform::{Client, join_all};
use env::{Entropy, SplitMix};
use model::{Report, Violation};

/// Clients, on all members in turn.
const CLIENTS: u32 = 8;
/// Rounds of one cluster; then another begins, so that histories stay checkable.
const PER_CLUSTER: u64 = 5;
/// Longest pause between a client's calls, microseconds.
const PAUSE_US: u64 = 40_000;
/// `--election-timeout`, milliseconds.
const ELECTION_MS: u64 = 1_000;
/// After a fault: until somebody leads, and until every member takes writes.
const LEADER_WITHIN: Duration = Duration::from_millis(3 * ELECTION_MS);
const WRITES_WITHIN: Duration = Duration::from_secs(10);
/// How long a member may take to start, and a watch to show everything.
const PATIENCE: Duration = Duration::from_secs(30);
/// A hardware address that nobody has: what is sent there is lost without a word.
const NOBODY: &str = "02:00:00:00:00:99";
/// Set in the process that runs within its own namespaces.
const WITHIN: &str = "QUORATE_WITHIN_NAMESPACE";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// A namespace, held by a sleeping process.
struct Namespace {
    holder: Child,
    address: Ipv4Addr,
}

impl Namespace {
    fn new(number: u8) -> Self {
        let sleep = ["-n", "sleep", "7200"];
        let holder = Command::new("unshare").args(sleep).stdin(Stdio::null()).spawn();
        let namespace = Self {
            holder: holder.expect("unshare is there"),
            address: Ipv4Addr::new(10, 9, 0, number),
        };
        let (link, pid) = (format!("v{number}"), namespace.holder.id().to_string());
        // Until it has entered its namespace, it is in ours.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns == own) {
            std::thread::sleep(Duration::from_millis(1));
        }
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["link", "set", &link, "master", "br0", "up"]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace.ip(&["link", "set", "eth0", "up"]);
        namespace.ip(&["addr", "add", &format!("{}/24", namespace.address), "dev", "eth0"]);
        namespace
    }

    fn enter(&self) -> [String; 4] {
        let pid = self.holder.id().to_string();
        ["nsenter".to_owned(), "-t".to_owned(), pid, "-n".to_owned()]
    }

    fn ip(&self, args: &[&str]) {
        let enter = self.enter();
        let all: Vec<&str> = enter[1..]
            .iter()
            .map(String::as_str)
            .chain(["ip"])
            .chain(args.iter().copied())
            .collect();
        run("nsenter", &all);
    }

    /// What this one sends to `other` is lost from now on.
    fn cut(&self, other: Ipv4Addr) {
        let to = other.to_string();
        self.ip(&["neigh", "replace", &to, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"]);
    }

    fn heal(&self) {
        self.ip(&["neigh", "flush", "dev", "eth0", "nud", "permanent"]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A member's process and what it is started with.
struct Member {
    name: String,
    data_dir: PathBuf,
    address: Ipv4Addr,
    initial: String,
    state: &'static str,
    process: Option<Child>,
}

impl Member {
    fn client(&self) -> SocketAddr {
        (self.address, 2379).into()
    }

    fn peer_url(&self) -> String {
        format!("http://{}:2380", self.address)
    }

    fn start(&mut self, namespace: &Namespace, faults: &str, entropy: &mut SplitMix) {
        assert!(self.process.is_none(), "it runs");
        let enter = namespace.enter();
        let root = self.data_dir.to_str().expect("temporary paths are text");
        let client = format!("http://{}", self.client());
        let log = self.data_dir.with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(env!("CARGO_BIN_EXE_etcd-lossy"));
        command.env("QUORATE_LOSSY_ROOT", root).env("QUORATE_LOSSY_FAULTS", faults);
        if entropy.below(2) == 0 {
            command.env("QUORATE_LOSSY_WRITEBACK", entropy.next_u64().to_string());
        }
        let peer = self.peer_url();
        let flags = [
            ("name", &self.name[..]),
            ("data-dir", root),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &self.initial),
            ("initial-cluster-state", self.state),
            ("election-timeout", &ELECTION_MS.to_string()),
            ("snapshot-count", "300"),
            ("snapshot-catchup-entries", "50"),
        ];
        for (flag, value) in flags {
            command.arg(format!("--{flag}={value}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("nsenter is there"));
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        run("kill", &[&format!("-{name}"), &process.id().to_string()]);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Whether it has ended by itself.
    fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some())
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default();
        let skip = log.len().saturating_sub(3_000);
        log.get(skip..).unwrap_or_default().to_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The members, each at the place of its namespace.
struct Cluster<'a> {
    namespaces: &'a [Namespace],
    members: Vec<Member>,
    dir: &'a Path,
    made: u32,
}

impl<'a> Cluster<'a> {
    fn found(namespaces: &'a [Namespace], dir: &'a Path, entropy: &mut SplitMix) -> Self {
        let mut cluster = Self { namespaces, members: Vec::new(), dir, made: 0 };
        for place in 0..namespaces.len() {
            let member = cluster.member(place, "new");
            cluster.members.push(member);
        }
        let all: Vec<String> =
            cluster.members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect();
        for place in 0..namespaces.len() {
            cluster.members[place].initial = all.join(",");
            cluster.start(place, "", entropy);
        }
        cluster
    }

    fn member(&mut self, place: usize, state: &'static str) -> Member {
        self.made += 1;
        let name = format!("m{}", self.made);
        Member {
            data_dir: self.dir.join(&name),
            name,
            address: self.namespaces[place].address,
            initial: String::new(),
            state,
            process: None,
        }
    }

    fn start(&mut self, place: usize, faults: &str, entropy: &mut SplitMix) {
        self.members[place].start(&self.namespaces[place], faults, entropy);
    }

    async fn status(&self, place: usize) -> Option<StatusResponse> {
        let at = self.members[place].client();
        let ask = async {
            let client = Client::try_connect_to(at, 1 << 20).await.ok()?;
            let path = "/etcdserverpb.Maintenance/Status";
            client.call::<StatusResponse>(path, &StatusRequest {}).await.ok()
        };
        tokio::time::timeout(Duration::from_millis(300), ask).await.ok().flatten()
    }

    /// Who leads, as far as a majority says the same.
    async fn leader(&self) -> Option<usize> {
        let (mut ids, mut votes) = (Vec::new(), Vec::new());
        for place in 0..self.members.len() {
            if let Some(status) = self.status(place).await {
                ids.push((status.header.as_ref().map_or(0, |h| h.member_id), place));
                votes.push(status.leader);
            }
        }
        let known = |id: u64| id != 0 && votes.iter().filter(|vote| **vote == id).count() >= 2;
        ids.into_iter().find(|(id, _)| known(*id)).map(|(_, place)| place)
    }

    /// Waits until somebody leads; how long that took.
    async fn await_leader(&self, patience: Duration) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if self.leader().await.is_some() {
                return Some(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Waits until every member takes a write; how long that took.
    async fn await_writes(&self, prober: &mut Caller, patience: Duration) -> Option<Duration> {
        let began = Instant::now();
        for member in &self.members {
            loop {
                if began.elapsed() > patience {
                    return None;
                }
                let write = async {
                    if let Ok(client) = Client::try_connect_to(member.client(), 1 << 20).await {
                        let probe = prober.probe();
                        prober.call(&client, probe).await;
                        return prober.was_answered();
                    }
                    false
                };
                if tokio::time::timeout(Duration::from_secs(3), write).await.unwrap_or(false) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Some(began.elapsed())
    }

    /// Removes the member at `place` and puts a new one there, with an empty directory.
    async fn replace(&mut self, place: usize, entropy: &mut SplitMix) -> Option<()> {
        let until = Instant::now() + PATIENCE;
        let gone = loop {
            if let Some(status) = self.status(place).await {
                break status.header?.member_id;
            }
            assert!(Instant::now() < until, "a member does not answer");
        };
        let other = (place + 1) % self.members.len();
        let client = Client::try_connect_to(self.members[other].client(), 1 << 20).await.ok()?;
        let remove = MemberRemoveRequest { id: gone };
        let path = "/etcdserverpb.Cluster/MemberRemove";
        // New connections count as healthy only after five seconds.
        while let Err(e) = client.call::<MemberRemoveResponse>(path, &remove).await {
            assert!(Instant::now() < until, "no removal: {e:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.members[place].kill();
        let mut fresh = self.member(place, "existing");
        let add = MemberAddRequest { peer_ur_ls: vec![fresh.peer_url()], is_learner: false };
        let path = "/etcdserverpb.Cluster/MemberAdd";
        let added = loop {
            match client.call::<MemberAddResponse>(path, &add).await {
                Ok(added) => break added,
                Err(e) => assert!(Instant::now() < until, "no new member: {e:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let pairs = added.members.iter().flat_map(|member| {
            let name = if member.name.is_empty() { &fresh.name } else { &member.name };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        });
        fresh.initial = pairs.collect::<Vec<_>>().join(",");
        self.members[place] = fresh;
        self.start(place, "", entropy);
        Some(())
    }
}

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    KillTwo,
    Stop,
    Isolate,
    OneWay,
    SlowDisk,
    FullDisk,
    Terminate,
    Replace,
}

impl Fault {
    const ALL: [Fault; 9] = [
        Fault::Kill,
        Fault::Isolate,
        Fault::Stop,
        Fault::Replace,
        Fault::OneWay,
        Fault::FullDisk,
        Fault::KillTwo,
        Fault::SlowDisk,
        Fault::Terminate,
    ];

    /// Lets it happen to the member at `place`, and ends it.
    async fn happen(self, cluster: &mut Cluster<'_>, place: usize, entropy: &mut SplitMix) {
        let lasting = Duration::from_millis(500 + entropy.below(3_000));
        let other = (place + 1 + entropy.below(2) as usize) % 3;
        match self {
            Fault::Kill | Fault::KillTwo => {
                cluster.members[place].kill();
                if self == Fault::KillTwo {
                    cluster.members[other].kill();
                }
                tokio::time::sleep(lasting).await;
                cluster.start(place, "", entropy);
                if self == Fault::KillTwo {
                    cluster.start(other, "", entropy);
                }
            }
            Fault::Terminate => {
                cluster.members[place].signal("TERM");
                tokio::time::sleep(lasting).await;
                cluster.members[place].kill();
                cluster.start(place, "", entropy);
            }
            Fault::Stop => {
                cluster.members[place].signal("STOP");
                tokio::time::sleep(lasting * 2).await;
                cluster.members[place].signal("CONT");
            }
            Fault::Isolate | Fault::OneWay => {
                let namespaces = cluster.namespaces;
                for n in (0..3).filter(|n| *n != place) {
                    namespaces[place].cut(namespaces[n].address);
                    if self == Fault::Isolate {
                        namespaces[n].cut(namespaces[place].address);
                    }
                }
                tokio::time::sleep(lasting * 2).await;
                namespaces.iter().for_each(Namespace::heal);
            }
            Fault::SlowDisk => {
                cluster.members[place].kill();
                cluster.start(place, "Sync,wal,0,1000000,120ms", entropy);
                tokio::time::sleep(lasting * 2).await;
                cluster.members[place].kill();
                cluster.start(place, "", entropy);
            }
            Fault::FullDisk => {
                cluster.members[place].kill();
                let first = 20 + entropy.below(200);
                let faults = format!("Write,,{first},18446744073709551615,enospc");
                cluster.start(place, &faults, entropy);
                tokio::time::sleep(lasting * 2).await;
                cluster.members[place].kill();
                cluster.start(place, "", entropy);
            }
            Fault::Replace => {
                cluster.replace(place, entropy).await.expect("a healthy cluster changes members");
            }
        }
    }
}

/// One cluster through these faults; what clients saw is checked in the end.
fn one_cluster(namespaces: &[Namespace], seed: u64, faults: &[Fault]) -> Result<Report, Violation> {
    let mut entropy = SplitMix::new(seed);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let clock = Clock::start();
    let newest = Rc::new(Cell::new(1));
    let mut callers: Vec<Caller> =
        (1..=CLIENTS).map(|n| Caller::new(n, seed, clock, &newest)).collect();
    callers.iter_mut().for_each(|caller| caller.pause_us = PAUSE_US);
    let mut prober = Caller::new(CLIENTS + 1, seed, clock, &newest);
    let mut watchers: Vec<Watcher> = watches().map(|w| Watcher::new(w, clock)).into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut cluster = Cluster::found(namespaces, dir.path(), &mut entropy);
        cluster.await_writes(&mut prober, PATIENCE).await.expect("a new cluster writes");
        for fault in faults {
            // The leader as often as not.
            let leader = cluster.leader().await.unwrap_or(0);
            let place = (leader + entropy.below(4).saturating_sub(1) as usize) % 3;
            let addresses: Vec<SocketAddr> = cluster.members.iter().map(Member::client).collect();
            let done = Cell::new(false);
            let calls = callers.iter_mut().enumerate().map(|(n, caller)| {
                let (addresses, done) = (&addresses, &done);
                async move {
                    let mut at = n;
                    while !done.get() {
                        // Whoever loses its member goes to the next one.
                        let limit = run_until(done, caller.run(addresses[at % 3], || !done.get()));
                        limit.await;
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
            let watch = watchers.iter_mut().enumerate().map(|(n, watcher)| {
                let (addresses, done) = (&addresses, &done);
                async move {
                    let mut at = n;
                    while !done.get() {
                        run_until(done, watcher.run(addresses[at % 3])).await;
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
            let story = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                fault.happen(&mut cluster, place, &mut entropy).await;
                let led = cluster.await_leader(PATIENCE).await;
                let wrote = cluster.await_writes(&mut prober, PATIENCE).await;
                done.set(true);
                (led, wrote)
            };
            let ((led, wrote), _, _) = tokio::join!(story, join_all(calls), join_all(watch));
            let logs =
                || cluster.members.iter().map(Member::log).collect::<Vec<_>>().join("\n==\n");
            let told = format!("seed {seed}, {fault:?} of {place}: {led:?}, {wrote:?}");
            eprintln!("{told}");
            assert!(led.is_some_and(|took| took <= LEADER_WITHIN), "{told}\n{}", logs());
            assert!(wrote.is_some_and(|took| took <= WRITES_WITHIN), "{told}\n{}", logs());
            for member in &mut cluster.members {
                assert!(!member.has_ended(), "{told}: {} ended\n{}", member.name, member.log());
            }
        }
        let reached = newest.get();
        for (n, watcher) in watchers.iter_mut().enumerate() {
            let finish = watcher.finish(cluster.members[n].client(), reached);
            let finished = tokio::time::timeout(PATIENCE, finish).await;
            assert!(finished.is_ok(), "seed {seed}: a watch does not show everything");
        }
    });
    // Whoever asks a cluster in trouble is often not told what came of it.
    let (history, _unclear) = history(callers.into_iter().chain([prober]), watchers);
    model::check(&history)
}

/// Runs something until it ends or `done` is set and a while has passed: what hangs then hangs on
/// a member that will not answer.
async fn run_until(done: &Cell<bool>, work: impl Future<Output = ()>) {
    let limit = async {
        while !done.get() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = limit => {}
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The same test again in namespaces of its own.
fn again_within() {
    let can = Command::new("unshare").args(["-n", "-m", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("QUORATE_CI").is_none(), "no network namespaces can be made");
        println!("SKIPPED: this test makes network namespaces, which needs root");
        return;
    }
    let program = std::env::current_exe().expect("a test has a program");
    let mut command = Command::new("unshare");
    command.args(["-n", "-m", "--"]).arg(program);
    command.args(["a_cluster_loses_nothing", "--exact", "--nocapture"]);
    command.env(WITHIN, "1").env("RUST_BACKTRACE", "0");
    let output = command.output().expect("unshare is there");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{err}\n{out}");
    assert!(output.status.success(), "it failed within its namespace");
}

#[test]
fn a_cluster_loses_nothing() {
    if std::env::var_os(WITHIN).is_none() {
        return again_within();
    }
    run("ip", &["link", "set", "lo", "up"]);
    run("ip", &["link", "add", "br0", "type", "bridge"]);
    run("ip", &["link", "set", "br0", "up"]);
    run("ip", &["addr", "add", "10.9.0.254/24", "dev", "br0"]);
    let namespaces: Vec<Namespace> = (1..=3).map(Namespace::new).collect();
    let rounds = number("QUORATE_CLUSTER_ROUNDS", 3);
    let seed = number("QUORATE_CLUSTER_SEED", 1);
    let mut entropy = SplitMix::new(seed);
    let faults: Vec<Fault> = (0..rounds)
        .map(|n| match n {
            // Each kind once before chance decides.
            n if n < Fault::ALL.len() as u64 => Fault::ALL[n as usize],
            _ => Fault::ALL[entropy.below(Fault::ALL.len() as u64) as usize],
        })
        .collect();
    let (mut operations, mut events) = (0, 0);
    for (n, faults) in (0..).zip(faults.chunks(PER_CLUSTER as usize)) {
        match one_cluster(&namespaces, seed + n, faults) {
            Ok(report) => {
                operations += report.operations;
                events += report.events;
            }
            Err(violation) => panic!("seed {}: {violation}", seed + n),
        }
    }
    eprintln!("{rounds} rounds, {operations} operations, {events} events");
    assert!(operations > 0 && events > 0, "nothing was looked at");
}
