//! endpoint health, status, hashkv: one question to each server.

use std::sync::Mutex;
use std::time::Instant;

use api::error::ApiError;
use api::etcdserverpb::{
    AlarmRequest, AlarmResponse, HashKvRequest, HashKvResponse, MemberListRequest,
    MemberListResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use api::method::Method;
use bytes::Bytes;
use cli::{Exit, Values, output, text};

use crate::json;
use crate::maintenance::alarm_name;
use crate::print::{Format, field, header_fields, line};
use crate::session::{Context, Session};

/// The endpoints that DNS names with `--discovery-srv`, or without that, or if it names none, those
/// of `--endpoints`. Only such as are spoken with over TLS are taken from DNS, unless all are to be.
///
/// # Errors
/// DNS has no such service.
//= etcd 3.7.3: etcdctl/ctlv3/command/global.go#endpointsFromFlagValue
pub(crate) fn configured(values: &Values) -> Result<Vec<String>, Exit> {
    let domain = values.text("discovery-srv");
    if domain.is_empty() {
        return Ok(values.list("endpoints"));
    }
    let resolver = discovery::Resolver::of_system();
    let search = discovery::srv::clients(&resolver, domain, values.text("discovery-srv-name"));
    let found = discovery::wait(search)
        .map_err(|e| Exit::new(Exit::ERROR, osenv::error_text(&e)))?
        .map_err(|e| Exit::new(Exit::ERROR, e))?;
    let mut urls: Vec<String> = found.into_iter().map(|endpoint| endpoint.url).collect();
    if !values.is_on("insecure-discovery") {
        urls.retain(|url| {
            let is_plain = url.starts_with("http://");
            if is_plain {
                let quoted = text::quote(url.as_bytes());
                output::err(format!("ignoring discovered insecure endpoint {quoted}"));
            }
            !is_plain
        });
    }
    Ok(if urls.is_empty() { values.list("endpoints") } else { urls })
}

/// The endpoints that a command asks: those configured, or with `--cluster` those of all members.
///
/// # Errors
/// The members cannot be listed.
pub fn endpoints(session: &Session<'_>) -> Result<Vec<String>, Exit> {
    if !session.values.is_on("cluster") {
        return Ok(session.values.list("endpoints"));
    }
    session.wait(session.authenticate()).map_err(crate::session::failed)?;
    let request = MemberListRequest { linearizable: true };
    let listed: Result<MemberListResponse, _> = session.call(Method::MemberList, &request);
    let listed = listed.map_err(|e| {
        let text = format!("failed to fetch endpoints from etcd cluster member list: {e}");
        Exit::new(Exit::ERROR, text)
    })?;
    Ok(listed.members.into_iter().flat_map(|m| m.client_ur_ls).collect())
}

struct Health {
    endpoint: String,
    is_healthy: bool,
    took: String,
    error: String,
}

/// endpoint health.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.3: etcdctl/ctlv3/command/ep_command.go#epHealthCommandFunc
pub fn health(context: &Context) -> Result<(), Exit> {
    let session = context.prepare()?;
    let endpoints = endpoints(&session)?;
    let sessions: Result<Vec<_>, _> = endpoints.iter().map(|e| session.prepare_only(e)).collect();
    let sessions = sessions?;
    let done = Mutex::new(Vec::new());
    session.wait(async {
        let mut waiting: Vec<_> = endpoints
            .iter()
            .zip(&sessions)
            .map(|(endpoint, session)| {
                Box::pin(async {
                    let health = check(endpoint, session).await;
                    done.lock().expect("nobody panics while holding it").push(health);
                })
            })
            .collect();
        // All at once; each adds itself when it is done.
        std::future::poll_fn(|cx| {
            waiting.retain_mut(|one| one.as_mut().poll(cx).is_pending());
            if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    });
    let done = done.into_inner().expect("nobody panics while holding it");
    show_health(&session, &done)?;
    if done.iter().all(|h| h.is_healthy) {
        return Ok(());
    }
    Err(Exit::new(Exit::ERROR, "unhealthy cluster"))
}

async fn check(endpoint: &str, session: &Session<'_>) -> Health {
    if let Err(e) = session.authenticate().await {
        let (endpoint, error) = (endpoint.to_owned(), e.to_string());
        return Health { endpoint, is_healthy: false, took: String::new(), error };
    }
    let began = Instant::now();
    let deadline = session.deadline();
    let request = RangeRequest { key: Bytes::from_static(b"health"), ..RangeRequest::default() };
    let client = session.client();
    let read: Result<RangeResponse, _> = client.call(Method::Range, &request, deadline).await;
    let mut error = match read {
        Ok(_) => String::new(),
        // The request went through consensus all the same.
        Err(e) if e.is(ApiError::PermissionDenied) => String::new(),
        Err(e) => e.to_string(),
    };
    if error.is_empty() {
        let alarms: Result<AlarmResponse, _> =
            client.call(Method::Alarm, &AlarmRequest::default(), deadline).await;
        match alarms {
            Ok(alarms) if alarms.alarms.is_empty() => {}
            Ok(alarms) => {
                error = "Active Alarm(s): ".to_owned();
                alarms.alarms.iter().for_each(|a| {
                    error.push_str(&alarm_name(a.alarm));
                    error.push(' ');
                });
            }
            Err(_) => error = "Unable to fetch the alarm list".to_owned(),
        }
    }
    Health {
        endpoint: endpoint.to_owned(),
        is_healthy: error.is_empty(),
        took: text::show_duration(began.elapsed()),
        error,
    }
}

fn show_health(session: &Session<'_>, all: &[Health]) -> Result<(), Exit> {
    let mut text = Vec::new();
    match session.format {
        Format::Simple => {
            for h in all {
                if h.is_healthy {
                    let (endpoint, took) = (&h.endpoint, &h.took);
                    let good = "is healthy: successfully committed proposal: took";
                    line(&mut text, format!("{endpoint} {good} = {took}"));
                } else {
                    let (endpoint, error) = (&h.endpoint, &h.error);
                    output::err(format!(
                        "{endpoint} is unhealthy: failed to commit proposal: {error}"
                    ));
                }
            }
        }
        Format::Json => {
            let items: Vec<_> = all
                .iter()
                .map(|h| {
                    let mut item = format!(
                        "{{\"endpoint\":{},\"health\":{},\"took\":{}",
                        json::string(&h.endpoint),
                        h.is_healthy,
                        json::string(&h.took)
                    );
                    if !h.error.is_empty() {
                        item.push_str(&format!(",\"error\":{}", json::string(&h.error)));
                    }
                    item + "}"
                })
                .collect();
            line(&mut text, format!("[{}]", items.join(",")));
        }
        Format::Fields => {
            for h in all {
                field(&mut text, "Endpoint", text::quote(h.endpoint.as_bytes()));
                field(&mut text, "Health", h.is_healthy);
                field(&mut text, "Took", &h.took);
                field(&mut text, "Error", &h.error);
                line(&mut text, "");
            }
        }
        Format::Table => {
            let row = |h: &Health| {
                vec![h.endpoint.clone(), h.is_healthy.to_string(), h.took.clone(), h.error.clone()]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            text = text::table(&["endpoint", "health", "took", "error"], &rows).into_bytes();
        }
        Format::Protobuf => return Err(Format::Protobuf.unsupported()),
    }
    output::out(&text);
    Ok(())
}

const STATUS_HEADER: [&str; 16] = [
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
];

fn status_row(endpoint: &str, s: &StatusResponse) -> Vec<String> {
    let member = s.header.map_or(0, |h| h.member_id);
    let size = |bytes: i64| text::size(u64::try_from(bytes).unwrap_or(0));
    let used = if s.db_size > 0 {
        i128::from(s.db_size_in_use) * 100 / i128::from(s.db_size)
    } else {
        100
    };
    let downgrade = s.downgrade_info.clone().unwrap_or_default();
    let quota = if s.db_size_quota > 0 { size(s.db_size_quota) } else { String::new() };
    vec![
        endpoint.to_owned(),
        format!("{member:x}"),
        s.version.clone(),
        s.storage_version.clone(),
        size(s.db_size),
        size(s.db_size_in_use),
        format!("{}%", 100 - used),
        quota,
        (s.leader == member).to_string(),
        s.is_learner.to_string(),
        s.raft_term.to_string(),
        s.raft_index.to_string(),
        s.raft_applied_index.to_string(),
        s.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// endpoint status.
///
/// # Errors
/// As etcdctl.
pub fn status(context: &Context) -> Result<(), Exit> {
    let session = context.prepare()?;
    let (mut all, mut failed) = (Vec::new(), false);
    for endpoint in endpoints(&session)? {
        let answer = session.only(&endpoint)?.call(Method::Status, &StatusRequest {});
        match answer {
            Ok(status) => all.push((endpoint, status)),
            Err(e) => {
                output::err(format!("Failed to get the status of endpoint {endpoint} ({e})"));
                failed = true;
            }
        }
    }
    let mut text = Vec::new();
    let rows = || all.iter().map(|(e, s)| status_row(e, s)).collect::<Vec<_>>();
    match session.format {
        Format::Simple => rows().iter().for_each(|row| line(&mut text, row.join(", "))),
        Format::Table => text = text::table(&STATUS_HEADER, &rows()).into_bytes(),
        Format::Json => named(&mut text, &all, "Status", "etcdserverpb.StatusResponse"),
        Format::Fields => {
            all.iter().for_each(|(e, s)| status_fields(&mut text, e, s, session.is_hex));
        }
        Format::Protobuf => return Err(Format::Protobuf.unsupported()),
    }
    output::out(&text);
    if failed { Err(Exit::silent(Exit::ERROR)) } else { Ok(()) }
}

/// `[{"Endpoint":…,"<name>":…},…]`, or `null` for none.
fn named(out: &mut Vec<u8>, all: &[(String, impl prost::Message)], name: &str, message: &str) {
    let items: Vec<_> = all
        .iter()
        .map(|(endpoint, answer)| {
            let answer = json::message(message, answer);
            format!("{{\"Endpoint\":{},\"{name}\":{answer}}}", json::string(endpoint))
        })
        .collect();
    let list = if items.is_empty() { "null".to_owned() } else { format!("[{}]", items.join(",")) };
    line(out, list);
}

fn status_fields(out: &mut Vec<u8>, endpoint: &str, s: &StatusResponse, is_hex: bool) {
    header_fields(out, s.header.as_ref(), is_hex);
    field(out, "Version", text::quote(s.version.as_bytes()));
    field(out, "StorageVersion", text::quote(s.storage_version.as_bytes()));
    field(out, "DBSize", s.db_size);
    field(out, "DBSizeInUse", s.db_size_in_use);
    field(out, "DBSizeQuota", s.db_size_quota);
    // etcdctl leaves this id decimal.
    field(out, "Leader", s.leader);
    field(out, "IsLearner", s.is_learner);
    field(out, "RaftIndex", s.raft_index);
    field(out, "RaftAppliedIndex", s.raft_applied_index);
    field(out, "Errors", format!("[{}]", s.errors.join(" ")));
    field(out, "Endpoint", text::quote(endpoint.as_bytes()));
    let downgrade = s.downgrade_info.clone().unwrap_or_default();
    field(out, "DowngradeTargetVersion", text::quote(downgrade.target_version.as_bytes()));
    field(out, "DowngradeEnabled", downgrade.enabled);
    line(out, "");
}

/// endpoint hashkv.
///
/// # Errors
/// As etcdctl.
pub fn hashkv(context: &Context) -> Result<(), Exit> {
    let session = context.prepare()?;
    let request = HashKvRequest { revision: context.values.int("rev") };
    let mut all: Vec<(String, HashKvResponse)> = Vec::new();
    let mut failed = None;
    for endpoint in endpoints(&session)? {
        match session.only(&endpoint)?.call(Method::HashKV, &request) {
            Ok(hash) => all.push((endpoint, hash)),
            Err(e) => {
                output::err(format!("Failed to get the hash of endpoint {endpoint} ({e})"));
                failed = Some(e);
            }
        }
    }
    let mut text = Vec::new();
    let rows = || {
        let row = |(e, h): &(String, HashKvResponse)| {
            vec![e.clone(), h.hash.to_string(), h.hash_revision.to_string()]
        };
        all.iter().map(row).collect::<Vec<_>>()
    };
    match session.format {
        Format::Simple => rows().iter().for_each(|row| line(&mut text, row.join(", "))),
        Format::Table => {
            text = text::table(&["endpoint", "hash", "hash_revision"], &rows()).into_bytes();
        }
        Format::Json => named(&mut text, &all, "HashKV", "etcdserverpb.HashKVResponse"),
        Format::Fields => {
            for (endpoint, hash) in &all {
                header_fields(&mut text, hash.header.as_ref(), session.is_hex);
                field(&mut text, "Endpoint", text::quote(endpoint.as_bytes()));
                field(&mut text, "Hash", hash.hash);
                field(&mut text, "HashRevision", hash.hash_revision);
                line(&mut text, "");
            }
        }
        Format::Protobuf => return Err(Format::Protobuf.unsupported()),
    }
    match failed {
        Some(e) if all.is_empty() => Err(crate::session::failed(e)),
        failed => {
            output::out(&text);
            failed.map_or(Ok(()), |e| Err(crate::session::failed(e)))
        }
    }
}
