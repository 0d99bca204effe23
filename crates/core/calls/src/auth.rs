//! The Auth service, as far as it has a truthful answer while authentication is off.

use std::rc::Rc;

use api::error::{ApiError, Status};
use api::etcdserverpb::{AuthStatusRequest, AuthStatusResponse, AuthenticateRequest};
use bytes::Bytes;

use crate::Call;
use crate::answer::{Answer, Encoded};
use crate::caller::{Allowed, Wish, authorize};
use crate::decode::decode;
use crate::member::Member;

/// The revision of users and roles before anything of them was changed.
//= etcd 3.7.3: server/auth/store.go#NewAuthStore
const FIRST_REVISION: u64 = 1;

pub(crate) fn status(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let _: AuthStatusRequest = decode(message)?;
    let view = member.view();
    let _: Allowed = authorize(call.row, &call.caller, &view, Wish::Method)?;
    out.put(&AuthStatusResponse {
        header: Some(member.header(view.revision())),
        enabled: false,
        auth_revision: FIRST_REVISION,
    });
    Ok(Answer::Now)
}

/// There are no passwords while authentication is off. Clients take this refusal for that and go
/// on without a token.
//= etcd 3.7.3: server/etcdserver/v3_server.go#Authenticate
pub(crate) fn authenticate(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let _: AuthenticateRequest = decode(message)?;
    let _: Allowed = call.permit(member)?;
    Err(ApiError::AuthNotEnabled.into())
}
