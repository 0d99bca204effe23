//! Log lines of health checks that fail.
//!
//! What is wrong stands in the response already, in etcd's words: the lines are made of that.
//= etcd 3.7.3: server/etcdserver/api/etcdhttp/health.go

use api::etcdserverpb::AlarmType;
use calls::PublishedView;
use http::StatusCode;
use observe::{Log, log_line};
use rpc::{HttpRequest, HttpResponse};

/// A request of `/health`, or of `/livez` and `/readyz` and the checks below them.
pub(crate) struct HealthCheck {
    path: String,
}

impl HealthCheck {
    /// The check that a request asks for, if it does.
    pub(crate) fn of(request: &HttpRequest) -> Option<Self> {
        let path = request.uri().path();
        let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        let is_check =
            ["/health", "/livez", "/readyz"].contains(&path) || below("/livez") || below("/readyz");
        is_check.then(|| Self { path: path.to_owned() })
    }

    /// Tells of a check that did not pass. `view` knows whose the alarms are.
    pub(crate) fn log(&self, log: &Log, view: &PublishedView, response: &HttpResponse) {
        let status = response.status();
        let is_refused = status == StatusCode::METHOD_NOT_ALLOWED;
        if !is_refused && status != StatusCode::SERVICE_UNAVAILABLE {
            return;
        }
        let (path, code) = (self.path.as_str(), status.as_u16());
        // Go's `http.Error` ends a text with one line end.
        let text = String::from_utf8_lossy(response.body());
        let text = text.strip_suffix('\n').unwrap_or(&text);
        match (path, is_refused) {
            ("/health", true) => log_line!(log, Warn, "/health error", "status-code" = code),
            ("/health", false) => {
                why(log, view, text);
                log_line!(log, Warn, "/health error", "output" = text, "status-code" = code);
            }
            (_, true) => {
                let line = "Health request error";
                log_line!(log, Warn, line, "path" = path, "status-code" = code);
            }
            (_, false) => log_line!(
                log,
                Error,
                "Health check error",
                "path" = path,
                "reason" = text,
                "status-code" = code,
            ),
        }
    }
}

/// The line of the check that made `/health` say no.
fn why(log: &Log, view: &PublishedView, output: &str) {
    let output: serde_json::Value = serde_json::from_str(output).unwrap_or_default();
    let reason = output["reason"].as_str().unwrap_or_default();
    if let Some(name) = reason.strip_prefix("ALARM ") {
        let kind = AlarmType::from_str_name(name).unwrap_or_default();
        let alarm = view.alarms().list(kind as i32).first().map_or_else(
            || format!("alarm:{name}"),
            |alarm| format!("memberID:{} alarm:{name}", alarm.member_id),
        );
        log_line!(log, Warn, "serving /health false due to an alarm", "alarm" = alarm);
    } else if let Some(error) = reason.strip_prefix("RANGE ERROR:") {
        log_line!(log, Warn, "serving /health false; Range fails", "error" = error);
    } else if reason == "RAFT NO LEADER" {
        log_line!(log, Warn, "serving /health false; no leader");
    }
}
