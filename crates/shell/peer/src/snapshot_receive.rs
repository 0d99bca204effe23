//! Receiving a snapshot: the message, and the database into a file.
//!
//! Invariants: the file has its final name only when all of it is durable, and the name is before
//! the member hears of the message; whatever fails leaves no file; at most [`CHUNKS`] pieces of the
//! body are in memory.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/http.go#snapshotHandler
//! //= etcd 3.7.1: server/etcdserver/api/snap/db.go#SaveDBFrom

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use env::{Disk, IoError, IoErrorKind, MayBlock, Open};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use raft::{Body, Message};
use tokio::sync::mpsc;
use types::{Index, MemberId};

use crate::codec::Input;
use crate::codec::snapshot_message;
use crate::core::Core;
use crate::event::{Event, RejectReason};
use crate::plane::Member;

/// Snapshots that are received at once. Ours: etcd has no limit.
const MAX_SNAPSHOTS: usize = 4;
/// Pieces of the body that wait for the disk; the connection's reads bound each.
const CHUNKS: usize = 4;
/// Bytes gathered for one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Bytes after which what was written is flushed while more arrives. Left to the end, the flush of
/// a gigabyte takes as long as the disk needs for it, and whatever else syncs on that disk waits
/// behind it all.
const FLUSH_BYTES: u64 = 8 << 20;

/// Counts a snapshot until it is dropped.
struct Slot(Rc<Core>);

impl Drop for Slot {
    fn drop(&mut self) {
        let taken = &self.0.snapshots_in;
        taken.set(taken.get() - 1);
    }
}

/// A refusal: status and text.
pub(crate) type No = (StatusCode, String);

/// How far a transfer came, for the event that reports its end.
struct Progress {
    peer: Option<MemberId>,
    index: Index,
    bytes: u64,
    synced: Duration,
}

/// Receives the snapshot in a request's body.
pub(crate) async fn receive(core: Rc<Core>, body: Incoming) -> Result<(), No> {
    let began = Instant::now();
    let mut progress = Progress { peer: None, index: Index(0), bytes: 0, synced: Duration::ZERO };
    let outcome = try_receive(&core, body, &mut progress).await;
    core.event(Event::SnapshotReceived {
        peer: progress.peer,
        index: progress.index,
        bytes: progress.bytes,
        took: began.elapsed(),
        synced: progress.synced,
        failed: outcome.as_ref().err().map(|(_, text)| text.as_str()),
    });
    outcome
}

async fn try_receive(
    core: &Rc<Core>,
    mut body: Incoming,
    progress: &mut Progress,
) -> Result<(), No> {
    let mut input = Input::default();
    let (message, message_bytes) = head(core, &mut body, &mut input).await.map_err(|reason| {
        core.event(Event::Rejected { from: "", why: RejectReason::Malformed });
        (StatusCode::BAD_REQUEST, format!("failed to decode raft message ({reason})"))
    })?;
    progress.peer = Some(message.from);
    let Body::Snapshot { meta, .. } = &message.body else {
        return Err((StatusCode::BAD_REQUEST, "wrong raft message type".to_owned()));
    };
    let (peer, index) = (message.from, meta.index);
    progress.index = index;
    let message_bytes = message_bytes as u64;
    core.event(Event::Received(peer, message_bytes));
    core.event(Event::SnapshotReceiving { peer, index, message_bytes });

    let not_saved = |reason: String| {
        let text = format!("failed to save KV snapshot ({reason})");
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    };
    if core.snapshots_in.get() >= MAX_SNAPSHOTS {
        return Err(not_saved("too many snapshots at once".to_owned()));
    }
    core.snapshots_in.set(core.snapshots_in.get() + 1);
    let slot = Slot(Rc::clone(core));
    let saved = save(core, body, input, index).await.map_err(not_saved)?;
    drop(slot);
    (progress.bytes, progress.synced) = (saved.bytes, saved.synced);
    core.event(Event::Received(peer, saved.bytes));
    core.deliver(message).map_err(|reason| {
        let text = format!("failed to process raft message ({reason})");
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

/// Reads the body up to the end of the message.
async fn head(
    core: &Core,
    body: &mut Incoming,
    input: &mut Input,
) -> Result<(Message, usize), String> {
    loop {
        if let Some(found) = snapshot_message(input).map_err(|e| e.to_string())? {
            return Ok(found);
        }
        match piece(core, body).await? {
            Some(piece) => input.feed(piece),
            None if input.is_empty() => return Err("EOF".to_owned()),
            None => return Err("unexpected EOF".to_owned()),
        }
    }
}

/// The next piece of the body; `None` at its proper end.
async fn piece(core: &Core, body: &mut Incoming) -> Result<Option<Bytes>, String> {
    loop {
        let frame = tokio::time::timeout(core.config.read_timeout, body.frame()).await;
        match frame.map_err(|_| "i/o timeout".to_owned())? {
            None => return Ok(None),
            Some(Err(_)) => return Err("unexpected EOF".to_owned()),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

enum Part {
    Data(Bytes),
    /// The body ended properly.
    End,
}

struct Saved {
    bytes: u64,
    synced: Duration,
}

async fn save(
    core: &Core,
    mut body: Incoming,
    mut input: Input,
    index: Index,
) -> Result<Saved, String> {
    let (sender, parts) = mpsc::channel(CHUNKS);
    let (disk, dir) = (Arc::clone(&core.config.disk), core.config.snap_dir.clone());
    let member = Arc::clone(&core.member);
    let job = tokio::task::spawn_blocking(move || {
        let may = MayBlock::on_this_thread();
        write_file(&may, &*disk, &dir, &*member, index, parts)
    });
    let rest = input.take(input.len()).expect("as many as there are");
    let mut failed = None;
    let mut part = Part::Data(rest);
    loop {
        let is_end = matches!(part, Part::End);
        // A job that has gone tells why below.
        if sender.send(part).await.is_err() || is_end {
            break;
        }
        part = match piece(core, &mut body).await {
            Ok(Some(piece)) => Part::Data(piece),
            Ok(None) => Part::End,
            Err(reason) => {
                failed = Some(reason);
                break;
            }
        };
    }
    drop(sender);
    let written = job.await.map_err(|e| e.to_string())?;
    match failed {
        Some(reason) => Err(reason),
        None => written,
    }
}

/// A name in the directory that is given up unless it is kept.
struct Temporary<'a> {
    may: &'a MayBlock,
    disk: &'a dyn Disk,
    path: Option<PathBuf>,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The next start removes what cannot be removed now.
            let _ = self.disk.remove_file(self.may, path);
        }
    }
}

fn create(
    may: &MayBlock,
    disk: &dyn Disk,
    dir: &Path,
) -> Result<(Arc<dyn env::File>, PathBuf), IoError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let path = dir.join(format!("tmp{:09}", NEXT.fetch_add(1, Ordering::Relaxed)));
        match disk.open(may, &path, Open::CreateNew) {
            Err(e) if e.kind == IoErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, path)),
        }
    }
}

/// Flushes whenever that is due, until nobody writes any more.
fn flush(file: &dyn env::File, due: &std::sync::mpsc::Receiver<()>) -> Result<(), IoError> {
    let may = MayBlock::on_this_thread();
    while due.recv().is_ok() {
        file.sync_data(&may)?;
    }
    Ok(())
}

/// Writes all parts one after another; how many bytes. Waits for flushes: what is written and not
/// durable is bounded by a few [`FLUSH_BYTES`].
fn write_parts(
    may: &MayBlock,
    file: &dyn env::File,
    mut parts: mpsc::Receiver<Part>,
    due: &std::sync::mpsc::SyncSender<()>,
) -> Result<u64, String> {
    let text = |e: IoError| e.to_string();
    let (mut at, mut flushed, mut buffer) = (0, 0, Vec::with_capacity(WRITE_BYTES));
    loop {
        match parts.blocking_recv() {
            Some(Part::Data(data)) => {
                buffer.extend_from_slice(&data);
                if buffer.len() >= WRITE_BYTES {
                    file.write_at(may, &buffer, at).map_err(text)?;
                    at += buffer.len() as u64;
                    buffer.clear();
                }
                if at - flushed >= FLUSH_BYTES {
                    flushed = at;
                    due.send(()).map_err(|_| "a flush failed".to_owned())?;
                }
            }
            Some(Part::End) => break,
            None => return Err("unexpected EOF".to_owned()),
        }
    }
    if !buffer.is_empty() {
        file.write_at(may, &buffer, at).map_err(text)?;
        at += buffer.len() as u64;
    }
    Ok(at)
}

fn write_file(
    may: &MayBlock,
    disk: &dyn Disk,
    dir: &Path,
    member: &dyn Member,
    index: Index,
    parts: mpsc::Receiver<Part>,
) -> Result<Saved, String> {
    let text = |e: IoError| e.to_string();
    let (file, path) = create(may, disk, dir).map_err(text)?;
    let mut temporary = Temporary { may, disk, path: Some(path.clone()) };
    let at = std::thread::scope(|scope| {
        let (due, flushes) = std::sync::mpsc::sync_channel(1);
        let flusher = &file;
        let flusher = scope.spawn(move || flush(&**flusher, &flushes));
        let written = write_parts(may, &*file, parts, &due);
        drop(due);
        // A failed flush is the reason why writing ended, and final (invariant 10).
        flusher.join().map_err(|_| "the flushing thread panicked".to_owned())?.map_err(text)?;
        written
    })?;
    let began = Instant::now();
    file.sync_all(may).map_err(text)?;
    let synced = began.elapsed();
    drop(file);
    // Its record in the log would make it count: what is no database must be found out before.
    member.check_snapshot(&path, index)?;
    let named = dir.join(format!("{:016x}.snap.db", index.0));
    // One that came before is as good.
    if !disk.exists(may, &named).map_err(text)? {
        disk.rename(may, &path, &named).map_err(text)?;
        temporary.path = None;
    }
    disk.sync_dir(may, dir).map_err(text)?;
    Ok(Saved { bytes: at, synced })
}
