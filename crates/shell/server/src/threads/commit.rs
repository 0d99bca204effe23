//! The thread of Committer.

use env::MayBlock;
use member::{ApplierInput, CommitFailure, Committer, CommitterInput, CommitterOutput, NodeInput};
use osenv::{Clock, RecvBlocking};
use peer::Plane;

use super::{Fatal, Queues, size_of, until};

//= etcd 3.7.1: server/storage/backend/batch_tx.go#commit, backend.go#defrag,
//= server/etcdserver/server.go#applySnapshot
fn commit_failed(e: &CommitFailure) -> Fatal {
    let message = match e {
        CommitFailure::Write(_) | CommitFailure::Read(_) | CommitFailure::Commit(_) => {
            "failed to commit tx"
        }
        CommitFailure::Rename(_) => "failed to rename tmp database",
        CommitFailure::Snap(_) => "failed to save snapshot",
        CommitFailure::Install(_) | CommitFailure::Open(_) => "failed to open snapshot backend",
    };
    Fatal { message, error: e.to_string() }
}

/// Runs Committer until its inbox is closed.
pub(super) fn run_committer(
    q: &Queues,
    mut committer: Committer,
    plane: &Plane,
) -> Result<(), Fatal> {
    let may = MayBlock::on_this_thread();
    let (mut inputs, mut done) = (Vec::new(), CommitterOutput::default());
    let mut defragmenting = None;
    committer.tell_stages(q.reporter.commit_stages());
    loop {
        let timeout = committer.deadline().map(|at| until(Clock.now(), at));
        if !q.committer.recv_blocking(&mut inputs, timeout) {
            break;
        }
        // The log's commit index should not stay behind what the backend will hold.
        q.log.nudge();
        let now = Clock.now();
        if inputs.iter().any(|input| matches!(input, CommitterInput::Defragment)) {
            let before = size_of(&q.view.load());
            q.reporter.defragmenting(&committer.database_path(), before);
            defragmenting = Some((now, before));
        }
        committer.handle(&may, now, &mut inputs, &mut done).map_err(|e| commit_failed(&e))?;
        if !done.node.is_empty() {
            q.reporter.committed(Clock.now().since(now));
        }
        for input in done.applier.drain(..) {
            if matches!(input, ApplierInput::Installed { .. }) {
                q.reporter.snapshot_opened();
            }
            // Who asked for it tells why it failed.
            if let ApplierInput::Defragmented(result) = &input
                && let Some((began, before)) = defragmenting.take()
                && let Ok(backend) = result
            {
                let took = Clock.now().since(began);
                let path = committer.database_path();
                q.reporter.defragmented(&path, (before, backend.into()), took);
            }
            q.applier.push_event(input);
        }
        for snapshot in done.snapshots.drain(..) {
            plane.send_snapshot(snapshot.message, snapshot.database);
        }
        for committed in done.node.drain(..) {
            q.node.push_event(NodeInput::BackendCommitted(committed));
        }
        for snapshot in done.saved.drain(..) {
            q.node.push_event(NodeInput::SnapshotFileSaved(snapshot));
        }
    }
    Ok(())
}
