//! Why a member did not start or ended, in etcd's words.

use std::io;

use member::StartError;
use net::BindError;
use net::limit::TooFewDescriptors;

use crate::threads::Fatal;

/// Why a member did not start or ended.
#[derive(Debug)]
pub enum RunError {
    /// The member's own state.
    Start(StartError),
    /// A socket or thread.
    Io(String, io::Error),
    /// An address to listen on.
    Listen(BindError),
    /// The process may open too few files.
    Descriptors(TooFewDescriptors),
    /// The configuration names this member nowhere.
    UnknownName(String),
    /// The cluster cannot be founded or joined.
    Bootstrap(String),
    /// The registry of founding members has no place for this one, or cannot be used.
    Discovery(String),
    /// It cannot listen as it is told to: the line that says so, and why.
    Refused(&'static str, String),
    /// It was told to stop before it had found its cluster.
    Stopped,
    /// The member could not go on.
    Fatal(Fatal),
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RunError::Start(e) => e.fmt(f),
            RunError::Io(what, e) => write!(f, "{what}: {}", osenv::error_text(e)),
            RunError::Listen(e) => e.fmt(f),
            RunError::Descriptors(e) => e.fmt(f),
            RunError::UnknownName(name) => {
                write!(f, "couldn't find local name {name:?} in the initial cluster configuration")
            }
            RunError::Bootstrap(why) | RunError::Discovery(why) | RunError::Refused(_, why) => {
                f.write_str(why)
            }
            RunError::Stopped => f.write_str("told to stop"),
            RunError::Fatal(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}
