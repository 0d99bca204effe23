//! HTTP on the client port: version and health.
//!
//! //= etcd 3.7.1: server/etcdserver/api/etcdhttp

use std::rc::Rc;

use api::etcdserverpb::AlarmType;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use calls::Member;
use calls::peers::versions;
use observe::Metrics;
use observe::metrics::Scrape;

use crate::{HttpRequest, HttpResponse};

/// Answers a request that is not gRPC.
pub async fn answer(member: &Rc<Member>, metrics: &Metrics, request: HttpRequest) -> HttpResponse {
    let path = request.uri().path();
    match path {
        "/version" => get_only(&request, |_| version(member)),
        "/debug/vars" => get_only(&request, |_| crate::debug::vars(member)),
        "/metrics" => scraped(member, metrics, &request),
        "/health" if request.method() == Method::GET => {
            let response = health(member, &request).await;
            let good = response.status() == StatusCode::OK;
            if good {
                metrics.health_success.inc()
            } else {
                metrics.health_failures.inc()
            }
            response
        }
        "/health" => method_not_allowed(),
        _ if path == "/livez" || path.starts_with("/livez/") => {
            checks((member, metrics), &request, "/livez", &[Check::SerializableRead]).await
        }
        _ if path == "/readyz" || path.starts_with("/readyz/") => {
            checks((member, metrics), &request, "/readyz", &Check::ALL).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// Answers a request to a listener for metrics, which has fewer paths.
//= etcd 3.7.3: server/embed/etcd.go#serveMetrics
pub async fn answer_metrics(
    member: &Rc<Member>,
    metrics: &Metrics,
    request: HttpRequest,
) -> HttpResponse {
    if matches!(request.uri().path(), "/version" | "/debug/vars") {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    answer(member, metrics, request).await
}

/// The host that a request is for, without a port.
//= etcd 3.7.3: pkg/httputil/httputil.go#GetHostname
#[must_use]
pub fn host<B>(request: &http::Request<B>) -> String {
    let named = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = named.unwrap_or_else(|| header.unwrap_or_default().to_owned());
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name.to_owned(),
        Some((name, _)) => match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
            Some(name) => name.to_owned(),
            None => host,
        },
        None => host,
    }
}

/// The answer to a request for a host that is not on the list.
//= etcd 3.7.3: server/embed/serve.go#errCVE20185702
#[must_use]
pub fn misdirected(host: &str) -> HttpResponse {
    let body = format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n\
         \x20 - e.g. etcd --host-whitelist {}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks \
         (CVE-2018-5702).\n\n",
        types::quote(host.as_bytes())
    );
    let mut response = text(StatusCode::MISDIRECTED_REQUEST, "");
    *response.body_mut() = body.into();
    response
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

fn version(member: &Member) -> HttpResponse {
    let mut response = HttpResponse::new(version_json(member).into());
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The versions of program, cluster and files.
pub(crate) fn version_json(member: &Member) -> String {
    let versions = versions(member);
    format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}}"#,
        versions.server,
        versions.cluster.as_deref().unwrap_or("not_decided"),
        versions.storage.as_deref().unwrap_or("unknown"),
    )
}

fn scraped(member: &Member, metrics: &Metrics, request: &HttpRequest) -> HttpResponse {
    let view = member.view();
    let scrape = Scrape {
        view: view.for_metrics(),
        status: member.status(),
        member: member.shared.id,
        quota_bytes: member.shared.limits.quota_bytes,
        metrics,
        features: &member.shared.features,
    };
    let accepted = request.headers().get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    let page = observe::metrics::render(&scrape, accepted.unwrap_or_default());
    let mut response = HttpResponse::new(page.body.into());
    if let Some(encoding) = page.encoding {
        let encoding = HeaderValue::from_static(encoding);
        response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
    }
    let content_type =
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Alarms, then a leader, then a read; the first that fails is the reason.
//= etcd 3.7.1: server/etcdserver/api/etcdhttp/health.go#checkHealth
async fn health(member: &Member, request: &HttpRequest) -> HttpResponse {
    let query = request.uri().query().unwrap_or_default();
    let values = |key: &'static str| {
        query.split('&').filter_map(move |pair| match pair.split_once('=') {
            Some((k, v)) if k == key => Some(v),
            _ => None,
        })
    };
    let excluded = |name: &str| values("exclude").any(|v| v == name);
    let serializable = values("serializable").next() == Some("true");
    let view = member.view();
    for alarm in view.alarms().list(AlarmType::None as i32) {
        let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |a| a.as_str_name());
        if !excluded(name) {
            return unhealthy(&format!("ALARM {name}"));
        }
    }
    if !serializable && member.status().leader.is_none() {
        return unhealthy("RAFT NO LEADER");
    }
    if !serializable && let Err(status) = member.linearizable_view().await {
        return unhealthy(&format!("RANGE ERROR:{}", status.message));
    }
    let mut response = HttpResponse::new(Bytes::from_static(br#"{"health":"true","reason":""}"#));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// What `/livez` and `/readyz` look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const ALL: [Check; 4] = [
        Check::DataCorruption,
        Check::SerializableRead,
        Check::LinearizableRead,
        Check::NonLearner,
    ];

    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, member: &Member) -> Result<(), String> {
        let view = member.view();
        match self {
            Check::DataCorruption if view.alarms().is_set(AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::NonLearner
                if view.members().get(member.shared.id).is_some_and(|m| m.is_learner) =>
            {
                Err("not supported for learner".to_owned())
            }
            Check::LinearizableRead => match member.linearizable_view().await {
                Ok(_) => Ok(()),
                Err(status) => Err(status.message.into_owned()),
            },
            // A View is always there to be read.
            Check::SerializableRead | Check::DataCorruption | Check::NonLearner => Ok(()),
        }
    }
}

/// Runs the checks below `root`, or the one that the path names.
//= etcd 3.7.1: server/etcdserver/api/etcdhttp/health.go#newHealthHandler
async fn checks(
    (member, metrics): (&Member, &Metrics),
    request: &HttpRequest,
    root: &str,
    all: &[Check],
) -> HttpResponse {
    if request.method() != Method::GET {
        return method_not_allowed();
    }
    let wanted = request.uri().path().strip_prefix(root).unwrap_or_default();
    let one = wanted.strip_prefix('/').filter(|name| !name.is_empty());
    let query = request.uri().query().unwrap_or_default();
    let excluded = |check: Check| {
        one.is_none() && query.split('&').any(|q| q.strip_prefix("exclude=") == Some(check.name()))
    };
    let verbose = query.split('&').any(|q| q == "verbose" || q.starts_with("verbose="));
    let chosen: Vec<Check> = all
        .iter()
        .copied()
        .filter(|check| one.is_none_or(|name| name == check.name()) && !excluded(*check))
        .collect();
    if one.is_some() && chosen.is_empty() {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    let (mut lines, mut failed) = (String::new(), false);
    for check in chosen {
        let outcome = check.run(member).await;
        let kind = root.trim_start_matches('/');
        metrics.checked(kind, check.name(), outcome.is_ok());
        match outcome {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name())),
            Err(why) => {
                failed = true;
                lines.push_str(&format!("[-]{} failed: {why}\n", check.name()));
            }
        }
    }
    let status = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = text(status, "");
    *response.body_mut() = match (failed, verbose) {
        (true, _) => format!("{lines}\n").into(),
        (false, true) => format!("{lines}ok\n").into(),
        (false, false) => Bytes::from_static(b"ok\n"),
    };
    response
}

fn unhealthy(reason: &str) -> HttpResponse {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "");
    *response.body_mut() = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n").into();
    response
}
