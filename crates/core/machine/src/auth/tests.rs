//! Users, roles and the decision, against naive models.

use api::authpb::permission::Type;
use api::authpb::{Permission, UserAddOptions};
use api::error::ApiError;
use api::etcdserverpb::*;
use api::method::Need;
use env::{Entropy, HashSeed, SplitMix};
use request_op::Request;
use types::LeaseId;

use super::*;
use crate::command::Command;
use crate::leases::Leases;
use crate::outcome::AuthReply;

fn run(auth: &mut Arc<Auth>, command: impl Into<Command>) -> Result<AuthReply, ApiError> {
    auth.apply(&command.into(), &mut Vec::new()).expect("it is a command of the Auth service")
}

macro_rules! commands {
    ($($request:ident => $command:ident,)*) => {
        $(impl From<$request> for Command {
            fn from(request: $request) -> Self {
                Command::$command(request)
            }
        })*
    };
}

commands! {
    AuthEnableRequest => AuthEnable,
    AuthDisableRequest => AuthDisable,
    AuthUserAddRequest => AuthUserAdd,
    AuthUserDeleteRequest => AuthUserDelete,
    AuthUserChangePasswordRequest => AuthUserChangePassword,
    AuthUserGrantRoleRequest => AuthUserGrantRole,
    AuthUserRevokeRoleRequest => AuthUserRevokeRole,
    AuthUserGetRequest => AuthUserGet,
    AuthRoleAddRequest => AuthRoleAdd,
    AuthRoleDeleteRequest => AuthRoleDelete,
    AuthRoleGetRequest => AuthRoleGet,
    AuthRoleGrantPermissionRequest => AuthRoleGrantPermission,
    AuthRoleRevokePermissionRequest => AuthRoleRevokePermission,
}

fn user_add(name: &str) -> AuthUserAddRequest {
    let options = Some(UserAddOptions { no_password: true });
    AuthUserAddRequest { name: name.into(), options, ..Default::default() }
}

fn role_add(name: &str) -> AuthRoleAddRequest {
    AuthRoleAddRequest { name: name.into() }
}

fn grant(user: &str, role: &str) -> AuthUserGrantRoleRequest {
    AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

fn permit(role: &str, kind: Type, key: &[u8], end: &[u8]) -> AuthRoleGrantPermissionRequest {
    let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
    let perm = Some(Permission { perm_type: kind as i32, key, range_end });
    AuthRoleGrantPermissionRequest { name: role.into(), perm }
}

/// A fresh store, as a start finds it.
fn fresh() -> Arc<Auth> {
    let mut auth = Auth::default();
    assert!(auth.loaded().is_some(), "the first revision is stored");
    Arc::new(auth)
}

/// With root, and with `alice` who holds the role `r`; enabled.
fn enabled() -> Arc<Auth> {
    let mut auth = fresh();
    for name in ["root", "alice"] {
        run(&mut auth, user_add(name)).unwrap();
    }
    run(&mut auth, grant("root", "root")).unwrap();
    run(&mut auth, role_add("r")).unwrap();
    run(&mut auth, grant("alice", "r")).unwrap();
    run(&mut auth, AuthEnableRequest {}).unwrap();
    auth
}

fn alice(auth: &Auth) -> Who<'static> {
    Who { user: "alice", revision: auth.revision() }
}

#[test]
fn enabling_wants_root_and_does_not_change_the_revision() {
    let mut auth = fresh();
    assert_eq!((auth.revision(), auth.is_enabled()), (1, false));
    assert_eq!(run(&mut auth, AuthEnableRequest {}), Err(ApiError::RootUserNotExist));
    run(&mut auth, user_add("root")).unwrap();
    assert_eq!(run(&mut auth, AuthEnableRequest {}), Err(ApiError::RootRoleNotExist));
    // The role root needs no record.
    run(&mut auth, grant("root", "root")).unwrap();
    assert_eq!(auth.revision(), 3);
    run(&mut auth, AuthEnableRequest {}).unwrap();
    run(&mut auth, AuthEnableRequest {}).unwrap();
    assert_eq!((auth.revision(), auth.is_enabled()), (3, true));
    run(&mut auth, AuthDisableRequest {}).unwrap();
    run(&mut auth, AuthDisableRequest {}).unwrap();
    assert_eq!((auth.revision(), auth.is_enabled()), (4, false));
}

#[test]
fn refusals_are_etcds_and_change_nothing() {
    let mut auth = enabled();
    let before = auth.revision();
    let refused: [(Command, ApiError); 17] = [
        (user_add("").into(), ApiError::UserEmpty),
        (user_add("alice").into(), ApiError::UserAlreadyExist),
        (role_add("").into(), ApiError::RoleEmpty),
        (role_add("r").into(), ApiError::RoleAlreadyExist),
        (grant("bob", "r").into(), ApiError::UserNotFound),
        (grant("alice", "no").into(), ApiError::RoleNotFound),
        (AuthUserDeleteRequest { name: "root".into() }.into(), ApiError::InvalidAuthManagement),
        (AuthUserDeleteRequest { name: "bob".into() }.into(), ApiError::UserNotFound),
        (AuthRoleDeleteRequest { role: "root".into() }.into(), ApiError::InvalidAuthManagement),
        (AuthRoleDeleteRequest { role: "no".into() }.into(), ApiError::RoleNotFound),
        (
            AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() }.into(),
            ApiError::InvalidAuthManagement,
        ),
        (
            AuthUserRevokeRoleRequest { name: "alice".into(), role: "no".into() }.into(),
            ApiError::RoleNotGranted,
        ),
        (
            AuthRoleGrantPermissionRequest { name: "r".into(), perm: None }.into(),
            ApiError::PermissionNotGiven,
        ),
        (permit("r", Type::Read, b"", b"").into(), ApiError::InvalidAuthManagement),
        (permit("r", Type::Read, b"b", b"b").into(), ApiError::InvalidAuthManagement),
        (permit("no", Type::Read, b"b", b"").into(), ApiError::RoleNotFound),
        (
            AuthRoleRevokePermissionRequest { role: "r".into(), ..Default::default() }.into(),
            ApiError::PermissionNotGranted,
        ),
    ];
    for (command, error) in refused {
        let mut ops = Vec::new();
        assert_eq!(auth.apply(&command, &mut ops), Some(Err(error)), "{command:?}");
        assert!(ops.is_empty());
    }
    assert_eq!(auth.revision(), before);
    run(&mut auth, grant("alice", "r")).unwrap();
    assert_eq!(auth.revision(), before, "a role that is held already changes nothing");
}

#[test]
fn a_role_that_is_gone_is_held_by_nobody() {
    let mut auth = enabled();
    run(&mut auth, permit("r", Type::Readwrite, b"a", b"")).unwrap();
    let read = Want::Read { key: b"a", range_end: b"" };
    assert_eq!(auth.permit(alice(&auth), read, Attached::AtApply), Ok(()));
    run(&mut auth, AuthRoleDeleteRequest { role: "r".into() }).unwrap();
    let denied = auth.permit(alice(&auth), read, Attached::AtApply);
    assert_eq!(denied, Err(ApiError::PermissionDenied));
    let roles = run(&mut auth, AuthUserGetRequest { name: "alice".into() });
    assert_eq!(roles, Ok(AuthReply::Names(Vec::new())));
}

#[test]
fn what_is_stored_gives_the_same_state_again() {
    let mut auth = fresh();
    let mut rows = BTreeMap::from([((Bucket::Auth, revision_op(1).key), revision_op(1).value)]);
    let mut command = |auth: &mut Arc<Auth>, command: Command| {
        let mut ops = Vec::new();
        auth.apply(&command, &mut ops).unwrap().unwrap();
        for op in ops {
            rows.insert((op.bucket, op.key), op.value);
        }
    };
    command(&mut auth, user_add("root").into());
    command(&mut auth, grant("root", "root").into());
    command(&mut auth, role_add("r").into());
    command(&mut auth, permit("r", Type::Write, b"b", b"\0").into());
    command(&mut auth, permit("r", Type::Read, b"a", b"c").into());
    let hashed_password = "JDJhJDEw".to_owned();
    let bob = AuthUserAddRequest { name: "bob".into(), hashed_password, ..Default::default() };
    command(&mut auth, bob.into());
    command(&mut auth, grant("bob", "r").into());
    command(&mut auth, user_add("gone").into());
    command(&mut auth, AuthUserDeleteRequest { name: "gone".into() }.into());
    command(&mut auth, AuthEnableRequest {}.into());
    let mut again = Auth::default();
    for ((bucket, key), value) in &rows {
        if let Some(value) = value {
            again.insert_stored(*bucket, key, value).unwrap();
        }
    }
    assert!(again.loaded().is_none());
    assert_eq!((again.revision, again.enabled), (auth.revision, true));
    assert_eq!(again.roles, auth.roles);
    let shown = |auth: &Auth| -> Vec<_> {
        let of = |u: &Arc<User>| (u.stored.clone(), u.is_root, u.read.clone(), u.write.clone());
        auth.users.values().map(of).collect()
    };
    assert_eq!(shown(&again), shown(&auth));
    // etcd's bytes: name, password, role, options with nothing set.
    let bob = rows[&(Bucket::AuthUsers, Bytes::from_static(b"bob"))].as_ref().unwrap();
    assert_eq!(&bob[..], b"\x0a\x03bob\x12\x06$2a$10\x1a\x01r\x22\x00");
}

#[test]
fn who_is_not_known_or_known_of_old_is_refused() {
    let auth = enabled();
    let read = Want::Read { key: b"a", range_end: b"" };
    let ask = |user, revision, want| auth.permit(Who { user, revision }, want, Attached::AtApply);
    let now = auth.revision();
    assert_eq!(ask("", 0, read), Err(ApiError::UserEmpty));
    assert_eq!(ask("root", now - 1, read), Err(ApiError::AuthOldRevision));
    assert_eq!(ask("bob", now, read), Err(ApiError::PermissionDenied));
    assert_eq!(ask("root", now, read), Ok(()));
    assert_eq!(ask("root", now + 1, read), Ok(()), "known by what is newer than here");
    let put = PutRequest { key: "a".into(), ..Default::default() };
    assert_eq!(ask("root", now, Want::Put(&put)), Ok(()));
    assert_eq!(ask("alice", now, Want::Put(&put)), Err(ApiError::PermissionDenied));
    let nothing = TxnRequest { success: vec![RequestOp { request: None }], ..Default::default() };
    assert_eq!(ask("alice", now, Want::Txn(&nothing)), Ok(()), "it does nothing");
    assert_eq!(ask("", 0, Want::Root), Err(ApiError::UserEmpty));
    assert_eq!(ask("bob", now, Want::Root), Err(ApiError::UserNotFound));
    assert_eq!(ask("alice", now, Want::Root), Err(ApiError::PermissionDenied));
    assert_eq!(ask("root", 1, Want::Root), Ok(()), "of root no revision is asked");
    assert_eq!(ask("alice", now, Want::SeeUser("alice")), Ok(()));
    assert_eq!(ask("alice", now, Want::SeeUser("root")), Err(ApiError::PermissionDenied));
    assert_eq!(ask("alice", now, Want::SeeRole("r")), Ok(()));
    assert_eq!(ask("alice", now, Want::SeeRole("root")), Err(ApiError::PermissionDenied));
}

#[test]
fn a_key_is_attached_only_by_who_may_end_the_lease() {
    let mut auth = enabled();
    run(&mut auth, permit("r", Type::Write, b"a", b"")).unwrap();
    let mut leases = Leases::new(HashSeed::draw(&mut SplitMix::new(1)));
    leases.grant(LeaseId(7), 10, 1).unwrap();
    let put = PutRequest { key: "a".into(), lease: 7, ..Default::default() };
    let ask = |leases: &Leases, want| auth.permit(alice(&auth), want, Attached::Known(leases));
    assert_eq!(ask(&leases, Want::Put(&put)), Ok(()));
    leases.attach(b"other", LeaseId(7));
    let op = RequestOp { request: Some(Request::RequestPut(put.clone())) };
    let txn = TxnRequest { failure: vec![op], ..Default::default() };
    for want in [Want::Put(&put), Want::Txn(&txn), Want::ChangeLease(LeaseId(7))] {
        assert_eq!(ask(&leases, want), Err(ApiError::PermissionDenied), "{want:?}");
    }
    assert_eq!(ask(&leases, Want::ReadAllLeases), Err(ApiError::PermissionDenied));
    assert_eq!(ask(&leases, Want::ChangeLease(LeaseId(8))), Ok(()), "there is none");
}

/// Each right to a lease is that to all of its keys, of its own kind; root has it whenever it was
/// known.
#[test]
fn a_lease_is_ended_or_seen_by_who_may_do_that_with_all_its_keys() {
    let mut auth = enabled();
    run(&mut auth, permit("r", Type::Read, b"read", b"")).unwrap();
    run(&mut auth, permit("r", Type::Write, b"written", b"")).unwrap();
    let mut leases = Leases::new(HashSeed::draw(&mut SplitMix::new(1)));
    let (read, written, both) = (LeaseId(1), LeaseId(2), LeaseId(3));
    for (lease, key) in [(read, &b"read"[..]), (written, b"written")] {
        leases.grant(lease, 10, 1).unwrap();
        leases.attach(key, lease);
    }
    leases.grant(both, 10, 1).unwrap();
    let denied = Err(ApiError::PermissionDenied);
    let old_root = Who { user: "root", revision: 1 };
    let known = |who, want, leases: &Leases| auth.permit(who, want, Attached::Known(leases));
    let unknown = |who, want| auth.permit(who, want, Attached::AtApply);
    let alice = alice(&auth);
    for (lease, may_change, may_read) in
        [(read, denied, Ok(())), (written, Ok(()), denied), (both, Ok(()), Ok(()))]
    {
        assert_eq!(known(alice, Want::ChangeLease(lease), &leases), may_change, "{lease:?}");
        assert_eq!(known(alice, Want::ReadLease(lease), &leases), may_read, "{lease:?}");
        for want in [Want::ChangeLease(lease), Want::ReadLease(lease), Want::ReadAllLeases] {
            assert_eq!(known(old_root, want, &leases), Ok(()), "{want:?}");
            assert_eq!(unknown(old_root, want), Ok(()), "{want:?}");
        }
        // Who knows no leases lets the entry decide, and shows nothing.
        assert_eq!(unknown(alice, Want::ChangeLease(lease)), Ok(()));
        assert_eq!(unknown(alice, Want::ReadLease(lease)), denied);
    }
    assert_eq!(known(alice, Want::ReadAllLeases, &leases), denied);
    assert_eq!(unknown(alice, Want::ReadAllLeases), denied);
    leases.revoke(written).unwrap();
    assert_eq!(known(alice, Want::ReadAllLeases, &leases), Ok(()));
    let nobody = Who::default();
    assert_eq!(known(nobody, Want::ReadAllLeases, &leases), Err(ApiError::UserEmpty));
}

/// A key of up to two of three letters, not empty.
fn key(entropy: &mut SplitMix) -> Vec<u8> {
    let len = 1 + entropy.below(2);
    (0..len).map(|_| *b"\0ab".get(entropy.below(3) as usize).unwrap()).collect()
}

/// An end of a range: none, any, or for ever.
fn end(entropy: &mut SplitMix) -> Vec<u8> {
    match entropy.below(4) {
        0 => Vec::new(),
        1 => vec![0],
        _ => key(entropy),
    }
}

/// Whether one key is within a range as requests give it.
fn within(at: &[u8], key: &[u8], end: &[u8]) -> bool {
    match end {
        [] => at == key,
        [0] => at >= key,
        _ => at >= key && at < end,
    }
}

#[test]
fn ranges_cover_what_a_naive_model_says() {
    let mut entropy = SplitMix::new(7);
    let (mut covered, mut rounds) = (0, 0);
    while rounds < 20_000 {
        let mut given = Vec::new();
        for _ in 0..entropy.below(6) {
            given.push((key(&mut entropy), end(&mut entropy)));
        }
        given.retain(|(key, end)| ranges::is_grantable(key, end));
        let granted = given.iter().map(|(key, end)| {
            ranges::granted(&Bytes::copy_from_slice(key), &Bytes::copy_from_slice(end)).unwrap()
        });
        let set = Ranges::merge(granted.collect());
        let (begin, until) = (key(&mut entropy), end(&mut entropy));
        let may = |at: &[u8]| given.iter().any(|(key, end)| within(at, key, end));
        // The first key of a range that is not covered is its first one, or the end of one given.
        let mut ends: Vec<Vec<u8>> = given
            .iter()
            .filter(|(_, end)| end != &[0])
            .map(|(key, end)| if end.is_empty() { [key, &[0][..]].concat() } else { end.clone() })
            .collect();
        ends.retain(|at| within(at, &begin, &until));
        let endless = given.iter().any(|(_, end)| end == &[0]);
        let model = may(&begin) && ends.iter().all(|at| may(at)) && (until != [0] || endless);
        assert_eq!(set.cover(&begin, &until), model, "{given:?} {begin:?} {until:?}");
        covered += u32::from(model);
        rounds += 1;
    }
    assert!(covered > 1_000 && covered < rounds - 1_000, "both happen: {covered}");
}

/// A transaction to this depth; what it does goes to `flat`.
fn tree(
    entropy: &mut SplitMix,
    depth: u32,
    flat: &mut Vec<(Need, Vec<u8>, Vec<u8>)>,
) -> TxnRequest {
    let mut txn = TxnRequest::default();
    for _ in 0..entropy.below(2) {
        let (key, range_end) = (key(entropy), end(entropy));
        flat.push((Need::Read, key.clone(), range_end.clone()));
        let (key, range_end) = (key.into(), range_end.into());
        txn.compare.push(Compare { key, range_end, ..Default::default() });
    }
    let mut ops = |entropy: &mut SplitMix| -> Vec<RequestOp> {
        let mut ops = Vec::new();
        for _ in 0..entropy.below(3) {
            let request = op(entropy, depth, flat);
            ops.push(RequestOp { request: Some(request) });
        }
        ops
    };
    txn.success = ops(entropy);
    txn.failure = ops(entropy);
    txn
}

fn op(entropy: &mut SplitMix, depth: u32, flat: &mut Vec<(Need, Vec<u8>, Vec<u8>)>) -> Request {
    let (key, range_end, prev_kv) = (key(entropy), end(entropy), entropy.below(3) == 0);
    match entropy.below(if depth > 1 { 4 } else { 3 }) {
        0 => {
            flat.push((Need::Read, key.clone(), range_end.clone()));
            let (key, range_end) = (key.into(), range_end.into());
            Request::RequestRange(RangeRequest { key, range_end, ..Default::default() })
        }
        1 => {
            flat.push((Need::Write, key.clone(), Vec::new()));
            if prev_kv {
                flat.push((Need::Read, key.clone(), Vec::new()));
            }
            Request::RequestPut(PutRequest { key: key.into(), prev_kv, ..Default::default() })
        }
        2 => {
            flat.push((Need::Write, key.clone(), range_end.clone()));
            if prev_kv {
                flat.push((Need::Read, key.clone(), range_end.clone()));
            }
            let (key, range_end) = (key.into(), range_end.into());
            Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv })
        }
        _ => Request::RequestTxn(tree(entropy, depth - 1, flat)),
    }
}

#[test]
fn a_transaction_is_allowed_exactly_when_all_that_is_in_it_is() {
    let mut entropy = SplitMix::new(11);
    let (mut allowed, mut deep) = (0, 0);
    for round in 0..4_000 {
        let mut auth = enabled();
        for _ in 0..1 + entropy.below(4) {
            let kind = [Type::Read, Type::Write, Type::Readwrite][entropy.below(3) as usize];
            let (key, end) = (key(&mut entropy), end(&mut entropy));
            // What may not be granted is refused.
            let _ = run(&mut auth, permit("r", kind, &key, &end));
        }
        if round % 2 == 0 {
            run(&mut auth, permit("r", Type::Readwrite, b"\0", b"\0")).unwrap();
        }
        let mut flat = Vec::new();
        let txn = tree(&mut entropy, 8, &mut flat);
        deep += u32::from(flat.len() > 8);
        let user = &auth.users["alice".as_bytes()];
        let may = |(need, key, end): &(Need, Vec<u8>, Vec<u8>)| match need {
            Need::Read => user.read.cover(key, end),
            Need::Write => user.write.cover(key, end),
        };
        let model = flat.iter().all(may);
        let leases = Leases::new(HashSeed::draw(&mut SplitMix::new(1)));
        for on in [Attached::AtApply, Attached::Known(&leases)] {
            let answer = auth.permit(alice(&auth), Want::Txn(&txn), on);
            assert_eq!(answer.is_ok(), model, "{flat:?}");
        }
        allowed += u32::from(model && !flat.is_empty());
    }
    assert!(allowed > 500 && deep > 200, "{allowed} allowed, {deep} of many operations");
}

#[test]
fn without_authentication_everybody_may_everything() {
    let mut auth = enabled();
    run(&mut auth, AuthDisableRequest {}).unwrap();
    assert_eq!(auth.permit(Who::default(), Want::Root, Attached::AtApply), Ok(()));
}

#[test]
fn a_newer_state_keeps_tokens_only_if_nothing_changed() {
    let old = enabled();
    let mut new = Arc::clone(&old);
    assert!(old.keeps_tokens(&new));
    let hashed_password = "YQ==".to_owned();
    let bob = AuthUserAddRequest { name: "bob".into(), hashed_password, ..Default::default() };
    run(&mut new, bob).unwrap();
    assert!(!old.keeps_tokens(&new));
    let before = Arc::clone(&new);
    run(&mut new, AuthDisableRequest {}).unwrap();
    assert!(!before.keeps_tokens(&new));
    assert!(!new.keeps_tokens(&new), "nobody has one");
    run(&mut new, AuthEnableRequest {}).unwrap();
    assert!(!before.keeps_tokens(&new), "all ended in between");
}

#[test]
fn no_hash_is_shown() {
    let mut auth = fresh();
    let hashed_password = "c2VjcmV0".to_owned();
    let add = AuthUserAddRequest { name: "bob".into(), hashed_password, ..Default::default() };
    run(&mut auth, add).unwrap();
    let shown = format!("{auth:?} {:?}", auth.password("bob"));
    assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
}
