//! What a history can do wrong.

use std::fmt;

/// The property that a history breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Property {
    /// A revision has one content, and every acknowledged write is in it.
    Revisions,
    /// Something happened that nobody asked for.
    Phantom,
    /// A read shows the content of the revision it names.
    Reads,
    /// What returned before something was asked is visible to it.
    RealTime,
    /// There is an order of all operations that the model would answer alike.
    Linearizable,
    /// Compacted revisions are refused, and no others.
    Compaction,
    /// Equal revisions have equal hashes.
    Hashes,
    /// Leases live for their time and end once.
    Leases,
    /// Events come in the order of revisions.
    Ordered,
    /// No event comes twice.
    Unique,
    /// The events of a revision come together.
    Atomic,
    /// No event is missing.
    Reliable,
    /// A watch that goes on elsewhere continues where it was.
    Resumable,
    /// A progress notification covers everything before it and nothing behind it.
    Bookmarkable,
    /// Events bring the state before them if that was asked for.
    PrevKv,
    /// Events tell creation from modification, and carry what was written.
    Events,
    /// A watch is cancelled only if it needs what was compacted.
    Cancelled,
    /// What was done was permitted to who asked for it, and what was refused was not.
    Permitted,
}

/// A property and where it is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub property: Property,
    /// Where and how, for people.
    pub what: String,
}

impl Violation {
    /// A violation.
    pub fn new(property: Property, what: impl Into<String>) -> Self {
        Self { property, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.property, self.what)
    }
}

impl std::error::Error for Violation {}
