//! Snapshots between members, as the peer planes carry them: the database in pieces into a
//! temporary file, synced and named, and only then the message (`shell/peer/src/snapshot_*.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::mem::MemDisk;
use env::{Disk, Entropy, File, IoError, MayBlock, Open, SplitMix};
use member::OutgoingSnapshot;
use raft::Body;
use types::Index;

use crate::process::snap_dir;

/// Bytes per piece.
const PIECE: u64 = 16 << 10;

/// A snapshot on its way.
pub(crate) struct Transfer {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The processes at both ends, by their boots.
    pub(crate) boots: (u64, Option<u64>),
    pub(crate) snapshot: OutgoingSnapshot,
    /// When the next piece goes.
    pub(crate) due: u64,
    /// Bytes after which the connection breaks, by chance.
    pub(crate) breaks_at: Option<u64>,
    file: Option<(Arc<dyn File>, PathBuf)>,
    sent: u64,
}

/// How a piece went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    More,
    /// All is there, durable and under its name.
    Arrived,
    /// The connection broke, or a disk failed.
    Failed,
}

impl Transfer {
    pub(crate) fn new(
        (from, to): (usize, usize),
        boots: (u64, Option<u64>),
        snapshot: OutgoingSnapshot,
        due: u64,
        entropy: &mut SplitMix,
    ) -> Self {
        let len = snapshot.database.file_len_of_snapshot();
        let breaks_at = (entropy.below(5) == 0).then(|| entropy.below(len + PIECE));
        Self { from, to, boots, snapshot, due, breaks_at, file: None, sent: 0 }
    }

    fn index(&self) -> Index {
        match &self.snapshot.message.body {
            Body::Snapshot { meta, .. } => meta.index,
            other => unreachable!("a snapshot's message is one, not {other:?}"),
        }
    }

    /// Moves one piece to the receiver's disk.
    pub(crate) fn step(&mut self, disk: &MemDisk, number: u64) -> Moved {
        let may = MayBlock::on_this_thread();
        let dir = snap_dir();
        let done = self.write(&may, disk, &dir, number);
        let moved = done.unwrap_or(Moved::Failed);
        if moved == Moved::Failed {
            self.give_up(disk);
        }
        moved
    }

    /// Removes what was written; a receiver that has died meanwhile cannot.
    pub(crate) fn give_up(&mut self, disk: &MemDisk) {
        if let Some((_, path)) = self.file.take() {
            let _ = disk.remove_file(&MayBlock::on_this_thread(), &path);
        }
    }

    fn write(
        &mut self,
        may: &MayBlock,
        disk: &MemDisk,
        dir: &Path,
        number: u64,
    ) -> Result<Moved, IoError> {
        let len = self.snapshot.database.file_len_of_snapshot();
        if self.breaks_at.is_some_and(|at| at <= self.sent) {
            return Ok(Moved::Failed);
        }
        if self.file.is_none() {
            let path = dir.join(format!("tmp{number:09}"));
            self.file = Some((disk.open(may, &path, Open::CreateNew)?, path));
        }
        let Some((file, path)) = &self.file else { return Ok(Moved::Failed) };
        if self.sent < len {
            let mut piece = vec![0; PIECE.min(len - self.sent) as usize];
            let read = self.snapshot.database.read_snapshot(may, self.sent, &mut piece);
            if read.is_err() {
                return Ok(Moved::Failed);
            }
            file.write_at(may, &piece, self.sent)?;
            self.sent += piece.len() as u64;
            return Ok(Moved::More);
        }
        file.sync_all(may)?;
        let named = member::received::path(dir, self.index());
        if disk.exists(may, &named)? {
            disk.remove_file(may, path)?;
        } else {
            disk.rename(may, path, &named)?;
        }
        disk.sync_dir(may, dir)?;
        self.file = None;
        Ok(Moved::Arrived)
    }
}
