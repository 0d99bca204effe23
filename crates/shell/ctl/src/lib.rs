//! etcdctl: one function per command, over the client.
//!
//! Owns: the tree of commands, global flags and their environment, requests built from arguments,
//! and how answers are printed. Never: speaks a transport itself. Not here yet, and refused with a
//! text that says so: TLS, interactive watch, and the commands that [`commands`] lists as missing.
//! Read next: [`commands`], [`session`], [`print`], then one module per kind of command.

pub mod commands;
pub mod downgrade;
pub mod endpoint;
pub mod json;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod member;
pub mod move_leader;
pub mod print;
pub mod session;
pub mod txn;
pub mod watch;

use std::ffi::OsString;

use cli::{Exit, Found};

/// Runs a command line and returns the exit code. The environment gives `ETCDCTL_*`.
pub fn run(
    args: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> u8 {
    let args = match cli::texts(args) {
        Ok(args) => args,
        Err(exit) => return exit.tell(),
    };
    let environment = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (command, values) = match cli::find(&commands::ETCDCTL, &args) {
        Found::Run(command, values) => (command, values),
        Found::Help(text) => {
            print::out(text.as_bytes());
            return 0;
        }
        Found::Refused(text) => {
            eprintln!("{text}");
            return Exit::ERROR;
        }
    };
    let ended = session::Context::new(values, environment).and_then(|context| command(&context));
    match ended {
        Ok(()) => 0,
        Err(exit) => exit.tell(),
    }
}
