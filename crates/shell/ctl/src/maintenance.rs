//! alarm, defrag, snapshot save, version.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Instant;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, SnapshotRequest,
    SnapshotResponse,
};
use api::method::Method;
use cli::output::{self, Level};
use cli::{Exit, text};
use osenv::error_text;

use crate::endpoint;
use crate::kv::first;
use crate::print::{answer, field, header_fields, id, line};
use crate::session::{Context, Session, failed};

/// The name of an alarm.
#[must_use]
pub fn alarm_name(alarm: i32) -> String {
    AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |a| a.as_str_name().to_owned())
}

fn show_alarms(session: &Session<'_>, response: &AlarmResponse) -> Result<(), Exit> {
    answer(
        session,
        Method::Alarm,
        response,
        |text| {
            for alarm in &response.alarms {
                let name = alarm_name(alarm.alarm);
                line(text, format!("memberID:{} alarm:{name} ", alarm.member_id));
            }
            Ok(())
        },
        |text| {
            header_fields(text, response.header.as_ref(), session.is_hex);
            for alarm in &response.alarms {
                field(text, "MemberID", id(alarm.member_id, session.is_hex));
                field(text, "AlarmType", alarm_name(alarm.alarm));
                line(text, "");
            }
        },
    )
}

/// alarm list.
///
/// # Errors
/// As etcdctl.
pub fn alarm_list(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let response: AlarmResponse =
        session.call(Method::Alarm, &AlarmRequest::default()).map_err(failed)?;
    show_alarms(&session, &response)
}

/// alarm disarm.
///
/// # Errors
/// As etcdctl.
pub fn alarm_disarm(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let active: AlarmResponse =
        session.call(Method::Alarm, &AlarmRequest::default()).map_err(failed)?;
    let mut ended = AlarmResponse::default();
    for alarm in active.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let response: AlarmResponse = session.call(Method::Alarm, &request).map_err(failed)?;
        ended.alarms.extend(response.alarms);
    }
    show_alarms(&session, &ended)
}

/// defrag.
///
/// # Errors
/// As etcdctl.
pub fn defrag(context: &Context) -> Result<(), Exit> {
    let session = context.prepare()?;
    let mut any_failed = false;
    for endpoint in endpoint::endpoints(&session)? {
        let one = session.only(&endpoint)?;
        let began = Instant::now();
        let answer: Result<DefragmentResponse, _> =
            one.call(Method::Defragment, &DefragmentRequest {});
        let took = text::show_duration(began.elapsed());
        match answer {
            Ok(_) => {
                let text = format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n");
                output::out(text);
            }
            Err(e) => {
                let why = format!("took {took}. ({e})");
                output::err(format!("Failed to defragment etcd member[{endpoint}]. {why}"));
                any_failed = true;
            }
        }
    }
    if any_failed { Err(Exit::silent(Exit::ERROR)) } else { Ok(()) }
}

fn interrupted(text: impl Into<String>) -> Exit {
    Exit::new(Exit::INTERRUPTED, text)
}

/// snapshot save.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.3: client/v3/snapshot/v3_snapshot.go#SaveWithVersion
pub fn snapshot_save(context: &Context) -> Result<(), Exit> {
    let path = first(&context.values);
    let session = context.open()?;
    let endpoints = session.client().endpoints().to_vec();
    let [endpoint] = endpoints.as_slice() else {
        let listed = endpoints.join(" ");
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{listed}]"
        )));
    };
    let part = format!("{path}.part");
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let mut file = opened.map_err(|e| {
        interrupted(format!("could not open {part} (open {part}: {})", error_text(&e)))
    })?;
    tell("created temporary db file", &[("path", part.as_str().into())]);
    let began = Instant::now();
    tell("fetching snapshot", &[("endpoint", endpoint.as_str().into())]);
    let received = session.wait(receive(&session, &mut file));
    let written = received.and_then(|Received { size, version }| {
        file.sync_all()
            .map_err(|e| interrupted(format!("could not fsync snapshot: {}", error_text(&e))))?;
        let fields = [
            ("endpoint", endpoint.as_str().into()),
            ("size", text::size(size).into()),
            ("took", text::show_duration(began.elapsed()).into()),
            ("etcd-version", version.as_str().into()),
        ];
        tell("fetched snapshot", &fields);
        std::fs::rename(&part, path).map_err(|e| {
            let why = error_text(&e);
            interrupted(format!("could not rename {part} to {path} (rename {part} {path}: {why})"))
        })?;
        Ok(version)
    });
    let version = written.inspect_err(|_| {
        // What came is of no use.
        let _ = std::fs::remove_file(&part);
    })?;
    tell("saved", &[("path", path.into())]);
    let mut text = format!("Snapshot saved at {path}\n");
    if !version.is_empty() {
        text.push_str(&format!("Server version {version}\n"));
    }
    output::out(text);
    Ok(())
}

/// A log line about a snapshot.
fn tell(msg: &str, fields: &[(&str, serde_json::Value)]) {
    output::log(Level::Info, file!(), msg, fields);
}

/// What was received: bytes, and the server's storage version.
struct Received {
    size: u64,
    version: String,
}

/// Receives a snapshot into a file.
async fn receive(session: &Session<'_>, file: &mut std::fs::File) -> Result<Received, Exit> {
    let deadline =
        if session.values.is_given("command-timeout") { session.deadline() } else { None };
    let failed = |e: client::Error| interrupted(e.to_string());
    let stream = session.client().stream(Method::Snapshot, &SnapshotRequest {}, false, deadline);
    let mut stream = stream.await.map_err(failed)?;
    let (mut size, mut version) = (0, String::new());
    while let Some(part) = stream.next::<SnapshotResponse>(deadline).await.map_err(failed)? {
        file.write_all(&part.blob)
            .map_err(|e| interrupted(format!("could not write snapshot: {}", error_text(&e))))?;
        size += part.blob.len() as u64;
        if !part.version.is_empty() {
            version = part.version;
        }
    }
    if size % 512 != 32 {
        return Err(interrupted(format!("sha256 checksum not found [bytes: {size}]")));
    }
    Ok(Received { size, version })
}

/// version.
///
/// # Errors
/// None.
pub fn version(_: &Context) -> Result<(), Exit> {
    let (version, api) = (types::SERVER_VERSION, types::API_VERSION);
    output::out(format!("etcdctl version: {version}\nAPI version: {api}\n"));
    Ok(())
}
