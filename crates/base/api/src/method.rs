//! The method table: one row per RPC of every service on the client port.
//!
//! Router, gateway, metrics, authorization and tests read this table; a method without an
//! authorization rule does not compile (invariant 14). A test holds the rows against the service
//! definitions in `proto/`.

/// How many messages travel each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallType {
    /// One request, one response.
    Unary,
    /// One request, a stream of responses.
    ServerStream,
    /// Streams both ways.
    BidiStream,
}

impl CallType {
    /// The `grpc_type` label of metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            CallType::Unary => "unary",
            CallType::ServerStream => "server_stream",
            CallType::BidiStream => "bidi_stream",
        }
    }
}

/// What permission on a key an operation needs first of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Permission READ.
    Read,
    /// Permission WRITE; READ too if the previous value is asked for.
    Write,
}

/// Who may call a method while authentication is enabled. Without authentication all may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anyone, without a token.
    Open,
    /// Anyone, but a token that is sent must be valid.
    ValidToken,
    /// Any authenticated user.
    User,
    /// A user with role root.
    Root,
    /// A user with role root, but reading (action GET) is open to any user.
    RootUnlessGet,
    /// A user with role root if authentication is on already.
    RootIfEnabled,
    /// A user with role root, or the user that is asked about.
    RootOrSelf,
    /// A user with role root, or one that holds the role that is asked about.
    RootOrHolder,
    /// Permission on the key or range of the request.
    Key(Need),
    /// READ on every compare, and each operation of both branches by its own rule.
    Txn,
    /// READ on the range of each create request; checked when a watch is created.
    WatchCreate,
    /// WRITE on every key attached to the lease.
    LeaseKeysWrite,
    /// Any user; READ on every attached key if the keys are asked for.
    LeaseKeysRead,
    /// READ on every key attached to any lease.
    AllLeaseKeysRead,
    /// Made of key-value and lease calls, each checked by its own rule with the caller's identity.
    Inner,
}

/// Whether a learner serves a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learner {
    /// Refused with `rpc not supported for learner`.
    Never,
    /// Served if the request is serializable.
    IfSerializable,
    /// Served.
    Always,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which method this is.
    pub method: Method,
    /// Full service name, with its package.
    pub service: &'static str,
    /// Method name within the service.
    pub name: &'static str,
    /// `/service/name`, the HTTP/2 path.
    pub path: &'static str,
    /// How many messages travel each way.
    pub kind: CallType,
    /// Name of the request message.
    pub request: &'static str,
    /// Name of the response message.
    pub response: &'static str,
    /// Who may call it.
    pub rule: Rule,
    /// Whether a learner serves it.
    pub learner: Learner,
    /// Paths of the JSON gateway, POST only.
    pub gateway: &'static [&'static str],
}

macro_rules! table {
    ($($method:ident = $service:literal, $name:literal, $kind:ident, $request:literal,
       $response:literal, $rule:expr, $learner:ident, [$($gateway:literal),*];)*) => {
        /// Every method on the client port.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Method { $($method,)* }

        /// The table, in the order of [`Method`].
        pub const METHODS: &[Row] = &[$({
            use Rule::*;
            Row {
                method: Method::$method,
                service: $service,
                name: $name,
                path: concat!("/", $service, "/", $name),
                kind: CallType::$kind,
                request: $request,
                response: $response,
                rule: $rule,
                learner: Learner::$learner,
                gateway: &[$($gateway),*],
            }
        },)*];
    };
}

table! {
    Range = "etcdserverpb.KV", "Range", Unary, "RangeRequest", "RangeResponse", Key(Need::Read), IfSerializable, ["/v3/kv/range"];
    RangeStream = "etcdserverpb.KV", "RangeStream", ServerStream, "RangeRequest", "RangeStreamResponse", Key(Need::Read), Never, [];
    Put = "etcdserverpb.KV", "Put", Unary, "PutRequest", "PutResponse", Key(Need::Write), Never, ["/v3/kv/put"];
    DeleteRange = "etcdserverpb.KV", "DeleteRange", Unary, "DeleteRangeRequest", "DeleteRangeResponse", Key(Need::Write), Never, ["/v3/kv/deleterange"];
    Txn = "etcdserverpb.KV", "Txn", Unary, "TxnRequest", "TxnResponse", Txn, Never, ["/v3/kv/txn"];
    Compact = "etcdserverpb.KV", "Compact", Unary, "CompactionRequest", "CompactionResponse", Root, Never, ["/v3/kv/compaction"];
    Watch = "etcdserverpb.Watch", "Watch", BidiStream, "WatchRequest", "WatchResponse", WatchCreate, Never, ["/v3/watch"];
    LeaseGrant = "etcdserverpb.Lease", "LeaseGrant", Unary, "LeaseGrantRequest", "LeaseGrantResponse", User, Never, ["/v3/lease/grant"];
    LeaseRevoke = "etcdserverpb.Lease", "LeaseRevoke", Unary, "LeaseRevokeRequest", "LeaseRevokeResponse", LeaseKeysWrite, Never, ["/v3/lease/revoke", "/v3/kv/lease/revoke"];
    LeaseKeepAlive = "etcdserverpb.Lease", "LeaseKeepAlive", BidiStream, "LeaseKeepAliveRequest", "LeaseKeepAliveResponse", LeaseKeysWrite, Never, ["/v3/lease/keepalive"];
    LeaseTimeToLive = "etcdserverpb.Lease", "LeaseTimeToLive", Unary, "LeaseTimeToLiveRequest", "LeaseTimeToLiveResponse", LeaseKeysRead, Never, ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"];
    LeaseLeases = "etcdserverpb.Lease", "LeaseLeases", Unary, "LeaseLeasesRequest", "LeaseLeasesResponse", AllLeaseKeysRead, Never, ["/v3/lease/leases", "/v3/kv/lease/leases"];
    MemberAdd = "etcdserverpb.Cluster", "MemberAdd", Unary, "MemberAddRequest", "MemberAddResponse", Root, Never, ["/v3/cluster/member/add"];
    MemberRemove = "etcdserverpb.Cluster", "MemberRemove", Unary, "MemberRemoveRequest", "MemberRemoveResponse", Root, Never, ["/v3/cluster/member/remove"];
    MemberUpdate = "etcdserverpb.Cluster", "MemberUpdate", Unary, "MemberUpdateRequest", "MemberUpdateResponse", Root, Never, ["/v3/cluster/member/update"];
    MemberList = "etcdserverpb.Cluster", "MemberList", Unary, "MemberListRequest", "MemberListResponse", User, Never, ["/v3/cluster/member/list"];
    MemberPromote = "etcdserverpb.Cluster", "MemberPromote", Unary, "MemberPromoteRequest", "MemberPromoteResponse", Root, Never, ["/v3/cluster/member/promote"];
    Alarm = "etcdserverpb.Maintenance", "Alarm", Unary, "AlarmRequest", "AlarmResponse", RootUnlessGet, Never, ["/v3/maintenance/alarm"];
    Status = "etcdserverpb.Maintenance", "Status", Unary, "StatusRequest", "StatusResponse", User, Always, ["/v3/maintenance/status"];
    Defragment = "etcdserverpb.Maintenance", "Defragment", Unary, "DefragmentRequest", "DefragmentResponse", Root, Never, ["/v3/maintenance/defragment"];
    Hash = "etcdserverpb.Maintenance", "Hash", Unary, "HashRequest", "HashResponse", Root, Never, ["/v3/maintenance/hash"];
    HashKV = "etcdserverpb.Maintenance", "HashKV", Unary, "HashKVRequest", "HashKVResponse", Root, Never, ["/v3/maintenance/hashkv"];
    Snapshot = "etcdserverpb.Maintenance", "Snapshot", ServerStream, "SnapshotRequest", "SnapshotResponse", Root, Always, ["/v3/maintenance/snapshot"];
    MoveLeader = "etcdserverpb.Maintenance", "MoveLeader", Unary, "MoveLeaderRequest", "MoveLeaderResponse", Root, Never, ["/v3/maintenance/transfer-leadership"];
    Downgrade = "etcdserverpb.Maintenance", "Downgrade", Unary, "DowngradeRequest", "DowngradeResponse", Root, Never, ["/v3/maintenance/downgrade"];
    AuthEnable = "etcdserverpb.Auth", "AuthEnable", Unary, "AuthEnableRequest", "AuthEnableResponse", RootIfEnabled, Never, ["/v3/auth/enable"];
    AuthDisable = "etcdserverpb.Auth", "AuthDisable", Unary, "AuthDisableRequest", "AuthDisableResponse", Root, Never, ["/v3/auth/disable"];
    AuthStatus = "etcdserverpb.Auth", "AuthStatus", Unary, "AuthStatusRequest", "AuthStatusResponse", ValidToken, Never, ["/v3/auth/status"];
    Authenticate = "etcdserverpb.Auth", "Authenticate", Unary, "AuthenticateRequest", "AuthenticateResponse", Open, Never, ["/v3/auth/authenticate"];
    UserAdd = "etcdserverpb.Auth", "UserAdd", Unary, "AuthUserAddRequest", "AuthUserAddResponse", Root, Never, ["/v3/auth/user/add"];
    UserGet = "etcdserverpb.Auth", "UserGet", Unary, "AuthUserGetRequest", "AuthUserGetResponse", RootOrSelf, Never, ["/v3/auth/user/get"];
    UserList = "etcdserverpb.Auth", "UserList", Unary, "AuthUserListRequest", "AuthUserListResponse", Root, Never, ["/v3/auth/user/list"];
    UserDelete = "etcdserverpb.Auth", "UserDelete", Unary, "AuthUserDeleteRequest", "AuthUserDeleteResponse", Root, Never, ["/v3/auth/user/delete"];
    UserChangePassword = "etcdserverpb.Auth", "UserChangePassword", Unary, "AuthUserChangePasswordRequest", "AuthUserChangePasswordResponse", Root, Never, ["/v3/auth/user/changepw"];
    UserGrantRole = "etcdserverpb.Auth", "UserGrantRole", Unary, "AuthUserGrantRoleRequest", "AuthUserGrantRoleResponse", Root, Never, ["/v3/auth/user/grant"];
    UserRevokeRole = "etcdserverpb.Auth", "UserRevokeRole", Unary, "AuthUserRevokeRoleRequest", "AuthUserRevokeRoleResponse", Root, Never, ["/v3/auth/user/revoke"];
    RoleAdd = "etcdserverpb.Auth", "RoleAdd", Unary, "AuthRoleAddRequest", "AuthRoleAddResponse", Root, Never, ["/v3/auth/role/add"];
    RoleGet = "etcdserverpb.Auth", "RoleGet", Unary, "AuthRoleGetRequest", "AuthRoleGetResponse", RootOrHolder, Never, ["/v3/auth/role/get"];
    RoleList = "etcdserverpb.Auth", "RoleList", Unary, "AuthRoleListRequest", "AuthRoleListResponse", Root, Never, ["/v3/auth/role/list"];
    RoleDelete = "etcdserverpb.Auth", "RoleDelete", Unary, "AuthRoleDeleteRequest", "AuthRoleDeleteResponse", Root, Never, ["/v3/auth/role/delete"];
    RoleGrantPermission = "etcdserverpb.Auth", "RoleGrantPermission", Unary, "AuthRoleGrantPermissionRequest", "AuthRoleGrantPermissionResponse", Root, Never, ["/v3/auth/role/grant"];
    RoleRevokePermission = "etcdserverpb.Auth", "RoleRevokePermission", Unary, "AuthRoleRevokePermissionRequest", "AuthRoleRevokePermissionResponse", Root, Never, ["/v3/auth/role/revoke"];
    Lock = "v3lockpb.Lock", "Lock", Unary, "LockRequest", "LockResponse", Inner, Never, ["/v3/lock/lock"];
    Unlock = "v3lockpb.Lock", "Unlock", Unary, "UnlockRequest", "UnlockResponse", Inner, Never, ["/v3/lock/unlock"];
    Campaign = "v3electionpb.Election", "Campaign", Unary, "CampaignRequest", "CampaignResponse", Inner, Never, ["/v3/election/campaign"];
    Proclaim = "v3electionpb.Election", "Proclaim", Unary, "ProclaimRequest", "ProclaimResponse", Inner, Never, ["/v3/election/proclaim"];
    Leader = "v3electionpb.Election", "Leader", Unary, "LeaderRequest", "LeaderResponse", Inner, Never, ["/v3/election/leader"];
    Observe = "v3electionpb.Election", "Observe", ServerStream, "LeaderRequest", "LeaderResponse", Inner, Never, ["/v3/election/observe"];
    Resign = "v3electionpb.Election", "Resign", Unary, "ResignRequest", "ResignResponse", Inner, Never, ["/v3/election/resign"];
    HealthCheck = "grpc.health.v1.Health", "Check", Unary, "HealthCheckRequest", "HealthCheckResponse", Open, Never, [];
    HealthList = "grpc.health.v1.Health", "List", Unary, "HealthListRequest", "HealthListResponse", Open, Never, [];
    HealthWatch = "grpc.health.v1.Health", "Watch", ServerStream, "HealthCheckRequest", "HealthCheckResponse", Open, Never, [];
}

impl Method {
    /// This method's row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &METHODS[self as usize]
    }
}

/// Finds the row of an HTTP/2 path such as `/etcdserverpb.KV/Put`.
#[must_use]
pub fn by_path(path: &str) -> Option<&'static Row> {
    METHODS.iter().find(|row| row.path == path)
}

/// Whether any method belongs to this service.
#[must_use]
pub fn is_service(service: &str) -> bool {
    METHODS.iter().any(|row| row.service == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_methods_place() {
        for (place, row) in METHODS.iter().enumerate() {
            assert_eq!(row.method as usize, place);
        }
    }

    #[test]
    fn rows_are_the_services_of_the_proto_files() {
        use prost_types::FileDescriptorSet;
        let set: FileDescriptorSet =
            prost::Message::decode(crate::DESCRIPTORS).expect("written by our own build");
        let mut defined = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let kind = match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => CallType::Unary,
                        (false, true) => CallType::ServerStream,
                        (true, _) => CallType::BidiStream,
                    };
                    let last = |t: &str| t.rsplit('.').next().unwrap_or_default().to_owned();
                    defined.push((
                        format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                        kind.label(),
                        last(method.input_type()),
                        last(method.output_type()),
                    ));
                }
            }
        }
        let mut rows: Vec<_> = METHODS
            .iter()
            .map(|r| (r.path.to_owned(), r.kind.label(), r.request.into(), r.response.into()))
            .collect();
        defined.sort();
        rows.sort();
        assert_eq!(rows, defined);
    }

    #[test]
    fn gateway_paths_are_distinct() {
        let mut paths: Vec<_> = METHODS.iter().flat_map(|r| r.gateway).collect();
        assert_eq!(paths.len(), 51);
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), 51);
    }
}
