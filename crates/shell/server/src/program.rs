//! The server as a program: arguments in, an exit code out.
//!
//! A library function so that tests can run the very same program on another disk.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use cli::output;
use cli::text::show_duration;
use env::{Disk, Failpoints};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::config::{self, ConfigError, Configured, Notice, Request};
use crate::exposed;
use crate::failpoints::{Registry, http};
use crate::listen::Served;
use crate::notify;
use crate::threads::Fatal;
use crate::{Options, RunError, Server, start_until};
use observe::logging::{Format, Level};
use observe::{Log, log_line};

/// Runs the server program with its arguments (without the program's name) on a disk. `ready` is
/// called once clients are served.
#[must_use]
pub fn program(
    args: impl Iterator<Item = OsString>,
    disk: &Arc<dyn Disk>,
    ready: &dyn Fn(),
) -> ExitCode {
    let args = match cli::texts(args) {
        Ok(args) => args,
        Err(exit) => return ExitCode::from(exit.tell()),
    };
    if args.first().is_some_and(|command| proxy::is_mine(command)) {
        return proxy::program(args.into_iter().map(OsString::from), &notify_manager);
    }
    match variables().and_then(|variables| config::configure(&args, variables.into_iter())) {
        Ok(Request::Version) => {
            output::out(crate::version_text() + "\n");
            ExitCode::SUCCESS
        }
        Ok(Request::Run(configured)) => run(&args, &configured, disk, ready),
        Err(ConfigError::Help) => {
            output::out(config::help() + "\n");
            ExitCode::SUCCESS
        }
        Err(ConfigError::Usage(text)) => {
            output::err(format!("{text}\nUsage: etcd [flags]; `etcd --help` lists them"));
            ExitCode::from(2)
        }
        Err(refused) => {
            tell_refused(&args, refused);
            ExitCode::FAILURE
        }
    }
}

/// The environment. Only variables of etcd's own matter, and those must be text.
fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("ETCD_")) else { continue };
        let value = value.into_string().map_err(|value| {
            let what = format!("{name}={value:?}, which is not UTF-8,");
            ConfigError::Invalid(cli::not_implemented(&what))
        })?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// The command line as the log shows it, with the program's name.
fn command_line(args: &[String]) -> Vec<String> {
    let program = std::env::args_os().next().unwrap_or_default();
    std::iter::once(program.to_string_lossy().into_owned()).chain(args.iter().cloned()).collect()
}

/// Says why a configuration cannot be run.
//= etcd 3.7.3: server/etcdmain/etcd.go#startEtcdOrProxyV2
fn tell_refused(args: &[String], refused: ConfigError) {
    let Ok(log) = Log::open(Level::Info, Format::Json, &["stderr".to_owned()]) else { return };
    match refused {
        ConfigError::Shadowed(name) => {
            let text = "conflicting environment variable is shadowed by corresponding \
                        command-line flag (either unset environment variable or disable flag))";
            log_line!(log, Fatal, text, "environment-variable" = name);
        }
        ConfigError::Invalid(why) | ConfigError::Usage(why) => {
            log_line!(log, Info, "Running: ", "args" = command_line(args));
            log_line!(log, Warn, "failed to verify flags", "error" = why.as_str());
            if why == config::UNADVERTISED {
                log_line!(log, Warn, "advertise client URLs are not set", "error" = why);
            }
        }
        ConfigError::Help => {}
    }
}

/// The line that says what is run, and how.
//= etcd 3.7.1: server/embed/etcd.go#print
fn tell_start(log: &Log, configured: &Configured, found: bool) {
    let options = &configured.options;
    let path = |path: &std::path::Path| path.display().to_string();
    let mut fields = vec![
        ("etcd-version", types::SERVER_VERSION.into()),
        ("member-initialized", found.into()),
        ("name", options.name.as_str().into()),
        ("data-dir", path(&options.data_dir).into()),
        ("wal-dir", path(&options.wal_dir).into()),
        ("member-dir", path(&options.data_dir.join("member")).into()),
        ("heartbeat-interval", show_duration(options.heartbeat).into()),
        ("election-timeout", show_duration(options.election).into()),
        ("initial-corrupt-check", options.checks.initial.into()),
        ("corrupt-check-time-interval", show_duration(options.checks.periodic).into()),
        ("compact-check-time-interval", show_duration(options.checks.compaction).into()),
        ("downgrade-check-interval", show_duration(options.downgrade_check).into()),
    ];
    fields.extend(configured.shown.iter().cloned());
    let caller = concat!(file!(), ":", line!()).trim_start_matches("crates/");
    log.line(Level::Info, caller, "starting an etcd server", &fields);
}

fn run(
    args: &[String],
    configured: &Configured,
    disk: &Arc<dyn Disk>,
    ready: &dyn Fn(),
) -> ExitCode {
    let log = match Log::open(configured.log_level, configured.log_format, &configured.log_outputs)
    {
        Ok(log) => Arc::new(log),
        Err(e) => {
            output::err(format!("etcd: cannot open the log: {}", osenv::error_text(&e)));
            return ExitCode::FAILURE;
        }
    };
    net::limit::raise();
    let code = run_with(args, configured, &log, disk, ready);
    // Threads may still hold the log, so that nothing is dropped.
    log.flush();
    code
}

fn run_with(
    args: &[String],
    configured: &Configured,
    log: &Arc<Log>,
    disk: &Arc<dyn Disk>,
    ready: &dyn Fn(),
) -> ExitCode {
    for Notice { level, text, fields } in &configured.notices {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (*name, value.as_str().into())).collect();
        log.line(*level, file!().trim_start_matches("crates/"), text, &fields);
    }
    log_line!(log, Info, "Running: ", "args" = command_line(args));
    let options = &configured.options;
    let data_dir = options.data_dir.display().to_string();
    let found = options.data_dir.join("member").is_dir();
    let (msg, kind) = if found {
        ("server has already been initialized", "member")
    } else {
        ("Initialize and start etcd server", "empty")
    };
    log_line!(log, Info, msg, "data-dir" = data_dir.as_str(), "dir-type" = kind);
    exposed::warn_of(log, &options.data_dir);
    tell_start(log, configured, found);
    // Before anything starts, so that a signal in the middle of a start is not missed.
    let mut signals = match Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(e) => {
            log_line!(log, Error, "cannot listen for signals", "error" = e.to_string());
            return ExitCode::FAILURE;
        }
    };
    let options = match with_failpoints(&configured.options, log) {
        Ok(options) => options,
        Err(e) => {
            output::out(e + "\n");
            return ExitCode::FAILURE;
        }
    };
    let stop = watch::channel(false).0;
    let (stopper, handle) = (stop.clone(), signals.handle());
    let told = Arc::clone(log);
    let received = std::thread::spawn(move || {
        let signal = signals.forever().next();
        if let Some(signal) = signal {
            let name = if signal == SIGINT { "interrupt" } else { "terminated" };
            log_line!(told, Info, "received signal; shutting down", "signal" = name);
        }
        stopper.send_replace(true);
        signal
    });
    let server = match start_until(disk, log, &options, stop.clone()) {
        Ok(server) => server,
        Err(RunError::Stopped) => {
            handle.close();
            return end_by(received.join().ok().flatten(), log);
        }
        Err(RunError::Discovery(why)) => return undiscovered(log, &options, &why),
        Err(e) => return ended(log, "discovery failed", &e),
    };
    if !*stop.borrow() {
        announce(log, &server);
        notify_manager(log);
        ready();
    }
    let result = server.wait();
    handle.close();
    let signal = received.join().ok().flatten();
    match result {
        Err(e) => ended(log, "the member ended", &e),
        Ok(()) => {
            log_line!(log, Info, "closed etcd server", "name" = configured.options.name.clone());
            end_by(signal, log)
        }
    }
}

/// Ends well. As etcd: the default action of the signal decides how the process ends.
fn end_by(signal: Option<i32>, log: &Log) -> ExitCode {
    if let Some(signal) = signal.filter(|_| std::process::id() != 1) {
        log.flush();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    ExitCode::SUCCESS
}

/// Says that the registry of founding members has no place for this one.
//= etcd 3.7.3: server/etcdmain/etcd.go#startEtcdOrProxyV2
fn undiscovered(log: &Log, options: &Options, why: &str) -> ExitCode {
    let (token, endpoints) = match &options.discovery {
        Some(service) => (service.token.as_str(), service.endpoints.clone()),
        None => ("", Vec::new()),
    };
    log_line!(
        log,
        Warn,
        "failed to bootstrap; discovery token was already used",
        "discovery-token" = token,
        "discovery-endpoints" = endpoints,
        "error" = why,
    );
    let text = "do not reuse discovery token; generate a new one to bootstrap a cluster";
    log_line!(log, Warn, text);
    ExitCode::FAILURE
}

/// Says that clients are served, and where.
fn announce(log: &Log, server: &Server) {
    log_line!(log, Info, "ready to serve client requests");
    for Served { address, is_secure, traffic } in &server.served {
        let text = match is_secure {
            true => "serving client traffic securely",
            false => "serving client traffic insecurely; this is strongly discouraged!",
        };
        log_line!(log, Info, text, "traffic" = *traffic, "address" = address.as_str());
    }
}

/// Tells systemd, if it started this process, that the unit is up.
//= etcd 3.7.1: server/etcdmain/main.go#notifySystemd
fn notify_manager(log: &Log) {
    log_line!(log, Info, "notifying init daemon");
    match notify::ready(&std::env::var("NOTIFY_SOCKET").unwrap_or_default()) {
        Ok(()) => log_line!(log, Info, "successfully notified init daemon"),
        Err(e) => {
            let error = e.to_string();
            log_line!(log, Error, "failed to notify systemd for readiness", "error" = error);
        }
    }
}

/// What the environment asks of failpoints, as Go's runtime of them reads it.
//= gofail 0.2.0: runtime/runtime.go#init
fn with_failpoints(options: &Options, log: &Arc<Log>) -> Result<Options, String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (terms, address) = (set("GOFAIL_FAILPOINTS"), set("GOFAIL_HTTP"));
    let mut options = options.clone();
    if terms.is_some() || address.is_some() {
        let registry = Registry::new(&terms.unwrap_or_default(), Arc::clone(log))?;
        if let Some(address) = address {
            http::listen(Arc::clone(&registry), &address)?;
        }
        options.failpoints = Failpoints::new(registry);
    }
    Ok(options)
}

/// Says why the member ended, or did not begin. A failure of one of its threads has its own text.
fn ended(log: &Log, message: &str, error: &RunError) -> ExitCode {
    let (message, error) = match error {
        RunError::Fatal(Fatal { message, error }) => (*message, error.clone()),
        RunError::Refused(message, error) => (*message, error.clone()),
        other => (message, other.to_string()),
    };
    log_line!(log, Fatal, message, "error" = error);
    ExitCode::FAILURE
}
