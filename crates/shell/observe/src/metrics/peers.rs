//! Metrics of the traffic between members.

use peer::Event;
use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec};
use types::MemberId;

use super::{Family, Maker};

/// What is counted of peers. Families appear with their first peer, as in etcd.
#[derive(Debug)]
pub struct PeerMetrics {
    known: IntGaugeVec,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    snapshot_sent: IntCounterVec,
    snapshot_sending: IntGaugeVec,
    snapshot_send_failed: IntCounterVec,
    snapshot_send_took: HistogramVec,
    snapshot_received: IntCounterVec,
    snapshot_receiving: IntGaugeVec,
    snapshot_receive_failed: IntCounterVec,
    snapshot_receive_took: HistogramVec,
    database_flushed: Histogram,
    database_saved: Histogram,
    round_trip: HistogramVec,
    promoted: prometheus::IntCounter,
    promote_failed: IntCounterVec,
}

/// The label of a sender that is not known.
const UNKNOWN_SENDER: &str = "UNKNOWN_SNAPSHOT_SENDER";

impl PeerMetrics {
    pub(super) fn new(m: &Maker) -> Self {
        Self {
            known: m.gauges(Family::KnownPeers),
            active: m.gauges(Family::ActivePeers),
            disconnected: m.counters(Family::DisconnectedPeers),
            sent: m.counters(Family::PeerSentBytes),
            received: m.counters(Family::PeerReceivedBytes),
            sent_failures: m.counters(Family::PeerSentFailures),
            received_failures: m.counters(Family::PeerReceivedFailures),
            snapshot_sent: m.counters(Family::SnapshotSendSuccess),
            snapshot_sending: m.gauges(Family::SnapshotSendInflights),
            snapshot_send_failed: m.counters(Family::SnapshotSendFailures),
            snapshot_send_took: m.histograms(Family::SnapshotSendDuration),
            snapshot_received: m.counters(Family::SnapshotReceiveSuccess),
            snapshot_receiving: m.gauges(Family::SnapshotReceiveInflights),
            snapshot_receive_failed: m.counters(Family::SnapshotReceiveFailures),
            snapshot_receive_took: m.histograms(Family::SnapshotReceiveDuration),
            database_flushed: m.histogram(Family::SnapDbFsync),
            database_saved: m.histogram(Family::SnapDbSave),
            round_trip: m.histograms(Family::PeerRoundTrip),
            promoted: m.counter(Family::LearnerPromoteSuccesses),
            promote_failed: m.counters(Family::LearnerPromoteFailures),
        }
    }

    /// A promotion that was decided here ended so.
    pub fn promoted(&self, failed: Option<&str>) {
        match failed {
            None => self.promoted.inc(),
            Some(why) => self.promote_failed.with_label_values(&[why]).inc(),
        }
    }

    /// Something happened between `own` and its peers.
    //= etcd 3.7.1: server/etcdserver/api/rafthttp/metrics.go
    pub fn event(&self, own: MemberId, event: &Event<'_>) {
        let one = |id: &MemberId| [id.to_string()];
        let both = |id: &MemberId| [own.to_string(), id.to_string()];
        match event {
            Event::PeerAdded(id, _) => self.known.with_label_values(&both(id)).set(1),
            Event::PeerRemoved(id, true) => {
                self.known.with_label_values(&both(id)).set(0);
                self.active.with_label_values(&both(id)).set(0);
            }
            Event::Active(id) => self.active.with_label_values(&both(id)).inc(),
            Event::Inactive { peer, .. } => {
                self.active.with_label_values(&both(peer)).dec();
                self.disconnected.with_label_values(&both(peer)).inc();
            }
            Event::Sent(id, bytes) => self.sent.with_label_values(&one(id)).inc_by(*bytes),
            Event::Received(id, bytes) => self.received.with_label_values(&one(id)).inc_by(*bytes),
            Event::SendFailed(id, _) => self.sent_failures.with_label_values(&one(id)).inc(),
            Event::ReceiveFailed(id) => self.received_failures.with_label_values(&one(id)).inc(),
            Event::ReadFailed(from) => {
                let from = from.map_or_else(String::new, |address| address.to_string());
                self.received_failures.with_label_values(&[from]).inc();
            }
            Event::SnapshotSending { peer, .. } => {
                self.snapshot_sending.with_label_values(&one(peer)).inc();
            }
            Event::SnapshotSent { peer, took, failed, .. } => {
                let peer = one(peer);
                self.snapshot_sending.with_label_values(&peer).dec();
                match failed {
                    None => {
                        self.snapshot_sent.with_label_values(&peer).inc();
                        let took = took.as_secs_f64();
                        self.snapshot_send_took.with_label_values(&peer).observe(took);
                    }
                    Some(_) => {
                        self.snapshot_send_failed.with_label_values(&peer).inc();
                        self.sent_failures.with_label_values(&peer).inc();
                    }
                }
            }
            Event::SnapshotReceiving { peer, .. } => {
                self.snapshot_receiving.with_label_values(&one(peer)).inc();
            }
            Event::SnapshotReceived { peer: Some(peer), synced, took, failed, .. } => {
                let peer = one(peer);
                self.snapshot_receiving.with_label_values(&peer).dec();
                match failed {
                    None => {
                        self.snapshot_received.with_label_values(&peer).inc();
                        let took = took.as_secs_f64();
                        self.database_flushed.observe(synced.as_secs_f64());
                        self.database_saved.observe(took);
                        self.snapshot_receive_took.with_label_values(&peer).observe(took);
                    }
                    Some(_) => self.snapshot_receive_failed.with_label_values(&peer).inc(),
                }
            }
            Event::SnapshotReceived { peer: None, .. } => {
                self.snapshot_receive_failed.with_label_values(&[UNKNOWN_SENDER]).inc();
            }
            // Both kinds of probe: one shows what streams see, the other what snapshots see.
            Event::RoundTrip(id, _, took) => {
                self.round_trip.with_label_values(&one(id)).observe(took.as_secs_f64());
            }
            _ => {}
        }
    }
}
