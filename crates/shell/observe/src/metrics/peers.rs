//! Metrics of the traffic between members.

use peer::{Event, Probe};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use types::MemberId;

use super::Maker;

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
    round_trip: HistogramVec,
    promoted: prometheus::IntCounter,
    promote_failed: IntCounterVec,
}

/// Buckets of snapshot transfers: from 0.1 s.
const FROM_100_MS: (f64, usize) = (0.1, 10);
/// The label of a sender that is not known.
const UNKNOWN_SENDER: &str = "UNKNOWN_SNAPSHOT_SENDER";

impl PeerMetrics {
    pub(super) fn new(m: &Maker) -> Self {
        let both = ["Local", "Remote"];
        Self {
            known: m.gauges("etcd_network_known_peers", "Members that are peers.", &both),
            active: m.gauges("etcd_network_active_peers", "Peers that messages reach.", &both),
            disconnected: m.counters(
                "etcd_network_disconnected_peers_total",
                "Times that a peer was lost.",
                &both,
            ),
            sent: m.counters(
                "etcd_network_peer_sent_bytes_total",
                "Bytes of messages to a peer.",
                &["To"],
            ),
            received: m.counters(
                "etcd_network_peer_received_bytes_total",
                "Bytes of messages from a peer.",
                &["From"],
            ),
            sent_failures: m.counters(
                "etcd_network_peer_sent_failures_total",
                "Messages to a peer that were lost.",
                &["To"],
            ),
            received_failures: m.counters(
                "etcd_network_peer_received_failures_total",
                "Messages from a peer that could not be taken.",
                &["From"],
            ),
            snapshot_sent: m.counters(
                "etcd_network_snapshot_send_success",
                "Snapshots that arrived at a peer.",
                &["To"],
            ),
            snapshot_sending: m.gauges(
                "etcd_network_snapshot_send_inflights_total",
                "Snapshots on their way to a peer.",
                &["To"],
            ),
            snapshot_send_failed: m.counters(
                "etcd_network_snapshot_send_failures",
                "Snapshots that did not arrive at a peer.",
                &["To"],
            ),
            snapshot_send_took: m.histograms(
                "etcd_network_snapshot_send_total_duration_seconds",
                "Time of sending a snapshot.",
                FROM_100_MS,
                &["To"],
            ),
            snapshot_received: m.counters(
                "etcd_network_snapshot_receive_success",
                "Snapshots received from a peer.",
                &["From"],
            ),
            snapshot_receiving: m.gauges(
                "etcd_network_snapshot_receive_inflights_total",
                "Snapshots that are arriving from a peer.",
                &["From"],
            ),
            snapshot_receive_failed: m.counters(
                "etcd_network_snapshot_receive_failures",
                "Snapshots from a peer that could not be received.",
                &["From"],
            ),
            snapshot_receive_took: m.histograms(
                "etcd_network_snapshot_receive_total_duration_seconds",
                "Time of receiving a snapshot.",
                FROM_100_MS,
                &["From"],
            ),
            round_trip: m.histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Round trips to a peer.",
                (0.0001, 16),
                &["To"],
            ),
            promoted: m
                .counter("etcd_server_learner_promote_successes", "Learners that were promoted."),
            promote_failed: m.counters(
                "etcd_server_learner_promote_failures",
                "Learners that were not promoted.",
                &["Reason"],
            ),
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
            Event::SnapshotReceived { peer: Some(peer), took, failed, .. } => {
                let peer = one(peer);
                self.snapshot_receiving.with_label_values(&peer).dec();
                match failed {
                    None => {
                        self.snapshot_received.with_label_values(&peer).inc();
                        let took = took.as_secs_f64();
                        self.snapshot_receive_took.with_label_values(&peer).observe(took);
                    }
                    Some(_) => self.snapshot_receive_failed.with_label_values(&peer).inc(),
                }
            }
            Event::SnapshotReceived { peer: None, .. } => {
                self.snapshot_receive_failed.with_label_values(&[UNKNOWN_SENDER]).inc();
            }
            Event::RoundTrip(id, Probe::Streams, took) => {
                self.round_trip.with_label_values(&one(id)).observe(took.as_secs_f64());
            }
            _ => {}
        }
    }
}
