//! role add, delete, get, list, grant-permission, revoke-permission.

use api::authpb::Permission;
use api::authpb::permission::Type;
use api::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse,
};
use api::method::Method;
use bytes::Bytes;
use cli::{Exit, Values, text};
use client::prefix_end;

use crate::auth::ROOT;
use crate::kv::{bytes, first};
use crate::print::{answer, done, field, header_fields, line};
use crate::session::{Context, Session, failed};

/// The range end that stands for "to the end of all keys".
const OPEN_END: &[u8] = b"\0";

/// role add.
///
/// # Errors
/// As etcdctl.
pub fn add(context: &Context) -> Result<(), Exit> {
    let name = first(&context.values).to_owned();
    let session = context.open()?;
    let created = format!("Role {name} created");
    let response: AuthRoleAddResponse =
        session.call_forever(Method::RoleAdd, &AuthRoleAddRequest { name }).map_err(failed)?;
    done(&session, Method::RoleAdd, (&response, response.header), created)
}

/// role delete.
///
/// # Errors
/// As etcdctl.
pub fn delete(context: &Context) -> Result<(), Exit> {
    let role = first(&context.values).to_owned();
    let session = context.open()?;
    let deleted = format!("Role {role} deleted");
    let response: AuthRoleDeleteResponse = session
        .call_forever(Method::RoleDelete, &AuthRoleDeleteRequest { role })
        .map_err(failed)?;
    done(&session, Method::RoleDelete, (&response, response.header), deleted)
}

/// role get.
///
/// # Errors
/// As etcdctl.
pub fn get(context: &Context) -> Result<(), Exit> {
    show(&context.open()?, first(&context.values))
}

/// Asks for a role and prints it.
///
/// # Errors
/// As etcdctl.
pub(crate) fn show(session: &Session<'_>, role: &str) -> Result<(), Exit> {
    let request = AuthRoleGetRequest { role: role.to_owned() };
    let response: AuthRoleGetResponse =
        session.call_forever(Method::RoleGet, &request).map_err(failed)?;
    answer(
        session,
        Method::RoleGet,
        &response,
        |out| {
            permissions(out, role, &response.perm);
            Ok(())
        },
        |out| {
            header_fields(out, response.header.as_ref(), session.is_hex);
            for perm in &response.perm {
                // etcdctl has a space more in this line.
                let kind = Type::try_from(perm.perm_type);
                let kind =
                    kind.map_or_else(|n| n.to_string(), |kind| kind.as_str_name().to_owned());
                field(out, "PermType", format!(" {kind}"));
                field(out, "Key", text::quote(&perm.key));
                field(out, "RangeEnd", text::quote(&perm.range_end));
            }
        },
    )
}

/// Which keys may be read, and which written.
//= etcd 3.7.3: etcdctl/ctlv3/command/printer_simple.go#RoleGet
fn permissions(out: &mut Vec<u8>, role: &str, all: &[Permission]) {
    line(out, format!("Role {role}"));
    let is_of = |perm: &Permission, kind| {
        [Type::Readwrite, kind].iter().any(|&kind| perm.perm_type == i32::from(kind))
    };
    for (head, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        line(out, head);
        if role == ROOT && all.is_empty() {
            line(out, "\t[, <open ended>");
        }
        for perm in all.iter().filter(|perm| is_of(perm, kind)) {
            line(out, [b"\t".as_slice(), &range(&perm.key, &perm.range_end)].concat());
        }
    }
}

/// A key, or a range with what it is a prefix of.
fn range(key: &[u8], end: &[u8]) -> Vec<u8> {
    if end.is_empty() {
        return key.to_vec();
    }
    let mut shown = half_open(key, end);
    if !key.is_empty() && prefix_end(key) == end {
        shown.extend([b" (prefix ", key, b")"].concat());
    }
    shown
}

/// `[key, end)`, or `[key, <open ended>`.
fn half_open(key: &[u8], end: &[u8]) -> Vec<u8> {
    match end {
        OPEN_END => [b"[", key, b", <open ended>"].concat(),
        _ => [b"[", key, b", ", end, b")"].concat(),
    }
}

/// role list.
///
/// # Errors
/// As etcdctl.
pub fn list(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let response: AuthRoleListResponse =
        session.call_forever(Method::RoleList, &AuthRoleListRequest {}).map_err(failed)?;
    answer(
        &session,
        Method::RoleList,
        &response,
        |out| {
            response.roles.iter().for_each(|role| line(out, role));
            Ok(())
        },
        |out| {
            header_fields(out, response.header.as_ref(), session.is_hex);
            let quoted = response.roles.iter().map(|r| format!(" {}", text::quote(r.as_bytes())));
            line(out, format!("\"Roles\" :{}", quoted.collect::<String>()));
        },
    )
}

/// role grant-permission.
///
/// # Errors
/// As etcdctl.
pub fn grant_permission(context: &Context) -> Result<(), Exit> {
    let args = &context.values.args;
    let kind = Type::from_str_name(&args[1].to_uppercase())
        .ok_or_else(|| Exit::args(format!("invalid permission type: {}", args[1])))?;
    let (key, range_end) = range_of(&context.values, &args[2..])?;
    let session = context.open()?;
    let perm = Permission { perm_type: kind.into(), key, range_end };
    let request = AuthRoleGrantPermissionRequest { name: args[0].clone(), perm: Some(perm) };
    let response: AuthRoleGrantPermissionResponse =
        session.call_forever(Method::RoleGrantPermission, &request).map_err(failed)?;
    let updated = format!("Role {} updated", args[0]);
    done(&session, Method::RoleGrantPermission, (&response, response.header), updated)
}

/// role revoke-permission.
///
/// # Errors
/// As etcdctl.
pub fn revoke_permission(context: &Context) -> Result<(), Exit> {
    let args = &context.values.args;
    let (key, range_end) = range_of(&context.values, &args[1..])?;
    let session = context.open()?;
    let role = args[0].clone();
    let request = AuthRoleRevokePermissionRequest { role, key, range_end: range_end.clone() };
    let response: AuthRoleRevokePermissionResponse =
        session.call_forever(Method::RoleRevokePermission, &request).map_err(failed)?;
    // The key as it was given: the empty one is sent as another.
    let given = args[1].as_bytes();
    let (what, shown) = match &range_end[..] {
        b"" => ("key", given.to_vec()),
        end => ("range", half_open(given, end)),
    };
    let revoked =
        [b"Permission of ", what.as_bytes(), b" ", &shown, b" is revoked from role "].concat();
    let revoked = [&revoked, args[0].as_bytes()].concat();
    done(&session, Method::RoleRevokePermission, (&response, response.header), revoked)
}

/// Key and range end of a permission; `args` are the key and perhaps an end.
//= etcd 3.7.3: etcdctl/ctlv3/command/role_command.go#permRange
fn range_of(values: &Values, args: &[String]) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from_key) = (values.is_on("prefix"), values.is_on("from-key"));
    let open_end = || Bytes::from_static(OPEN_END);
    let exclusive = || Exit::args("--from-key and --prefix flags are mutually exclusive");
    let key = &args[0];
    if key.is_empty() {
        return match (prefix, from_key) {
            (true, true) => Err(exclusive()),
            (false, false) => Ok((open_end(), Bytes::new())),
            _ => Ok((open_end(), open_end())),
        };
    }
    let end = match (args.get(1), prefix, from_key) {
        (None, true, true) => return Err(exclusive()),
        (None, true, false) => prefix_end(key.as_bytes()),
        (None, false, true) => open_end(),
        (None, false, false) => Bytes::new(),
        (Some(_), true, _) => {
            return Err(Exit::args("unexpected endkey argument with --prefix flag"));
        }
        (Some(_), false, true) => {
            return Err(Exit::args("unexpected endkey argument with --from-key flag"));
        }
        (Some(end), false, false) => bytes(end),
    };
    Ok((bytes(key), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_shown_with_what_they_are_a_prefix_of() {
        let shown = |key: &[u8], end: &[u8]| String::from_utf8(range(key, end)).unwrap();
        assert_eq!(shown(b"a", b""), "a");
        assert_eq!(shown(b"a", b"b"), "[a, b) (prefix a)");
        assert_eq!(shown(b"a", b"c"), "[a, c)");
        assert_eq!(shown(b"a", b"\0"), "[a, <open ended>");
        assert_eq!(shown(b"", b"\0"), "[, <open ended>");
    }
}
