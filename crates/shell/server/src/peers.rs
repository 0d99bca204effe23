//! The member as its peer plane sees it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use env::{Disk, MayBlock};
use handover::{Inbox, Slot};
use member::{MemberView, NodeInput, NodeStatus};
use peer::{Answer, Event, ReceiveError};
use rpc::peers::PeerCall;
use types::{Index, MemberId};

use observe::Reporter;

/// What the plane reaches of the member.
pub(crate) struct PeerSide {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) node: Arc<Inbox<NodeInput>>,
    pub(crate) view: Arc<Slot<MemberView>>,
    pub(crate) status: Arc<Slot<NodeStatus>>,
    pub(crate) reporter: Arc<Reporter>,
    /// Requests that a runtime answers, once there is one.
    pub(crate) calls: Arc<Inbox<PeerCall>>,
    /// Called when a peer says that this member was removed.
    pub(crate) on_removed: Arc<dyn Fn() + Send + Sync>,
    /// Called when the plane cannot go on.
    pub(crate) on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl peer::Member for PeerSide {
    fn receive(&self, message: raft::Message) -> Result<(), ReceiveError> {
        self.reporter.received(&message);
        self.node.push(NodeInput::Step(message)).map_err(|_| ReceiveError::Full)
    }

    fn unreachable(&self, peer: MemberId) {
        self.node.push_event(NodeInput::Unreachable(peer));
    }

    fn ended(&self, peer: MemberId) {
        if self.status.load().leader == Some(peer) {
            self.node.push_event(NodeInput::PeerEnded(peer));
        }
    }

    fn snapshot_sent(&self, peer: MemberId, arrived: bool) {
        self.node.push_event(NodeInput::SnapshotSent { peer, arrived });
    }

    fn removed(&self) {
        (self.on_removed)();
    }

    fn check_snapshot(&self, path: &Path, index: Index) -> Result<(), String> {
        let may = MayBlock::on_this_thread();
        member::received::check(&self.disk, path, &may, index)
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.view.load().members.is_removed(id)
    }

    fn other(&self, request: http::Request<Bytes>) -> Answer {
        let (answer, wait) = tokio::sync::oneshot::channel();
        let refused = self.calls.push(PeerCall { request, answer }).is_err();
        Box::pin(async move {
            match wait.await {
                Ok(response) if !refused => response,
                // The queue is full, or the member stops.
                _ => rpc::peers::unavailable(),
            }
        })
    }

    fn fatal(&self, why: &str) {
        (self.on_fatal)(why);
    }

    fn event(&self, event: Event<'_>) {
        self.reporter.peer_event(&event);
    }
}
