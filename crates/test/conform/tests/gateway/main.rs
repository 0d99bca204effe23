//! Calls as JSON over HTTP, on both servers: equal statuses, header fields and bodies.

mod bodies;
mod heads;
mod sockets;
mod streams;
mod tokens;
mod web;

use base64::Engine;
use conform::{Kind, Server};

/// Ours, and etcd where it was built.
struct Pair {
    ours: Server,
    theirs: Option<Server>,
}

impl Pair {
    fn start(args: &[&str]) -> Self {
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| Server::start(Kind::Reference, args));
            let ours = Server::start(Kind::Quorate, args).expect("our own binary is built");
            Self { ours, theirs: theirs.join().expect("starting does not panic") }
        })
    }

    /// What an action sees on each. Equal, or it is told as a difference.
    fn compare<T: PartialEq + std::fmt::Debug>(
        &self,
        differences: &mut Vec<String>,
        what: &str,
        action: impl Fn(u16) -> T,
    ) -> T {
        let ours = action(self.ours.port);
        if let Some(theirs) = &self.theirs {
            let theirs = action(theirs.port);
            if ours != theirs {
                differences.push(format!("{what}\n   ours: {ours:?}\n   etcd: {theirs:?}"));
            }
        }
        ours
    }

    /// As [`Pair::compare`], where a difference fails.
    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, action: impl Fn(u16) -> T) -> T {
        let mut differences = Vec::new();
        let ours = self.compare(&mut differences, what, action);
        none(&differences);
        ours
    }
}

fn none(differences: &[String]) {
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
