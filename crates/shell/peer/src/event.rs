//! What the peer plane tells for logs and metrics. Nothing depends on who listens.

use std::net::SocketAddr;
use std::time::Duration;

use types::{Index, MemberId};

/// The ways by which messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The stream of appends.
    Appends,
    /// The stream of other messages.
    Messages,
    /// One request per message.
    Pipeline,
    /// One request per snapshot.
    Snapshot,
}

impl Channel {
    /// The name in etcd's logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Channel::Appends => "stream MsgApp v2",
            Channel::Messages => "stream Message",
            Channel::Pipeline => "pipeline",
            Channel::Snapshot => "sendMsgSnap",
        }
    }
}

/// Who opened a stream: the one who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We read what the peer sends.
    Reader,
    /// The peer reads what we send.
    Writer,
}

/// Why a peer's request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Its version does not get on with ours.
    Version,
    /// It belongs to another cluster.
    Cluster,
    /// It looks for somebody else.
    Recipient,
    /// It is no member that we know.
    UnknownSender,
    /// It was removed.
    Removed,
    /// It sent what is no message.
    Malformed,
}

/// Which connections a probe stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Those of streams (etcd: `ROUND_TRIPPER_RAFT_MESSAGE`).
    Streams,
    /// Those of the pipeline and of snapshots (etcd: `ROUND_TRIPPER_SNAPSHOT`).
    Pipeline,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A peer was added.
    PeerAdded(MemberId, &'a [String]),
    /// A sender that is no peer was added, so that answers reach it.
    RemoteAdded(MemberId, &'a [String]),
    /// A peer has other URLs.
    PeerUpdated(MemberId, &'a [String]),
    /// All connections to a peer have ended, because it was removed or this member stops.
    PeerStopped(MemberId),
    /// A peer was removed; `false` if there was none.
    PeerRemoved(MemberId, bool),
    /// Messages pass again.
    Active(MemberId),
    /// A message did not pass, the first since messages did.
    Inactive {
        /// The peer.
        peer: MemberId,
        /// The way that failed.
        channel: Channel,
        /// What failed: `dial`, `read`, `write`, `heartbeat` or `post`.
        action: &'static str,
        /// The cause, in the words of the system or of HTTP/2.
        reason: &'a str,
    },
    /// A stream was opened.
    StreamEstablished(MemberId, Channel, Side),
    /// A stream ended.
    StreamLost(MemberId, Channel, Side, &'a str),
    /// Bytes of messages were handed to a connection.
    Sent(MemberId, u64),
    /// Bytes of messages arrived.
    Received(MemberId, u64),
    /// A message was lost on its way out.
    SendFailed(MemberId, Channel),
    /// A message that arrived was dropped: the member's inbox is full.
    ReceiveFailed(MemberId),
    /// The body of a message could not be read.
    ReadFailed(Option<SocketAddr>),
    /// A message that arrived means nothing, or is not for this member.
    Ignored(MemberId, &'a str),
    /// A connection was not made secure, or comes from where its certificate does not say.
    Unsecured(&'a net::Refused),
    /// A request was refused.
    Rejected {
        /// Who asked, as it says.
        from: &'a str,
        /// Why it was refused.
        why: RejectReason,
    },
    /// A peer refused us with this text.
    RejectedBy(MemberId, &'a str),
    /// A snapshot is being sent.
    SnapshotSending {
        /// To whom.
        peer: MemberId,
        /// Of which index.
        index: Index,
        /// Message and database, bytes.
        bytes: u64,
    },
    /// It arrived, or did not.
    SnapshotSent {
        /// To whom.
        peer: MemberId,
        /// Of which index.
        index: Index,
        /// Message and database, bytes.
        bytes: u64,
        /// From the first byte to the answer.
        took: Duration,
        /// Why it did not arrive.
        failed: Option<&'a str>,
    },
    /// A snapshot is being received.
    SnapshotReceiving {
        /// From whom.
        peer: MemberId,
        /// Of which index.
        index: Index,
        /// Bytes of the message before the database.
        message_bytes: u64,
    },
    /// It was received, or was not; `peer` is `None` if the request told nothing yet.
    SnapshotReceived {
        /// From whom.
        peer: Option<MemberId>,
        /// Of which index.
        index: Index,
        /// Bytes of the database.
        bytes: u64,
        /// From the request's head to the answer.
        took: Duration,
        /// Of that, the time of the file's sync.
        synced: Duration,
        /// Why it was not received.
        failed: Option<&'a str>,
    },
    /// The smoothed round-trip time to a peer, told every 30 s, every 5 s while it is unhealthy.
    RoundTrip(MemberId, Probe, Duration),
    /// A peer does not answer probes.
    ProbeFailed(MemberId, Probe, Duration, &'a str),
    /// A peer's clock differs from ours by more than a second.
    ClockDrift(MemberId, Probe, Duration),
}
