//! How many connections there may be, so that files can always be opened.
//!
//! Each connection takes a descriptor. If clients could take the last one, the log could not cut its
//! next segment, and that ends a member. Connections beyond a limit wait in the socket's queue.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors that clients may not take: for files, the runtime, and connections of peers.
//= etcd 3.7.3: server/embed/etcd.go#reservedInternalFDNum
const RESERVED: usize = 150;
/// Connections that peers may have within what is reserved: eight of each of eight others.
const PEERS_RESERVED: usize = 64;
/// Connections that peers may have at most.
const PEERS_MOST: usize = 4_096;
/// A peer's share of the descriptors that are not reserved: one of so many.
const PEERS_SHARE: usize = 8;
/// More than any process can have; a semaphore has a limit of its own.
const MOST: usize = 1 << 30;

/// A limit on connections, shared by those who accept them.
#[derive(Clone, Debug)]
pub struct Limit(Arc<Semaphore>);

/// The right to have one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "it counts while it lives")] OwnedSemaphorePermit);

impl Limit {
    /// At most `connections` at once.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections.min(MOST))))
    }

    /// Waits until there may be another connection.
    pub(crate) async fn permit(&self) -> Permit {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        Permit(permit.expect("nobody closes the semaphore"))
    }
}

/// Connections that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Of clients, on all their listeners.
    pub clients: usize,
    /// Of peers, on all their listeners.
    pub peers: usize,
}

/// The process may open too few files to serve anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFewDescriptors {
    /// What it may open.
    pub limit: usize,
    /// What it may open at least.
    pub needed: usize,
}

impl std::fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "file descriptor limit of etcd process is too low; please set higher: the limit is {}, \
             at least {} are needed",
            self.limit, self.needed
        )
    }
}

impl std::error::Error for TooFewDescriptors {}

impl Connections {
    /// What a process may have that may open `descriptors` files.
    ///
    /// # Errors
    /// [`TooFewDescriptors`].
    pub fn within(descriptors: usize) -> Result<Self, TooFewDescriptors> {
        if descriptors <= RESERVED {
            return Err(TooFewDescriptors { limit: descriptors, needed: RESERVED + 1 });
        }
        let free = descriptors - RESERVED;
        let peers = (free / PEERS_SHARE).clamp(PEERS_RESERVED, PEERS_MOST);
        let clients = free.saturating_sub(peers - PEERS_RESERVED).max(1);
        Ok(Self { clients, peers })
    }
}

/// Connections that this process may have.
///
/// # Errors
/// [`TooFewDescriptors`].
pub fn of_process() -> Result<Connections, TooFewDescriptors> {
    let descriptors = getrlimit(Resource::Nofile).current;
    let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok());
    Connections::within(descriptors.unwrap_or(MOST).min(MOST))
}

/// Lets this process open as many files as it can be allowed, as Go's runtime does. For programs.
//= go 1.26: src/os/rlimit.go
pub fn raise() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where that is refused, what there is has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_always_have_descriptors() {
        assert_eq!(Connections::within(256), Ok(Connections { clients: 106, peers: 64 }));
        assert_eq!(Connections::within(1_024), Ok(Connections { clients: 829, peers: 109 }));
        for descriptors in 151..100_000 {
            let Connections { clients, peers } = Connections::within(descriptors).unwrap();
            assert!(clients >= 1 && peers >= PEERS_RESERVED);
            assert!(clients + peers <= descriptors - (RESERVED - PEERS_RESERVED), "{descriptors}");
        }
        assert_eq!(
            Connections::within(150).unwrap_err(),
            TooFewDescriptors { limit: 150, needed: 151 }
        );
    }
}
