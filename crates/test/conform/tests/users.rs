//! Users and roles beside members of etcd: in one cluster, and in one data directory after the
//! other. What is on one member holds on all, whoever leads and whoever was asked.

use std::ops::Bound::Unbounded;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::authpb::{Permission, UserAddOptions, permission::Type};
use api::etcdserverpb as pb;
use conform::{Client, Cluster, Failure, Kind, Server};
use env::{Access, Disk, MayBlock};
use prost::Message;

const OURS: Kind = Kind::Quorate;
const GO: Kind = Kind::Reference;

const CHEAP: &[&str] = &["--bcrypt-cost", "4"];
const DENIED: u16 = 7;
const BAD_TOKEN: u16 = 16;

/// A call that must succeed.
async fn auth<A: Message + Default>(client: &Client, method: &str, request: &impl Message) -> A {
    let answer = client.call(&format!("/etcdserverpb.Auth/{method}"), request).await;
    answer.unwrap_or_else(|failure| panic!("{method}: {failure:?}"))
}

async fn user_add(client: &Client, name: &str, password: &str) {
    let options = Some(UserAddOptions { no_password: password.is_empty() });
    let (name, password) = (name.into(), password.into());
    let request = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
    let _: pb::AuthUserAddResponse = auth(client, "UserAdd", &request).await;
}

async fn role_add(client: &Client, name: &str) {
    let request = pb::AuthRoleAddRequest { name: name.into() };
    let _: pb::AuthRoleAddResponse = auth(client, "RoleAdd", &request).await;
}

async fn grant(client: &Client, user: &str, role: &str) {
    let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    let _: pb::AuthUserGrantRoleResponse = auth(client, "UserGrantRole", &request).await;
}

async fn permit(client: &Client, role: &str, kind: Type, (key, end): (&str, &str)) {
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    let perm = Some(Permission { perm_type: kind as i32, key, range_end });
    let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm };
    let _: pb::AuthRoleGrantPermissionResponse =
        auth(client, "RoleGrantPermission", &request).await;
}

/// Users root and alice; alice may do everything below `a/`. Authentication is on.
async fn set_up(client: &Client) {
    user_add(client, "root", "rpw").await;
    user_add(client, "alice", "apw").await;
    grant(client, "root", "root").await;
    role_add(client, "r").await;
    grant(client, "alice", "r").await;
    permit(client, "r", Type::Readwrite, ("a/", "a0")).await;
    let _: pb::AuthEnableResponse = auth(client, "AuthEnable", &pb::AuthEnableRequest {}).await;
}

async fn token(client: &Client, name: &str, password: &str) -> Result<String, Failure> {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let path = "/etcdserverpb.Auth/Authenticate";
    let answer: pb::AuthenticateResponse = client.call(path, &request).await?;
    Ok(answer.token)
}

async fn put(client: &Client, key: &str) -> Result<pb::PutResponse, Failure> {
    let request = pb::PutRequest { key: key.to_owned().into(), ..Default::default() };
    client.call("/etcdserverpb.KV/Put", &request).await
}

async fn get(client: &Client, key: &str) -> Result<pb::RangeResponse, Failure> {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    client.call("/etcdserverpb.KV/Range", &request).await
}

fn code<A: std::fmt::Debug>(answer: Result<A, Failure>) -> u16 {
    answer.expect_err("it must be refused").code
}

/// What holds on one member holds on all, as soon as it was acknowledged.
async fn everywhere_the_same(c: &mut Cluster) {
    set_up(&c.client(1).await).await;
    c.token = Some(token(&c.client(1).await, "root", "rpw").await.unwrap());
    for leader in 0..3 {
        c.lead(leader).await;
        for n in 0..3 {
            let issued = token(&c.client(n).await, "alice", "apw").await.unwrap();
            let root = token(&c.client(n).await, "root", "rpw").await.unwrap();
            let root = c.client((n + 1) % 3).await.with("token", &root);
            for m in 0..3 {
                let alice = c.client(m).await.with("token", &issued);
                put(&alice, &format!("a/{leader}{n}{m}")).await.unwrap();
                get(&alice, "a/").await.unwrap();
                assert_eq!(code(put(&alice, "b").await), DENIED);
                assert_eq!(code(get(&alice, "b").await), DENIED);
            }
            // A new role is there for whoever is asked next; refusals are as new.
            let role = format!("{leader}{n}");
            role_add(&root, &role).await;
            permit(&root, &role, Type::Write, ("w", "")).await;
            grant(&root, "alice", &role).await;
            let alice = c.client((n + 2) % 3).await.with("token", &issued);
            written_in_time(&alice, "w").await;
            let request = pb::AuthRoleDeleteRequest { role };
            let _: pb::AuthRoleDeleteResponse = auth(&root, "RoleDelete", &request).await;
            assert_eq!(code(refused_in_time(&alice, "w").await), DENIED);
        }
    }
    let root = token(&c.client(0).await, "root", "rpw").await.unwrap();
    lease_ends(c, &root).await;
    let alice = token(&c.client(0).await, "alice", "apw").await.unwrap();
    let request = pb::AuthUserDeleteRequest { name: "alice".into() };
    let client = c.client(1).await.with("token", &root);
    let _: pb::AuthUserDeleteResponse = auth(&client, "UserDelete", &request).await;
    for n in 0..3 {
        let client = c.client(n).await.with("token", &alice);
        // A member may be behind for a moment, and then knows the token.
        let mut answer = put(&client, "a/").await;
        while answer.as_ref().is_err_and(|e| e.message.contains("revision of auth store is old")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer = put(&client, "a/").await;
        }
        assert!([BAD_TOKEN, DENIED].contains(&code(answer)), "{:?}", c.nodes[n].kind);
    }
    let client = c.client(2).await.with("token", &root);
    let _: pb::AuthDisableResponse = auth(&client, "AuthDisable", &pb::AuthDisableRequest {}).await;
    c.assert_equal().await;
}

/// A member of etcd that is behind signs with an old revision, and says so.
async fn is_behind(answer: &Result<pb::PutResponse, Failure>) -> bool {
    let old = "etcdserver: revision of auth store is old";
    let is_behind = answer.as_ref().is_err_and(|failure| failure.message == old);
    if is_behind {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_behind
}

async fn written_in_time(client: &Client, key: &str) {
    loop {
        let answer = put(client, key).await;
        if !is_behind(&answer).await {
            answer.unwrap();
            return;
        }
    }
}

async fn refused_in_time(client: &Client, key: &str) -> Result<pb::PutResponse, Failure> {
    loop {
        let answer = put(client, key).await;
        if !is_behind(&answer).await {
            return answer;
        }
    }
}

/// The leader ends a lease with a key that only root may touch, of either kind.
async fn lease_ends(c: &mut Cluster, root: &str) {
    for leader in 0..3 {
        c.lead(leader).await;
        let client = c.client(leader).await.with("token", root);
        let id = 100 + i64::try_from(leader).unwrap();
        let grant = pb::LeaseGrantRequest { id, ttl: 2 };
        let _: pb::LeaseGrantResponse =
            client.call("/etcdserverpb.Lease/LeaseGrant", &grant).await.unwrap();
        let request = pb::PutRequest { key: "leased".into(), lease: id, ..Default::default() };
        let _: pb::PutResponse = client.call("/etcdserverpb.KV/Put", &request).await.unwrap();
        let mut left = 400;
        while !get(&client, "leased").await.unwrap().kvs.is_empty() {
            left -= 1;
            assert!(left > 0, "{:?} does not end the lease", c.nodes[leader].kind);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A learner is promoted through whoever is asked, for root and nobody else.
async fn promotes(c: &mut Cluster) {
    set_up(&c.client(0).await).await;
    let root = token(&c.client(0).await, "root", "rpw").await.unwrap();
    let alice = token(&c.client(0).await, "alice", "apw").await.unwrap();
    c.token = Some(root.clone());
    c.lead(0).await;
    let learner = c.add_in_time(0, OURS, true).await;
    c.wait_ready_one(learner);
    let id = c.id(learner).await;
    let request = pb::MemberPromoteRequest { id };
    let path = "/etcdserverpb.Cluster/MemberPromote";
    let follower = c.client(1).await;
    let refused: Result<pb::MemberPromoteResponse, _> =
        follower.clone().with("token", &alice).call(path, &request).await;
    assert_eq!(code(refused), DENIED);
    let follower = follower.with("token", &root);
    loop {
        let answer: Result<pb::MemberPromoteResponse, _> = follower.call(path, &request).await;
        match answer {
            Ok(_) => return,
            Err(e) if e.message.contains("in sync with leader") => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

#[test]
fn a_learner_is_promoted_through_a_follower() {
    for kinds in [[OURS, OURS, OURS], [GO, OURS, OURS], [OURS, GO, OURS]] {
        run(&kinds, promotes);
    }
}

fn run(kinds: &[Kind], scenario: impl AsyncFn(&mut Cluster)) {
    let Some(mut cluster) = Cluster::start(kinds, CHEAP) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(scenario(&mut cluster));
}

#[test]
fn h32_three_of_ours_know_the_same_users() {
    run(&[OURS, OURS, OURS], everywhere_the_same);
}

#[test]
fn h32_one_of_etcd_and_two_of_ours_know_the_same_users() {
    run(&[GO, OURS, OURS], everywhere_the_same);
}

#[test]
fn h32_two_of_etcd_and_one_of_ours_know_the_same_users() {
    run(&[OURS, GO, GO], everywhere_the_same);
}

/// A member that joins gets users and roles with the snapshot.
async fn joins(c: &mut Cluster, kind: Kind) {
    for n in 0..200 {
        put(&c.client(0).await, &format!("k{n}")).await.unwrap();
    }
    set_up(&c.client(0).await).await;
    let root = token(&c.client(0).await, "root", "rpw").await.unwrap();
    let client = c.client(0).await.with("token", &root);
    for n in 0..200 {
        put(&client, &format!("k{n}")).await.unwrap();
    }
    let _: pb::AuthDisableResponse = auth(&client, "AuthDisable", &pb::AuthDisableRequest {}).await;
    let added = c.add_in_time(0, kind, false).await;
    c.wait_ready_one(added);
    let enable = pb::AuthEnableRequest {};
    let _: pb::AuthEnableResponse = auth(&c.client(0).await, "AuthEnable", &enable).await;
    let client = c.client(added).await;
    let mut issued = token(&client, "alice", "apw").await;
    while issued.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        issued = token(&client, "alice", "apw").await;
    }
    let alice = client.with("token", &issued.unwrap());
    put(&alice, "a/1").await.unwrap();
    assert_eq!(code(put(&alice, "b").await), DENIED);
}

#[test]
fn users_come_with_a_snapshot() {
    for (first, joining) in [(OURS, OURS), (GO, OURS), (OURS, GO)] {
        let args =
            [CHEAP, &["--snapshot-count", "50", "--snapshot-catchup-entries", "10"]].concat();
        let Some(mut cluster) = Cluster::start(&[first], &args) else { continue };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(joins(&mut cluster, joining));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// Users, roles and the auth revision as they are stored.
fn stored(data_dir: &Path) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let may = MayBlock::on_this_thread();
    let disk: Arc<dyn Disk> = Arc::new(osenv::OsDisk);
    let db =
        bolt::Db::open(disk, &data_dir.join("member/snap/db"), &may, store::database_options());
    let read = db.expect("the server has let go of it").begin_read();
    let mut rows = Vec::new();
    for bucket in ["auth", "authRoles", "authUsers"] {
        let mut scan = read.scan(&may, bucket.as_bytes(), (Unbounded, Unbounded), Access::Scan);
        while let Some((key, value)) = scan.next_ref().expect("it can be read") {
            rows.push((bucket.as_bytes().to_vec(), key.to_vec(), value.to_vec()));
        }
    }
    rows
}

/// The same commands leave the same bytes, but for what is drawn at random.
#[test]
fn what_is_stored_is_etcds_byte_for_byte() {
    let left = [OURS, GO].map(|kind| {
        let mut server = Server::start(kind, CHEAP)?;
        block_on(async {
            let client = Client::connect(server.port).await;
            for name in ["root", "alice", "bob", "gone"] {
                user_add(&client, name, "").await;
            }
            for role in ["r", "s", "t", "root"] {
                role_add(&client, role).await;
            }
            for (user, role) in
                [("root", "root"), ("alice", "s"), ("alice", "r"), ("bob", "t"), ("gone", "t")]
            {
                grant(&client, user, role).await;
            }
            let ranges = [("b", ""), ("a", "c"), ("b", "d"), ("a", ""), ("b", ""), ("x", "\0")];
            for (n, range) in ranges.into_iter().enumerate() {
                let kind = [Type::Read, Type::Write, Type::Readwrite][n % 3];
                permit(&client, "r", kind, range).await;
            }
            let request = pb::AuthRoleDeleteRequest { role: "t".into() };
            let _: pb::AuthRoleDeleteResponse = auth(&client, "RoleDelete", &request).await;
            let request = pb::AuthUserDeleteRequest { name: "gone".into() };
            let _: pb::AuthUserDeleteResponse = auth(&client, "UserDelete", &request).await;
            let enable = pb::AuthEnableRequest {};
            let _: pb::AuthEnableResponse = auth(&client, "AuthEnable", &enable).await;
        });
        assert_eq!(server.stop().unwrap_or(0), 0, "a clean stop");
        Some(stored(&server.data_dir))
    });
    let [Some(ours), Some(theirs)] = left else { return };
    assert_eq!(ours, theirs);
    assert!(ours.len() >= 8, "{ours:?}");
}

/// A directory with users moves from one kind to the other and back, cleanly or not.
#[test]
fn a_directory_with_users_moves_either_way() {
    for kinds in [[OURS, GO, OURS, GO], [GO, OURS, GO, OURS]] {
        let Some(mut server) = Server::start(kinds[0], CHEAP) else { continue };
        block_on(async { set_up(&Client::connect(server.port).await).await });
        for (n, kind) in kinds.into_iter().enumerate() {
            if n > 0 {
                if n % 2 == 0 {
                    server.kill();
                } else {
                    assert_eq!(server.stop().unwrap_or(0), 0, "a clean stop");
                }
                server.restart_as(kind);
            }
            block_on(async {
                let client = Client::connect(server.port).await;
                let alice = token(&client, "alice", "apw").await.unwrap();
                let alice = client.clone().with("token", &alice);
                put(&alice, "a/1").await.unwrap();
                assert_eq!(code(put(&alice, "b").await), DENIED);
                let root = token(&client, "root", "rpw").await.unwrap();
                let root = client.with("token", &root);
                let name = format!("user{n}");
                user_add(&root, &name, "pw").await;
                let status: pb::AuthStatusResponse =
                    auth(&root, "AuthStatus", &pb::AuthStatusRequest {}).await;
                assert_eq!((status.enabled, status.auth_revision), (true, 8 + n as u64));
                let users: pb::AuthUserListResponse =
                    auth(&root, "UserList", &pb::AuthUserListRequest {}).await;
                assert_eq!(users.users.len(), 3 + n);
            });
        }
    }
}

/// Tokens of a secret that is no longer the file's are none, whatever they promise; who logs in
/// again goes on. Ours alone: etcd reads its keys once.
#[tokio::test(flavor = "current_thread")]
async fn keys_of_tokens_are_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("secret");
    std::fs::write(&key, "the first secret of this member").unwrap();
    let signed = format!("jwt,sign-method=HS256,priv-key={},ttl=1h", key.display());
    let args = [&["--auth-token", &signed][..], CHEAP].concat();
    let server = Server::start(OURS, &args).expect("ours is built");
    let client = Client::connect(server.port).await;
    set_up(&client).await;
    let old = client.with_token(Some(&token(&client, "alice", "apw").await.unwrap()));
    put(&old, "a/1").await.unwrap();

    std::fs::write(&key, "another secret").unwrap();
    let mut answer = put(&old, "a/2").await;
    while answer.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = put(&old, "a/2").await;
    }
    assert_eq!(code(answer), BAD_TOKEN);
    let new = client.with_token(Some(&token(&client, "alice", "apw").await.unwrap()));
    put(&new, "a/3").await.unwrap();

    std::fs::remove_file(&key).unwrap();
    while !server.log().contains("kept the old JWT keys") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(&new, "a/4").await.unwrap();
}
