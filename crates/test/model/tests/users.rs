//! The checker of users: what is right passes, and each way to be wrong is found.

use api::authpb::Permission;
use api::authpb::permission::Type;
use api::etcdserverpb as pb;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{InternalRaftRequest, PutRequest, RangeRequest, RequestHeader};
use model::trail::{Asked, Logged, Shown, Told, Trail, Walked, Wish, check};
use model::users::{Access, Need, Refusal, Users, of_txn};
use model::{Property, Request, State};

fn root(mut request: InternalRaftRequest) -> InternalRaftRequest {
    request.header =
        Some(RequestHeader { id: 0, username: "root".into(), auth_revision: u64::MAX });
    request
}

fn user_add(name: &str) -> InternalRaftRequest {
    let request = pb::AuthUserAddRequest { name: name.into(), ..Default::default() };
    root(InternalRaftRequest { auth_user_add: Some(request), ..Default::default() })
}

fn grant_role(user: &str, role: &str) -> InternalRaftRequest {
    let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    root(InternalRaftRequest { auth_user_grant_role: Some(request), ..Default::default() })
}

fn role_add(name: &str) -> InternalRaftRequest {
    let request = pb::AuthRoleAddRequest { name: name.into() };
    root(InternalRaftRequest { auth_role_add: Some(request), ..Default::default() })
}

fn grant(role: &str, kind: Type, key: &'static str, end: &'static str) -> InternalRaftRequest {
    let perm = Some(Permission { perm_type: kind as i32, key: key.into(), range_end: end.into() });
    let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm };
    root(InternalRaftRequest { auth_role_grant_permission: Some(request), ..Default::default() })
}

fn enable() -> InternalRaftRequest {
    let request = Some(pb::AuthEnableRequest {});
    root(InternalRaftRequest { auth_enable: request, ..Default::default() })
}

fn disable() -> InternalRaftRequest {
    let request = Some(pb::AuthDisableRequest {});
    root(InternalRaftRequest { auth_disable: request, ..Default::default() })
}

/// Root, and ann who may write `a` to `c` and read `b`.
fn founding() -> Vec<InternalRaftRequest> {
    vec![
        user_add("root"),
        grant_role("root", "root"),
        user_add("ann"),
        role_add("r"),
        grant("r", Type::Write, "a", "c"),
        grant("r", Type::Read, "b", ""),
        grant_role("ann", "r"),
        enable(),
    ]
}

/// The auth revision behind that.
const FOUNDED: u64 = 8;

fn put(user: &str, known: u64, put: PutRequest) -> InternalRaftRequest {
    let header = Some(RequestHeader { id: 0, username: user.into(), auth_revision: known });
    InternalRaftRequest { header, put: Some(put), ..Default::default() }
}

fn a_put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

fn a_range(key: &'static str, end: &'static str) -> Wish {
    let (key, range_end) = (key.into(), end.into());
    Wish::Call(Request::Range(RangeRequest { key, range_end, ..Default::default() }))
}

fn asked(user: Option<&str>, wish: Wish, told: Told) -> Asked {
    let user = user.map(str::to_owned);
    Asked { user, token_since: u64::MAX, wish, from: 0, upto: u64::MAX, told }
}

/// A log, with what its last entries were made of, and other calls.
fn trail(more: Vec<(InternalRaftRequest, Option<Asked>)>, calls: Vec<Asked>) -> Trail {
    let mut trail = Trail::default();
    trail.log.push(Logged::default());
    let founding = founding().into_iter().map(|request| (request, None));
    for (request, asked) in founding.chain(more) {
        let asked = asked.map(|asked| {
            trail.asked.push(asked);
            trail.asked.len() - 1
        });
        trail.log.push(Logged { request: Some(request), asked });
    }
    let last = trail.log.len() as u64 - 1;
    trail.asked.extend(calls.into_iter().map(|call| Asked { from: last, ..call }));
    trail
}

fn is_found(trail: &Trail) -> bool {
    check(trail).is_err_and(|violation| violation.property == Property::Permitted)
}

#[test]
fn the_union_of_permissions_counts_as_far_as_it_reaches() {
    let mut users = Users::default();
    for request in founding() {
        assert_eq!(users.apply(&request), Some(Ok(())));
    }
    let more = grant("r", Type::Readwrite, "c", "\0");
    assert_eq!(users.apply(&more), Some(Ok(())));
    let access = |need, key: &'static str, end: &'static str| Access {
        need,
        key: key.into(),
        end: end.into(),
        by_lease: false,
    };
    for (need, key, end, may) in [
        (Need::Write, "a", "", true),
        (Need::Write, "a", "c", true),
        (Need::Write, "a", "\0", true),
        (Need::Write, "0", "b", false),
        (Need::Write, "0", "\0", false),
        (Need::Read, "a", "", false),
        (Need::Read, "b", "", true),
        (Need::Read, "b", "b\0", true),
        (Need::Read, "b", "c", false),
        (Need::Read, "b", "\0", false),
        (Need::Read, "x", "\0", true),
        (Need::Read, "x", "a", true),
    ] {
        let all = [access(need, key, end)];
        let got = users.permit("ann", users.revision(), &all);
        assert_eq!(got.is_ok(), may, "{need:?} {key} {end}");
        assert_eq!(users.permit("root", users.revision(), &all), Ok(()));
        assert_eq!(users.permit("bob", users.revision(), &all), Err(Refusal::Denied));
        assert_eq!(users.permit("", 0, &all), Err(Refusal::Nobody));
        assert_eq!(users.permit("root", users.revision() - 1, &all), Err(Refusal::Old));
    }
}

#[test]
fn a_transaction_is_all_that_it_could_do() {
    let op = |request| pb::RequestOp { request: Some(request) };
    let inner = pb::TxnRequest {
        compare: vec![pb::Compare { key: "e".into(), ..Default::default() }],
        failure: vec![op(Op::RequestPut(PutRequest { prev_kv: true, ..a_put("f") }))],
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: "g".into(), range_end: "h".into(), prev_kv: true };
    let outer = pb::TxnRequest {
        success: vec![op(Op::RequestTxn(inner)), op(Op::RequestDeleteRange(delete))],
        ..Default::default()
    };
    let mut all = Vec::new();
    of_txn(&outer, &State::default(), &mut all);
    let of = |need, key: &str| {
        all.iter().filter(|a| a.need == need && a.key[..] == *key.as_bytes()).count()
    };
    assert_eq!([of(Need::Read, "e"), of(Need::Write, "f"), of(Need::Read, "f")], [1, 1, 1]);
    assert_eq!([of(Need::Write, "g"), of(Need::Read, "g"), all.len()], [1, 1, 5]);
}

#[test]
fn changes_are_decided_where_their_entries_stand() {
    let wish = |key| Wish::Call(Request::Put(a_put(key)));
    let one = |key, known, told| {
        let entry = put("ann", known, a_put(key));
        trail(vec![(entry, Some(asked(Some("ann"), wish(key), told)))], vec![])
    };
    let (done, denied) = (Told::Done(2), Told::Refused(Refusal::Denied));
    assert!(check(&one("a", FOUNDED, done)).is_ok());
    assert!(is_found(&one("c", FOUNDED, done)), "done though it may not");
    assert!(is_found(&one("a", FOUNDED - 1, done)), "done though known of old");
    assert!(is_found(&one("a", FOUNDED, denied)), "refused though it may");
    let refused = check(&one("c", FOUNDED, denied)).unwrap();
    assert_eq!(refused.refused.into_values().collect::<Vec<_>>(), [Refusal::Denied]);
    let old = check(&one("a", FOUNDED - 1, Told::Refused(Refusal::Old))).unwrap();
    assert_eq!(old.refused.into_values().collect::<Vec<_>>(), [Refusal::Old]);
    let signed_by_another = put("root", FOUNDED, a_put("c"));
    let asked_by = asked(Some("ann"), wish("c"), Told::Other);
    assert!(is_found(&trail(vec![(signed_by_another, Some(asked_by))], vec![])));
    let not_in_the_log = asked(Some("ann"), wish("a"), done);
    assert!(is_found(&trail(vec![], vec![not_in_the_log])));
}

#[test]
fn what_members_show_is_what_permitted_entries_lead_to() {
    let entry = || put("ann", FOUNDED, a_put("c"));
    let shown = |revision, auth| {
        let mut trail = trail(vec![(entry(), None)], vec![]);
        trail.shown.insert(9, Shown { revision, auth });
        check(&trail)
    };
    assert!(shown(1, (true, FOUNDED)).is_ok());
    assert!(shown(2, (true, FOUNDED)).is_err(), "it was applied all the same");
    assert!(shown(1, (true, FOUNDED + 1)).is_err());
    assert!(shown(1, (false, FOUNDED)).is_err());
}

#[test]
fn reads_are_decided_by_a_state_that_may_have_answered_them() {
    let ask = |user, wish: Wish, told| check(&trail(vec![], vec![asked(user, wish, told)]));
    let (done, denied) = (Told::Done(1), Told::Refused(Refusal::Denied));
    let nobody = Told::Refused(Refusal::Nobody);
    assert!(ask(Some("ann"), a_range("b", ""), done).is_ok());
    assert!(ask(Some("ann"), a_range("b", ""), denied).is_err());
    assert!(ask(Some("ann"), a_range("b", ""), Told::Done(2)).is_err(), "of no revision");
    assert!(ask(Some("ann"), a_range("b", "c"), done).is_err());
    assert!(ask(Some("ann"), a_range("b", "c"), denied).is_ok());
    assert!(ask(None, a_range("b", ""), done).is_err());
    assert!(ask(None, a_range("b", ""), nobody).is_ok());
    assert!(ask(Some("root"), a_range("\0", "\0"), done).is_ok());
    assert!(ask(Some("ann"), Wish::Root, done).is_err());
    assert!(ask(Some("ann"), Wish::SeeKey("a".into()), Told::Done(0)).is_err());
    let open =
        pb::WatchCreateRequest { key: "b".into(), range_end: vec![0].into(), ..Default::default() };
    assert!(ask(Some("ann"), Wish::Watch(open.clone()), Told::Done(0)).is_err());
    assert!(ask(Some("root"), Wish::Watch(open), Told::Done(0)).is_ok());
    // Before the change of a role, as long as it may not have been known.
    let mut before = trail(
        vec![(grant("r", Type::Read, "c", ""), None)],
        vec![asked(Some("ann"), a_range("c", ""), denied)],
    );
    assert!(is_found(&before));
    before.asked[0].from = 8;
    assert!(check(&before).is_ok());
    before.asked[0].told = done;
    assert!(check(&before).is_ok());
    before.asked[0].upto = 8;
    assert!(is_found(&before), "let in before it was permitted");
}

#[test]
fn tokens_end_with_what_they_are_of() {
    let call =
        |since| Asked { token_since: since, ..asked(Some("root"), Wish::Root, Told::Done(0)) };
    let ended = || vec![(disable(), None), (enable(), None)];
    assert!(is_found(&trail(ended(), vec![call(8)])));
    assert!(check(&trail(ended(), vec![call(9)])).is_ok());
    let gone = Asked { told: Told::BadToken, ..asked(Some("bob"), Wish::Root, Told::Other) };
    let Walked { of_the_gone, .. } = check(&trail(vec![], vec![gone])).unwrap();
    assert_eq!(of_the_gone, 1);
}
