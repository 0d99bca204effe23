//! Programs that stand between clients and members: `etcd gateway`.
//!
//! Owns: the command line of these programs, which member a connection goes to, when one that did
//! not answer is tried again, and the way of the bytes. Never: what a call does; a gateway does not
//! look into what it passes on. Read next: [`gateway`], [`pick`], [`tcp`].

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod gateway;
pub mod pick;
pub mod tcp;

use std::ffi::OsString;
use std::process::ExitCode;

use cli::{Command, Program, Takes};
use observe::Log;

/// What runs a command: its flags, and what to do once clients are served.
type Runs = fn(&cli::Values, &dyn Fn(&Log)) -> Result<(), cli::Exit>;

/// The part of the `etcd` program that cobra reads.
static PROXIES: Program<Runs> = Program {
    name: "etcd",
    about: "etcd server",
    flags: &[],
    commands: &[
        Command::group(
            "gateway",
            "gateway related command",
            &[Command::leaf(
                ("start", "", "start the gateway"),
                Takes::ANY,
                gateway::FLAGS,
                gateway::start,
            )],
        ),
        Command::later("grpc-proxy"),
    ],
};

/// Whether this crate runs a command of the `etcd` program.
#[must_use]
pub fn is_mine(command: &str) -> bool {
    PROXIES.commands.iter().any(|own| own.name == command)
}

/// Runs a proxy with the arguments of the `etcd` program (without its name). `ready` is called
/// once it listens.
//= etcd 3.7.3: server/etcdmain/main.go#Main
#[must_use]
pub fn program(args: impl Iterator<Item = OsString>, ready: &dyn Fn(&Log)) -> ExitCode {
    ExitCode::from(cli::run(&PROXIES, args, |runs, values| runs(&values, ready)))
}
