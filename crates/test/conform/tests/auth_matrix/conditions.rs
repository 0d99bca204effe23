//! The conditions in which everything is asked.

use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::method::Method;
use conform::{Client, Cluster, Kind, Server};

use crate::cell::Cell;
use crate::compare::{Findings, Model, Sides, is_later};
use crate::identity::{Identity, Standing};
use crate::rows;
use crate::world::World;

/// Whom etcd is compared with: ours, or with `QUORATE_AUTH_SUBJECT=etcd` etcd itself, which shows
/// what of the answers is not determined.
pub fn subject() -> Kind {
    match std::env::var("QUORATE_AUTH_SUBJECT").as_deref() {
        Err(_) | Ok("ours") => Kind::Quorate,
        Ok("etcd") => Kind::Reference,
        Ok(other) => panic!("QUORATE_AUTH_SUBJECT is ours or etcd, not {other}"),
    }
}

/// Hashing is not what is compared, and nothing is lost here.
pub const FLAGS: &[&str] = &["--bcrypt-cost", "4", "--unsafe-no-fsync"];

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// Two servers, both with the same users.
pub struct Pair {
    pub left: Server,
    pub right: Server,
}

impl Pair {
    pub fn start(flags: &[&str]) -> Option<Self> {
        let flags = [FLAGS, flags].concat();
        std::thread::scope(|scope| {
            let right = scope.spawn(|| Server::start(Kind::Reference, &flags));
            let left = Server::start(subject(), &flags)?;
            Some(Self { left, right: right.join().expect("starting does not panic")? })
        })
    }

    pub async fn worlds(&self, identities: &[Identity]) -> (World, World) {
        let found = async |server: &Server| {
            World::found(Client::connect(server.port).await, identities).await
        };
        tokio::join!(found(&self.left), found(&self.right))
    }
}

fn sides(condition: &'static str, (left, right): (World, World), model: Model) -> Sides {
    Sides { condition, subject: subject(), left, right, model }
}

/// The first cells of each method: where a condition answers, shapes of keys say no more.
fn few_cells() -> Vec<Cell> {
    const EACH: usize = 3;
    let mut few: Vec<Cell> = Vec::new();
    for cell in rows::all() {
        if few.iter().filter(|known| known.method == cell.method).count() < EACH {
            few.push(cell);
        }
    }
    few
}

#[test]
fn nobody_is_asked_while_authentication_is_off() {
    let Some(pair) = Pair::start(&[]) else { return };
    let findings = block_on(async {
        let worlds = pair.worlds(&Identity::few()).await;
        sides("off", worlds, Model::Off).ask(&rows::all()).await
    });
    findings.conclude("off");
}

#[test]
fn everybody_may_what_roles_permit_and_no_more() {
    let Some(pair) = Pair::start(&[]) else { return };
    let findings = block_on(async {
        let (mut left, mut right) = pair.worlds(&Identity::all()).await;
        tokio::join!(left.enable(), right.enable());
        sides("on", (left, right), Model::On).ask(&rows::all()).await
    });
    assert!(findings.refused > findings.cells / 3, "hardly anybody was refused");
    findings.conclude("on");
}

/// An alarm of both servers, raised by root.
async fn under(pair: &Pair, condition: &'static str, alarm: pb::AlarmType) -> Findings {
    let (mut left, mut right) = pair.worlds(&Identity::few()).await;
    tokio::join!(left.enable(), right.enable());
    for world in [&left, &right] {
        let member_id = world.status().await.expect("it serves").header.map_or(0, |h| h.member_id);
        let (action, alarm) = (AlarmAction::Activate.into(), alarm.into());
        let request = pb::AlarmRequest { action, member_id, alarm };
        world.must::<pb::AlarmResponse>(Method::Alarm, &request).await;
    }
    sides(condition, (left, right), Model::Silent).ask(&rows::all()).await
}

#[test]
fn an_alarm_for_space_lets_nobody_in() {
    let Some(pair) = Pair::start(&[]) else { return };
    block_on(under(&pair, "NOSPACE", pb::AlarmType::Nospace)).conclude("NOSPACE");
}

#[test]
fn an_alarm_for_corruption_lets_nobody_in() {
    let Some(pair) = Pair::start(&[]) else { return };
    block_on(under(&pair, "CORRUPT", pb::AlarmType::Corrupt)).conclude("CORRUPT");
}

#[test]
fn a_restart_forgets_tokens_and_no_rights() {
    let Some(mut pair) = Pair::start(&[]) else { return };
    let (left, right) = block_on(async {
        let (mut left, mut right) = pair.worlds(&Identity::few()).await;
        tokio::join!(left.enable(), right.enable());
        (left, right)
    });
    for server in [&mut pair.left, &mut pair.right] {
        server.stop();
        server.restart_as(server.kind);
    }
    block_on(async {
        let mut left = left.at(Client::connect(pair.left.port).await);
        let mut right = right.at(Client::connect(pair.right.port).await);
        let forgotten = sides(
            "old tokens",
            (left.at(left.client.clone()), right.at(right.client.clone())),
            Model::Silent,
        );
        forgotten.ask(&few_cells()).await.conclude("old tokens");
        let is_there = |identity: &Identity| !matches!(identity.standing, Standing::Ended(_));
        tokio::join!(left.log_in(is_there), right.log_in(is_there));
        sides("restarted", (left, right), Model::On).ask(&few_cells()).await.conclude("restarted");
    });
}

/// A token that carries its revision ends with the next change of a user or a role.
#[test]
fn a_token_that_carries_a_revision_ends_with_it() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let key = dir.path().join("key");
    std::fs::write(&key, "a secret of both servers, long enough").expect("it writes");
    let token = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display());
    let Some(pair) = Pair::start(&["--auth-token", &token]) else { return };
    block_on(async {
        let (mut left, mut right) = pair.worlds(&Identity::few()).await;
        tokio::join!(left.enable(), right.enable());
        let mut cells = rows::all();
        // What changes users and roles would end all tokens.
        let keeps = |method: Method| {
            let changes = method.row().service.ends_with("Auth")
                && !matches!(method, Method::AuthStatus | Method::UserGet | Method::RoleGet);
            !changes || matches!(method, Method::UserList | Method::RoleList)
        };
        cells.retain(|cell| keeps(cell.method));
        let old = (left.at(left.client.clone()), right.at(right.client.clone()));
        sides("old revisions", old, Model::Silent).ask(&few_cells_of(&cells)).await.conclude("old");
        let is_there = |identity: &Identity| !matches!(identity.standing, Standing::Ended(_));
        tokio::join!(left.log_in(is_there), right.log_in(is_there));
        sides("jwt", (left, right), Model::Signed).ask(&few_cells_of(&cells)).await.conclude("jwt");
    });
}

fn few_cells_of(cells: &[Cell]) -> Vec<Cell> {
    let mut few = few_cells();
    few.retain(|cell| cells.iter().any(|kept| kept.method == cell.method));
    few
}

/// Clusters of the subject and of etcd.
fn clusters(members: usize) -> Option<(Cluster, Cluster)> {
    clusters_with(members, &[])
}

fn clusters_with(members: usize, more: &[&str]) -> Option<(Cluster, Cluster)> {
    let flags = [FLAGS, more].concat();
    let start = |kind| Cluster::start(&vec![kind; members], &flags);
    std::thread::scope(|scope| {
        let right = scope.spawn(move || start(Kind::Reference));
        let left = start(subject())?;
        Some((left, right.join().expect("starting does not panic")?))
    })
}

/// The users and keys of a cluster, made through one member; at another one.
async fn world_through(cluster: &Cluster, from: usize, to: usize) -> World {
    let mut world = World::found(cluster.client(from).await, &Identity::few()).await;
    world.enable().await;
    let there = world.at(cluster.client(to).await);
    there.catch_up_with(&world).await;
    there
}

#[test]
fn a_follower_asks_as_the_leader_does() {
    let Some((left, right)) = clusters(3) else { return };
    block_on(async {
        let through = async |cluster: &Cluster| {
            world_through(cluster, cluster.leader().await, cluster.follower().await).await
        };
        let worlds = tokio::join!(through(&left), through(&right));
        sides("follower", worlds, Model::On).ask(&few_cells()).await.conclude("follower");
    });
}

/// A member gets users, roles and keys with a snapshot instead of the entries that made them: it
/// was gone while they were made, and the others keep few entries.
#[test]
fn after_a_snapshot_everybody_is_who_it_was() {
    const FEW_ENTRIES: [&str; 4] = ["--snapshot-count", "20", "--snapshot-catchup-entries", "5"];
    let Some((mut left, mut right)) = clusters_with(3, &FEW_ENTRIES) else { return };
    block_on(async {
        let installed = async |cluster: &mut Cluster| {
            let (leader, behind) = (cluster.leader().await, cluster.follower().await);
            cluster.nodes[behind].kill();
            let mut world = World::found(cluster.client(leader).await, &Identity::few()).await;
            world.enable().await;
            cluster.restart(behind);
            let said = "\"applied snapshot\"";
            let until = Instant::now() + Duration::from_secs(30);
            while !cluster.nodes[behind].log().contains(said) {
                assert!(Instant::now() < until, "no snapshot comes");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // A snapshot brings no tokens.
            let mut there = world.at(cluster.client(behind).await);
            let is_there = |identity: &Identity| !matches!(identity.standing, Standing::Ended(_));
            there.log_in(is_there).await;
            there
        };
        let worlds = tokio::join!(installed(&mut left), installed(&mut right));
        sides("snapshot", worlds, Model::On).ask(&few_cells()).await.conclude("snapshot");
    });
}

#[test]
fn a_learner_lets_nobody_in_who_may_not() {
    let Some((mut left, mut right)) = clusters(1) else { return };
    block_on(async {
        let joined = async |cluster: &mut Cluster, kind| {
            let mut world = World::found(cluster.client(0).await, &Identity::few()).await;
            cluster.wait_cluster_version(0).await;
            let learner = cluster.add_in_time(0, kind, true).await;
            cluster.wait_ready_one(learner);
            world.enable().await;
            let there = world.at(cluster.client(learner).await);
            there.catch_up_with(&world).await;
            there
        };
        let left = joined(&mut left, subject()).await;
        let right = joined(&mut right, Kind::Reference).await;
        sides("learner", (left, right), Model::Silent).ask(&rows::all()).await.conclude("learner");
    });
}

#[test]
fn without_a_leader_nobody_gets_further() {
    let Some((mut left, mut right)) = clusters(3) else { return };
    block_on(async {
        let alone = async |cluster: &mut Cluster| {
            let leader = cluster.leader().await;
            let follower = cluster.follower().await;
            let mut world = world_through(cluster, leader, follower).await;
            for n in (0..3).filter(|&n| n != follower) {
                cluster.nodes[n].kill();
            }
            let until = Instant::now() + Duration::from_secs(30);
            while !world.status().await.is_ok_and(|status| status.leader == 0) {
                assert!(Instant::now() < until, "it goes on following");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Of those who wait, the longest wait as long as a request may take.
            world.patience = Duration::from_secs(12);
            world
        };
        let worlds = tokio::join!(alone(&mut left), alone(&mut right));
        let mut cells = few_cells();
        cells.retain(|cell| !is_later(cell.method) || subject() == Kind::Reference);
        // How long etcd waits for an end of it, and with what answer, is not determined.
        cells.retain(|cell| cell.method != Method::Downgrade);
        let sides = sides("no leader", worlds, Model::Leaderless);
        sides.ask_at_once(&cells).await.conclude("no leader");
    });
}
