//! Bugs that are planted on purpose, to see that they are found.
//!
//! All of them are planted around the automata: in the disk, in what is delivered when, and in
//! what the shell does. The automata are those of the product, unchanged.

use std::fmt;
use std::str::FromStr;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The disk says that the log is synced and does nothing.
    SkippedFsync,
    /// Node is told that a write is durable when it is handed over (against invariant 2).
    EarlyAcknowledgement,
    /// The consistent index is committed before its effects (against invariant 4).
    IndexApart,
    /// A snapshot record is written for what the backend does not hold yet (against invariant 3).
    SnapshotAhead,
    /// Replies leave before the View that shows them (against invariant 7).
    ViewAfterReply,
    /// A watch that needs what was compacted goes on behind it instead of being cancelled
    /// (against invariant 8).
    SkippedTombstone,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 6] = [
        Plant::SkippedFsync,
        Plant::EarlyAcknowledgement,
        Plant::IndexApart,
        Plant::SnapshotAhead,
        Plant::ViewAfterReply,
        Plant::SkippedTombstone,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Plant::SkippedFsync => "skipped-fsync",
            Plant::EarlyAcknowledgement => "early-acknowledgement",
            Plant::IndexApart => "index-apart",
            Plant::SnapshotAhead => "snapshot-ahead",
            Plant::ViewAfterReply => "view-after-reply",
            Plant::SkippedTombstone => "skipped-tombstone",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Plant::ALL.into_iter().find(|plant| plant.name() == text);
        found.ok_or_else(|| format!("no plant is called {text}"))
    }
}
