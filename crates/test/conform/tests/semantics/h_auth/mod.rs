//! H: authentication, users, roles and what they permit.
//!
//! The published ways around etcd's checks each have a test of their own in `bypasses`.

mod bypasses;
mod every_method;
mod rights;
mod tokens;
mod users;

use api::authpb::{Permission, UserAddOptions, permission::Type};
use api::etcdserverpb::*;
use conform::{Client, Failure, Session};

use super::*;

const FAILED_PRECONDITION: u16 = 9;
const PERMISSION_DENIED: u16 = 7;
const UNAUTHENTICATED: u16 = 16;

const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";
const BAD_TOKEN: &str = "etcdserver: invalid auth token";
const BAD_PASSWORD: &str = "etcdserver: authentication failed, invalid user ID or password";
const MANAGEMENT: &str = "etcdserver: invalid auth management";

/// Hashing is quick.
const CHEAP: &[&str] = &["--bcrypt-cost", "4"];

/// A call of the Auth service, whose answer is written down.
macro_rules! auth {
    ($s:expr, $method:literal, $request:expr => $answer:ty) => {
        $s.call::<$answer>(concat!("/etcdserverpb.Auth/", $method), &$request).await
    };
}
use auth;

fn named(name: &str, password: &str) -> AuthUserAddRequest {
    let (name, password) = (name.into(), password.into());
    AuthUserAddRequest { name, password, ..Default::default() }
}

fn without_password(name: &str) -> AuthUserAddRequest {
    let options = Some(UserAddOptions { no_password: true });
    AuthUserAddRequest { name: name.into(), options, ..Default::default() }
}

fn holds(user: &str, role: &str) -> AuthUserGrantRoleRequest {
    AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

fn permits(role: &str, kind: Type, key: &str, end: &str) -> AuthRoleGrantPermissionRequest {
    let perm = Permission { perm_type: kind as i32, key: bytes(key), range_end: bytes(end) };
    AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) }
}

/// Users root and alice (passwords `rpw` and `apw`); alice holds the role r, which permits all
/// below `a/`, reading `b`, and writing `c`. Authentication is on.
async fn set_up(s: &mut Session) {
    auth!(s, "UserAdd", named("root", "rpw") => AuthUserAddResponse).unwrap();
    auth!(s, "UserAdd", named("alice", "apw") => AuthUserAddResponse).unwrap();
    auth!(s, "UserGrantRole", holds("root", "root") => AuthUserGrantRoleResponse).unwrap();
    auth!(s, "RoleAdd", AuthRoleAddRequest { name: "r".into() } => AuthRoleAddResponse).unwrap();
    auth!(s, "UserGrantRole", holds("alice", "r") => AuthUserGrantRoleResponse).unwrap();
    let permissions =
        [(Type::Readwrite, "a/", "a0"), (Type::Read, "b", ""), (Type::Write, "c", "")];
    for (kind, key, end) in permissions {
        let request = permits("r", kind, key, end);
        auth!(s, "RoleGrantPermission", request => AuthRoleGrantPermissionResponse).unwrap();
    }
    auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse).unwrap();
}

/// A token, which is nobody else's and so is not written down.
async fn token(s: &Session, name: &str, password: &str) -> Result<String, Failure> {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    let path = "/etcdserverpb.Auth/Authenticate";
    let answer: AuthenticateResponse = s.client().call(path, &request).await?;
    assert!(answer.header.is_some_and(|header| header.revision > 0));
    Ok(answer.token)
}

/// Makes further calls as this user.
async fn log_in(s: &mut Session, name: &str, password: &str) -> Client {
    let token = token(s, name, password).await.expect("the password is right");
    let client = s.connect(1 << 24).await.with("token", &token);
    s.act_as(client.clone());
    client
}

/// Makes further calls as nobody.
async fn log_out(s: &mut Session) {
    let client = s.connect(1 << 24).await;
    s.act_as(client);
}

/// The auth revision.
async fn revision(s: &mut Session) -> u64 {
    auth!(s, "AuthStatus", AuthStatusRequest {} => AuthStatusResponse).unwrap().auth_revision
}
