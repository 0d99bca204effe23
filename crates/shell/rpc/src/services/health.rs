//! grpc.health.v1: one service, "" for the whole server, which serves while it runs.
//!
//! //= grpc-go 1.82: health/server.go
//!
//! etcd may report NOT_SERVING while a defragmentation stops its calls; ours stops none, so the
//! status never changes.

use api::error::{Code, Status};
use api::grpc_health::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse,
    health_check_response::ServingStatus,
};
use bytes::Bytes;
use prost::Message;

use super::decode;
use crate::{Body, Draft, Requests, Sender};

/// Whether the server knows a service by this name. etcd registers none but the empty one.
fn is_known(request: &HealthCheckRequest) -> bool {
    request.service.is_empty()
}

pub(super) fn check(message: Bytes) -> Result<Body, Status> {
    if !is_known(&decode(message)?) {
        return Err(Status::new(Code::NotFound, "unknown service"));
    }
    let response = HealthCheckResponse { status: ServingStatus::Serving as i32 };
    Ok(Body::Whole(Draft::of(&response)))
}

pub(super) fn list() -> Body {
    let serving = HealthCheckResponse { status: ServingStatus::Serving as i32 };
    let statuses = [(String::new(), serving)].into_iter().collect();
    Body::Whole(Draft::of(&HealthListResponse { statuses }))
}

/// Tells the status once, then waits: it changes no more, and the client or the end of the server
/// ends the stream. An unknown service is a status here, for it might be registered later.
pub(super) async fn watch(mut requests: Requests, sender: Sender) -> Result<(), Status> {
    let known = is_known(&decode(requests.only().await?)?);
    let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    let response = HealthCheckResponse { status: status as i32 };
    if sender.send(&response.encode_to_vec()).await.is_ok() {
        // The framing drops this future when the client cancels or the connection goes.
        std::future::pending::<()>().await;
    }
    Err(Status::new(Code::Canceled, "Stream has ended."))
}
