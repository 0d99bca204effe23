//! What is compared, as a table: one row per case with its data, its work and its goals.

use std::time::Duration;

use crate::figures::{Figures, name};
use crate::generator::Generator;
use crate::guard::Guard;
use crate::handshakes;
use crate::load::{self, Load};
use crate::logins;
use crate::million;
use crate::process;
use crate::server::{SERVER_CORE, Server};
use crate::shape::Shape;
use crate::streams::{self, Renewers, Watchers};
use crate::trouble::{self, Placement};

/// What a server starts with. Cases in a row with the same data share a server, unless that is
/// empty: then each has one of its own. What is done to three members is in [`crate::cluster`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Empty,
    /// [`million::KEYS`] keys.
    Million,
    /// The same, [`million::UPDATED`] of them written twice.
    Updated,
    /// Nothing, three members.
    Cluster,
    /// A gigabyte, on two members of three.
    Gigabyte,
}

impl Data {
    /// Whether cases in a row share a server.
    #[must_use]
    pub fn is_shared(self) -> bool {
        matches!(self, Data::Million | Data::Updated)
    }
}

/// What is done to it.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A closed loop: connections, requests in flight, keys that are there before.
    Closed(Shape, usize, usize, u64),
    /// Keep-alives.
    KeepAlive(Renewers),
    /// Events of one key.
    Watch(Watchers),
    /// Nothing.
    Idle,
    /// How long the start took.
    Restart,
    /// The memory that a server has after its start.
    Memory,
    /// All keys, 500 at a time.
    Paged,
    /// All keys in one response.
    List,
    /// Puts at a fixed rate beside clients that list so, and which cores they have.
    BesideLists(Shape, Placement),
    /// Puts at a fixed rate beside watchers that do not read, or slowly.
    BesideWatchers,
    /// Puts beside a compaction.
    Compaction,
    /// Everything beside a defragmentation.
    Defrag,
    /// A closed loop on the leader of three: connections, requests in flight.
    OnLeader(Shape, usize, usize),
    /// The same spread over all three.
    Spread(Shape, usize, usize),
    /// The leader killed under puts, so many times.
    Failover(usize),
    /// The third member comes to a database that only a snapshot can bring.
    CatchUp,
    /// Connections that are made, each with a whole handshake, and closed; so many at once.
    Handshakes(usize),
    /// Logins by one user, so many at once, beside puts of another client.
    Logins(usize),
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// At most so much of the reference's.
    AtMost(f64),
    /// At least so many times the reference's.
    AtLeast(f64),
    /// At most so many times what ours is in another case of the same comparison.
    OfCase(&'static str, f64),
    /// At most this, whatever the reference does.
    Own(f64),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Name on the command line and in the report.
    pub name: &'static str,
    /// What the server starts with.
    pub data: Data,
    /// Whom it lets in.
    pub guard: Guard,
    /// What is done.
    pub work: Work,
    /// Figures and what they must reach.
    pub goals: &'static [(&'static str, Bound)],
}

use Bound::{AtLeast, AtMost, OfCase, Own};
use Work::Closed;

const fn case(
    name: &'static str,
    data: Data,
    work: Work,
    goals: &'static [(&'static str, Bound)],
) -> Case {
    Case { name, data, guard: Guard::None, work, goals }
}

/// One with a server of its own that is empty and guarded.
const fn guarded(
    name: &'static str,
    guard: Guard,
    work: Work,
    goals: &'static [(&'static str, Bound)],
) -> Case {
    Case { name, data: Data::Empty, guard, work, goals }
}

/// All cases, in the order of the report.
pub const CASES: &[Case] = &[
    case(
        "put",
        Data::Empty,
        Closed(Shape::Put, 100, 1_000, 10_000),
        &[(name::CPU, AtMost(0.125)), (name::PER_SECOND, AtLeast(4.0))],
    ),
    case(
        "range",
        Data::Empty,
        Closed(Shape::Range, 100, 1_000, 10_000),
        &[(name::CPU, AtMost(0.072)), (name::PER_SECOND, AtLeast(4.0))],
    ),
    case(
        "serializable-range",
        Data::Empty,
        Closed(Shape::SerializableRange, 100, 1_000, 10_000),
        &[(name::CPU, AtMost(0.046)), (name::PER_SECOND, AtLeast(4.0))],
    ),
    case(
        "compare-and-put",
        Data::Empty,
        Closed(Shape::CompareAndPut, 100, 1_000, 10_000),
        &[(name::CPU, AtMost(0.143)), (name::PER_SECOND, AtLeast(4.0))],
    ),
    case(
        "range-100",
        Data::Empty,
        Closed(Shape::Range, 100, 100, 10_000),
        &[(name::CPU, AtMost(0.2))],
    ),
    case("put-1", Data::Empty, Closed(Shape::Put, 1, 1, 10_000), &[(name::P50, AtMost(0.68))]),
    case(
        "keep-alive",
        Data::Empty,
        Work::KeepAlive(Renewers { connections: 100, streams: 10, leases: 1 }),
        &[(name::CPU, AtMost(0.084))],
    ),
    case(
        "keep-alive-shared",
        Data::Empty,
        Work::KeepAlive(Renewers { connections: 100, streams: 1, leases: 10 }),
        &[(name::CPU, AtMost(0.25))],
    ),
    case(
        "watch-streams",
        Data::Empty,
        Work::Watch(Watchers { connections: 50, streams: 20, watches: 1 }),
        &[(name::CPU, AtMost(0.05))],
    ),
    case(
        "watch-shared",
        Data::Empty,
        Work::Watch(Watchers { connections: 1, streams: 1, watches: 1_000 }),
        &[(name::CPU, AtMost(0.25))],
    ),
    case(
        "watch-million",
        Data::Empty,
        Work::Watch(Watchers { connections: 100, streams: 1, watches: 10_000 }),
        &[(name::PEAK_ANON, Own(2_000.0))],
    ),
    guarded(
        "put-tls",
        Guard::Tls,
        Closed(Shape::Put, 100, 1_000, 10_000),
        &[(name::CPU, AtMost(0.25)), (name::CPU, OfCase("put", 1.3))],
    ),
    guarded(
        "range-tls",
        Guard::Tls,
        Closed(Shape::Range, 100, 1_000, 10_000),
        &[(name::CPU, AtMost(0.25)), (name::CPU, OfCase("range", 1.3))],
    ),
    guarded(
        "put-user",
        Guard::Users,
        Closed(Shape::Put, 100, 1_000, 10_000),
        &[(name::CPU, OfCase("put", 1.05))],
    ),
    guarded(
        "range-user",
        Guard::Users,
        Closed(Shape::Range, 100, 1_000, 10_000),
        &[(name::CPU, OfCase("range", 1.05))],
    ),
    guarded(
        "handshakes",
        Guard::Tls,
        Work::Handshakes(16),
        // What a core could do follows from its CPU: a client's half costs as much.
        &[(name::CPU, AtMost(0.5))],
    ),
    guarded(
        "logins",
        Guard::Users,
        Work::Logins(16),
        &[(name::PER_SECOND, AtLeast(3.0)), (name::BESIDE_P99, AtMost(1.0))],
    ),
    case("idle", Data::Empty, Work::Idle, &[(name::CPU_PER_SECOND, AtMost(1.0))]),
    case("restart", Data::Million, Work::Restart, &[(name::SECONDS, AtMost(0.2))]),
    case("memory", Data::Million, Work::Memory, &[(name::ANON, Own(160.0))]),
    case(
        "count",
        Data::Million,
        Closed(Shape::Count, 1, 1, 1),
        &[(name::PER_SECOND, AtLeast(100.0)), (name::P50, AtMost(0.01))],
    ),
    case(
        "limit-500",
        Data::Million,
        Closed(Shape::Limit500, 1, 1, 1),
        &[(name::PER_SECOND, AtLeast(100.0)), (name::P50, AtMost(0.01)), (name::CPU, Own(250.0))],
    ),
    case("paged", Data::Million, Work::Paged, &[]),
    case(
        "list",
        Data::Million,
        Work::List,
        &[(name::SECONDS, AtMost(0.2)), (name::EXTRA_ANON, AtMost(0.1))],
    ),
    case(
        "beside-lists",
        Data::Empty,
        Work::BesideLists(Shape::List, Placement::Apart),
        &[(name::P99, Own(10_000.0))],
    ),
    case(
        "beside-lists-shared",
        Data::Empty,
        Work::BesideLists(Shape::List, Placement::Shared),
        &[(name::P99, AtMost(1.0))],
    ),
    case(
        "beside-limit-500",
        Data::Empty,
        Work::BesideLists(Shape::Limit500, Placement::Apart),
        &[(name::P99, AtMost(0.25))],
    ),
    case(
        "beside-watchers",
        Data::Empty,
        Work::BesideWatchers,
        &[(name::P99, Own(5_000.0)), (name::EXTRA_ANON, Own(100.0))],
    ),
    case("compaction", Data::Updated, Work::Compaction, &[(name::BUSY_OVER_IDLE, Own(2.0))]),
    case("defrag", Data::Updated, Work::Defrag, &[(name::STALL, AtMost(0.05))]),
    case(
        "cluster-put",
        Data::Cluster,
        Work::OnLeader(Shape::Put, 100, 1_000),
        &[(name::CPU, AtMost(0.167))],
    ),
    case(
        "cluster-put-spread",
        Data::Cluster,
        Work::Spread(Shape::Put, 100, 1_000),
        &[(name::CPU, AtMost(0.25))],
    ),
    case(
        "cluster-range",
        Data::Cluster,
        Work::Spread(Shape::Range, 100, 1_000),
        &[(name::CPU, AtMost(0.1))],
    ),
    case(
        "cluster-put-1",
        Data::Cluster,
        Work::OnLeader(Shape::Put, 1, 1),
        &[(name::P50, AtMost(0.7))],
    ),
    case("cluster-idle", Data::Cluster, Work::Idle, &[(name::CPU_PER_SECOND, AtMost(1.0))]),
    case("failover", Data::Cluster, Work::Failover(7), &[(name::FAILOVER, AtMost(1.0))]),
    case(
        "catch-up",
        Data::Gigabyte,
        Work::CatchUp,
        &[(name::SECONDS, AtMost(0.5)), (name::BUSY_OVER_IDLE, Own(2.0))],
    ),
];

/// Times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Of a closed loop.
    pub load: Duration,
    /// Of doing nothing.
    pub idle: Duration,
}

impl Times {
    /// For figures to publish.
    pub const FULL: Times = Times { load: Duration::from_secs(5), idle: Duration::from_secs(10) };
    /// For a look.
    pub const QUICK: Times = Times { load: Duration::from_secs(2), idle: Duration::from_secs(10) };
}

impl Case {
    /// The cores that its server runs on, as `taskset -c` takes them.
    #[must_use]
    pub fn server_cores(&self) -> &'static str {
        match self.work {
            Work::BesideLists(_, placement) => placement.server_cores(),
            _ => SERVER_CORE,
        }
    }

    /// Does the work on a server that runs. Must not run on a runtime.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn run(
        &self,
        server: &Server,
        times: Times,
        seed: u64,
        generator: Generator,
    ) -> std::io::Result<Figures> {
        let (port, pid, access) = (server.port, server.pid, server.access.clone());
        match self.work {
            Closed(shape, connections, in_flight, keys) => {
                if self.data == Data::Empty && shape != Shape::Put {
                    load::block_on(million::fill(port, &access, keys, 256))?;
                }
                generator.run(&Load {
                    ports: vec![port],
                    access,
                    pids: vec![pid],
                    shape,
                    connections,
                    in_flight,
                    time: if in_flight == 1 { times.load / 2 } else { times.load },
                    keys,
                    value_bytes: 256,
                    seed,
                })
            }
            Work::KeepAlive(renewers) => generator.keep_alive(port, pid, times.load, renewers),
            Work::BesideLists(shape, placement) => {
                trouble::beside_lists(port, pid, times.load, seed, shape, placement)
            }
            Work::BesideWatchers => trouble::beside_watchers(port, pid, times.load, seed),
            _ => load::block_on(self.run_async(server, times)),
        }
    }

    async fn run_async(&self, server: &Server, times: Times) -> std::io::Result<Figures> {
        let (port, pid) = (server.port, server.pid);
        match self.work {
            Work::Watch(watchers) => streams::watch(port, pid, times.load, watchers).await,
            Work::Idle => idle(&[pid], times.idle).await,
            Work::Restart => {
                let mut figures = Figures::default();
                figures.set(name::SECONDS, server.ready_after.as_secs_f64());
                Ok(figures)
            }
            Work::Memory => {
                // The first answer comes before all that a start needed is given back.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut figures = Figures::default();
                figures.set_memory(&[pid]);
                Ok(figures)
            }
            Work::Handshakes(at_once) => {
                handshakes::run(port, &server.access, pid, times.load, at_once).await
            }
            Work::Logins(at_once) => {
                logins::run(port, &server.access, pid, times.load, at_once).await
            }
            Work::Paged => million::paged(port, pid).await,
            Work::List => million::list(port, pid).await,
            Work::Compaction => million::compaction(port, times.load).await,
            Work::Defrag => million::defrag(port).await,
            Work::OnLeader(..) | Work::Spread(..) | Work::Failover(_) | Work::CatchUp => {
                unreachable!("{} is for three members", self.name)
            }
            Closed(..) | Work::KeepAlive(_) | Work::BesideLists(..) | Work::BesideWatchers => {
                unreachable!("{} runs without a runtime", self.name)
            }
        }
    }
}

pub(crate) async fn idle(pids: &[u32], time: Duration) -> std::io::Result<Figures> {
    // What a start leaves to do is over by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = process::cpu_of(pids).unwrap_or_default();
    tokio::time::sleep(time).await;
    let used = process::cpu_of(pids).unwrap_or_default().saturating_sub(before);
    let mut figures = Figures::default();
    figures.set(name::CPU_PER_SECOND, used.as_secs_f64() * 1e3 / time.as_secs_f64());
    figures.set_memory(pids);
    Ok(figures)
}
