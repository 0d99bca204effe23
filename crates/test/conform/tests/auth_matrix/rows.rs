//! The rows of the matrix: requests of every method.
//!
//! Invariant: [`of`] has an arm for each method and no other, so that a method without a row does
//! not compile, and a test counts that no row is empty.

use api::authpb::Permission;
use api::etcdserverpb::{self as pb, watch_request::RequestUnion};
use api::method::{METHODS, Method, Need};
use api::{grpc_health as health, v3electionpb, v3lockpb};
use bytes::Bytes;
use prost::Message;

use crate::cell::{Cell, Needs};
use crate::identity::PASSWORD;
use crate::model::{Access, Span};
use crate::rows_txn;
use crate::targets::{ODD, TARGETS, keys, some};

/// The lease that is attached to the key `k`.
pub const LEASE: i64 = 11;
/// A lease that is attached to nothing.
pub const BARE_LEASE: i64 = 12;
/// A lease that there is not.
pub const NO_LEASE: i64 = 4242;
/// A user and a role that admin requests change.
pub const VICTIM: &str = "victim";

/// Every row, in the table's order.
pub fn all() -> Vec<Cell> {
    METHODS.iter().flat_map(|row| of(row.method)).collect()
}

pub fn bytes(of: &'static [u8]) -> Bytes {
    Bytes::from_static(of)
}

pub fn range(span: Span) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(span.key), range_end: bytes(span.end), ..Default::default() }
}

pub fn put(span: Span) -> pb::PutRequest {
    pb::PutRequest { key: bytes(span.key), value: bytes(b"v"), ..Default::default() }
}

pub fn delete(span: Span) -> pb::DeleteRangeRequest {
    let (key, range_end) = (bytes(span.key), bytes(span.end));
    pb::DeleteRangeRequest { key, range_end, prev_kv: false }
}

fn one(method: Method, needs: Needs, request: &impl Message) -> Vec<Cell> {
    vec![Cell::new(method, method.row().name, request).needs(needs)]
}

/// The requests of a method.
fn of(method: Method) -> Vec<Cell> {
    use Method::*;
    match method {
        Range => ranges(),
        RangeStream => streams(),
        Put => puts(),
        DeleteRange => deletes(),
        Txn => rows_txn::all(),
        Watch => watches(),
        Compact => {
            one(method, Needs::Root, &pb::CompactionRequest { revision: 1, physical: false })
        }
        LeaseGrant | LeaseRevoke | LeaseKeepAlive | LeaseTimeToLive | LeaseLeases => leases(method),
        MemberAdd | MemberRemove | MemberUpdate | MemberList | MemberPromote => members(method),
        Alarm | Status | Defragment | Hash | HashKV | Snapshot | MoveLeader | Downgrade => {
            maintenance(method)
        }
        AuthEnable | AuthDisable | AuthStatus | Authenticate => authentication(method),
        UserAdd | UserGet | UserList | UserDelete | UserChangePassword | UserGrantRole
        | UserRevokeRole => users(method),
        RoleAdd | RoleGet | RoleList | RoleDelete | RoleGrantPermission | RoleRevokePermission => {
            roles(method)
        }
        Lock | Unlock | Campaign | Proclaim | Leader | Observe | Resign => services(method),
        HealthCheck | HealthWatch => {
            let request = health::HealthCheckRequest { service: String::new() };
            one(method, Needs::Untold, &request)
        }
        // A map, whose order and empty keys are anybody's choice.
        HealthList => {
            let cells = one(method, Needs::Untold, &health::HealthListRequest {});
            cells.into_iter().map(Cell::status_only).collect()
        }
    }
}

fn ranges() -> Vec<Cell> {
    let mut cells = Vec::new();
    for &(name, span) in TARGETS {
        let needs = Needs::Keys(vec![(Need::Read, span)]);
        cells.push(Cell::new(Method::Range, name, &range(span)).needs(needs));
    }
    for (name, span) in some() {
        let needs = || Needs::Keys(vec![(Need::Read, span)]);
        let serializable = pb::RangeRequest { serializable: true, ..range(span) };
        let name = format!("{name} serializable");
        cells.push(Cell::new(Method::Range, name, &serializable).needs(needs()));
        let count = pb::RangeRequest { count_only: true, limit: 1, ..range(span) };
        cells.push(Cell::new(Method::Range, "count", &count).needs(needs()));
    }
    for &(name, span) in ODD {
        cells.push(Cell::new(Method::Range, name, &range(span)));
    }
    let future = pb::RangeRequest { revision: 1 << 40, ..range(TARGETS[0].1) };
    cells.push(Cell::new(Method::Range, "a revision to come", &future));
    cells
}

fn streams() -> Vec<Cell> {
    let cell = |name, span, needs| Cell::new(Method::RangeStream, name, &range(span)).needs(needs);
    let known = some().map(|(name, span)| cell(name, span, Needs::Keys(vec![(Need::Read, span)])));
    known.chain(ODD.iter().map(|&(name, span)| cell(name, span, Needs::Untold))).collect()
}

fn puts() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (name, span) in keys() {
        let write = (Need::Write, span);
        let cell = |kind: &str, request: pb::PutRequest, needs| {
            Cell::new(Method::Put, format!("{name}{kind}"), &request).needs(Needs::Keys(needs))
        };
        cells.push(cell("", put(span), vec![write]));
        let prev = pb::PutRequest { prev_kv: true, ..put(span) };
        cells.push(cell(" prev_kv", prev, vec![write, (Need::Read, span)]));
        let attached = (Need::Write, TARGETS[0].1);
        let leased = pb::PutRequest { lease: LEASE, ..put(span) };
        cells.push(with_lease(cell(" with a lease", leased, vec![write, attached])));
        let bare = pb::PutRequest { lease: BARE_LEASE, ..put(span) };
        let bare = cell(" with a bare lease", bare, vec![write]);
        cells.push(granted_anew(bare, BARE_LEASE));
        let missing = pb::PutRequest { lease: NO_LEASE, ..put(span) };
        cells.push(Cell::new(Method::Put, format!("{name} without its lease"), &missing));
        let kept = pb::PutRequest { ignore_value: true, value: Bytes::new(), ..put(span) };
        cells.push(Cell::new(Method::Put, format!("{name} keeping its value"), &kept));
    }
    cells.push(Cell::new(Method::Put, "empty", &put(Span { key: b"", end: b"" })));
    cells
}

/// The cell behind a lease anew, to which the key `k` alone is attached.
pub fn with_lease(cell: Cell) -> Cell {
    let attach = pb::PutRequest { lease: LEASE, ..put(TARGETS[0].1) };
    granted_anew(cell, LEASE).after(Method::Put, &attach)
}

/// The cell behind a lease anew, without keys.
fn granted_anew(cell: Cell, id: i64) -> Cell {
    let cell = cell.after(Method::LeaseRevoke, &pb::LeaseRevokeRequest { id });
    cell.after(Method::LeaseGrant, &pb::LeaseGrantRequest { id, ttl: 600 })
}

fn deletes() -> Vec<Cell> {
    let mut cells = Vec::new();
    for &(name, span) in TARGETS {
        let write = (Need::Write, span);
        let again = put(TARGETS[0].1);
        let cell = Cell::new(Method::DeleteRange, name, &delete(span)).after(Method::Put, &again);
        cells.push(cell.needs(Needs::Keys(vec![write])));
        let prev = pb::DeleteRangeRequest { prev_kv: true, ..delete(span) };
        let cell = Cell::new(Method::DeleteRange, format!("{name} prev_kv"), &prev);
        let cell = cell.after(Method::Put, &again);
        cells.push(cell.needs(Needs::Keys(vec![write, (Need::Read, span)])));
    }
    let odd =
        |&(name, span): &(&'static str, Span)| Cell::new(Method::DeleteRange, name, &delete(span));
    cells.extend(ODD.iter().map(odd));
    cells
}

fn watches() -> Vec<Cell> {
    let create = |span: Span| pb::WatchCreateRequest {
        key: bytes(span.key),
        range_end: bytes(span.end),
        ..Default::default()
    };
    let cell = |name: &str, create: pb::WatchCreateRequest| {
        let request_union = Some(RequestUnion::CreateRequest(create));
        Cell::new(Method::Watch, name, &pb::WatchRequest { request_union })
    };
    let mut cells = Vec::new();
    for &(name, span) in TARGETS {
        let needs = Needs::Keys(vec![(Need::Read, span)]);
        cells.push(cell(name, create(span)).needs(needs.clone()));
        let prev = pb::WatchCreateRequest { prev_kv: true, ..create(span) };
        cells.push(cell(&format!("{name} prev_kv"), prev).needs(needs));
    }
    cells.extend(ODD.iter().map(|&(name, span)| cell(name, create(span))));
    let id = pb::WatchCreateRequest { watch_id: 7, start_revision: 1, ..create(TARGETS[0].1) };
    cells.push(cell("an id and a compacted revision", id));
    cells
}

fn leases(method: Method) -> Vec<Cell> {
    let grant = |id| pb::LeaseGrantRequest { id, ttl: 600 };
    let key = TARGETS[0].1;
    let each = [("attached", LEASE), ("bare", BARE_LEASE), ("missing", NO_LEASE)];
    let each = each.into_iter().flat_map(|(name, id)| {
        let requests: Vec<(&str, Vec<u8>, Need)> = match method {
            Method::LeaseRevoke => {
                vec![("", pb::LeaseRevokeRequest { id }.encode_to_vec(), Need::Write)]
            }
            Method::LeaseKeepAlive => {
                vec![("", pb::LeaseKeepAliveRequest { id }.encode_to_vec(), Need::Write)]
            }
            _ => [("", false), (" with keys", true)]
                .map(|(kind, keys)| {
                    let request = pb::LeaseTimeToLiveRequest { id, keys };
                    (kind, request.encode_to_vec(), Need::Read)
                })
                .to_vec(),
        };
        let cell = move |(kind, body, need): (&str, Vec<u8>, Need)| {
            let cell = Cell { body, ..Cell::new(method, format!("{name}{kind}"), &()) };
            match id {
                // Without its keys, what is left of a lease's time is anybody's to know.
                LEASE if need == Need::Read && kind.is_empty() => with_lease(cell),
                LEASE => with_lease(cell).needs(Needs::Keys(vec![(need, key)])),
                BARE_LEASE => granted_anew(cell, id),
                _ => cell,
            }
        };
        requests.into_iter().map(cell).collect::<Vec<_>>()
    });
    match method {
        Method::LeaseGrant => {
            let fresh = Cell::new(method, "fresh", &grant(77)).needs(Needs::User);
            let exists = Cell::new(method, "one that there is", &grant(BARE_LEASE));
            vec![fresh.after(Method::LeaseRevoke, &pb::LeaseRevokeRequest { id: 77 }), exists]
        }
        Method::LeaseLeases => vec![Cell::new(method, "all", &pb::LeaseLeasesRequest {})],
        _ => each.collect(),
    }
}

/// Messages of several types in one list.
trait ErasedMessage {
    fn bytes(&self) -> Vec<u8>;
}

impl<M: Message> ErasedMessage for M {
    fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// Changes that no cluster takes: who may not is told so, who may is told what is wrong.
fn members(method: Method) -> Vec<Cell> {
    const NO_MEMBER: u64 = 0x1234;
    let urls = |url: &str| vec![url.to_owned()];
    match method {
        Method::MemberAdd => [false, true]
            .map(|is_learner| {
                let request = pb::MemberAddRequest { peer_ur_ls: urls("bad url"), is_learner };
                Cell::new(method, format!("bad url, learner {is_learner}"), &request)
            })
            .to_vec(),
        Method::MemberRemove => {
            one(method, Needs::Root, &pb::MemberRemoveRequest { id: NO_MEMBER })
        }
        Method::MemberUpdate => {
            let peer_ur_ls = urls("http://127.0.0.1:9");
            one(method, Needs::Root, &pb::MemberUpdateRequest { id: NO_MEMBER, peer_ur_ls })
        }
        Method::MemberPromote => {
            one(method, Needs::Root, &pb::MemberPromoteRequest { id: NO_MEMBER })
        }
        _ => [false, true]
            .map(|linearizable| {
                let request = pb::MemberListRequest { linearizable };
                let name = format!("linearizable {linearizable}");
                Cell::new(method, name, &request).needs(Needs::User).status_only()
            })
            .to_vec(),
    }
}

fn maintenance(method: Method) -> Vec<Cell> {
    use pb::alarm_request::AlarmAction;
    let cells = match method {
        // Alarms of no kind: what is raised or ended is nothing.
        Method::Alarm => [AlarmAction::Get, AlarmAction::Activate, AlarmAction::Deactivate]
            .map(|action| {
                let request = pb::AlarmRequest { action: action.into(), member_id: 0, alarm: 0 };
                let needs = if action == AlarmAction::Get { Needs::User } else { Needs::Root };
                Cell::new(method, action.as_str_name(), &request).needs(needs)
            })
            .to_vec(),
        Method::Status => one(method, Needs::User, &pb::StatusRequest {}),
        Method::Defragment => one(method, Needs::Root, &pb::DefragmentRequest {}),
        Method::Hash => one(method, Needs::Root, &pb::HashRequest {}),
        Method::HashKV => [0, 1 << 40]
            .map(|revision| {
                let cell = Cell::new(method, "at", &pb::HashKvRequest { revision });
                if revision == 0 { cell.needs(Needs::Root) } else { cell }
            })
            .to_vec(),
        Method::Snapshot => one(method, Needs::Root, &pb::SnapshotRequest {}),
        Method::MoveLeader => one(method, Needs::Root, &pb::MoveLeaderRequest { target_id: 5 }),
        _ => {
            use pb::downgrade_request::DowngradeAction;
            [DowngradeAction::Validate, DowngradeAction::Enable, DowngradeAction::Cancel]
                .map(|action| {
                    let version = "3.x".to_owned();
                    let request = pb::DowngradeRequest { action: action.into(), version };
                    Cell::new(method, action.as_str_name(), &request).needs(Needs::Root)
                })
                .to_vec()
        }
    };
    cells.into_iter().map(Cell::status_only).collect()
}

fn authentication(method: Method) -> Vec<Cell> {
    let login = |name: &str, password: &str| {
        let request =
            pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        Cell::new(method, format!("{name:?} {password:?}"), &request).status_only()
    };
    match method {
        Method::AuthEnable => one(method, Needs::Root, &pb::AuthEnableRequest {}),
        Method::AuthDisable => one(method, Needs::Root, &pb::AuthDisableRequest {}),
        Method::AuthStatus => one(method, Needs::Untold, &pb::AuthStatusRequest {}),
        _ => vec![
            login("root", PASSWORD),
            login("root", "wrong"),
            login("root", ""),
            login("nobody-there", PASSWORD),
            login("", ""),
            login("without-password", ""),
            login("without-password", PASSWORD),
        ],
    }
}

fn users(method: Method) -> Vec<Cell> {
    let name = |name: &str| name.to_owned();
    let add = |user: &str| pb::AuthUserAddRequest {
        name: name(user),
        password: name(PASSWORD),
        options: Some(api::authpb::UserAddOptions { no_password: false }),
        ..Default::default()
    };
    let remove = |user: &str| pb::AuthUserDeleteRequest { name: name(user) };
    let grant = pb::AuthUserGrantRoleRequest { user: name(VICTIM), role: name(VICTIM) };
    let revoke = pb::AuthUserRevokeRoleRequest { name: name(VICTIM), role: name(VICTIM) };
    let cell = |what: &str, request: &dyn ErasedMessage| {
        let mut cell = Cell::new(method, what, &()).needs(Needs::Root);
        cell.body = request.bytes();
        cell
    };
    match method {
        Method::UserAdd => vec![
            cell("new", &add("temporary")).after(Method::UserDelete, &remove("temporary")),
            cell("known", &add(VICTIM)),
            cell("empty", &add("")).needs(Needs::Untold),
        ],
        Method::UserGet => ["root", "prefix-read", "open-readwrite", VICTIM, "nobody-there", ""]
            .map(|user| {
                let request = pb::AuthUserGetRequest { name: name(user) };
                cell(user, &request).needs(Needs::Untold)
            })
            .to_vec(),
        Method::UserList => vec![cell("all", &pb::AuthUserListRequest {})],
        Method::UserDelete => vec![
            cell("known", &remove("temporary")).after(Method::UserAdd, &add("temporary")),
            cell("unknown", &remove("nobody-there")),
            cell("root", &remove("root")),
        ],
        Method::UserChangePassword => [VICTIM, "nobody-there"]
            .map(|user| {
                let password = name("other");
                let request = pb::AuthUserChangePasswordRequest {
                    name: name(user),
                    password,
                    ..Default::default()
                };
                cell(user, &request)
            })
            .to_vec(),
        Method::UserGrantRole => vec![
            cell("known", &grant).after(Method::UserRevokeRole, &revoke),
            cell("again", &grant),
            cell("unknown role", &pb::AuthUserGrantRoleRequest { role: name("none"), ..grant }),
        ],
        _ => {
            let from_root =
                pb::AuthUserRevokeRoleRequest { name: name("root"), role: name("root") };
            vec![
                cell("held", &revoke).after(Method::UserGrantRole, &grant),
                cell("not held", &revoke),
                cell("root's", &from_root),
            ]
        }
    }
}

fn roles(method: Method) -> Vec<Cell> {
    let name = |name: &str| name.to_owned();
    let add = |role: &str| pb::AuthRoleAddRequest { name: name(role) };
    let remove = |role: &str| pb::AuthRoleDeleteRequest { role: name(role) };
    let grant = |role: &str, span: Span| pb::AuthRoleGrantPermissionRequest {
        name: name(role),
        perm: Some(Permission {
            perm_type: Access::Read.number(),
            key: bytes(span.key),
            range_end: bytes(span.end),
        }),
    };
    let revoke = |role: &str, span: Span| pb::AuthRoleRevokePermissionRequest {
        role: name(role),
        key: bytes(span.key),
        range_end: bytes(span.end),
    };
    let cell = |what: &str, request: &dyn ErasedMessage| {
        let mut cell = Cell::new(method, what, &()).needs(Needs::Root);
        cell.body = request.bytes();
        cell
    };
    let [span, inverted] = [TARGETS[5].1, ODD[3].1];
    match method {
        Method::RoleAdd => vec![
            cell("new", &add("temporary")).after(Method::RoleDelete, &remove("temporary")),
            cell("known", &add(VICTIM)),
            cell("empty", &add("")),
        ],
        Method::RoleGet => ["root", "prefix-read", "open-readwrite", VICTIM, "none", ""]
            .map(|role| {
                let request = pb::AuthRoleGetRequest { role: name(role) };
                cell(role, &request).needs(Needs::Untold)
            })
            .to_vec(),
        Method::RoleList => vec![cell("all", &pb::AuthRoleListRequest {})],
        Method::RoleDelete => vec![
            cell("known", &remove("temporary")).after(Method::RoleAdd, &add("temporary")),
            cell("unknown", &remove("none")),
            cell("root", &remove("root")),
        ],
        Method::RoleGrantPermission => vec![
            cell("a range", &grant(VICTIM, span)),
            cell("an inverted range", &grant(VICTIM, inverted)),
            cell("unknown", &grant("none", span)),
            cell(
                "nothing",
                &pb::AuthRoleGrantPermissionRequest { perm: None, ..grant(VICTIM, span) },
            ),
        ],
        _ => vec![
            cell("held", &revoke(VICTIM, span))
                .after(Method::RoleGrantPermission, &grant(VICTIM, span)),
            cell("not held", &revoke(VICTIM, span)),
        ],
    }
}

/// Locks and elections, under a prefix, with a lease that there is not: nobody waits for another.
fn services(method: Method) -> Vec<Cell> {
    let name = bytes(b"p/lock");
    let held = v3electionpb::LeaderKey {
        name: bytes(b"p/elect"),
        key: bytes(b"p/elect/1"),
        rev: 1,
        lease: NO_LEASE,
    };
    match method {
        Method::Lock => {
            one(method, Needs::Untold, &v3lockpb::LockRequest { name, lease: NO_LEASE })
        }
        Method::Unlock => {
            one(method, Needs::Untold, &v3lockpb::UnlockRequest { key: bytes(b"p/lock/1") })
        }
        Method::Campaign => {
            let (lease, value) = (NO_LEASE, bytes(b"v"));
            one(method, Needs::Untold, &v3electionpb::CampaignRequest { name, lease, value })
        }
        Method::Proclaim => {
            let (leader, value) = (Some(held), bytes(b"v"));
            one(method, Needs::Untold, &v3electionpb::ProclaimRequest { leader, value })
        }
        Method::Leader | Method::Observe => {
            one(method, Needs::Untold, &v3electionpb::LeaderRequest { name: held.name })
        }
        _ => one(method, Needs::Untold, &v3electionpb::ResignRequest { leader: Some(held) }),
    }
}

#[test]
fn every_method_has_a_row() {
    for row in METHODS {
        let cells = of(row.method);
        assert!(!cells.is_empty(), "{} has no row", row.path);
        assert!(cells.iter().all(|cell| cell.method == row.method), "{}", row.path);
    }
}
