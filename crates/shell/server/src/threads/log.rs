//! The thread of LogWriter.

use std::time::Duration;

use env::MayBlock;
use member::{LogFailure, LogWriter, NodeInput};
use osenv::{Clock, RecvBlocking};

use super::apply::ApplierDoor;
use super::node::{Committed, NodeDoor};
use super::{Fatal, Keep, Queues};

//= etcd 3.7.1: server/etcdserver/raft.go#start, server/etcdserver/server.go#snapshot
fn log_failed(e: &LogFailure) -> Fatal {
    let message = match e {
        LogFailure::Wal(_) => "failed to save Raft hard state and entries",
        LogFailure::Snap(_) => "failed to save snapshot",
    };
    Fatal { message, error: e.to_string() }
}

/// Runs LogWriter until its inbox is closed. With nothing left to write it takes the turns of Node
/// and Applier that follow a flush, if they are short.
pub(super) fn run_log(
    q: &Queues,
    mut log: LogWriter,
    keep: Keep,
    node: &NodeDoor,
    applier: &ApplierDoor,
) -> Result<(), Fatal> {
    let may = MayBlock::on_this_thread();
    let (mut inputs, mut done) = (Vec::new(), Vec::new());
    let purge = Duration::from_secs(types::limits::PURGE_INTERVAL_SECS);
    let mut next_purge = Clock.now() + purge;
    let mut is_ready = false;
    while q.log.recv_blocking(&mut inputs, Some(purge)) {
        let began = Clock.now();
        log.handle(&may, &mut inputs, &mut done).map_err(|e| log_failed(&e))?;
        q.reporter.flushed(Clock.now().since(began));
        for input in &done {
            if let NodeInput::SnapshotSaved(index) = input {
                q.reporter.snapshot_saved(*index);
            }
        }
        is_ready = is_ready || q.status.load().ready;
        if is_ready && q.log.is_empty() {
            if node.flushed(&mut done) == Committed::Something {
                applier.take_turn(&may)?;
            }
        } else {
            done.drain(..).for_each(|input| q.node.push_event(input));
        }
        let now = Clock.now();
        if is_ready && q.log.is_empty() {
            log.prepare(&may, now).map_err(|e| log_failed(&e))?;
        }
        if now >= next_purge {
            next_purge = now + purge;
            // What could not be deleted now is tried again the next time.
            q.reporter.purge_failed(&log.purge(&may, keep.wals, keep.snapshots));
        }
    }
    q.applier.close();
    Ok(())
}
