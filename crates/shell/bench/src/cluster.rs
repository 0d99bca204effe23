//! Three members of one kind on this machine, and what is done to them.
//!
//! All members run on the servers' core, so that CPU is what it costs all of them; where times
//! count (a member coming back) they have every core. Never changes the membership.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{PutRequest, StatusRequest, StatusResponse};
use bytes::Bytes;

use crate::access::Access;
use crate::cases::{Case, Data, Times, Work, idle};
use crate::client::{Connection, envelope, uri};
use crate::compare::Plan;
use crate::figures::{Figures, median, name};
use crate::guard::Guard;
use crate::load::{self, Load, Shared};
use crate::million;
use crate::process;
use crate::server::{ALL_CORES, Programs, SERVER_CORE, Server, Side, free_ports, remove, url};
use crate::shape::{Shape, key};

const PUT: &str = "/etcdserverpb.KV/Put";
/// Time for a cluster to have a leader that all know.
const PATIENCE: Duration = Duration::from_secs(60);
/// Puts of before a member joins: more than its leader keeps for those that are late.
const PUTS_BEFORE: u64 = 12_000;
/// Puts per second beside a snapshot.
const PUTS_BESIDE: u64 = 500;
/// Between two puts of a light load.
const LIGHT: Duration = Duration::from_millis(10);

/// Members, some of which may not run.
struct Cluster<'a> {
    programs: &'a Programs,
    side: Side,
    dir: PathBuf,
    /// Client and peer ports.
    ports: [(u16, u16); 3],
    cores: &'static str,
    members: [Option<Server>; 3],
}

impl<'a> Cluster<'a> {
    fn new(programs: &'a Programs, side: Side, cores: &'static str) -> std::io::Result<Self> {
        let [a, b, c, d, e, f] = free_ports()?;
        let dir = programs.data(side, "cluster");
        remove(&dir)?;
        std::fs::create_dir_all(&dir)?;
        let ports = [(a, b), (c, d), (e, f)];
        Ok(Self { programs, side, dir, ports, cores, members: [None, None, None] })
    }

    fn data(&self, number: usize) -> PathBuf {
        self.dir.join(format!("m{number}"))
    }

    fn initial(&self) -> String {
        let members = self.ports.iter().enumerate();
        let urls: Vec<_> = members.map(|(n, (_, peer))| format!("m{n}={}", url(*peer))).collect();
        urls.join(",")
    }

    fn start(&mut self, number: usize) -> std::io::Result<()> {
        let (data, ports) = (self.data(number), self.ports[number]);
        let (name, initial) = (format!("m{number}"), self.initial());
        let args = ["--name", &name, "--initial-cluster", &initial];
        let server =
            self.programs.spawn(self.side, &data, ports, (Guard::None, &args), self.cores)?;
        self.members[number] = Some(server);
        Ok(())
    }

    fn running(&mut self) -> impl Iterator<Item = &mut Server> {
        self.members.iter_mut().flatten()
    }

    fn wait(&mut self) -> std::io::Result<()> {
        self.running().try_for_each(Server::wait)
    }

    fn pids(&mut self) -> Vec<u32> {
        self.running().map(|server| server.pid).collect()
    }

    fn client_ports(&mut self) -> Vec<u16> {
        self.running().map(|server| server.port).collect()
    }

    /// The member that all running ones say leads, once all hold what it holds.
    fn leader(&mut self) -> std::io::Result<usize> {
        let numbers: Vec<usize> = (0..3).filter(|n| self.members[*n].is_some()).collect();
        let ports = self.client_ports();
        let found = load::block_on(async {
            let began = Instant::now();
            while began.elapsed() < PATIENCE {
                let mut all = Vec::new();
                for port in &ports {
                    all.extend(status(*port).await.ok());
                }
                let id = |s: &StatusResponse| s.header.as_ref().map_or(0, |h| h.member_id);
                let place = all.iter().position(|s| id(s) == s.leader);
                let agree = all.iter().all(|s| s.leader == all[0].leader && s.leader != 0);
                let even = all.iter().all(|s| s.raft_applied_index == all[0].raft_applied_index);
                if let Some(place) = place.filter(|_| all.len() == ports.len() && agree && even) {
                    return Ok(place);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(std::io::Error::other("three members do not agree on a leader"))
        })?;
        Ok(numbers[found])
    }

    /// Gives two members a directory with a large database.
    fn restore(&self, number: usize) -> std::io::Result<()> {
        let database = self.programs.gigabyte()?;
        let data = self.data(number);
        let mut command = Command::new(&self.programs.etcdutl);
        command.args(["snapshot", "restore", "--skip-hash-check"]).arg(database);
        command.arg("--data-dir").arg(&data);
        command.args(["--name", &format!("m{number}"), "--initial-cluster", &self.initial()]);
        command.args(["--initial-advertise-peer-urls", &url(self.ports[number].1)]);
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("etcdutl snapshot restore: {status}")));
        }
        // Or it would be written back while the members are measured.
        std::fs::File::open(data.join("member/snap/db"))?.sync_all()
    }
}

async fn status(port: u16) -> std::io::Result<StatusResponse> {
    let ask = async {
        let mut connection = Connection::open(port).await?;
        connection.unary("/etcdserverpb.Maintenance/Status", &StatusRequest {}).await
    };
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    tokio::time::timeout(Duration::from_secs(1), ask).await.map_err(late)?
}

/// Starts members for a case and does its work.
///
/// # Errors
/// They do not serve, or the work fails.
pub fn run(plan: &Plan, side: Side, case: &Case, seed: u64) -> std::io::Result<Figures> {
    let (programs, times) = (&plan.programs, plan.times);
    let cores = if case.data == Data::Gigabyte { ALL_CORES } else { SERVER_CORE };
    let mut cluster = Cluster::new(programs, side, cores)?;
    let figures = match case.data {
        Data::Gigabyte => catch_up(&mut cluster, times),
        _ => {
            (0..3).try_for_each(|number| cluster.start(number))?;
            cluster.wait()?;
            on_three(&mut cluster, case, plan, seed)
        }
    }?;
    let dir = cluster.dir.clone();
    drop(cluster);
    remove(&dir)?;
    Ok(figures)
}

fn on_three(
    cluster: &mut Cluster<'_>,
    case: &Case,
    plan: &Plan,
    seed: u64,
) -> std::io::Result<Figures> {
    const KEYS: u64 = 10_000;
    let times = plan.times;
    let leader = cluster.ports[cluster.leader()?].0;
    let pids = cluster.pids();
    let (shape, connections, in_flight, ports) = match case.work {
        Work::OnLeader(shape, connections, in_flight) => {
            (shape, connections, in_flight, vec![leader])
        }
        Work::Spread(shape, connections, in_flight) => {
            (shape, connections, in_flight, cluster.client_ports())
        }
        Work::Idle => return load::block_on(idle(&pids, times.idle)),
        Work::Failover(count) => return failover(cluster, count),
        other => unreachable!("{other:?} is for one member"),
    };
    if shape != Shape::Put {
        load::block_on(million::fill(leader, &Access::default(), KEYS, 256))?;
    }
    plan.generator.run(&Load {
        ports,
        access: Access::default(),
        pids,
        shape,
        connections,
        in_flight,
        time: if in_flight == 1 { times.load / 2 } else { times.load },
        keys: KEYS,
        value_bytes: 256,
        seed,
    })
}

/// Kills the leader again and again: time until a put is answered that was sent after that.
fn failover(cluster: &mut Cluster<'_>, count: usize) -> std::io::Result<Figures> {
    let mut took = Vec::new();
    for _ in 0..count {
        let leader = cluster.leader()?;
        let mut killed = cluster.members[leader].take().expect("a leader runs");
        let ports = cluster.client_ports();
        let time = load::block_on(async {
            let killed_at: Rc<Cell<Option<Instant>>> = Rc::default();
            let first: Rc<Cell<Option<Instant>>> = Rc::default();
            for port in ports {
                let open = Connection::open(port).await?;
                tokio::task::spawn_local(light(open, Rc::clone(&killed_at), Rc::clone(&first)));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            killed.kill()?;
            let at = Instant::now();
            killed_at.set(Some(at));
            while at.elapsed() < PATIENCE {
                if let Some(first) = first.get() {
                    return Ok(first - at);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(std::io::Error::other("no put succeeds after the leader was killed"))
        })?;
        took.push(time.as_secs_f64() * 1e3);
        cluster.start(leader)?;
        cluster.wait()?;
    }
    let mut figures = Figures::default();
    figures.set(name::SLOWEST_FAILOVER, took.iter().copied().fold(0.0, f64::max));
    figures.set(name::FAILOVER, median(took).unwrap_or_default());
    Ok(figures)
}

/// Puts at a steady pace, whether earlier ones are answered or not; the time of the first answer to
/// one that was sent after the kill goes to `first`.
async fn light(
    open: Connection,
    killed_at: Rc<Cell<Option<Instant>>>,
    first: Rc<Cell<Option<Instant>>>,
) {
    let value: Bytes = vec![b'w'; 256].into();
    for number in 0.. {
        let put = PutRequest { key: key(number % 100), value: value.clone(), ..Default::default() };
        let (mut open, first, counts) = (open.clone(), Rc::clone(&first), killed_at.get());
        tokio::task::spawn_local(async move {
            let answer = open.call(&uri(PUT), envelope(&put), None).await;
            if counts.is_some() && first.get().is_none() && answer.is_ok_and(|a| a.ok) {
                first.set(Some(Instant::now()));
            }
        });
        tokio::time::sleep(LIGHT).await;
    }
}

/// Two members hold a gigabyte and have gone on; the third comes with nothing, under puts.
fn catch_up(cluster: &mut Cluster<'_>, times: Times) -> std::io::Result<Figures> {
    for number in 0..2 {
        cluster.restore(number)?;
        cluster.start(number)?;
    }
    cluster.wait()?;
    let leader = cluster.ports[cluster.leader()?].0;
    let joined = cluster.ports[2].0;
    load::block_on(async {
        million::fill(leader, &Access::default(), PUTS_BEFORE, 256).await?;
        let shared = Shared::new();
        million::steady(leader, PUTS_BESIDE, &shared);
        tokio::time::sleep(times.load / 2).await;
        shared.borrow_mut().measuring = true;
        tokio::time::sleep(times.load).await;
        let idle = std::mem::take(&mut shared.borrow_mut().latency);
        let wanted = status(leader).await?.raft_index;
        let before = process::cpu_of(&cluster.pids()).unwrap_or_default();
        let began = Instant::now();
        cluster.start(2)?;
        // It serves clients once it has caught up with what was there when it began to.
        while status(joined).await.map_or(0, |status| status.raft_applied_index) < wanted {
            if began.elapsed() > PATIENCE {
                return Err(std::io::Error::other("a member does not catch up"));
            }
            tokio::time::sleep(LIGHT).await;
        }
        let took = began.elapsed();
        let used = process::cpu_of(&cluster.pids()).unwrap_or_default().saturating_sub(before);
        let mut shared = shared.borrow_mut();
        shared.done = true;
        let mut figures = Figures::default();
        figures.set(name::SECONDS, took.as_secs_f64());
        figures.set(name::CPU, used.as_secs_f64() * 1e6);
        figures.set_latency(&shared.latency);
        figures.set(name::FAILED, shared.failed as f64);
        figures.set(name::IDLE_P99, idle.quantile_us(0.99));
        let ratio = shared.latency.quantile_us(0.99) / idle.quantile_us(0.99);
        figures.set(name::BUSY_OVER_IDLE, ratio);
        Ok(figures)
    })
}
