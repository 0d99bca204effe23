//! The etcd server: parse, build a configuration, run it, map the result to an exit code.

mod memory;

use std::process::ExitCode;

use server::config::{self, Configured, Refused, Request};
use server::{Log, log_line};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::small_pages();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match config::configure(&args, std::env::vars()) {
        Ok(Request::Version) => {
            println!("{}", server::version_text());
            ExitCode::SUCCESS
        }
        Ok(Request::Run(configured)) => run(&configured),
        Err(Refused::Help) => {
            println!("{}", config::help());
            ExitCode::SUCCESS
        }
        Err(Refused::Usage(text)) => {
            eprintln!("{text}\nUsage: etcd [flags]; `etcd --help` lists them");
            ExitCode::from(2)
        }
        Err(Refused::Invalid(text)) => {
            let outputs = ["stderr".to_owned()];
            match Log::open("info", &outputs) {
                Ok(log) => log_line!(log, Error, "failed to verify flags", "error" = text),
                Err(_) => eprintln!("{text}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(configured: &Configured) -> ExitCode {
    let log = match Log::open(&configured.log_level, &configured.log_outputs) {
        Ok(log) => log,
        Err(e) => {
            eprintln!("etcd: cannot open the log: {e}");
            return ExitCode::FAILURE;
        }
    };
    let args: Vec<String> = std::env::args().collect();
    log_line!(log, Info, "Running: ", "args" = args);
    for warning in &configured.warnings {
        log_line!(log, Warn, warning);
    }
    let waiting = || {
        let path = configured.options.data_dir.join("member/snap/db");
        log_line!(
            log,
            Info,
            "db file is flocked by another process, or taking too long",
            "path" = path.display().to_string()
        );
    };
    // Before anything starts, so that a signal in the middle of a start is not missed.
    let mut signals = match Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(e) => {
            log_line!(log, Error, "cannot listen for signals", "error" = e.to_string());
            return ExitCode::FAILURE;
        }
    };
    let server = match server::start(&configured.options, &waiting) {
        Ok(server) => server,
        Err(e) => {
            log_line!(log, Fatal, "discovery failed", "error" = e.to_string());
            return ExitCode::FAILURE;
        }
    };
    log_line!(log, Info, "ready to serve client requests");
    memory::give_back();
    for address in &server.addresses {
        log_line!(
            log,
            Info,
            "serving client traffic insecurely; this is strongly discouraged!",
            "traffic" = "grpc+http",
            "address" = address.to_string()
        );
    }
    let stop = server.stopper();
    let handle = signals.handle();
    let received = std::thread::spawn(move || {
        let signal = signals.forever().next();
        // Nobody listens any more if the member has ended by itself.
        let _ = stop.send(true);
        signal
    });
    let result = server.wait();
    handle.close();
    let signal = received.join().ok().flatten();
    match result {
        Err(e) => {
            log_line!(log, Fatal, "the member cannot go on", "error" = e.to_string());
            ExitCode::FAILURE
        }
        Ok(()) => {
            log_line!(log, Info, "closed etcd server", "name" = configured.options.name.clone());
            // As etcd: the default action of the signal decides how the process ends.
            if let Some(signal) = signal.filter(|_| std::process::id() != 1) {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            ExitCode::SUCCESS
        }
    }
}
