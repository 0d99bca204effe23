//! HTTP on the client port: version and health.
//!
//! //= etcd 3.7.1: server/etcdserver/api/etcdhttp

use std::rc::Rc;

use api::etcdserverpb::AlarmType;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use crate::runtime::Runtime;
use crate::{HttpRequest, HttpResponse};

/// Answers a request that is not gRPC.
pub(super) async fn answer(rt: &Rc<Runtime>, request: HttpRequest) -> HttpResponse {
    let path = request.uri().path();
    match path {
        "/version" => get_only(&request, |_| version(rt)),
        "/health" if request.method() == Method::GET => health(rt, &request).await,
        "/health" => method_not_allowed(),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn get_only(
    request: &HttpRequest,
    answer: impl FnOnce(&HttpRequest) -> HttpResponse,
) -> HttpResponse {
    if request.method() == Method::GET { answer(request) } else { method_not_allowed() }
}

fn method_not_allowed() -> HttpResponse {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

/// A plain-text answer as Go's `http.Error` gives it.
fn text(status: StatusCode, body: &'static str) -> HttpResponse {
    let mut response = HttpResponse::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn version(rt: &Rc<Runtime>) -> HttpResponse {
    let view = rt.view();
    let cluster = view.members.cluster_version.as_deref().unwrap_or("not_decided");
    let storage = view.storage_version.as_deref().map_or("unknown".into(), String::from_utf8_lossy);
    let json = format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{cluster}","storage":"{storage}"}}"#,
        types::SERVER_VERSION
    );
    let mut response = HttpResponse::new(json.into());
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Alarms, then a leader, then a read; the first that fails is the reason.
//= etcd 3.7.1: server/etcdserver/api/etcdhttp/health.go#checkHealth
async fn health(rt: &Rc<Runtime>, request: &HttpRequest) -> HttpResponse {
    let query = request.uri().query().unwrap_or_default();
    let values = |key: &'static str| {
        query.split('&').filter_map(move |pair| match pair.split_once('=') {
            Some((k, v)) if k == key => Some(v),
            _ => None,
        })
    };
    let excluded = |name: &str| values("exclude").any(|v| v == name);
    let serializable = values("serializable").next() == Some("true");
    let view = rt.view();
    for alarm in view.alarms.list(AlarmType::None as i32) {
        let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |a| a.as_str_name());
        if !excluded(name) {
            return unhealthy(&format!("ALARM {name}"));
        }
    }
    if !serializable && rt.handle.status.load().leader.is_none() {
        return unhealthy("RAFT NO LEADER");
    }
    if !serializable && let Err(status) = rt.linearizable_view().await {
        return unhealthy(&format!("RANGE ERROR:{}", status.message));
    }
    let mut response = HttpResponse::new(Bytes::from_static(br#"{"health":"true","reason":""}"#));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn unhealthy(reason: &str) -> HttpResponse {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "");
    *response.body_mut() = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n").into();
    response
}
