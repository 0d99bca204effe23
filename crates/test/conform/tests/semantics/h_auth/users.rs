//! H1 to H16, H21, H22: how users, roles and permissions are kept.

use conform::on_fresh_pair;

use super::*;

#[test]
fn h1_h2_h3_root_comes_before_authentication_and_what_changes_is_counted() {
    on_fresh_pair(CHEAP, async |s| {
        assert_eq!(revision(s).await, 1);
        let enabled = auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse);
        fails(enabled, FAILED_PRECONDITION, "etcdserver: root user does not exist");
        auth!(s, "UserAdd", named("root", "rpw") => AuthUserAddResponse).unwrap();
        let enabled = auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse);
        fails(enabled, FAILED_PRECONDITION, "etcdserver: root user does not have root role");
        auth!(s, "AuthDisable", AuthDisableRequest {} => AuthDisableResponse).unwrap();
        auth!(s, "UserGrantRole", holds("root", "root") => AuthUserGrantRoleResponse).unwrap();
        auth!(s, "UserGrantRole", holds("root", "root") => AuthUserGrantRoleResponse).unwrap();
        assert_eq!(revision(s).await, 3);
        auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse).unwrap();
        log_in(s, "root", "rpw").await;
        auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse).unwrap();
        assert_eq!(revision(s).await, 3);
        let token = token(s, "root", "rpw").await.unwrap();
        auth!(s, "AuthDisable", AuthDisableRequest {} => AuthDisableResponse).unwrap();
        assert_eq!(revision(s).await, 4);
        auth!(s, "AuthDisable", AuthDisableRequest {} => AuthDisableResponse).unwrap();
        auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse).unwrap();
        let client = s.connect(1 << 24).await.with("token", &token);
        s.act_as(client);
        fails(s.range(&range("a", "")).await, UNAUTHENTICATED, BAD_TOKEN);
    });
}

/// One of everything that can be asked for wrongly, with who may ask.
async fn wrong_requests(s: &mut Session) {
    for name in ["", "alice"] {
        let _ = auth!(s, "UserAdd", named(name, "x") => AuthUserAddResponse);
    }
    for name in ["", "r"] {
        let _ =
            auth!(s, "RoleAdd", AuthRoleAddRequest { name: name.into() } => AuthRoleAddResponse);
    }
    for name in ["root", "no"] {
        let request = AuthUserDeleteRequest { name: name.into() };
        let _ = auth!(s, "UserDelete", request => AuthUserDeleteResponse);
    }
    for role in ["root", "no"] {
        let request = AuthRoleDeleteRequest { role: role.into() };
        let _ = auth!(s, "RoleDelete", request => AuthRoleDeleteResponse);
    }
    for (user, role) in [("no", "r"), ("alice", "no"), ("alice", "r")] {
        let _ = auth!(s, "UserGrantRole", holds(user, role) => AuthUserGrantRoleResponse);
    }
    for (name, role) in [("root", "root"), ("no", "r"), ("alice", "no")] {
        let request = AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
        let _ = auth!(s, "UserRevokeRole", request => AuthUserRevokeRoleResponse);
    }
    let ranges = [("", ""), ("", "\0"), ("x", "x"), ("x", "a"), ("\0", "\0")];
    for (role, (key, end)) in ["no", "r"].into_iter().flat_map(|role| ranges.map(|r| (role, r))) {
        let request = permits(role, Type::Read, key, end);
        let _ = auth!(s, "RoleGrantPermission", request => AuthRoleGrantPermissionResponse);
    }
    let request = AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    let _ = auth!(s, "RoleGrantPermission", request => AuthRoleGrantPermissionResponse);
    for (role, key, end) in [("no", "b", ""), ("r", "a/", ""), ("r", "", ""), ("r", "a/", "a0")] {
        let (key, range_end) = (bytes(key), bytes(end));
        let request = AuthRoleRevokePermissionRequest { role: role.into(), key, range_end };
        let _ = auth!(s, "RoleRevokePermission", request => AuthRoleRevokePermissionResponse);
    }
    for name in ["", "no", "alice", "root"] {
        let request = AuthUserGetRequest { name: name.into() };
        let _ = auth!(s, "UserGet", request => AuthUserGetResponse);
    }
    for role in ["", "no", "r", "root"] {
        let request = AuthRoleGetRequest { role: role.into() };
        let _ = auth!(s, "RoleGet", request => AuthRoleGetResponse);
    }
    let _ = auth!(s, "UserList", AuthUserListRequest {} => AuthUserListResponse);
    let _ = auth!(s, "RoleList", AuthRoleListRequest {} => AuthRoleListResponse);
    revision(s).await;
}

#[test]
fn h4_h10_h11_h12_h14_h15_h16_requests_are_refused_in_etcds_words_before_and_after_enabling() {
    on_fresh_pair(CHEAP, async |s| {
        wrong_requests(s).await;
        auth!(s, "UserAdd", named("root", "rpw") => AuthUserAddResponse).unwrap();
        auth!(s, "UserGrantRole", holds("root", "root") => AuthUserGrantRoleResponse).unwrap();
        auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse).unwrap();
        log_in(s, "root", "rpw").await;
        wrong_requests(s).await;
        let role = AuthRoleAddRequest { name: "root".into() };
        auth!(s, "RoleAdd", role => AuthRoleAddResponse).unwrap();
        let request = AuthRoleGetRequest { role: "root".into() };
        let root = auth!(s, "RoleGet", request => AuthRoleGetResponse).unwrap();
        assert_eq!((&root.perm[0].key[..], &root.perm[0].range_end[..]), (&b""[..], &b"\0"[..]));
        let request = AuthUserDeleteRequest { name: "root".into() };
        fails(auth!(s, "UserDelete", request => AuthUserDeleteResponse), INVALID, MANAGEMENT);
    });
}

#[test]
fn h13_a_deleted_role_is_taken_from_all_who_hold_it() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "root", "rpw").await;
        let before = revision(s).await;
        let request = AuthRoleDeleteRequest { role: "r".into() };
        auth!(s, "RoleDelete", request => AuthRoleDeleteResponse).unwrap();
        assert_eq!(revision(s).await, before + 1);
        let request = AuthUserGetRequest { name: "alice".into() };
        let alice = auth!(s, "UserGet", request => AuthUserGetResponse).unwrap();
        assert!(alice.roles.is_empty());
        log_in(s, "alice", "apw").await;
        fails(s.range(&range("b", "")).await, PERMISSION_DENIED, DENIED);
    });
}

#[test]
fn h21_h22_who_is_not_root_sees_itself_and_its_roles_only() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        wrong_requests_of_nobody(s).await;
        log_in(s, "alice", "apw").await;
        wrong_requests(s).await;
        let request = AuthUserGetRequest { name: "alice".into() };
        assert_eq!(auth!(s, "UserGet", request => AuthUserGetResponse).unwrap().roles, ["r"]);
        let request = AuthRoleGetRequest { role: "r".into() };
        assert_eq!(auth!(s, "RoleGet", request => AuthRoleGetResponse).unwrap().perm.len(), 3);
        let listed = auth!(s, "UserList", AuthUserListRequest {} => AuthUserListResponse);
        fails(listed, PERMISSION_DENIED, DENIED);
        let disabled = auth!(s, "AuthDisable", AuthDisableRequest {} => AuthDisableResponse);
        fails(disabled, PERMISSION_DENIED, DENIED);
    });
}

async fn wrong_requests_of_nobody(s: &mut Session) {
    wrong_requests(s).await;
    let listed = auth!(s, "UserList", AuthUserListRequest {} => AuthUserListResponse);
    fails(listed, INVALID, NOBODY);
    let enabled = auth!(s, "AuthEnable", AuthEnableRequest {} => AuthEnableResponse);
    fails(enabled, INVALID, NOBODY);
}

#[test]
fn h_users_and_roles_are_there_after_a_kill() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        s.kill().await;
        log_in(s, "alice", "apw").await;
        s.set("a/1", "x").await;
        fails(s.put(&put("b", "x")).await, PERMISSION_DENIED, DENIED);
        s.restart().await;
        log_in(s, "root", "rpw").await;
        revision(s).await;
        let request = AuthRoleGetRequest { role: "r".into() };
        assert_eq!(auth!(s, "RoleGet", request => AuthRoleGetResponse).unwrap().perm.len(), 3);
    });
}
