//! Which calls may be sent again.

use api::method::Method;

/// Attempts of one call while servers answer Unavailable.
pub const MAX_ATTEMPTS: u32 = 100;

/// Whether sending a call twice is the same as sending it once. Only these are repeated after an
/// answer or a break; every call is repeated while it could not be sent at all.
//= etcd 3.7.1: client/v3/retry.go (repeatable policy)
#[must_use]
pub fn is_repeatable(method: Method) -> bool {
    use Method::*;
    matches!(
        method,
        Range
            | LeaseGrant
            | LeaseRevoke
            | LeaseTimeToLive
            | LeaseLeases
            | MemberList
            | Alarm
            | Status
            | Hash
            | HashKV
            | MoveLeader
            | UserGet
            | UserList
            | RoleGet
            | RoleList
    )
}
