//! lock, elect: what is held until a signal comes, or while a program runs.

use std::time::Duration;

use api::etcdserverpb::{RangeRequest, RangeResponse};
use api::method::Method;
use bytes::Bytes;
use cli::output::{self, Level};
use cli::{Exit, Values};
use client::concurrency::{self, DEFAULT_TTL, Election, LockError, Mutex};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::kv::{self, first};
use crate::print::answer;
use crate::program::{self, Wins};
use crate::session::{Context, Session, failed};

/// SIGINT and SIGTERM, which end the process no more once this is made.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Exit> {
        let make = |kind| signal(kind).map_err(|e| Exit::new(Exit::IO, osenv::error_text(&e)));
        let interrupt = make(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: make(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What was waited for was given up at a signal.
fn canceled() -> Exit {
    Exit::new(Exit::ERROR, "context canceled")
}

fn refused(error: LockError) -> Exit {
    Exit::new(Exit::ERROR, error.to_string())
}

/// A session of `ttl` seconds.
async fn session_of(session: &Session<'_>, ttl: i64) -> Result<concurrency::Session, Exit> {
    let client = session.shared_client();
    // etcd's client gives the first answer a second more than a connection.
    let dial = session.values.duration("dial-timeout");
    let first = if dial.is_zero() { FIRST_ANSWER } else { dial + Duration::from_secs(1) };
    concurrency::Session::open(client, ttl, first).await.map_err(failed)
}

/// Longest wait for the first answer about a lease where no time to connect is set.
//= etcd 3.7.3: client/v3/lease.go#defaultTTL
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// `--ttl`; what is no time is told and replaced.
fn ttl(values: &Values) -> i64 {
    let given = values.int("ttl");
    if given > 0 {
        return given;
    }
    let fields = [("logger", "etcd-client".into()), ("current-session-ttl", DEFAULT_TTL.into())];
    let msg = "WithTTL(): TTL should be > 0, preserving current TTL";
    output::log(Level::Warn, file!(), msg, &fields);
    DEFAULT_TTL
}

/// Reads a key and prints it as `get` does. Gives whether it is there.
async fn show_key(session: &Session<'_>, key: &Bytes) -> Result<bool, Exit> {
    let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let found = session.client().call(Method::Range, &request, None).await;
    let found: RangeResponse = found.map_err(failed)?;
    if !found.kvs.is_empty() {
        show(session, &found)?;
    }
    Ok(!found.kvs.is_empty())
}

fn show(session: &Session<'_>, response: &RangeResponse) -> Result<(), Exit> {
    answer(
        session,
        Method::Range,
        response,
        |out| {
            kv::range_lines(out, response, session.is_hex, false);
            Ok(())
        },
        |out| kv::range_fields(out, response, session.is_hex),
    )
}

/// lock.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.3: etcdctl/ctlv3/command/lock_command.go#lockUntilSignal
pub fn lock(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let name = first(&context.values);
    let command = context.values.args[1..].to_vec();
    session.wait(hold(&session, name, command))
}

async fn hold(session: &Session<'_>, name: &str, command: Vec<String>) -> Result<(), Exit> {
    let lease = session_of(session, ttl(&session.values)).await?;
    let mut signals = Signals::new()?;
    let mut mutex = Mutex::new(&lease, name);
    let locked = tokio::select! {
        locked = mutex.lock() => Some(locked),
        () = signals.wait() => None,
    };
    let Some(locked) = locked else {
        // It may have no place in the queue yet.
        let _ = mutex.unlock().await;
        return Err(canceled());
    };
    locked.map_err(refused)?;
    if !command.is_empty() {
        let ran = run_locked(command, &mutex).await;
        let unlocked = mutex.unlock().await.map_err(refused);
        return ran.and(unlocked);
    }
    if !show_key(session, mutex.key()).await? {
        return Err(Exit::new(Exit::ERROR, "lock lost on init"));
    }
    tokio::select! {
        () = signals.wait() => mutex.unlock().await.map_err(refused),
        () = lease.lost() => Err(Exit::new(Exit::ERROR, "session expired")),
    }
}

async fn run_locked(command: Vec<String>, mutex: &Mutex<'_>) -> Result<(), Exit> {
    let key = String::from_utf8_lossy(mutex.key()).into_owned();
    let revision = mutex.header().revision.to_string();
    let run = move || {
        let variables = [("ETCD_LOCK_KEY", key), ("ETCD_LOCK_REV", revision)];
        program::run(&command, &variables, Wins::Environment)
    };
    // The lease is kept alive meanwhile.
    let ran = tokio::task::spawn_blocking(run).await;
    let ran = ran.map_err(|e| Exit::new(Exit::ERROR, e.to_string()))?;
    ran.map_err(|failed| Exit::new(failed.code, failed.text))
}

/// elect.
///
/// # Errors
/// As etcdctl.
pub fn elect(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let values = &context.values;
    let name = first(values);
    match (values.args.get(1), values.is_on("listen")) {
        (None, false) => Err(Exit::args("no proposal argument but -l not set")),
        (Some(_), true) => Err(Exit::args("proposal given but -l is set")),
        (None, true) => session.wait(observe(&session, name)),
        (Some(proposal), false) => session.wait(campaign(&session, name, kv::bytes(proposal))),
    }
}

//= etcd 3.7.3: etcdctl/ctlv3/command/elect_command.go#observe
async fn observe(session: &Session<'_>, name: &str) -> Result<(), Exit> {
    let lease = session_of(session, DEFAULT_TTL).await?;
    let mut signals = Signals::new()?;
    let election = Election::new(&lease, name);
    // A format that elections do not have ends the command at the first leader.
    let mut refused = None;
    let (tell_refused, mut is_refused) = tokio::sync::mpsc::channel(1);
    let tell = |header, kv| {
        let kvs = vec![kv];
        let response = RangeResponse { header: Some(header), kvs, ..RangeResponse::default() };
        if let Err(exit) = show(session, &response) {
            refused = Some(exit);
            // It is full only if it was told before.
            let _ = tell_refused.try_send(());
        }
    };
    let ended = tokio::select! {
        _ = election.observe(tell) => Err(Exit::new(Exit::ERROR, "elect: observer lost")),
        _ = is_refused.recv() => Ok(()),
        () = signals.wait() => Ok(()),
    };
    refused.map_or(ended, Err)
}

//= etcd 3.7.3: etcdctl/ctlv3/command/elect_command.go#campaign
async fn campaign(session: &Session<'_>, name: &str, proposal: Bytes) -> Result<(), Exit> {
    let lease = session_of(session, DEFAULT_TTL).await?;
    let mut signals = Signals::new()?;
    let mut election = Election::new(&lease, name);
    let elected = tokio::select! {
        elected = election.campaign(proposal) => Some(elected),
        () = signals.wait() => None,
    };
    let Some(elected) = elected else {
        // Why it was given up is told, not what came of that.
        let _ = election.resign().await;
        return Err(canceled());
    };
    elected.map_err(refused)?;
    show_key(session, election.key()).await?;
    tokio::select! {
        () = signals.wait() => election.resign().await.map_err(refused),
        () = lease.lost() => Err(Exit::new(Exit::ERROR, "elect: session expired")),
    }
}
