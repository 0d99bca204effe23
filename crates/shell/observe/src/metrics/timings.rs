//! Durations of what goes on beside the requests: commits, compactions, snapshots, watches.

use std::time::Duration;

use prometheus::Histogram;

use super::{Family, Maker};

/// Histograms of work that no request waits for.
#[derive(Debug)]
pub struct Timings {
    /// Merging of pages that became small, per commit of the backend.
    pub rebalance: Histogram,
    /// Laying out of changed pages, per commit of the backend.
    pub spill: Histogram,
    /// Writing and flushing, per commit of the backend.
    pub write: Histogram,
    /// Turns of Applier that removed a slice of what is compacted, in milliseconds.
    pub compaction_slice: Histogram,
    /// Turns of Applier that began a compaction, in milliseconds.
    pub compaction_begun: Histogram,
    /// Compactions from their beginning to their end, in milliseconds.
    pub compaction: Histogram,
    /// Saves of `.snap` files.
    pub snap_save: Histogram,
    /// Turns of a runtime in which events went to watchers.
    pub watch_send: Histogram,
    /// The time of such a turn per event.
    pub watch_send_per_event: Histogram,
    /// Requests within watch streams.
    pub watch_control: Histogram,
    /// Notifications of progress to a watch stream.
    pub watch_progress: Histogram,
}

impl Timings {
    pub(super) fn new(m: &Maker) -> Self {
        // Encoding a `.snap` file is within its save; the family is there for who asks for it.
        m.histogram(Family::SnapMarshalling);
        Self {
            rebalance: m.histogram(Family::BackendRebalance),
            spill: m.histogram(Family::BackendSpill),
            write: m.histogram(Family::BackendWrite),
            compaction_slice: m.histogram(Family::CompactionPause),
            compaction_begun: m.histogram(Family::IndexCompactionPause),
            compaction: m.histogram(Family::CompactionTotal),
            snap_save: m.histogram(Family::SnapSave),
            watch_send: m.histogram(Family::WatchSend),
            watch_send_per_event: m.histogram(Family::WatchSendPerEvent),
            watch_control: m.histogram(Family::WatchControl),
            watch_progress: m.histogram(Family::WatchProgress),
        }
    }

    /// Notes a turn of a runtime that handed out this many events.
    pub fn watched(&self, events: u64, took: Duration) {
        let took = took.as_secs_f64();
        self.watch_send.observe(took);
        self.watch_send_per_event.observe(took / events.max(1) as f64);
    }
}

/// Whole milliseconds, as etcd measures compactions.
#[must_use]
pub(crate) fn millis(took: Duration) -> f64 {
    took.as_millis() as f64
}
