//! Bugs that are planted on purpose, to see that they are found.
//!
//! All of them are planted around the automata and the calls: in the disk, in what is delivered when,
//! in what surrounds the calls. Automata and calls are those of the product, unchanged.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use api::mvccpb::KeyValue;
use bytes::Bytes;
use env::mem::MemDisk;
use env::{Access, Disk, MayBlock};
use prost::Message;
use store::Bucket;

use crate::process::snap_dir;

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
    /// A vote is given that the log does not hold (against invariant 2).
    VoteNotPersisted,
    /// A member that takes itself for the leader answers reads at once (against invariant 7).
    ReadWithoutQuorum,
    /// Who led once goes on ending leases, by his old clock (against invariant 9).
    DeposedRevoke,
    /// A follower applies what its log does not hold yet.
    ApplyAhead,
    /// The backend holds effects beyond its consistent index when a process starts (against
    /// invariant 4).
    AppliedTwice,
    /// A client whose put was not answered asks again (against invariant 15).
    RetriedPut,
    /// Writes are not held against the quota before they go into the log.
    QuotaSkipped,
    /// Puts go into the log under the number of another request.
    WrongField,
    /// A linearizable read does not wait until its read index is applied (against invariant 7).
    ViewBeforeIndex,
    /// Who led once goes on answering keep-alives (against invariant 9).
    DeposedKeepAlive,
    /// The leader takes the other members' programs for older than they are.
    WrongVersion,
    /// Members' hashes are not compared, and one member's data differs.
    HashSkipped,
    /// What waited for a reply is answered on the stream that was opened last.
    AnswerMisplaced,
    /// A call goes on whose client has gone, and is answered on the stream that is opened next.
    StreamReused,
    /// Of a long answer, what the client's window does not allow yet is never sent.
    WindowSkipped,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 21] = [
        Plant::SkippedFsync,
        Plant::EarlyAcknowledgement,
        Plant::IndexApart,
        Plant::SnapshotAhead,
        Plant::ViewAfterReply,
        Plant::SkippedTombstone,
        Plant::VoteNotPersisted,
        Plant::ReadWithoutQuorum,
        Plant::DeposedRevoke,
        Plant::ApplyAhead,
        Plant::AppliedTwice,
        Plant::RetriedPut,
        Plant::QuotaSkipped,
        Plant::WrongField,
        Plant::ViewBeforeIndex,
        Plant::DeposedKeepAlive,
        Plant::WrongVersion,
        Plant::HashSkipped,
        Plant::AnswerMisplaced,
        Plant::StreamReused,
        Plant::WindowSkipped,
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
            Plant::VoteNotPersisted => "vote-not-persisted",
            Plant::ReadWithoutQuorum => "read-without-quorum",
            Plant::DeposedRevoke => "deposed-revoke",
            Plant::ApplyAhead => "apply-ahead",
            Plant::AppliedTwice => "applied-twice",
            Plant::RetriedPut => "retried-put",
            Plant::QuotaSkipped => "quota-skipped",
            Plant::WrongField => "wrong-field",
            Plant::ViewBeforeIndex => "view-before-index",
            Plant::DeposedKeepAlive => "deposed-keep-alive",
            Plant::WrongVersion => "wrong-version",
            Plant::HashSkipped => "hash-skipped",
            Plant::AnswerMisplaced => "answer-misplaced",
            Plant::StreamReused => "stream-reused",
            Plant::WindowSkipped => "window-skipped",
        }
    }

    /// Whether it is planted between calls and connections, so that there must be some.
    pub(crate) fn wants_connections(self) -> bool {
        matches!(self, Plant::AnswerMisplaced | Plant::StreamReused | Plant::WindowSkipped)
    }

    /// Whether hashes are left uncompared, whatever the seed drew. A stale read misleads the
    /// comparison too: its false alarm would end the run before the checker of reads sees one.
    pub(crate) fn leaves_hashes_alone(self) -> bool {
        matches!(self, Plant::ReadWithoutQuorum | Plant::ViewBeforeIndex)
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

/// Planted: the database forgets the last entry that it holds, but not its effects. One that cannot
/// be opened now is left alone.
pub(crate) fn set_index_back(disk: &MemDisk) {
    let may = MayBlock::on_this_thread();
    let path = snap_dir().join("db");
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    if !disk.exists(&may, &path).unwrap_or(false) {
        return;
    }
    let Ok(mut db) = bolt::Db::open(shared, &path, &may, store::database_options()) else { return };
    let (bucket, key) = (Bucket::Meta.name(), store::meta::CONSISTENT_INDEX);
    let held = db.begin_read().get(&may, bucket, key).ok().flatten();
    let held = held.and_then(|bytes| Some(u64::from_be_bytes(bytes[..].try_into().ok()?)));
    let Some(held) = held.filter(|held| *held > 3) else { return };
    let mut tx = db.begin_write();
    if tx.put(&may, bucket, key, &(held - 1).to_be_bytes()).is_ok() {
        // A disk that fails now fails the start as well.
        drop(tx.commit(&may));
    }
}

/// Makes one value in a member's database another one; whether there was any.
pub(crate) fn change_a_value(disk: &MemDisk) -> bool {
    /// Bytes of the key of a revision that is no tombstone.
    const REVISION_BYTES: usize = 17;
    let may = MayBlock::on_this_thread();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let path = snap_dir().join("db");
    let opened = bolt::Db::open(shared, &path, &may, store::database_options());
    let Ok(mut db) = opened else { return false };
    let reader = db.begin_read();
    let bucket = Bucket::Key.name();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut scan = reader.scan(&may, bucket, all, Access::Scan);
    let mut newest = None;
    while let Ok(Some((key, value))) = scan.next_ref() {
        if key.len() == REVISION_BYTES {
            newest = Some((key.to_vec(), value.to_vec()));
        }
    }
    let Some((key, value)) = newest else { return false };
    let Ok(mut changed) = KeyValue::decode(&value[..]) else { return false };
    changed.value = [&changed.value[..], b"!"].concat().into();
    let mut tx = db.begin_write();
    tx.put(&may, bucket, &key, &changed.encode_to_vec()).is_ok() && tx.commit(&may).is_ok()
}

/// Planted: a put that goes into the log under another number.
pub(crate) fn put_as_delete(data: &Bytes) -> Bytes {
    const PUT: u8 = 4 << 3 | 2;
    const DELETE_RANGE: u8 = 5 << 3 | 2;
    if data.first() != Some(&PUT) {
        return data.clone();
    }
    let mut changed = data.to_vec();
    changed[0] = DELETE_RANGE;
    changed.into()
}
