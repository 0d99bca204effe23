//! One scenario on both servers.

use std::fmt::Debug;
use std::future::Future;

use crate::grpc::Client;
use crate::process::{Kind, Server};

/// Runs a scenario against a fresh server of one kind; `None` where that kind was not built.
///
/// # Panics
/// As the scenario does.
pub fn run<T, F: Future<Output = T>>(
    kind: Kind,
    args: &[&str],
    scenario: impl FnOnce(Client) -> F,
) -> Option<T> {
    let server = Server::start(kind, args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    Some(runtime.block_on(async { scenario(Client::connect(server.port).await).await }))
}

/// Runs a scenario against both servers and expects equal transcripts.
///
/// # Panics
/// If they differ, or the scenario panics.
pub fn both<T: PartialEq + Debug, F: Future<Output = T>>(scenario: impl Fn(Client) -> F) -> T {
    run_both(&[], scenario)
}

/// As [`both`], with flags for the servers.
///
/// # Panics
/// As [`both`].
pub fn run_both<T: PartialEq + Debug, F: Future<Output = T>>(
    args: &[&str],
    scenario: impl Fn(Client) -> F,
) -> T {
    let ours = run(Kind::Quorate, args, &scenario).expect("our own binary is built");
    if let Some(theirs) = run(Kind::Reference, args, &scenario) {
        assert_eq!(ours, theirs, "left is ours, right is etcd's");
    }
    ours
}
