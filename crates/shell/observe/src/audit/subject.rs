//! What a request concerns, read out of its bytes: keys, and whatever else it names.
//!
//! Never a value, a password, a token or a hash: each arm says which fields it takes.

use api::authpb::Permission;
use api::etcdserverpb as pb;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_request::RequestUnion;
use api::method::Method;
use api::odd;
use api::{v3electionpb as election, v3lockpb as lock};
use bytes::Bytes;
use prost::{Message, Name};
use types::MemberId;

use super::line::{Keys, member, number};

/// Levels of a transaction that are read; of one that is deeper, no key is named.
const MAX_DEPTH: usize = 128;

/// Whether a request changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsChange {
    Yes,
    No,
}

/// What a request names, and whether it changes something; `None` for bytes that are no request.
type Told = Option<IsChange>;

fn read<M: Message + Default + Name>(request: &Bytes) -> Option<M> {
    odd::decode(request.clone()).ok()
}

/// Appends what a request of a method concerns. No arm stands for methods that it does not name.
pub(crate) fn tell_subject(out: &mut String, method: Method, request: &Bytes) -> IsChange {
    use Method as M;
    let told = match method {
        M::Range | M::RangeStream => range(out, request),
        M::Put => put(out, request),
        M::DeleteRange => delete(out, request),
        M::Txn => txn(out, request),
        M::Compact => read::<pb::CompactionRequest>(request).map(|request| {
            number(out, "compact_revision", request.revision);
            IsChange::Yes
        }),
        M::Watch => watch(out, request),
        M::LeaseGrant
        | M::LeaseRevoke
        | M::LeaseKeepAlive
        | M::LeaseTimeToLive
        | M::LeaseLeases => lease(out, method, request),
        M::MemberAdd
        | M::MemberRemove
        | M::MemberUpdate
        | M::MemberPromote
        | M::MemberList
        | M::MoveLeader => members(out, method, request),
        M::Alarm => alarm(out, request),
        M::Downgrade => downgrade(out, request),
        M::Status | M::Hash | M::HashKV => Some(IsChange::No),
        M::Defragment | M::Snapshot => Some(IsChange::Yes),
        M::AuthEnable | M::AuthDisable => Some(IsChange::Yes),
        M::AuthStatus | M::UserList | M::RoleList => Some(IsChange::No),
        M::Authenticate
        | M::UserAdd
        | M::UserGet
        | M::UserDelete
        | M::UserChangePassword
        | M::UserGrantRole
        | M::UserRevokeRole => users(out, method, request),
        M::RoleAdd
        | M::RoleGet
        | M::RoleDelete
        | M::RoleGrantPermission
        | M::RoleRevokePermission => roles(out, method, request),
        M::Lock | M::Unlock => locks(out, method, request),
        M::Campaign | M::Proclaim | M::Leader | M::Observe | M::Resign => {
            elections(out, method, request)
        }
        M::HealthCheck | M::HealthList | M::HealthWatch => Some(IsChange::No),
    };
    told.unwrap_or_else(|| {
        out.push_str(",\"unreadable\":true");
        IsChange::No
    })
}

fn one_key(out: &mut String, key: &[u8], range_end: &[u8]) {
    let mut keys = Keys::begin(out);
    keys.push(None, key, range_end);
    keys.end();
}

fn lease_id(out: &mut String, lease: i64) {
    if lease != 0 {
        number(out, "lease", lease);
    }
}

fn range(out: &mut String, request: &Bytes) -> Told {
    let request: pb::RangeRequest = read(request)?;
    one_key(out, &request.key, &request.range_end);
    Some(IsChange::No)
}

fn put(out: &mut String, request: &Bytes) -> Told {
    let request: pb::PutRequest = read(request)?;
    one_key(out, &request.key, &[]);
    lease_id(out, request.lease);
    Some(IsChange::Yes)
}

fn delete(out: &mut String, request: &Bytes) -> Told {
    let request: pb::DeleteRangeRequest = read(request)?;
    one_key(out, &request.key, &request.range_end);
    Some(IsChange::Yes)
}

/// The keys of all compares and of the operations of both branches: which one was taken is not
/// known from the request.
fn txn(out: &mut String, request: &Bytes) -> Told {
    calls::validate::txn_depth(request, MAX_DEPTH).ok()?;
    let request: pb::TxnRequest = read(request)?;
    let mut keys = Keys::begin(out);
    let is_change = walk(&mut keys, &request);
    keys.end();
    Some(is_change)
}

fn walk(keys: &mut Keys<'_>, txn: &pb::TxnRequest) -> IsChange {
    let mut is_change = IsChange::No;
    for compare in &txn.compare {
        keys.push(Some("compare"), &compare.key, &compare.range_end);
    }
    for operation in txn.success.iter().chain(&txn.failure) {
        let changes = match &operation.request {
            Some(Request::RequestRange(range)) => {
                keys.push(Some("range"), &range.key, &range.range_end);
                IsChange::No
            }
            Some(Request::RequestPut(put)) => {
                keys.push(Some("put"), &put.key, &[]);
                IsChange::Yes
            }
            Some(Request::RequestDeleteRange(delete)) => {
                keys.push(Some("delete"), &delete.key, &delete.range_end);
                IsChange::Yes
            }
            Some(Request::RequestTxn(nested)) => walk(keys, nested),
            None => IsChange::No,
        };
        if changes == IsChange::Yes {
            is_change = IsChange::Yes;
        }
    }
    is_change
}

fn watch(out: &mut String, request: &Bytes) -> Told {
    let request: pb::WatchRequest = read(request)?;
    if let Some(RequestUnion::CreateRequest(create)) = request.request_union {
        one_key(out, &create.key, &create.range_end);
    }
    Some(IsChange::No)
}

/// A lease that is granted without an id has none here: the member chooses it.
fn lease(out: &mut String, method: Method, request: &Bytes) -> Told {
    match method {
        Method::LeaseGrant => {
            let request: pb::LeaseGrantRequest = read(request)?;
            lease_id(out, request.id);
            number(out, "ttl", request.ttl);
            return Some(IsChange::Yes);
        }
        Method::LeaseRevoke => {
            lease_id(out, read::<pb::LeaseRevokeRequest>(request)?.id);
            return Some(IsChange::Yes);
        }
        Method::LeaseKeepAlive => lease_id(out, read::<pb::LeaseKeepAliveRequest>(request)?.id),
        Method::LeaseTimeToLive => lease_id(out, read::<pb::LeaseTimeToLiveRequest>(request)?.id),
        _ => {}
    }
    Some(IsChange::No)
}

fn members(out: &mut String, method: Method, request: &Bytes) -> Told {
    let mut id = |id: u64| member(out, "target_member", &MemberId(id).to_string());
    match method {
        Method::MemberAdd => {
            let request: pb::MemberAddRequest = read(request)?;
            member(out, "peer_urls", &request.peer_ur_ls.join(","));
        }
        Method::MemberUpdate => {
            let request: pb::MemberUpdateRequest = read(request)?;
            id(request.id);
            member(out, "peer_urls", &request.peer_ur_ls.join(","));
        }
        Method::MemberRemove => id(read::<pb::MemberRemoveRequest>(request)?.id),
        Method::MemberPromote => id(read::<pb::MemberPromoteRequest>(request)?.id),
        Method::MoveLeader => id(read::<pb::MoveLeaderRequest>(request)?.target_id),
        _ => return Some(IsChange::No),
    }
    Some(IsChange::Yes)
}

fn alarm(out: &mut String, request: &Bytes) -> Told {
    let request: pb::AlarmRequest = read(request)?;
    let kind = pb::AlarmType::try_from(request.alarm);
    member(out, "alarm", kind.map_or("UNKNOWN", |kind| kind.as_str_name()));
    let action = AlarmAction::try_from(request.action);
    member(out, "action", action.map_or("UNKNOWN", |action| action.as_str_name()));
    member(out, "target_member", &MemberId(request.member_id).to_string());
    Some(if action == Ok(AlarmAction::Get) { IsChange::No } else { IsChange::Yes })
}

fn downgrade(out: &mut String, request: &Bytes) -> Told {
    let request: pb::DowngradeRequest = read(request)?;
    let action = DowngradeAction::try_from(request.action);
    member(out, "action", action.map_or("UNKNOWN", |action| action.as_str_name()));
    member(out, "version", &request.version);
    Some(if action == Ok(DowngradeAction::Validate) { IsChange::No } else { IsChange::Yes })
}

/// The user that a request is about, and its role if it names one.
fn users(out: &mut String, method: Method, request: &Bytes) -> Told {
    let (name, role) = match method {
        Method::UserAdd => (read::<pb::AuthUserAddRequest>(request)?.name, None),
        Method::UserGet => (read::<pb::AuthUserGetRequest>(request)?.name, None),
        Method::UserDelete => (read::<pb::AuthUserDeleteRequest>(request)?.name, None),
        Method::UserChangePassword => {
            (read::<pb::AuthUserChangePasswordRequest>(request)?.name, None)
        }
        Method::UserGrantRole => {
            let request: pb::AuthUserGrantRoleRequest = read(request)?;
            (request.user, Some(request.role))
        }
        Method::UserRevokeRole => {
            let request: pb::AuthUserRevokeRoleRequest = read(request)?;
            (request.name, Some(request.role))
        }
        _ => (read::<pb::AuthenticateRequest>(request)?.name, None),
    };
    member(out, "target_user", &name);
    if let Some(role) = role {
        member(out, "target_role", &role);
    }
    Some(if method == Method::UserGet { IsChange::No } else { IsChange::Yes })
}

fn roles(out: &mut String, method: Method, request: &Bytes) -> Told {
    match method {
        Method::RoleAdd => {
            member(out, "target_role", &read::<pb::AuthRoleAddRequest>(request)?.name)
        }
        Method::RoleGet => {
            member(out, "target_role", &read::<pb::AuthRoleGetRequest>(request)?.role);
            return Some(IsChange::No);
        }
        Method::RoleGrantPermission => {
            let request: pb::AuthRoleGrantPermissionRequest = read(request)?;
            let Permission { perm_type, key, range_end } = request.perm.unwrap_or_default();
            one_key(out, &key, &range_end);
            member(out, "target_role", &request.name);
            let kind = api::authpb::permission::Type::try_from(perm_type);
            member(out, "permission", kind.map_or("UNKNOWN", |kind| kind.as_str_name()));
        }
        Method::RoleRevokePermission => {
            let request: pb::AuthRoleRevokePermissionRequest = read(request)?;
            one_key(out, &request.key, &request.range_end);
            member(out, "target_role", &request.role);
        }
        _ => member(out, "target_role", &read::<pb::AuthRoleDeleteRequest>(request)?.role),
    }
    Some(IsChange::Yes)
}

/// The name of a lock is a prefix of the keys of those who want it.
fn locks(out: &mut String, method: Method, request: &Bytes) -> Told {
    if method == Method::Unlock {
        one_key(out, &read::<lock::UnlockRequest>(request)?.key, &[]);
    } else {
        let request: lock::LockRequest = read(request)?;
        one_key(out, &request.name, &[]);
        lease_id(out, request.lease);
    }
    Some(IsChange::Yes)
}

/// The name of an election is a prefix of its candidates' keys.
fn elections(out: &mut String, method: Method, request: &Bytes) -> Told {
    let leader = match method {
        Method::Campaign => {
            let request: election::CampaignRequest = read(request)?;
            one_key(out, &request.name, &[]);
            lease_id(out, request.lease);
            return Some(IsChange::Yes);
        }
        Method::Proclaim => read::<election::ProclaimRequest>(request)?.leader,
        Method::Resign => read::<election::ResignRequest>(request)?.leader,
        _ => {
            one_key(out, &read::<election::LeaderRequest>(request)?.name, &[]);
            return Some(IsChange::No);
        }
    };
    let leader = leader.unwrap_or_default();
    one_key(out, &leader.key, &[]);
    lease_id(out, leader.lease);
    Some(IsChange::Yes)
}
