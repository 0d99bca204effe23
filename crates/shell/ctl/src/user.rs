//! user add, delete, get, list, passwd, grant-role, revoke-role.
//!
//! Invariant: a password is in a request and nowhere else; none is printed.

use api::authpb::UserAddOptions;
use api::etcdserverpb::{
    AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
};
use api::method::Method;
use cli::{Exit, output, prompt};

use crate::kv::first;
use crate::print::{Format, answer, done, line};
use crate::role;
use crate::session::{Context, failed};

/// A new user as the command line gives it.
struct NewUser {
    name: String,
    password: String,
    options: UserAddOptions,
}

/// user add.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.3: etcdctl/ctlv3/command/user_command.go#userAddCommandFunc
pub fn add(context: &Context) -> Result<(), Exit> {
    let NewUser { name, password, options } = new_user(context)?;
    let session = context.open()?;
    let created = format!("User {name} created");
    let request =
        AuthUserAddRequest { name, password, options: Some(options), ..Default::default() };
    let response: AuthUserAddResponse =
        session.call_forever(Method::UserAdd, &request).map_err(failed)?;
    done(&session, Method::UserAdd, (&response, response.header), created)
}

fn new_user(context: &Context) -> Result<NewUser, Exit> {
    let argument = first(&context.values);
    let user = |name: &str, password: String| NewUser {
        name: name.to_owned(),
        password,
        options: UserAddOptions { no_password: false },
    };
    if context.values.is_on("no-password") {
        let options = UserAddOptions { no_password: true };
        return Ok(NewUser { options, ..user(argument, String::new()) });
    }
    let from_flag = context.values.text("new-user-password");
    if !from_flag.is_empty() {
        return Ok(user(argument, from_flag.to_owned()));
    }
    match argument.split_once(':') {
        Some(("", _)) => Err(Exit::args("empty user name is not allowed")),
        Some((name, password)) => Ok(user(name, password.to_owned())),
        None => Ok(user(argument, new_password(context, argument)?)),
    }
}

/// Asks twice at the terminal, or takes a word from stdin.
//= etcd 3.7.3: etcdctl/ctlv3/command/user_command.go#readPasswordInteractive
fn new_password(context: &Context, name: &str) -> Result<String, Exit> {
    let unread = |e| Exit::args(format!("failed to ask password: {e}"));
    if !context.values.is_on("interactive") {
        return prompt::word().map_err(unread);
    }
    let password = prompt::password(&format!("Password of {name}: ")).map_err(unread)?;
    if password.is_empty() {
        return Err(Exit::args("empty password"));
    }
    let again = format!("Type password of {name} again for confirmation: ");
    if prompt::password(&again).map_err(unread)? != password {
        return Err(Exit::args("given passwords are different"));
    }
    Ok(password)
}

/// user delete.
///
/// # Errors
/// As etcdctl.
pub fn delete(context: &Context) -> Result<(), Exit> {
    let name = first(&context.values).to_owned();
    let session = context.open()?;
    let deleted = format!("User {name} deleted");
    let response: AuthUserDeleteResponse = session
        .call_forever(Method::UserDelete, &AuthUserDeleteRequest { name })
        .map_err(failed)?;
    done(&session, Method::UserDelete, (&response, response.header), deleted)
}

/// user get.
///
/// # Errors
/// As etcdctl.
pub fn get(context: &Context) -> Result<(), Exit> {
    let name = first(&context.values).to_owned();
    let session = context.open()?;
    let request = AuthUserGetRequest { name: name.clone() };
    let response: AuthUserGetResponse =
        session.call_forever(Method::UserGet, &request).map_err(failed)?;
    if context.values.is_on("detail") {
        output::out(format!("User: {name}\n"));
        for held in &response.roles {
            output::out("\n");
            role::show(&session, held)?;
        }
        return Ok(());
    }
    if session.format == Format::Fields {
        return Err(Format::Fields.unsupported());
    }
    let simple = |out: &mut Vec<u8>| {
        line(out, format!("User: {name}"));
        let roles = response.roles.iter().map(|role| format!(" {role}"));
        line(out, format!("Roles:{}", roles.collect::<String>()));
        Ok(())
    };
    answer(&session, Method::UserGet, &response, simple, |_| {})
}

/// user list.
///
/// # Errors
/// As etcdctl.
pub fn list(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let response: AuthUserListResponse =
        session.call_forever(Method::UserList, &AuthUserListRequest {}).map_err(failed)?;
    if session.format == Format::Fields {
        return Err(Format::Fields.unsupported());
    }
    let simple = |out: &mut Vec<u8>| {
        response.users.iter().for_each(|user| line(out, user));
        Ok(())
    };
    answer(&session, Method::UserList, &response, simple, |_| {})
}

/// user passwd.
///
/// # Errors
/// As etcdctl.
pub fn passwd(context: &Context) -> Result<(), Exit> {
    let name = first(&context.values).to_owned();
    let password = new_password(context, &name)?;
    let session = context.open()?;
    let request = AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let response: AuthUserChangePasswordResponse =
        session.call_forever(Method::UserChangePassword, &request).map_err(failed)?;
    let changed = "Password updated".to_owned();
    done(&session, Method::UserChangePassword, (&response, response.header), changed)
}

/// A user and a role, the two arguments of a command.
fn user_and_role(context: &Context) -> (String, String) {
    let [user, role] = context.values.args.as_slice() else {
        unreachable!("arguments are counted before a command runs")
    };
    (user.clone(), role.clone())
}

/// user grant-role.
///
/// # Errors
/// As etcdctl.
pub fn grant_role(context: &Context) -> Result<(), Exit> {
    let (user, role) = user_and_role(context);
    let session = context.open()?;
    let granted = format!("Role {role} is granted to user {user}");
    let response: AuthUserGrantRoleResponse = session
        .call_forever(Method::UserGrantRole, &AuthUserGrantRoleRequest { user, role })
        .map_err(failed)?;
    done(&session, Method::UserGrantRole, (&response, response.header), granted)
}

/// user revoke-role.
///
/// # Errors
/// As etcdctl.
pub fn revoke_role(context: &Context) -> Result<(), Exit> {
    let (name, role) = user_and_role(context);
    let session = context.open()?;
    let revoked = format!("Role {role} is revoked from user {name}");
    let response: AuthUserRevokeRoleResponse = session
        .call_forever(Method::UserRevokeRole, &AuthUserRevokeRoleRequest { name, role })
        .map_err(failed)?;
    done(&session, Method::UserRevokeRole, (&response, response.header), revoked)
}
