//! auth enable, disable, status.

use api::error::ApiError;
use api::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
};
use api::method::Method;
use cli::{Exit, output};
use client::Error;
use prost::Message;
use tokio::time::Instant;

use crate::print::{Format, answer, line};
use crate::session::{Context, Session, failed};

/// The user and the role that stand above all permissions.
pub(crate) const ROOT: &str = "root";

/// Times that enabling is asked for while the root user lacks its role: one more than the role
/// needs, for somebody else may take it away in between.
const MAX_ATTEMPTS: u32 = 100;

/// auth enable: a root user that lacks its role is given it.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.3: etcdctl/ctlv3/command/auth_command.go#authEnableCommandFunc
pub fn enable(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let deadline = session.deadline();
    let mut enabled = Err(Error::Deadline);
    for _ in 0..MAX_ATTEMPTS {
        enabled = ask::<AuthEnableResponse>(
            &session,
            Method::AuthEnable,
            &AuthEnableRequest {},
            deadline,
        )
        .map(|_| ());
        match &enabled {
            Err(e) if e.is(ApiError::RootRoleNotExist) => {}
            _ => break,
        }
        give_root_its_role(&session, deadline).map_err(failed)?;
    }
    enabled.map_err(failed)?;
    output::out("Authentication Enabled\n");
    Ok(())
}

fn give_root_its_role(session: &Session<'_>, deadline: Option<Instant>) -> Result<(), Error> {
    let add = AuthRoleAddRequest { name: ROOT.to_owned() };
    ask::<AuthRoleAddResponse>(session, Method::RoleAdd, &add, deadline)?;
    let grant = AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
    ask::<AuthUserGrantRoleResponse>(session, Method::UserGrantRole, &grant, deadline)?;
    Ok(())
}

/// One of several calls that share the time of the command.
fn ask<A: Message + Default>(
    session: &Session<'_>,
    method: Method,
    request: &impl Message,
    deadline: Option<Instant>,
) -> Result<A, Error> {
    session.wait(async { session.client().call(method, request, deadline).await })
}

/// auth disable.
///
/// # Errors
/// As etcdctl.
pub fn disable(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let disabled: Result<AuthDisableResponse, _> =
        session.call(Method::AuthDisable, &AuthDisableRequest {});
    disabled.map_err(failed)?;
    output::out("Authentication Disabled\n");
    Ok(())
}

/// auth status.
///
/// # Errors
/// As etcdctl.
pub fn status(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let status: AuthStatusResponse =
        session.call(Method::AuthStatus, &AuthStatusRequest {}).map_err(failed)?;
    if session.format == Format::Fields {
        return Err(Format::Fields.unsupported());
    }
    let simple = |out: &mut Vec<u8>| {
        line(out, format!("Authentication Status: {}", status.enabled));
        line(out, format!("AuthRevision: {}", status.auth_revision));
        Ok(())
    };
    answer(&session, Method::AuthStatus, &status, simple, |_| {})
}
