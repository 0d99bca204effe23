//! The Auth service.
//!
//! Everything goes through the log, also what only looks, as in etcd: so an answer is of the state
//! of its own moment. Passwords are hashed and checked before that ([`crate::logins`]), and never
//! go into the log.
//!
//! //= etcd 3.7.3: server/etcdserver/v3_server.go#AuthEnable ff.

use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleListRequest,
    AuthRoleListResponse, AuthRoleRevokePermissionRequest, AuthStatusRequest, AuthStatusResponse,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, AuthenticateRequest,
    AuthenticateResponse, InternalAuthenticateRequest, ResponseHeader,
};
use api::method::Method;
use bytes::Bytes;
use machine::auth::Password;
use machine::{AuthReply, CommandKind, CommandReply};
use prost::Message;
use zeroize::Zeroizing;

use crate::Call;
use crate::answer::{Answer, Body, Encoded, Finish, ResponseKind, Then};
use crate::audit;
use crate::caller::{Allowed, Caller, Wish, authorize};
use crate::credential::Provider;
use crate::decode::{decode, unchanged};
use crate::kv::{Write, finish_write, write};
use crate::member::Member;

/// Logins of one call that are tried again because users or roles changed meanwhile.
const MAX_ATTEMPTS: usize = 64;

/// A call that is one command.
pub(crate) fn command(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let (kind, body, allowed) = decoded(member, call, message)?;
    write(member, Write::new(call, kind, ResponseKind::Auth, body, allowed), None)
}

fn decoded(
    member: &Member,
    call: &Call<'_>,
    message: Bytes,
) -> Result<(CommandKind, Bytes, Allowed), Status> {
    let ask = |wish| authorize(member, call.row, &call.caller, &member.view(), wish);
    macro_rules! plain {
        ($kind:ident, $request:ty) => {{
            let request: $request = decode(message.clone())?;
            (CommandKind::$kind, unchanged(message, &request), ask(Wish::Method)?)
        }};
    }
    Ok(match call.row.method {
        Method::AuthEnable => plain!(AuthEnable, AuthEnableRequest),
        Method::AuthDisable => plain!(AuthDisable, AuthDisableRequest),
        Method::AuthStatus => plain!(AuthStatus, AuthStatusRequest),
        Method::UserList => plain!(AuthUserList, AuthUserListRequest),
        Method::UserDelete => plain!(AuthUserDelete, AuthUserDeleteRequest),
        Method::UserGrantRole => plain!(AuthUserGrantRole, AuthUserGrantRoleRequest),
        Method::UserRevokeRole => plain!(AuthUserRevokeRole, AuthUserRevokeRoleRequest),
        Method::RoleAdd => plain!(AuthRoleAdd, AuthRoleAddRequest),
        Method::RoleList => plain!(AuthRoleList, AuthRoleListRequest),
        Method::RoleDelete => plain!(AuthRoleDelete, AuthRoleDeleteRequest),
        Method::RoleGrantPermission => {
            plain!(AuthRoleGrantPermission, AuthRoleGrantPermissionRequest)
        }
        Method::RoleRevokePermission => {
            plain!(AuthRoleRevokePermission, AuthRoleRevokePermissionRequest)
        }
        Method::UserGet => {
            let request: AuthUserGetRequest = decode(message.clone())?;
            let allowed = ask(Wish::User(&request.name))?;
            (CommandKind::AuthUserGet, unchanged(message, &request), allowed)
        }
        Method::RoleGet => {
            let request: AuthRoleGetRequest = decode(message.clone())?;
            let allowed = ask(Wish::Role(&request.role))?;
            (CommandKind::AuthRoleGet, unchanged(message, &request), allowed)
        }
        other => unreachable!("{other:?} is no command"),
    })
}

/// The response to a command that was applied.
pub(crate) fn render(header: ResponseHeader, reply: AuthReply, out: &mut Encoded) {
    let header = Some(header);
    match reply {
        AuthReply::Status { enabled, revision } => {
            out.put(&AuthStatusResponse { header, enabled, auth_revision: revision });
        }
        // Lists of users, of roles, and of a user's roles have the same form.
        AuthReply::Names(roles) => out.put(&AuthRoleListResponse { header, roles }),
        AuthReply::Permissions(perm) => out.put(&AuthRoleGetResponse { header, perm }),
        AuthReply::Done | AuthReply::Authenticated { .. } => {
            out.put(&AuthRoleListResponse { header, roles: Vec::new() });
        }
    }
}

/// Adds a user. Who may not, is told before anything is computed.
pub(crate) fn user_add(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let mut request: AuthUserAddRequest = decode(message.clone())?;
    let allowed = call.permit(member)?;
    let password = Zeroizing::new(std::mem::take(&mut request.password));
    if request.options.as_ref().is_some_and(|options| options.no_password) {
        // A password beside that is dropped when it is applied, and does not go into the log.
        let body = if password.is_empty() {
            unchanged(message, &request)
        } else {
            request.encode_to_vec().into()
        };
        let write_ = Write::new(call, CommandKind::AuthUserAdd, ResponseKind::Auth, body, allowed);
        return write(member, write_, None);
    }
    let hashed = |request: &mut AuthUserAddRequest, hash| request.hashed_password = hash;
    Ok(hashing(member, call, CommandKind::AuthUserAdd, (request, hashed, password), allowed))
}

pub(crate) fn change_password(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let mut request: AuthUserChangePasswordRequest = decode(message.clone())?;
    let allowed = call.permit(member)?;
    let password = Zeroizing::new(std::mem::take(&mut request.password));
    let kind = CommandKind::AuthUserChangePassword;
    if password.is_empty() {
        let body = unchanged(message, &request);
        return write(member, Write::new(call, kind, ResponseKind::Auth, body, allowed), None);
    }
    let hashed = |request: &mut AuthUserChangePasswordRequest, hash| request.hashed_password = hash;
    Ok(hashing(member, call, kind, (request, hashed, password), allowed))
}

/// Hashes a password, then puts the request through the log.
fn hashing<R: Message + 'static>(
    member: &Rc<Member>,
    call: &Call<'_>,
    kind: CommandKind,
    (mut request, put, password): (R, fn(&mut R, String), Zeroizing<String>),
    allowed: Allowed,
) -> Answer {
    use base64::Engine as _;
    let (member, caller) = (Rc::clone(member), call.caller.clone());
    Answer::Waits(Box::pin(async move {
        let hash = member.hash(password).await?;
        put(&mut request, base64::engine::general_purpose::STANDARD.encode(hash));
        let began = member.now();
        let token = member.begin_proposal(kind, &request.encode_to_vec(), &caller, allowed)?;
        let reply = member.wait(token).await;
        let response = ResponseKind::Auth;
        let finish = Finish::new(began, caller, Then::Applied(kind, response));
        let mut out = Encoded::default();
        finish_write(&member, (kind, response), finish, reply, &mut out)?;
        Ok(Body::Whole(out))
    }))
}

/// Gives a user a token for its password. Nobody needs permission for that.
pub(crate) fn authenticate(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let mut request: AuthenticateRequest = decode(message)?;
    let allowed = call.permit(member)?;
    let (member, caller) = (Rc::clone(member), call.caller.clone());
    Ok(Answer::Waits(Box::pin(async move {
        let password = Zeroizing::new(std::mem::take(&mut request.password));
        member.linearizable_view().await?;
        for _ in 0..MAX_ATTEMPTS {
            let checked =
                check(&member, &request.name, &password).await.inspect_err(|refused| {
                    audit::login_refused(&member, &caller, &request.name, refused);
                })?;
            let response = log_in(&member, &request.name, allowed).await?;
            // Users and roles may have changed after the password was checked.
            if member.view().auth().revision() == checked {
                return Ok(Body::of(&response));
            }
        }
        Err(ApiError::TooManyRequests.into())
    })))
}

/// Checks a password. Gives the auth revision as of which it fits.
//= etcd 3.7.3: server/auth/store.go#CheckPassword
async fn check(member: &Member, name: &str, password: &Zeroizing<String>) -> Result<u64, Status> {
    let (hash, revision) = {
        let view = member.view();
        let auth = view.auth();
        if !auth.is_enabled() {
            return Err(ApiError::AuthNotEnabled.into());
        }
        let hash = match auth.password(name) {
            Some(Password::Never) => return Err(ApiError::NoPasswordUser.into()),
            Some(Password::Hash(hash)) => Some(hash),
            None => None,
        };
        (hash, auth.revision())
    };
    match member.verify(name, hash, password).await? {
        true => Ok(revision),
        false => Err(ApiError::AuthFailed.into()),
    }
}

/// Puts a login through the log, so that all members know its token.
async fn log_in(
    member: &Member,
    name: &str,
    allowed: Allowed,
) -> Result<AuthenticateResponse, Status> {
    let provider = &member.shared.logins.provider;
    let simple_token = match provider {
        Provider::Simple(_) => member.token_letters(),
        Provider::Signed(_) => String::new(),
        Provider::Nobody => return Err(ApiError::AuthFailed.into()),
    };
    let request = InternalAuthenticateRequest {
        name: name.to_owned(),
        simple_token: simple_token.clone(),
        password: String::new(),
    };
    let (kind, body) = (CommandKind::Authenticate, request.encode_to_vec());
    let outcome = member.propose(kind, &body, &Caller::default(), allowed).await?;
    let CommandReply::Auth(AuthReply::Authenticated { revision }) = outcome.reply? else {
        unreachable!("a login is answered by one")
    };
    let token = match provider {
        Provider::Signed(signer) => {
            let (signer, name) = (Arc::clone(signer), name.to_owned());
            let now = member.host.wall();
            let signed = member.run(move |_| signer.sign(&name, revision, now)).await?;
            signed.map_err(|text| Status::new(Code::Unknown, text))?
        }
        Provider::Simple(_) | Provider::Nobody => {
            machine::auth::simple_token(&simple_token, outcome.index)
        }
    };
    Ok(AuthenticateResponse { header: Some(member.header(outcome.revision)), token })
}
