//! watch: one watch of the command line, or several of stdin ([`interactive`]).

mod interactive;

use std::time::Duration;

use api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use api::mvccpb::Event;
use bytes::Bytes;
use cli::{Exit, Values, output, text};
use client::{Leader, Told, Watches, watches};

use crate::print::{self, Format, header_fields, kv_fields, kv_lines, line};
use crate::program::{self, Wins};
use crate::session::{Context, Session};
use crate::{json, kv};

/// What one watch is asked to do.
struct Plan {
    request: WatchCreateRequest,
    /// A program that runs for each event; none if it is empty.
    command: Vec<String>,
}

/// watch.
///
/// # Errors
/// As etcdctl.
pub fn watch(context: &Context) -> Result<(), Exit> {
    let named = Named::in_environment(context)?;
    if context.values.is_on("interactive") {
        let session = context.open()?;
        return session.wait(interactive::follow(&session, &named));
    }
    let (keys, command) = named.arguments(&context.values).map_err(Exit::args)?;
    let request = request(&keys, &context.values).map_err(Exit::args)?;
    let session = context.open()?;
    session.wait(follow(&session, Plan { request, command }))
}

/// The key and the range end of the environment, which go before those of the command line.
struct Named {
    key: Option<String>,
    range_end: Option<String>,
}

impl Named {
    fn in_environment(context: &Context) -> Result<Self, Exit> {
        let set = |name| context.variable(name).filter(|v| !v.is_empty()).map(str::to_owned);
        let (key, range_end) = (set("ETCDCTL_WATCH_KEY"), set("ETCDCTL_WATCH_RANGE_END"));
        match (&key, &range_end) {
            (None, Some(end)) => Err(Exit::args(format!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={}",
                text::quote(end.as_bytes())
            ))),
            _ => Ok(Self { key, range_end }),
        }
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        self.key.iter().chain(&self.range_end).cloned()
    }

    /// Keys and program of a command line.
    //= etcd 3.7.3: etcdctl/ctlv3/command/watch_command.go#parseWatchArgs
    fn arguments(&self, values: &Values) -> Result<(Vec<String>, Vec<String>), &'static str> {
        let split = values.before_dashes.unwrap_or(values.args.len());
        let (given, command) = values.args.split_at(split);
        if values.before_dashes.is_some() && command.is_empty() {
            return Err("bad number of arguments (found separator --, but no commands)");
        }
        if self.key.is_some() && !given.is_empty() {
            return Err("bad number of arguments (found conflicting environment key)");
        }
        let keys = self.keys().chain(given.iter().cloned()).collect();
        Ok((keys, command.to_vec()))
    }
}

/// The request of a watch. What follows a second key means nothing, as in etcd.
fn request(keys: &[String], values: &Values) -> Result<WatchCreateRequest, &'static str> {
    let Some(first) = keys.first() else { return Err("bad number of arguments") };
    let mut key = kv::bytes(first);
    let mut range_end = match keys {
        [_, end] => kv::bytes(end),
        _ => Bytes::new(),
    };
    if values.is_on("prefix") {
        if keys.len() == 2 {
            return Err("`range_end` and `--prefix` are mutually exclusive");
        }
        range_end =
            if key.is_empty() { Bytes::from_static(b"\0") } else { client::prefix_end(&key) };
    }
    if key.is_empty() {
        key = Bytes::from_static(b"\0");
    }
    Ok(WatchCreateRequest {
        key,
        range_end,
        start_revision: values.int("rev"),
        progress_notify: values.is_on("progress-notify"),
        prev_kv: values.is_on("prev-kv"),
        ..WatchCreateRequest::default()
    })
}

/// How often a watch looks whether its output is still read.
const READER_CHECK: Duration = Duration::from_millis(250);

/// What a watch tells next. It may be quiet for ever: it ends with the reader of its output, not
/// only when it next has something to write.
async fn next(watches: &mut Watches<'_>) -> Told {
    loop {
        match tokio::time::timeout(READER_CHECK, watches.next()).await {
            Ok(told) => return told,
            Err(_) => output::end_if_nobody_reads(),
        }
    }
}

async fn follow(session: &Session<'_>, plan: Plan) -> Result<(), Exit> {
    let mut watches = Watches::new(session.client(), Leader::Required);
    watches.add(plan.request);
    while tell(session, &plan.command, &next(&mut watches).await)? == Goes::On {}
    Err(Exit::new(Exit::INTERRUPTED, "watch is canceled by the server"))
}

/// Whether a watch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    Over,
}

/// Prints what a watch tells, and runs its program for each event.
fn tell(session: &Session<'_>, command: &[String], told: &Told) -> Result<Goes, Exit> {
    let response = match told {
        Told::Response(_, response) => response,
        Told::Ended(_, error) => {
            // etcd's client ends the channel with a response of its own.
            show(session, &WatchResponse { canceled: true, ..WatchResponse::default() })?;
            output::err(format!("watch was canceled ({error})"));
            return Ok(Goes::Over);
        }
    };
    show(session, response)?;
    if response.canceled {
        output::err(format!("watch was canceled ({})", watches::why_canceled(response)));
        return Ok(Goes::Over);
    }
    if !command.is_empty() {
        let revision = response.header.map_or(0, |h| h.revision);
        for event in &response.events {
            execute(command, revision, event)?;
        }
    }
    Ok(Goes::On)
}

fn execute(command: &[String], revision: i64, event: &Event) -> Result<(), Exit> {
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if watches::is_delete(event) { "DELETE" } else { "PUT" };
    let variables = [
        ("ETCD_WATCH_REVISION", revision.to_string()),
        ("ETCD_WATCH_EVENT_TYPE", text::quote(kind.as_bytes())),
        ("ETCD_WATCH_KEY", text::quote(&kv.key)),
        ("ETCD_WATCH_VALUE", text::quote(&kv.value)),
    ];
    program::run(command, &variables, Wins::Added).map_err(|failed| {
        let shown: Vec<_> = command.iter().map(|word| text::quote(word.as_bytes())).collect();
        output::err(format!("command [{}] error ({})", shown.join(" "), failed.text));
        Exit::silent(Exit::ERROR)
    })
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
