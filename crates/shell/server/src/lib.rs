//! A member as a server: configuration, listeners, threads, shutdown.
//!
//! Owns what is made of flags, environment and YAML, the threads that run the automata, the
//! sockets, and the order in which everything starts and stops. Never holds logic of the member.
//! [`run`] is also the API for embedding. Read next: [`run`], [`threads`].

mod auth;
mod bootstrap;
pub mod config;

mod discovered;
mod election;
mod error;
mod exposed;
mod failpoints;
mod health;
mod hearing;
mod host;
mod jwt;
mod listen;
mod notify;
pub mod options;
mod peers;
mod pool;
mod program;

pub mod refusals;
mod run;
mod runtimes;
pub mod threads;

pub use bootstrap::refuse_shared_urls;
pub use calls::corruption::Checks;
pub use calls::identity;
pub use error::RunError;
pub use listen::Served;
pub use net::Address;
pub use observe::Log;
pub use options::{Listen, Options};
pub use program::program;
pub use run::{Server, start, start_until};

/// The operating system's disk.
#[must_use]
pub fn os_disk() -> std::sync::Arc<dyn env::Disk> {
    std::sync::Arc::new(osenv::OsDisk)
}

/// What `--version` prints. The first line is the version that this build stands in for.
#[must_use]
pub fn version_text() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {}\nGit SHA: quorate-{}\nGo Version: none (Rust)\nGo OS/Arch: {}/{arch}",
        types::SERVER_VERSION,
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS
    )
}
