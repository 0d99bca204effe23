//! Newtypes for ids and positions. The inner value is public because each is a plain number on
//! the wire and on disk; the type says which number it is.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// A member of a cluster. Shown as lower-case hex without padding, as etcd does.
    MemberId(u64), "{:x}"
);
number!(
    /// A cluster. Shown as lower-case hex without padding.
    ClusterId(u64), "{:x}"
);
number!(
    /// A lease. Any `i64` is a valid id, the negative ones too; 0 means "no lease".
    LeaseId(i64), "{:016x}"
);
number!(
    /// A watch within one stream. Negative ids are valid.
    WatchId(i64), "{}"
);
number!(
    /// A main revision of the store: +1 per transaction that changed a key. An empty store is at 1.
    Revision(i64), "{}"
);
number!(
    /// The position of a change within its main revision, from 0.
    SubRevision(i64), "{}"
);
number!(
    /// A position in the raft log. The first entry is 1.
    Index(u64), "{}"
);
number!(
    /// A raft term.
    Term(u64), "{}"
);
number!(
    /// The id of one proposal, unique per member and boot (disk.md section 10).
    RequestId(u64), "{}"
);
number!(
    /// One write handed to the log, rising by one per write. Never reused within a process.
    WriteId(u64), "{}"
);

number!(
    /// Where a reply goes: runtime (8 bits), generation (24 bits), slot (32 bits). Opaque to
    /// everything but the thread that made it; never enters the log.
    ReplyToken(u64), "{:x}"
);

impl ReplyToken {
    /// The number of the runtime whose table the token belongs to.
    #[must_use]
    pub fn runtime(self) -> usize {
        (self.0 >> 56) as usize
    }
}

impl Index {
    /// The position after this one.
    ///
    /// # Panics
    /// On overflow: a log position comes from our own log, whose end is checked when it is read.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("log positions are checked at the gateway"))
    }
}
