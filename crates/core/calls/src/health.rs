//! grpc.health.v1: one service, "" for the whole server, which serves while it runs.
//!
//! //= grpc-go 1.82: health/server.go
//!
//! etcd may report NOT_SERVING while a defragmentation stops its calls; ours stops none, so the
//! status never changes.

use std::rc::Rc;

use api::error::{Code, Status};
use api::grpc_health::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse,
    health_check_response::ServingStatus,
};
use bytes::Bytes;

use crate::Call;
use crate::answer::{Answer, Encoded};
use crate::caller::Allowed;
use crate::decode::decode;
use crate::member::Member;
use crate::stream::{Out, send};

/// Whether the server knows a service by this name. etcd registers none but the empty one.
fn is_known(request: &HealthCheckRequest) -> bool {
    request.service.is_empty()
}

pub(crate) fn check(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let _: Allowed = call.permit(member)?;
    if !is_known(&decode(message)?) {
        return Err(Status::new(Code::NotFound, "unknown service"));
    }
    out.put(&HealthCheckResponse { status: ServingStatus::Serving as i32 });
    Ok(Answer::Now)
}

pub(crate) fn list(
    member: &Rc<Member>,
    call: &Call<'_>,
    _: Bytes,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let _: Allowed = call.permit(member)?;
    let serving = HealthCheckResponse { status: ServingStatus::Serving as i32 };
    let statuses = [(String::new(), serving)].into_iter().collect();
    out.put(&HealthListResponse { statuses });
    Ok(Answer::Now)
}

/// Tells the status once, then waits: it changes no more, and the client or the end of the server
/// ends the stream. An unknown service is a status here, for it might be registered later.
pub(crate) async fn watch(_: Allowed, request: Bytes, sink: Out) -> Result<(), Status> {
    let known = is_known(&decode(request)?);
    let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    if send(&*sink, &HealthCheckResponse { status: status as i32 }).await.is_ok() {
        // The transport drops this future when the client cancels or the connection goes.
        std::future::pending::<()>().await;
    }
    Err(Status::new(Code::Canceled, "Stream has ended."))
}
