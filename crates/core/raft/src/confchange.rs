//! Membership changes: the two encodings (v1, which is all that etcd proposes and applies, and
//! v2 with joint consensus) and what they do to a membership (`changer`).
//= etcd 3.7.1: raft/raftpb/confchange.go

pub(crate) mod changer;

use std::fmt;

use api::raftpb;
use bytes::Bytes;
use prost::Message as _;
use types::MemberId;

use crate::error::WireError;

/// What happens to one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfChangeKind {
    /// Becomes a voter, whatever it was.
    #[default]
    AddNode,
    /// Leaves.
    RemoveNode,
    /// Nothing in raft: the context tells the membership about new URLs.
    UpdateNode,
    /// Becomes a learner, whatever it was.
    AddLearner,
}

/// A change of one member (version 1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// The request that waits for it; 0 in bootstrap entries.
    pub id: u64,
    /// What happens.
    pub kind: ConfChangeKind,
    /// To whom.
    pub node: MemberId,
    /// For the membership store; raft does not read it.
    pub context: Bytes,
}

/// When a change goes through a joint configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transition {
    /// If there is more than one change; left by itself.
    #[default]
    Auto,
    /// Always; left by itself.
    JointImplicit,
    /// Always; left by another change without content.
    JointExplicit,
}

/// One of several changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeSingle {
    /// What happens.
    pub kind: ConfChangeKind,
    /// To whom; 0 means nothing happens.
    pub node: MemberId,
}

/// A change of several members at once (version 2). Without changes it leaves a joint
/// configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeV2 {
    /// Whether to go through a joint configuration.
    pub transition: Transition,
    /// What happens, in order.
    pub changes: Vec<ConfChangeSingle>,
    /// For the membership store; raft does not read it.
    pub context: Bytes,
}

/// Why a change cannot be applied to the membership in force. Such a change must not get into a
/// log: members that meet it cannot go on (etcd panics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChangeError {
    /// No voter would be left.
    NoVoters,
    /// More than one voter changes without a joint configuration.
    TooManyVoters,
    /// A joint configuration is in force and must be left first.
    AlreadyJoint,
    /// There is no joint configuration to leave.
    NotJoint,
    /// A member would be voter and learner, twice the same, staged without being an outgoing
    /// voter, or 0; or a configuration that is not joint has joint parts.
    Contradiction,
}

impl ConfChangeKind {
    fn to_wire(self) -> raftpb::ConfChangeType {
        match self {
            Self::AddNode => raftpb::ConfChangeType::ConfChangeAddNode,
            Self::RemoveNode => raftpb::ConfChangeType::ConfChangeRemoveNode,
            Self::UpdateNode => raftpb::ConfChangeType::ConfChangeUpdateNode,
            Self::AddLearner => raftpb::ConfChangeType::ConfChangeAddLearnerNode,
        }
    }

    fn from_wire(value: Option<i32>) -> Result<Self, WireError> {
        match value.unwrap_or(0) {
            0 => Ok(Self::AddNode),
            1 => Ok(Self::RemoveNode),
            2 => Ok(Self::UpdateNode),
            3 => Ok(Self::AddLearner),
            other => Err(WireError::UnknownConfChangeType(other)),
        }
    }
}

fn non_empty(bytes: &Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then(|| bytes.clone())
}

impl ConfChange {
    /// The bytes that go into an entry of kind `ConfChange`. The id is absent if 0, as in etcd's
    /// bootstrap entries.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        raftpb::ConfChange {
            id: (self.id != 0).then_some(self.id),
            r#type: Some(self.kind.to_wire() as i32),
            node_id: Some(self.node.0),
            context: non_empty(&self.context),
        }
        .encode_to_vec()
        .into()
    }

    /// The change in an entry of kind `ConfChange`.
    ///
    /// # Errors
    /// If the proposer put other bytes there.
    pub fn decode(data: Bytes) -> Result<Self, WireError> {
        let wire = raftpb::ConfChange::decode(data).map_err(|_| WireError::Protobuf)?;
        Ok(Self {
            id: wire.id.unwrap_or(0),
            kind: ConfChangeKind::from_wire(wire.r#type)?,
            node: MemberId(wire.node_id.unwrap_or(0)),
            context: wire.context.unwrap_or_default(),
        })
    }

    /// The same change as version 2.
    #[must_use]
    pub fn to_v2(&self) -> ConfChangeV2 {
        ConfChangeV2 {
            transition: Transition::Auto,
            changes: vec![ConfChangeSingle { kind: self.kind, node: self.node }],
            context: self.context.clone(),
        }
    }
}

impl ConfChangeV2 {
    /// The bytes that go into an entry of kind `ConfChangeV2`; none for an empty change.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        if *self == Self::default() {
            return Bytes::new();
        }
        let transition = match self.transition {
            Transition::Auto => None,
            Transition::JointImplicit => Some(1),
            Transition::JointExplicit => Some(2),
        };
        let single = |change: &ConfChangeSingle| raftpb::ConfChangeSingle {
            r#type: Some(change.kind.to_wire() as i32),
            node_id: Some(change.node.0),
        };
        raftpb::ConfChangeV2 {
            transition,
            changes: self.changes.iter().map(single).collect(),
            context: non_empty(&self.context),
        }
        .encode_to_vec()
        .into()
    }

    /// The change in an entry of kind `ConfChangeV2`.
    ///
    /// # Errors
    /// If the proposer put other bytes there.
    pub fn decode(data: Bytes) -> Result<Self, WireError> {
        let wire = raftpb::ConfChangeV2::decode(data).map_err(|_| WireError::Protobuf)?;
        let transition = match wire.transition.unwrap_or(0) {
            0 => Transition::Auto,
            1 => Transition::JointImplicit,
            2 => Transition::JointExplicit,
            other => return Err(WireError::UnknownConfChangeType(other)),
        };
        let single = |change: raftpb::ConfChangeSingle| {
            Ok(ConfChangeSingle {
                kind: ConfChangeKind::from_wire(change.r#type)?,
                node: MemberId(change.node_id.unwrap_or(0)),
            })
        };
        Ok(Self {
            transition,
            changes: wire.changes.into_iter().map(single).collect::<Result<_, _>>()?,
            context: wire.context.unwrap_or_default(),
        })
    }

    /// Whether this leaves a joint configuration.
    #[must_use]
    pub fn leaves_joint(&self) -> bool {
        self.transition == Transition::Auto && self.changes.is_empty()
    }
}

impl fmt::Display for ConfChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoVoters => "removed all voters",
            Self::TooManyVoters => "more than one voter changed without entering joint config",
            Self::AlreadyJoint => "config is already joint",
            Self::NotJoint => "can't leave a non-joint config",
            Self::Contradiction => "members and roles contradict each other",
        })
    }
}

impl std::error::Error for ConfChangeError {}
