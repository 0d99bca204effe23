//! Snapshots: a follower's log is replaced by one, and a leader hears how sending it went.
//!
//! Raft only handles the name. The data is on the receiver's disk before the message is stepped;
//! the order from there is: record (`Persist::snapshot`), its completion, `Ready::install`,
//! [`Raft::applied`]. Until then this member does not campaign and hands out no entries.
//= etcd 3.7.1: raft/raft.go#handleSnapshot, #restore

use env::sometimes;
use types::{Index, MemberId};

use crate::confchange::changer::Changer;
use crate::entry::{EntryId, SnapshotMeta};
use crate::error::StepError;
use crate::message::Body;
use crate::probes;
use crate::raft::Raft;
use crate::status::ReplicationState;

impl Raft {
    pub(crate) fn snapshot_received(
        &mut self,
        from: MemberId,
        meta: SnapshotMeta,
    ) -> Result<(), StepError> {
        let restored = self.restore(meta)?;
        let index = if restored { self.log.last() } else { self.log.committed() };
        self.send_durable(from, Body::AppendReply { index, rejected: None });
        Ok(())
    }

    /// Replaces the log by the snapshot, if that brings anything new.
    fn restore(&mut self, meta: SnapshotMeta) -> Result<bool, StepError> {
        if meta.index <= self.log.committed() {
            sometimes!(self.config.hooks, probes::SNAPSHOT_OLD);
            return Ok(false);
        }
        let own = self.id();
        let conf = &meta.conf_state;
        let takes_part = [&conf.voters, &conf.learners, &conf.voters_outgoing]
            .iter()
            .any(|members| members.contains(&own));
        if !takes_part {
            return Ok(false);
        }
        if self.log.matches(EntryId { term: meta.term, index: meta.index }) {
            sometimes!(self.config.hooks, probes::SNAPSHOT_KNOWN);
            // We hold all of it: only the news that it is committed is new.
            self.log.commit_to(meta.index);
            return Ok(false);
        }
        let (conf, progress) = Changer::restore(conf, meta.index, self.config.max_inflight)
            .map_err(StepError::InvalidConfState)?;
        let overtakes = self.log.installing().is_some();
        sometimes!(self.config.hooks, probes::SNAPSHOT_OVERTAKEN, overtakes);
        self.unstable.restored(meta.index);
        self.log.restore(meta);
        self.tracker.switch(own, conf, progress);
        // An older one that nobody has fetched yet would be replaced at once.
        self.install = None;
        Ok(true)
    }

    /// The record of the snapshot at `index` is durable: it may be installed, unless a newer one
    /// has taken its place.
    pub(crate) fn snapshot_persisted(&mut self, index: Index) {
        if let Some(meta) = self.log.installing()
            && meta.index == index
        {
            self.install = Some(meta.clone());
            self.log.hand_out_snapshot(index);
        }
    }

    /// How sending a snapshot to `peer` ended.
    //= etcd 3.7.1: raft/raft.go#stepLeader (MsgSnapStatus)
    pub(crate) fn snapshot_reported(&mut self, peer: MemberId, arrived: bool) {
        let Some(progress) = self.tracker.progress.get_mut(&peer) else { return };
        if progress.state != ReplicationState::Snapshot {
            return;
        }
        if !arrived {
            sometimes!(self.config.hooks, probes::SNAPSHOT_FAILED);
            progress.pending_snapshot = Index(0);
        }
        progress.become_probe();
        // After success its answer comes by itself; after failure a heartbeat's time passes.
        progress.paused = true;
    }
}
