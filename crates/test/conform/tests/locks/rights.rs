//! Locks and elections while authentication is on: each call within is its caller's.

use api::authpb::{Permission, permission::Type};
use api::etcdserverpb::*;
use api::v3electionpb::{
    LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse,
};
use conform::{Kind, on_fresh_pair};

use super::*;

const CHEAP: &[&str] = &["--bcrypt-cost", "4"];
const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";

/// The users root and alice, whose passwords are their names; alice may do anything below `a/`.
async fn set_up(s: &mut Session) {
    let path = |method: &str| format!("/etcdserverpb.Auth/{method}");
    for name in ["root", "alice"] {
        let (name, password) = (name.to_owned(), name.to_owned());
        let user = AuthUserAddRequest { name, password, ..AuthUserAddRequest::default() };
        s.call::<AuthUserAddResponse>(&path("UserAdd"), &user).await.unwrap();
    }
    let role = AuthRoleAddRequest { name: "r".into() };
    s.call::<AuthRoleAddResponse>(&path("RoleAdd"), &role).await.unwrap();
    for (user, role) in [("root", "root"), ("alice", "r")] {
        let request = AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        s.call::<AuthUserGrantRoleResponse>(&path("UserGrantRole"), &request).await.unwrap();
    }
    let perm =
        Permission { perm_type: Type::Readwrite as i32, key: bytes("a/"), range_end: bytes("a0") };
    let request = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
    let method = path("RoleGrantPermission");
    s.call::<AuthRoleGrantPermissionResponse>(&method, &request).await.unwrap();
    let method = path("AuthEnable");
    s.call::<AuthEnableResponse>(&method, &AuthEnableRequest {}).await.unwrap();
}

/// Makes further calls as this user; nobody has no name.
async fn become_user(s: &mut Session, name: &str) {
    let nobody = s.connect(1 << 24).await;
    if name.is_empty() {
        return s.act_as(nobody);
    }
    let request = AuthenticateRequest { name: name.into(), password: name.into() };
    let path = "/etcdserverpb.Auth/Authenticate";
    let answer: AuthenticateResponse = nobody.call(path, &request).await.unwrap();
    s.act_as(nobody.with("token", &answer.token));
}

#[test]
fn each_call_within_is_its_callers() {
    on_fresh_pair(CHEAP, async |s| {
        for lease in [0x1a, 0x1b] {
            s.grant(lease, 100).await.unwrap();
        }
        set_up(s).await;
        for (user, text) in [("", NOBODY), ("alice", DENIED)] {
            become_user(s, user).await;
            fails(lock(s, "l", 0x1a).await, UNKNOWN, text);
            fails(unlock(s, "l/1a").await, UNKNOWN, text);
            fails(campaign(s, "e", 0x1a, "v").await, UNKNOWN, text);
            let key = leader_key("e", "e/1a", 1, 0x1a);
            let request = ProclaimRequest { leader: key.clone(), value: bytes("v") };
            fails(s.call::<ProclaimResponse>(PROCLAIM, &request).await, UNKNOWN, text);
            let request = ResignRequest { leader: key };
            fails(s.call::<ResignResponse>(RESIGN, &request).await, UNKNOWN, text);
            let name = LeaderRequest { name: bytes("e") };
            fails(s.call::<LeaderResponse>(LEADER, &name).await, UNKNOWN, text);
            // An observer that may see nothing sees the end.
            let mut observer = begin(s, OBSERVE, &name).await;
            assert_eq!(observer.next::<LeaderResponse>(PATIENCE).await, Ok(None));
        }
        become_user(s, "alice").await;
        lock(s, "a/l", 0x1a).await.unwrap();
        let mut waiting = begin(s, LOCK, &lock_request("a/l", 0x1b)).await;
        until_keys(s, "a/l/", &["a/l/1a", "a/l/1b"]).await;
        unlock(s, "a/l/1a").await.unwrap();
        let held = waiting.next::<LockResponse>(PATIENCE).await.unwrap().unwrap();
        assert_eq!(held.key, "a/l/1b");
        campaign(s, "a/e", 0x1a, "v").await.unwrap();
        let mut observer = begin(s, OBSERVE, &LeaderRequest { name: bytes("a/e") }).await;
        let told = observer.next::<LeaderResponse>(PATIENCE).await.unwrap().unwrap();
        assert_eq!(told.kv.unwrap().value, "v");
    });
}

/// etcd takes the key away in nobody's name, and so it stays until its lease ends.
#[test]
fn a_user_that_gives_up_leaves_no_key_behind() {
    on_fresh_pair(CHEAP, async |s| {
        for lease in [0x1a, 0x1b] {
            s.grant(lease, 100).await.unwrap();
        }
        set_up(s).await;
        become_user(s, "alice").await;
        lock(s, "a/l", 0x1a).await.unwrap();
        let waiting = begin(s, LOCK, &lock_request("a/l", 0x1b)).await;
        until_keys(s, "a/l/", &["a/l/1a", "a/l/1b"]).await;
        drop(waiting);
        if s.kind() == Kind::Quorate {
            until_keys(s, "a/l/", &["a/l/1a"]).await;
        }
    });
}
