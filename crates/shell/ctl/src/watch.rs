//! watch: one watch from the command line. Requests from stdin (`-i`) are not implemented.

use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use api::method::Method;
use api::mvccpb::Event;
use bytes::Bytes;
use cli::{Exit, not_implemented, output, text};
use client::Error;

use crate::print::{self, Format, header_fields, kv_fields, kv_lines, line};
use crate::session::{Context, Session};
use crate::{json, kv};

struct Plan {
    request: WatchCreateRequest,
    command: Vec<String>,
}

/// watch.
///
/// # Errors
/// As etcdctl.
pub fn watch(context: &Context) -> Result<(), Exit> {
    if context.values.is_on("interactive") {
        let what = "watch --interactive";
        return Err(Exit::new(Exit::BAD_FEATURE, not_implemented(what)));
    }
    let plan = plan(context)?;
    let session = context.open()?;
    session.wait(follow(&session, plan))
}

/// Key, range end and command of a watch. What follows a second key means nothing, as in etcd.
//= etcd 3.7.3: etcdctl/ctlv3/command/watch_command.go#parseWatchArgs
fn plan(context: &Context) -> Result<Plan, Exit> {
    let values = &context.values;
    let set = |name| context.variable(name).filter(|value| !value.is_empty());
    let (key, end) = (set("ETCDCTL_WATCH_KEY"), set("ETCDCTL_WATCH_RANGE_END"));
    if let (None, Some(end)) = (key, end) {
        let end = text::quote(end.as_bytes());
        return Err(Exit::args(format!(
            "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}"
        )));
    }
    let split = values.before_dashes.unwrap_or(values.args.len());
    let (given, command) = values.args.split_at(split);
    if values.before_dashes.is_some() && command.is_empty() {
        let text = "bad number of arguments (found separator --, but no commands)";
        return Err(Exit::args(text));
    }
    let keys: Vec<&str> = match key {
        Some(_) if !given.is_empty() => {
            let text = "bad number of arguments (found conflicting environment key)";
            return Err(Exit::args(text));
        }
        Some(key) => [Some(key), end].into_iter().flatten().collect(),
        None => given.iter().map(String::as_str).collect(),
    };
    let Some(first) = keys.first() else { return Err(Exit::args("bad number of arguments")) };
    let mut key = kv::bytes(first);
    let mut range_end = match keys.as_slice() {
        [_, end] => kv::bytes(end),
        _ => Bytes::new(),
    };
    if values.is_on("prefix") {
        if keys.len() == 2 {
            return Err(Exit::args("`range_end` and `--prefix` are mutually exclusive"));
        }
        range_end = if key.is_empty() { Bytes::from_static(b"\0") } else { kv::prefix_end(&key) };
    }
    if key.is_empty() {
        key = Bytes::from_static(b"\0");
    }
    let request = WatchCreateRequest {
        key,
        range_end,
        start_revision: values.int("rev"),
        progress_notify: values.is_on("progress-notify"),
        prev_kv: values.is_on("prev-kv"),
        ..WatchCreateRequest::default()
    };
    Ok(Plan { request, command: command.to_vec() })
}

/// Follows the watch; where the stream breaks it goes on after the last revision that was printed.
async fn follow(session: &Session<'_>, mut plan: Plan) -> Result<(), Exit> {
    loop {
        let union = Some(RequestUnion::CreateRequest(plan.request.clone()));
        let first = WatchRequest { request_union: union };
        let stream = session.client().stream(Method::Watch, &first, true, None).await;
        let ended = match stream {
            Err(error) => error,
            Ok(mut stream) => loop {
                match next(&mut stream).await {
                    Ok(Some(response)) => received(session, &mut plan, &response)?,
                    Ok(None) => break Error::Broken("the stream ended".to_owned()),
                    Err(error) => break error,
                }
            },
        };
        let resumes = match &ended {
            Error::Broken(_) => true,
            Error::Status(status) => {
                !ended.is(ApiError::NoLeader)
                    && matches!(
                        status.code,
                        api::error::Code::Unavailable | api::error::Code::Internal
                    )
            }
            _ => false,
        };
        if !resumes {
            // etcd's client ends the channel with a response of its own.
            show(session, &WatchResponse { canceled: true, ..WatchResponse::default() })?;
            output::err(format!("watch was canceled ({ended})"));
            return Err(canceled());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How often a watch looks whether its output is still read.
const READER_CHECK: Duration = Duration::from_millis(250);

/// The next response. A watch may be quiet for ever: it ends with the reader of its output, not
/// only when it next has something to write.
async fn next(stream: &mut client::Stream) -> Result<Option<WatchResponse>, Error> {
    loop {
        let look = Some(tokio::time::Instant::now() + READER_CHECK);
        match stream.next::<WatchResponse>(look).await {
            Err(Error::Deadline) => output::end_if_nobody_reads(),
            answer => return answer,
        }
    }
}

fn canceled() -> Exit {
    Exit::new(Exit::INTERRUPTED, "watch is canceled by the server")
}

fn received(session: &Session<'_>, plan: &mut Plan, response: &WatchResponse) -> Result<(), Exit> {
    let revision = response.header.map_or(0, |h| h.revision);
    if response.created && !response.canceled {
        if plan.request.start_revision == 0 {
            plan.request.start_revision = revision + 1;
        }
        return Ok(());
    }
    show(session, response)?;
    if response.canceled {
        let reason = if response.compact_revision != 0 {
            ApiError::Compacted.text()
        } else if response.cancel_reason.is_empty() {
            ApiError::FutureRevision.text()
        } else {
            &response.cancel_reason
        };
        output::err(format!("watch was canceled ({reason})"));
        return Err(canceled());
    }
    if let Some(last) = response.events.last().and_then(|e| e.kv.as_ref()) {
        plan.request.start_revision = last.mod_revision + 1;
    }
    if !plan.command.is_empty() {
        for event in &response.events {
            execute(&plan.command, revision, event)?;
        }
    }
    Ok(())
}

fn execute(command: &[String], revision: i64, event: &Event) -> Result<(), Exit> {
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type == 1 { "DELETE" } else { "PUT" };
    let status = std::process::Command::new(&command[0])
        .args(&command[1..])
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", text::quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", text::quote(&kv.key))
        .env("ETCD_WATCH_VALUE", text::quote(&kv.value))
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            output::err(format!(
                "command {command:?} error (exit status {})",
                status.code().unwrap_or(-1)
            ));
            Err(Exit::silent(Exit::ERROR))
        }
        Err(e) => {
            output::err(format!("command {command:?} error ({})", osenv::error_text(&e)));
            Err(Exit::silent(Exit::ERROR))
        }
    }
}

fn show(session: &Session<'_>, response: &WatchResponse) -> Result<(), Exit> {
    let mut out = Vec::new();
    let is_progress = response.events.is_empty() && !response.canceled;
    match session.format {
        Format::Simple if is_progress => {
            let revision = response.header.map_or(0, |h| h.revision);
            line(&mut out, format!("progress notify: {revision}"));
        }
        Format::Simple => {
            for event in &response.events {
                line(&mut out, if event.r#type == 1 { "DELETE" } else { "PUT" });
                if let Some(kv) = &event.prev_kv {
                    kv_lines(&mut out, kv, session.is_hex, false);
                }
                let kv = event.kv.clone().unwrap_or_default();
                kv_lines(&mut out, &kv, session.is_hex, false);
            }
        }
        Format::Json => {
            let header = response.header.unwrap_or_default();
            let events: Vec<_> =
                response.events.iter().map(|e| json::message("mvccpb.Event", e)).collect();
            let events = if events.is_empty() {
                "null".to_owned()
            } else {
                format!("[{}]", events.join(","))
            };
            line(
                &mut out,
                format!(
                    "{{\"Header\":{},\"Events\":{events},\"CompactRevision\":{},\"Canceled\":{},\
                     \"Created\":{},\"CancelReason\":{}}}",
                    json::message("etcdserverpb.ResponseHeader", &header),
                    response.compact_revision,
                    response.canceled,
                    response.created,
                    json::string(&response.cancel_reason)
                ),
            );
        }
        Format::Fields => {
            header_fields(&mut out, response.header.as_ref(), session.is_hex);
            for event in &response.events {
                let kind = if event.r#type == 1 { "DELETE" } else { "PUT" };
                print::field(&mut out, "Type", kind);
                if let Some(kv) = &event.prev_kv {
                    kv_fields(&mut out, "Prev", kv, session.is_hex);
                }
                let kv = event.kv.clone().unwrap_or_default();
                kv_fields(&mut out, "", &kv, session.is_hex);
            }
        }
        Format::Protobuf => out = prost::Message::encode_to_vec(response),
        Format::Table => return Err(Format::Table.unsupported()),
    }
    output::out(&out);
    Ok(())
}
