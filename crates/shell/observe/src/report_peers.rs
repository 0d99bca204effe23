//! What the peer plane sees happen, as log lines.

use cli::text::{show_duration, size};
use member::PeerChange;
use peer::{Event, Probe, RejectReason, Side};
use raft::{SnapshotMeta, StepError};
use types::{Index, MemberId};

use crate::log_line;
use crate::logging::Level;
use crate::report::Reporter;
use crate::report_tls::{Endpoint, tell_refused};

impl Reporter {
    /// The peer plane was told of a membership change, or could not be.
    pub fn peer_changed(&self, change: &PeerChange, result: Result<(), types::BadUrl>) {
        let PeerChange::Set { id, urls } = change else { return };
        if let Err(why) = result {
            log_line!(
                self.log,
                Warn,
                "failed to add remote peer",
                "remote-peer-id" = id.to_string(),
                "remote-peer-urls" = urls.clone(),
                "error" = why.to_string(),
            );
        }
    }

    /// A request of a peer was refused.
    //= etcd 3.7.3: server/etcdserver/api/rafthttp/http.go#checkClusterCompatibilityFromHeader
    fn refused_request(&self, from: &str, why: RejectReason) {
        let text = match why {
            RejectReason::Cluster => "request cluster ID mismatch",
            RejectReason::Version => "failed to check version compatibility",
            RejectReason::Recipient => "ignored streaming request; ID mismatch",
            RejectReason::UnknownSender => "failed to find remote peer in cluster",
            RejectReason::Removed => "rejected stream from remote peer because it was removed",
            RejectReason::Malformed => "failed to decode a request of a peer",
        };
        let level = match why {
            RejectReason::Cluster | RejectReason::Version | RejectReason::Malformed => Level::Error,
            RejectReason::Recipient | RejectReason::UnknownSender | RejectReason::Removed => {
                Level::Warn
            }
        };
        let fields = [
            ("local-member-id", self.member.to_string().into()),
            ("local-member-cluster-id", self.cluster.to_string().into()),
            ("local-member-server-version", types::SERVER_VERSION.into()),
            ("remote-peer-server-name", from.into()),
        ];
        let caller = concat!(file!(), ":", line!()).trim_start_matches("crates/");
        self.log.line(level, caller, text, &fields);
    }

    /// Raft refused a peer's message.
    pub fn refused(&self, peer: MemberId, why: &StepError) {
        match why {
            // As usual as a change of leaders or members.
            StepError::Dropped(_) | StepError::UnknownPeer(_) => {}
            // It ends the member, and is told then.
            StepError::CommitBeyondLog { .. } => {}
            _ => log_line!(
                self.log,
                Warn,
                "failed to process raft message",
                "remote-peer-id" = peer.to_string(),
                "error" = why.to_string(),
            ),
        }
    }

    /// A received snapshot is about to be installed.
    //= etcd 3.7.1: server/etcdserver/server.go#applySnapshot
    pub fn installing(&self, meta: &SnapshotMeta) {
        self.metrics.snapshot_installing.inc();
        log_line!(
            self.log,
            Info,
            "applying snapshot",
            "incoming-leader-snapshot-index" = meta.index.0,
            "incoming-leader-snapshot-term" = meta.term.0,
        );
    }

    /// A received snapshot is the database now, and about to become the state.
    //= etcd 3.7.1: server/etcdserver/server.go#applySnapshot
    pub fn snapshot_opened(&self) {
        log_line!(self.log, Info, "applySnapshot: opened snapshot backend");
    }

    /// A received snapshot is the state now.
    //= etcd 3.7.1: server/etcdserver/server.go#applySnapshot
    pub fn installed(&self, index: Index) {
        self.metrics.snapshot_installing.dec();
        log_line!(
            self.log,
            Info,
            "applied snapshot",
            "current-snapshot-index" = index.0,
            "current-applied-index" = index.0,
            "incoming-leader-snapshot-index" = index.0,
        );
    }

    /// This member is no member any more.
    //= etcd 3.7.1: server/etcdserver/server.go#run
    pub fn removed(&self) {
        let member = self.member.to_string();
        let text = "the member has been permanently removed from the cluster";
        log_line!(self.log, Warn, "server error", "error" = text);
        log_line!(
            self.log,
            Warn,
            "data-dir used by this member must be removed",
            "local-member-id" = member
        );
    }

    /// Something happened between this member and its peers.
    //= etcd 3.7.1: server/etcdserver/api/rafthttp/{transport,peer_status,stream,snapshot_sender,http}.go
    #[expect(clippy::too_many_lines, reason = "a table: the line of each event")]
    pub fn peer_event(&self, event: &Event<'_>) {
        self.metrics.peers.event(self.member, event);
        let me = || self.member.to_string();
        match event {
            Event::PeerAdded(id, urls) => log_line!(
                self.log,
                Info,
                "added remote peer",
                "local-member-id" = me(),
                "remote-peer-id" = id.to_string(),
                "remote-peer-urls" = urls.to_vec(),
            ),
            Event::RemoteAdded(id, urls) => log_line!(
                self.log,
                Info,
                "added new remote peer",
                "local-member-id" = me(),
                "remote-peer-id" = id.to_string(),
                "remote-peer-urls" = urls.to_vec(),
            ),
            Event::PeerUpdated(id, urls) => log_line!(
                self.log,
                Info,
                "updated remote peer",
                "local-member-id" = me(),
                "updated-remote-peer-id" = id.to_string(),
                "updated-remote-peer-urls" = urls.to_vec(),
            ),
            Event::PeerStopped(id) => {
                log_line!(self.log, Info, "stopped remote peer", "remote-peer-id" = id.to_string());
            }
            Event::PeerRemoved(id, true) => log_line!(
                self.log,
                Info,
                "removed remote peer",
                "local-member-id" = me(),
                "removed-remote-peer-id" = id.to_string(),
            ),
            Event::Active(id) => {
                log_line!(self.log, Info, "peer became active", "peer-id" = id.to_string());
            }
            Event::Inactive { peer, channel, action, reason } => log_line!(
                self.log,
                Warn,
                "peer became inactive (message send to peer failed)",
                "peer-id" = peer.to_string(),
                "error" = format!("failed to {action} {peer} on {} ({reason})", channel.name()),
            ),
            Event::StreamEstablished(id, channel, side) => log_line!(
                self.log,
                Info,
                "established TCP streaming connection with remote peer",
                (stream_type(*side)) = channel.name(),
                "local-member-id" = me(),
                "remote-peer-id" = id.to_string(),
            ),
            Event::StreamLost(id, channel, side, why) => log_line!(
                self.log,
                Warn,
                "lost TCP streaming connection with remote peer",
                (stream_type(*side)) = channel.name(),
                "local-member-id" = me(),
                "remote-peer-id" = id.to_string(),
                "error" = *why,
            ),
            Event::Unsecured(refused) => tell_refused(&self.log, Endpoint::Peer, refused),
            Event::SnapshotSending { peer, index, bytes } => log_line!(
                self.log,
                Info,
                "sending database snapshot",
                "snapshot-index" = index.0,
                "remote-peer-id" = peer.to_string(),
                "bytes" = *bytes,
                "size" = size(*bytes),
            ),
            Event::SnapshotSent { peer, index, bytes, took, failed: None } => log_line!(
                self.log,
                Info,
                "sent database snapshot",
                "snapshot-index" = index.0,
                "remote-peer-id" = peer.to_string(),
                "bytes" = *bytes,
                "size" = size(*bytes),
                "took" = show_duration(*took),
            ),
            Event::SnapshotSent { peer, index, bytes, took: _, failed: Some(why) } => log_line!(
                self.log,
                Warn,
                "failed to send database snapshot",
                "snapshot-index" = index.0,
                "remote-peer-id" = peer.to_string(),
                "bytes" = *bytes,
                "size" = size(*bytes),
                "error" = *why,
            ),
            Event::SnapshotReceiving { peer, index, message_bytes } => log_line!(
                self.log,
                Info,
                "receiving database snapshot",
                "local-member-id" = me(),
                "remote-snapshot-sender-id" = peer.to_string(),
                "incoming-snapshot-index" = index.0,
                "incoming-snapshot-message-size-bytes" = *message_bytes,
            ),
            Event::SnapshotReceived { peer: Some(peer), index, bytes, took, failed, .. } => {
                let (peer, took) = (peer.to_string(), show_duration(*took));
                match failed {
                    None => log_line!(
                        self.log,
                        Info,
                        "received and saved database snapshot",
                        "local-member-id" = me(),
                        "remote-snapshot-sender-id" = peer,
                        "incoming-snapshot-index" = index.0,
                        "incoming-snapshot-size-bytes" = *bytes,
                        "download-took" = took,
                    ),
                    Some(why) => log_line!(
                        self.log,
                        Warn,
                        "failed to save incoming database snapshot",
                        "local-member-id" = me(),
                        "remote-snapshot-sender-id" = peer,
                        "incoming-snapshot-index" = index.0,
                        "error" = *why,
                    ),
                }
            }
            Event::Rejected { from, why } => self.refused_request(from, *why),
            Event::RejectedBy(id, why) => log_line!(
                self.log,
                Warn,
                if *why == "cluster ID mismatch" {
                    "request sent was ignored by remote peer due to cluster ID mismatch"
                } else {
                    "request sent was ignored by remote peer"
                },
                "local-member-id" = me(),
                "remote-peer-id" = id.to_string(),
                "error" = *why,
            ),
            Event::ProbeFailed(id, probe, rtt, why) => log_line!(
                self.log,
                Warn,
                "prober detected unhealthy status",
                "round-tripper-name" = round_tripper(*probe),
                "remote-peer-id" = id.to_string(),
                "rtt" = show_duration(*rtt),
                "error" = *why,
            ),
            Event::ClockDrift(id, probe, drift) => log_line!(
                self.log,
                Warn,
                "prober found high clock drift",
                "round-tripper-name" = round_tripper(*probe),
                "remote-peer-id" = id.to_string(),
                "clock-drift" = show_duration(*drift),
            ),
            _ => {}
        }
    }
}

//= etcd 3.7.3: server/etcdserver/api/rafthttp/probing_status.go
fn round_tripper(probe: Probe) -> &'static str {
    match probe {
        Probe::Streams => "ROUND_TRIPPER_RAFT_MESSAGE",
        Probe::Pipeline => "ROUND_TRIPPER_SNAPSHOT",
    }
}

fn stream_type(side: Side) -> &'static str {
    match side {
        Side::Reader => "stream-reader-type",
        Side::Writer => "stream-writer-type",
    }
}
