//! watch: one watch from the command line. Requests from stdin (`-i`) are not implemented.

use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use api::method::Method;
use api::mvccpb::Event;
use bytes::Bytes;
use cli::{Exit, text};
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
        return Err(Exit::new(Exit::BAD_FEATURE, "interactive watch is not implemented"));
    }
    let plan = plan(context)?;
    let session = context.open()?;
    session.wait(follow(&session, plan))
}

//= etcd 3.7.1: etcdctl/ctlv3/command/watch_command.go#parseWatchArgs
fn plan(context: &Context) -> Result<Plan, Exit> {
    let values = &context.values;
    let split = values.before_dashes.unwrap_or(values.args.len());
    let (keys, command) = values.args.split_at(split);
    let mut keys = keys.to_vec();
    let key = context.variable("ETCDCTL_WATCH_KEY");
    let end = context.variable("ETCDCTL_WATCH_RANGE_END");
    let few = || Exit::args("bad number of arguments");
    match (key, end) {
        (None, Some(_)) => {
            return Err(Exit::args("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END"));
        }
        (Some(_), _) if !keys.is_empty() => return Err(few()),
        (Some(key), end) => {
            keys = [Some(key), end].into_iter().flatten().map(str::to_owned).collect();
        }
        (None, None) => {}
    }
    if keys.is_empty() || keys.len() > 2 {
        return Err(few());
    }
    let mut key = kv::bytes(&keys[0]);
    let mut range_end = keys.get(1).map(|end| kv::bytes(end)).unwrap_or_default();
    if values.is_on("prefix") {
        if keys.len() > 1 {
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
                match stream.next::<WatchResponse>(None).await {
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
            eprintln!("watch was canceled ({ended})");
            return Err(canceled());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
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
        eprintln!("watch was canceled ({reason})");
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
            eprintln!("command {command:?} error (exit status {})", status.code().unwrap_or(-1));
            Err(Exit::silent(Exit::ERROR))
        }
        Err(e) => {
            eprintln!("command {command:?} error ({})", print::io_text(&e));
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
    print::out(&out);
    Ok(())
}
