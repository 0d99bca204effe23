//! Commands: what an entry of the log asks the machine to do.
//!
//! Owns the table of commands (field number in `InternalRaftRequest`, name, guards) and the way
//! between a command and the bytes of an entry. An entry is decoded once, here; what a command
//! does is `apply.rs`.
//!
//! Invariant: entries are byte for byte those that etcd would write, fields in ascending order.

use api::error::ApiError;
use api::etcdserverpb::*;
use api::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use api::method::{Need, Rule};
use api::odd::{self, Undecodable};
use api::wire::{self, LENGTH_DELIMITED, Malformed, VARINT};
use bytes::Bytes;
use prost::Message;
use prost::encoding::encode_varint;
use request_op::Request;
use types::{LeaseId, RequestId};

use crate::auth::{Attached, Auth, Want, Who};
use crate::leases::Leases;

/// Whether a command is refused with `corrupt cluster` while a CORRUPT alarm is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCorrupt {
    /// Refused.
    Refuse,
    /// Applied all the same.
    Apply,
}

/// A row of the table of commands.
#[derive(Clone, Copy, Debug)]
pub struct CommandRow {
    /// Which command this is.
    pub kind: CommandKind,
    /// Number of its field in `InternalRaftRequest`.
    pub field: u32,
    /// etcd's name of it, as in the label `op` of `etcd_server_apply_duration_seconds`.
    pub name: &'static str,
    /// The first guard: a CORRUPT alarm.
    pub on_corrupt: OnCorrupt,
    /// The last guard: who may. Between the two stand the NOSPACE alarm and the quota, which
    /// concern what [costs](Command::cost) something.
    pub rule: Rule,
}

macro_rules! commands {
    ($($kind:ident($payload:ident) = $field:literal, $member:ident, $name:literal,
       $on_corrupt:ident, $rule:expr;)*) => {
        /// The commands, in the order in which etcd looks for one in an entry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum CommandKind { $($kind,)* }

        /// A command of the log.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Command { $($kind($payload),)* }

        /// The table, in the order of [`CommandKind`].
        pub const COMMANDS: &[CommandRow] = &[$({
            use Rule::*;
            CommandRow {
                kind: CommandKind::$kind,
                field: $field,
                name: $name,
                on_corrupt: OnCorrupt::$on_corrupt,
                rule: $rule,
            }
        },)*];

        impl Command {
            /// Which command this is.
            #[must_use]
            pub fn kind(&self) -> CommandKind {
                match self { $(Command::$kind(_) => CommandKind::$kind,)* }
            }

            /// The request that carries this command.
            #[must_use]
            pub fn encode(&self, header: Header<'_>) -> Bytes {
                match self {
                    $(Command::$kind(body) => encode(CommandKind::$kind, &body.encode_to_vec(), header),)*
                }
            }

            /// Decodes the body of a command of this kind.
            fn decode_body(kind: CommandKind, body: Bytes) -> Result<Self, Undecodable> {
                match kind { $(CommandKind::$kind => odd::decode(body).map(Command::$kind),)* }
            }

            /// The command that etcd takes a request for which holds several.
            fn first_of(request: InternalRaftRequest) -> Option<Self> {
                $(if let Some(body) = request.$member {
                    return Some(Command::$kind(body));
                })*
                None
            }
        }
    };
}

//= etcd 3.7.3: server/etcdserver/server.go#applyInternalRaftRequest
//= etcd 3.7.3: server/etcdserver/apply/uber_applier.go#dispatch
//= etcd 3.7.3: server/etcdserver/apply/apply.go (applierV3Corrupt), apply_auth.go#Apply
commands! {
    ClusterVersionSet(ClusterVersionSetRequest) = 1300, cluster_version_set, "ClusterVersionSet", Apply, Open;
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest) = 1301, cluster_member_attr_set, "ClusterMemberAttrSet", Apply, Open;
    DowngradeInfoSet(DowngradeInfoSetRequest) = 1302, downgrade_info_set, "DowngradeInfoSet", Apply, Open;
    DowngradeVersionTest(DowngradeVersionTestRequest) = 9900, downgrade_version_test, "unknown", Apply, Open;
    Range(RangeRequest) = 3, range, "Range", Refuse, Key(Need::Read);
    Put(PutRequest) = 4, put, "Put", Refuse, Key(Need::Write);
    DeleteRange(DeleteRangeRequest) = 5, delete_range, "DeleteRange", Refuse, Key(Need::Write);
    Txn(TxnRequest) = 6, txn, "Txn", Refuse, Txn;
    Compaction(CompactionRequest) = 7, compaction, "Compaction", Refuse, Open;
    LeaseGrant(LeaseGrantRequest) = 8, lease_grant, "LeaseGrant", Refuse, Open;
    LeaseRevoke(LeaseRevokeRequest) = 9, lease_revoke, "LeaseRevoke", Refuse, LeaseKeysWrite;
    LeaseCheckpoint(LeaseCheckpointRequest) = 11, lease_checkpoint, "LeaseCheckpoint", Apply, Open;
    Alarm(AlarmRequest) = 10, alarm, "Alarm", Apply, Open;
    Authenticate(InternalAuthenticateRequest) = 1012, authenticate, "Authenticate", Apply, Open;
    AuthEnable(AuthEnableRequest) = 1000, auth_enable, "AuthEnable", Apply, Root;
    AuthDisable(AuthDisableRequest) = 1011, auth_disable, "AuthDisable", Apply, Root;
    AuthStatus(AuthStatusRequest) = 1013, auth_status, "unknown", Apply, Open;
    AuthUserAdd(AuthUserAddRequest) = 1100, auth_user_add, "AuthUserAdd", Apply, Root;
    AuthUserDelete(AuthUserDeleteRequest) = 1101, auth_user_delete, "AuthUserDelete", Apply, Root;
    AuthUserChangePassword(AuthUserChangePasswordRequest) = 1103, auth_user_change_password, "AuthUserChangePassword", Apply, Root;
    AuthUserGrantRole(AuthUserGrantRoleRequest) = 1104, auth_user_grant_role, "AuthUserGrantRole", Apply, Root;
    AuthUserGet(AuthUserGetRequest) = 1102, auth_user_get, "AuthUserGet", Apply, RootOrSelf;
    AuthUserRevokeRole(AuthUserRevokeRoleRequest) = 1105, auth_user_revoke_role, "AuthUserRevokeRole", Apply, Root;
    AuthRoleAdd(AuthRoleAddRequest) = 1200, auth_role_add, "AuthRoleAdd", Apply, Root;
    AuthRoleGrantPermission(AuthRoleGrantPermissionRequest) = 1203, auth_role_grant_permission, "AuthRoleGrantPermission", Apply, Root;
    AuthRoleGet(AuthRoleGetRequest) = 1202, auth_role_get, "AuthRoleGet", Apply, RootOrHolder;
    AuthRoleRevokePermission(AuthRoleRevokePermissionRequest) = 1204, auth_role_revoke_permission, "AuthRoleRevokePermission", Apply, Root;
    AuthRoleDelete(AuthRoleDeleteRequest) = 1201, auth_role_delete, "AuthRoleDelete", Apply, Root;
    AuthUserList(AuthUserListRequest) = 1106, auth_user_list, "AuthUserList", Apply, Root;
    AuthRoleList(AuthRoleListRequest) = 1107, auth_role_list, "AuthRoleList", Apply, Root;
}

impl CommandKind {
    /// This command's row.
    #[must_use]
    pub fn row(self) -> &'static CommandRow {
        &COMMANDS[self as usize]
    }

    /// The command whose field has this number.
    fn of_field(number: u64) -> Option<Self> {
        COMMANDS.iter().find(|row| u64::from(row.field) == number).map(|row| row.kind)
    }
}

/// The header of an entry (`RequestHeader`): its request id and who proposed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// Request id, by which the proposing member finds the call that waits for the outcome.
    pub id: RequestId,
    /// The authenticated user; empty without authentication.
    pub username: &'a str,
    /// Auth revision at which the user's token was issued; 0 without authentication.
    pub auth_revision: u64,
}

const HEADER_FIELD: u32 = 100;
/// The deprecated place of the id, before there was a header.
const OLD_ID_FIELD: u64 = 1;
/// Bytes of a header without a user, and of the tags and lengths around it and the body.
const ROOM_BYTES: usize = 48;

fn put_length_delimited(field: u32, body: &[u8], out: &mut Vec<u8>) {
    encode_varint(u64::from(field << 3 | u32::from(LENGTH_DELIMITED)), out);
    encode_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

fn put_integer(field: u32, value: u64, out: &mut impl bytes::BufMut) {
    if value != 0 {
        encode_varint(u64::from(field << 3), out);
        encode_varint(value, out);
    }
}

fn put_header(header: Header<'_>, out: &mut Vec<u8>) {
    // Tag and length are written once the length is known; without a user it is below 128.
    let (mut id, mut revision) = ([0u8; 11], [0u8; 11]);
    let encoded = |field, value, room: &mut [u8; 11]| {
        let mut rest = &mut room[..];
        put_integer(field, value, &mut rest);
        11 - rest.len()
    };
    let id_len = encoded(1, header.id.0, &mut id);
    let revision_len = encoded(3, header.auth_revision, &mut revision);
    let mut user = Vec::new();
    if !header.username.is_empty() {
        put_length_delimited(2, header.username.as_bytes(), &mut user);
    }
    encode_varint(u64::from(HEADER_FIELD << 3 | u32::from(LENGTH_DELIMITED)), out);
    encode_varint((id_len + user.len() + revision_len) as u64, out);
    out.extend_from_slice(&id[..id_len]);
    out.extend_from_slice(&user);
    out.extend_from_slice(&revision[..revision_len]);
}

/// The entry for a command whose body is encoded already: a client's bytes go into the log as
/// they came.
#[must_use]
pub fn encode(kind: CommandKind, body: &[u8], header: Header<'_>) -> Bytes {
    let field = kind.row().field;
    let mut out = Vec::with_capacity(body.len() + header.username.len() + ROOM_BYTES);
    if field < HEADER_FIELD {
        put_length_delimited(field, body, &mut out);
        put_header(header, &mut out);
    } else {
        put_header(header, &mut out);
        put_length_delimited(field, body, &mut out);
    }
    out.into()
}

/// A decoded entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Request id and proposer.
    pub header: RequestHeader,
    /// The command; `None` if this version does not know it.
    pub command: Option<Command>,
}

/// Decodes the data of an entry.
///
/// # Errors
/// [`Undecodable`], where protobuf-go refuses the bytes too.
pub fn decode(data: Bytes) -> Result<Decoded, Undecodable> {
    match parts(&data) {
        Ok(Parts { header, body: Some((kind, body)), is_plain: true }) => Ok(Decoded {
            header: header
                .map_or(Ok(RequestHeader::default()), |at| odd::decode(data.slice(at)))?,
            command: Some(Command::decode_body(kind, data.slice(body))?),
        }),
        _ => {
            let mut request: InternalRaftRequest = odd::decode(data)?;
            let header = request.header.take();
            let old = RequestHeader { id: request.id, ..RequestHeader::default() };
            let header = header.unwrap_or(old);
            Ok(Decoded { header, command: Command::first_of(request) })
        }
    }
}

/// Where the parts of an entry lie.
#[derive(Debug, Default)]
struct Parts {
    header: Option<std::ops::Range<usize>>,
    body: Option<(CommandKind, std::ops::Range<usize>)>,
    /// One command and at most one header, and nothing else.
    is_plain: bool,
}

fn parts(data: &[u8]) -> Result<Parts, Malformed> {
    let mut parts = Parts { is_plain: true, ..Parts::default() };
    for field in wire::fields(data) {
        let wire::Field { number, wire, content } = field?;
        if wire != LENGTH_DELIMITED {
            parts.is_plain = false;
        } else if number == u64::from(HEADER_FIELD) {
            parts.is_plain &= parts.header.replace(content).is_none();
        } else if let Some(kind) = CommandKind::of_field(number) {
            parts.is_plain &= parts.body.replace((kind, content)).is_none();
        } else {
            parts.is_plain = false;
        }
    }
    Ok(parts)
}

/// The id in the data of an entry: that of its header, else the deprecated one, else 0. Looks at
/// nothing else; `None` if the bytes are not protobuf.
//= etcd 3.7.3: server/etcdserver/server.go#applyEntryNormal (raftReq.Header.ID, raftReq.ID)
#[must_use]
pub fn request_id(data: &[u8]) -> Option<RequestId> {
    let (mut old, mut id) = (0, None);
    for field in wire::fields(data) {
        let field = field.ok()?;
        match (field.number, field.wire) {
            (OLD_ID_FIELD, VARINT) => {
                old = wire::varint(data, &mut { field.content.start }).ok()?
            }
            (number, LENGTH_DELIMITED) if number == u64::from(HEADER_FIELD) => {
                id = Some(id_in_header(&data[field.content])?.or(id).unwrap_or(0));
            }
            _ => {}
        }
    }
    Some(RequestId(id.unwrap_or(old)))
}

/// The id in a header, if it has one; the outer `None` if the bytes are not protobuf.
fn id_in_header(header: &[u8]) -> Option<Option<u64>> {
    let mut id = None;
    for field in wire::fields(header) {
        let field = field.ok()?;
        if (field.number, field.wire) == (1, VARINT) {
            id = Some(wire::varint(header, &mut { field.content.start }).ok()?);
        }
    }
    Some(id)
}

impl Command {
    /// Bytes that count against the quota; 0 for a command that takes no space. What costs
    /// something is refused while a NOSPACE alarm is set.
    //= etcd 3.7.3: server/etcdserver/apply/apply.go (applierV3Capped), quota.go
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Command::Put(put) => put_cost(put),
            Command::Txn(txn) => txn_cost(txn),
            Command::LeaseGrant(_) => LEASE_COST,
            _ => 0,
        }
    }
}

/// Bytes that a lease counts against the quota.
//= etcd 3.7.3: server/storage/quota.go (leaseOverhead)
pub const LEASE_COST: u64 = 64;
/// Bytes that a put counts against the quota besides its key and value.
//= etcd 3.7.3: server/storage/quota.go (kvOverhead)
const PUT_OVERHEAD: u64 = 256;

/// Bytes that a put counts against the quota.
#[must_use]
pub fn put_cost(put: &PutRequest) -> u64 {
    PUT_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// What a transaction counts against the quota: its dearer branch, in bytes. Transactions nest as
/// deep as validation lets them (`--max-txn-ops`).
//= etcd 3.7.3: server/storage/quota.go#costTxn
#[must_use]
pub fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| {
        ops.iter().fold(0u64, |sum, op| {
            sum.saturating_add(match &op.request {
                Some(Request::RequestPut(put)) => put_cost(put),
                Some(Request::RequestTxn(inner)) => txn_cost(inner),
                _ => 0,
            })
        })
    };
    branch(&txn.success).max(branch(&txn.failure))
}

/// Whether the user of an entry may do what it asks for.
//= etcd 3.7.3: server/etcdserver/apply/auth.go#Apply
pub(crate) fn permitted(
    auth: &Auth,
    leases: &Leases,
    command: &Command,
    header: &RequestHeader,
) -> Result<(), ApiError> {
    if !auth.is_enabled() {
        return Ok(());
    }
    let who = Who { user: &header.username, revision: header.auth_revision };
    let want = match (command.kind().row().rule, command) {
        (Rule::Open, _) => return Ok(()),
        (_, Command::Range(range)) => Want::Read { key: &range.key, range_end: &range.range_end },
        (_, Command::Put(put)) => Want::Put(put),
        (_, Command::DeleteRange(delete)) => Want::Delete(delete),
        (_, Command::Txn(txn)) => Want::Txn(txn),
        (_, Command::LeaseRevoke(revoke)) => Want::ChangeLease(LeaseId(revoke.id)),
        (_, Command::AuthUserGet(get)) => Want::SeeUser(&get.name),
        (_, Command::AuthRoleGet(get)) => Want::SeeRole(&get.role),
        // Default deny: whatever else has a rule wants root.
        _ => Want::Root,
    };
    auth.permit(who, want, Attached::Known(leases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use env::{Entropy, SplitMix};

    fn a_put() -> PutRequest {
        PutRequest { key: "k".into(), value: vec![9; 300].into(), ..Default::default() }
    }

    #[test]
    fn the_table_is_the_message() {
        use prost_types::FileDescriptorSet;
        let set = FileDescriptorSet::decode(api::DESCRIPTORS).expect("written by our own build");
        let messages = set.file.iter().flat_map(|file| &file.message_type);
        let request = messages.clone().find(|m| m.name() == "InternalRaftRequest").unwrap();
        let bodies = request.field.iter().filter(|f| !["ID", "header"].contains(&f.name()));
        let mut fields: Vec<_> = bodies.map(|f| f.number().cast_unsigned()).collect();
        let mut rows: Vec<_> = COMMANDS.iter().map(|row| row.field).collect();
        fields.sort_unstable();
        rows.sort_unstable();
        assert_eq!(rows, fields);
        for (place, row) in COMMANDS.iter().enumerate() {
            assert_eq!(row.kind as usize, place);
        }
    }

    #[test]
    fn an_entry_is_what_go_would_write_and_read() {
        let version = ClusterVersionSetRequest { ver: "3.7.0".into() };
        for id in [1, 1 << 40, u64::MAX] {
            for (username, auth_revision) in [("", 0), ("root", 7), (&*"u".repeat(200), 1 << 50)] {
                let header = Header { id: RequestId(id), username, auth_revision };
                let go = RequestHeader { id, username: username.into(), auth_revision };
                // Fields ascend: the header stands behind a put and before a version.
                let requests = [
                    (
                        Command::Put(a_put()),
                        InternalRaftRequest { put: Some(a_put()), ..Default::default() },
                    ),
                    (
                        Command::ClusterVersionSet(version.clone()),
                        InternalRaftRequest {
                            cluster_version_set: Some(version.clone()),
                            ..Default::default()
                        },
                    ),
                ];
                for (command, mut request) in requests {
                    request.header = Some(go.clone());
                    let data = command.encode(header);
                    assert_eq!(data, request.encode_to_vec());
                    assert_eq!(request_id(&data), Some(RequestId(id)));
                    let decoded = Decoded { header: go.clone(), command: Some(command) };
                    assert_eq!(decode(data), Ok(decoded));
                }
            }
        }
    }

    #[test]
    fn of_several_commands_the_one_counts_that_etcd_takes() {
        let request = InternalRaftRequest {
            id: 5,
            put: Some(a_put()),
            compaction: Some(CompactionRequest::default()),
            downgrade_version_test: Some(DowngradeVersionTestRequest::default()),
            ..Default::default()
        };
        let decoded = decode(request.encode_to_vec().into()).unwrap();
        assert_eq!(decoded.command.unwrap().kind(), CommandKind::DowngradeVersionTest);
        assert_eq!(decoded.header.id, 5);
    }

    #[test]
    fn parts_of_one_command_are_merged_as_protobuf_says() {
        let (mut data, value) =
            (Vec::new(), PutRequest { value: "v".into(), ..Default::default() });
        put_length_delimited(
            4,
            &PutRequest { key: "k".into(), ..Default::default() }.encode_to_vec(),
            &mut data,
        );
        put_length_delimited(4, &value.encode_to_vec(), &mut data);
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        assert_eq!(decode(data.into()).unwrap().command, Some(Command::Put(put)));
    }

    #[test]
    fn an_unknown_command_is_none() {
        assert_eq!(decode(Bytes::from_static(&[0x9a, 0x7d, 0])).unwrap().command, None);
    }

    #[test]
    fn the_id_is_found_without_decoding_the_body() {
        let header = RequestHeader { id: 1 << 60 | 77, ..Default::default() };
        let mut request =
            InternalRaftRequest { put: Some(a_put()), header: Some(header), ..Default::default() };
        assert_eq!(request_id(&request.encode_to_vec()), Some(RequestId(1 << 60 | 77)));
        request.header = None;
        request.id = 5;
        assert_eq!(request_id(&request.encode_to_vec()), Some(RequestId(5)));
        assert_eq!(request_id(&[]), Some(RequestId(0)));
    }

    #[test]
    fn any_bytes_are_looked_at_without_panic() {
        let mut entropy = SplitMix::new(1);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..entropy.below(24)).map(|_| entropy.next_u64() as u8).collect();
            if let Ok(decoded) = decode(bytes.clone().into()) {
                assert_eq!(request_id(&bytes), Some(RequestId(decoded.header.id)), "{bytes:?}");
            }
        }
    }
}
