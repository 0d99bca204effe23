//! The membership, as the cluster and members buckets store it.
//!
//! Invariants: a removed id never comes back; the map changes only through applied entries.

use std::collections::{BTreeMap, BTreeSet};

use api::error::ApiError;
use bytes::Bytes;
use raft::ConfState;
use serde::{Deserialize, Serialize};
use store::{Bucket, Op};
use types::MemberId;

/// A member, in the form that the members bucket and membership changes hold as JSON.
//= etcd 3.7.1: server/etcdserver/api/membership/member.go#Member
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its member id.
    pub id: u64,
    /// Its peer URLs.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Option<Vec<String>>,
    /// Whether it is a learner: it receives the log and has no vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name; empty until it has started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its client URLs; empty until it has published them.
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

impl Member {
    /// Its JSON, byte for byte as etcd stores it.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of strings and numbers is JSON").into()
    }

    /// Parses stored bytes, or the context of a membership change.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    fn key(&self) -> Bytes {
        member_key(MemberId(self.id))
    }
}

fn member_key(id: MemberId) -> Bytes {
    id.to_string().into()
}

/// The membership: members, ids of removed ones, cluster version and downgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    /// The cluster version, once it is decided.
    pub cluster_version: Option<String>,
    /// The version that the cluster is being downgraded to.
    pub downgrade: Option<String>,
}

/// The downgrade as the cluster bucket stores it.
//= etcd 3.7.1: server/etcdserver/version/downgrade.go#DowngradeInfo
#[derive(Serialize, Deserialize)]
struct Downgrade {
    #[serde(rename = "target-version", default)]
    target_version: String,
    #[serde(default)]
    enabled: bool,
}

/// Why a membership change is rejected when it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The id is that of a removed member.
    Removed,
    /// A member with this id exists already.
    IdExists,
    /// Another member has one of these peer URLs.
    UrlExists,
    /// There is no member with this id.
    NotFound,
    /// Only a learner can be promoted.
    NotLearner,
    /// The cluster has its greatest number of learners.
    TooManyLearners,
    /// The context is not a member's JSON.
    Malformed,
}

//= etcd 3.7.1: server/etcdserver/api/v3rpc/util.go#toGRPCErrorMap
impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Removed | Rejected::NotFound | Rejected::Malformed => {
                ApiError::MemberNotFound
            }
            Rejected::IdExists => ApiError::MemberExists,
            Rejected::UrlExists => ApiError::PeerUrlExists,
            Rejected::NotLearner => ApiError::MemberNotLearner,
            Rejected::TooManyLearners => ApiError::TooManyLearners,
        }
    }
}

impl Members {
    /// Restores a member that was read from the backend.
    pub fn insert_stored(&mut self, member: Member) {
        self.members.insert(MemberId(member.id), member);
    }

    /// Restores the id of a removed member.
    pub fn insert_removed(&mut self, id: MemberId) {
        self.removed.insert(id);
    }

    /// The members by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A member by id.
    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Ids of removed members, ascending.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.removed.iter().copied()
    }

    /// Whether this id was removed.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// The members as raft's `ConfState`.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        let ids = |learner: bool| {
            self.members.values().filter(move |m| m.is_learner == learner).map(|m| MemberId(m.id))
        };
        ConfState {
            voters: ids(false).collect(),
            learners: ids(true).collect(),
            ..ConfState::default()
        }
    }

    /// Whether a change can be applied; checked in etcd's order. `max_learners` is this member's
    /// own setting.
    ///
    /// # Errors
    /// [`Rejected`].
    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#ValidateConfigurationChange
    pub fn check(&self, change: &raft::ConfChange, max_learners: usize) -> Result<(), Rejected> {
        let id = change.node;
        if self.is_removed(id) {
            return Err(Rejected::Removed);
        }
        match change.kind {
            raft::ConfChangeKind::AddNode | raft::ConfChangeKind::AddLearner => {
                let context = Context::parse(&change.context).ok_or(Rejected::Malformed)?;
                if context.is_promote {
                    let member = self.members.get(&id).ok_or(Rejected::NotFound)?;
                    return if member.is_learner { Ok(()) } else { Err(Rejected::NotLearner) };
                }
                if self.members.contains_key(&id) {
                    return Err(Rejected::IdExists);
                }
                self.check_urls(&context.member, None)?;
                let learners = self.members.values().filter(|m| m.is_learner).count();
                if context.member.is_learner && learners >= max_learners {
                    return Err(Rejected::TooManyLearners);
                }
                Ok(())
            }
            raft::ConfChangeKind::RemoveNode => {
                self.members.get(&id).map(|_| ()).ok_or(Rejected::NotFound)
            }
            raft::ConfChangeKind::UpdateNode => {
                self.members.get(&id).ok_or(Rejected::NotFound)?;
                let context = Context::parse(&change.context).ok_or(Rejected::Malformed)?;
                self.check_urls(&context.member, Some(id))
            }
        }
    }

    fn check_urls(&self, member: &Member, except: Option<MemberId>) -> Result<(), Rejected> {
        let wanted = member.peer_urls.as_deref().unwrap_or_default();
        let taken = self.members.iter().filter(|(id, _)| Some(**id) != except).any(|(_, m)| {
            m.peer_urls.as_deref().unwrap_or_default().iter().any(|url| wanted.contains(url))
        });
        if taken { Err(Rejected::UrlExists) } else { Ok(()) }
    }

    /// Applies a change that [`Members::check`] accepted and returns the writes that store it.
    ///
    /// # Panics
    /// If the change was not checked.
    pub fn change(&mut self, change: &raft::ConfChange) -> Vec<Op> {
        let id = change.node;
        let context = Context::parse(&change.context);
        match change.kind {
            raft::ConfChangeKind::AddNode | raft::ConfChangeKind::AddLearner => {
                let context = context.expect("checked");
                let member = if context.is_promote {
                    let member = self.members.get_mut(&id).expect("checked");
                    member.is_learner = false;
                    member.clone()
                } else {
                    let mut member = context.member;
                    member.id = id.0;
                    self.members.insert(id, member.clone());
                    member
                };
                vec![stored(&member)]
            }
            raft::ConfChangeKind::RemoveNode => {
                self.members.remove(&id);
                self.removed.insert(id);
                let removed = Bytes::from_static(b"removed");
                vec![
                    Op { bucket: Bucket::Members, key: member_key(id), value: None },
                    Op {
                        bucket: Bucket::MembersRemoved,
                        key: member_key(id),
                        value: Some(removed),
                    },
                ]
            }
            raft::ConfChangeKind::UpdateNode => {
                let member = self.members.get_mut(&id).expect("checked");
                member.peer_urls = context.expect("checked").member.peer_urls;
                vec![stored(member)]
            }
        }
    }

    /// Sets a member's name and client URLs; unknown and removed members are ignored.
    pub fn set_attributes(
        &mut self,
        id: MemberId,
        name: String,
        client_urls: Vec<String>,
    ) -> Option<Op> {
        let member = self.members.get_mut(&id)?;
        member.name = name;
        member.client_urls = client_urls;
        Some(stored(member))
    }

    /// Sets the downgrade's target, or ends the downgrade (`None`).
    pub fn set_downgrade(&mut self, target: Option<String>) -> Op {
        let enabled = target.is_some();
        self.downgrade.clone_from(&target);
        let stored = Downgrade { target_version: target.unwrap_or_default(), enabled };
        let value = serde_json::to_vec(&stored).expect("a text and a flag are JSON");
        let key = Bytes::from_static(b"downgrade");
        Op { bucket: Bucket::Cluster, key, value: Some(value.into()) }
    }

    /// Restores a stored downgrade; returns false if the bytes are not one.
    pub fn insert_stored_downgrade(&mut self, json: &[u8]) -> bool {
        let Ok(stored) = serde_json::from_slice::<Downgrade>(json) else { return false };
        self.downgrade = stored.enabled.then_some(stored.target_version);
        true
    }

    /// Sets the cluster version.
    pub fn set_cluster_version(&mut self, version: String) -> Op {
        let value = Bytes::from(version.clone());
        self.cluster_version = Some(version);
        let key = Bytes::from_static(b"clusterVersion");
        Op { bucket: Bucket::Cluster, key, value: Some(value) }
    }
}

fn stored(member: &Member) -> Op {
    Op { bucket: Bucket::Members, key: member.key(), value: Some(member.to_json()) }
}

/// The context of a change that adds, promotes or updates.
struct Context {
    member: Member,
    is_promote: bool,
}

impl Context {
    fn parse(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Flag {
            #[serde(rename = "isPromote", default)]
            is_promote: bool,
        }
        let flag: Flag = serde_json::from_slice(bytes).ok()?;
        Some(Self { member: Member::from_json(bytes)?, is_promote: flag.is_promote })
    }
}

/// The JSON of a `ConfState` in the meta bucket.
#[must_use]
pub fn conf_state_json(state: &ConfState) -> Bytes {
    #[derive(Serialize)]
    struct Json {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        voters: Vec<u64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        learners: Vec<u64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        voters_outgoing: Vec<u64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        learners_next: Vec<u64>,
        auto_leave: bool,
    }
    let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect();
    let json = Json {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
    };
    serde_json::to_vec(&json).expect("a struct of numbers is JSON").into()
}

/// The membership as JSON of etcd's old store: what 3.6 reads from `.snap` files.
#[must_use]
pub fn v2_store_json(members: &Members) -> Bytes {
    use serde_json::{Map, Value, json};
    let node = |path: &str, value: &str, children: Value| {
        json!({
            "Path": path, "CreatedIndex": 0, "ModifiedIndex": 0,
            "ExpireTime": "0001-01-01T00:00:00Z", "Value": value, "Children": children,
        })
    };
    let dir = |path: &str, children: Map<String, Value>| node(path, "", Value::Object(children));
    let leaf = |path: &str, value: &str| node(path, value, Value::Null);
    let mut member_dirs = Map::new();
    for member in members.iter() {
        let id = MemberId(member.id).to_string();
        let path = format!("/0/members/{id}");
        let mut leaves = Map::new();
        let mut raft = json!({ "peerURLs": member.peer_urls });
        if member.is_learner {
            raft["isLearner"] = Value::Bool(true);
        }
        let raft_path = format!("{path}/raftAttributes");
        leaves.insert("raftAttributes".to_owned(), leaf(&raft_path, &raft.to_string()));
        if !member.client_urls.is_empty() {
            let attributes = json!({ "name": member.name, "clientURLs": member.client_urls });
            let attributes_path = format!("{path}/attributes");
            leaves.insert("attributes".to_owned(), leaf(&attributes_path, &attributes.to_string()));
        }
        member_dirs.insert(id, dir(&path, leaves));
    }
    let mut removed = Map::new();
    for id in &members.removed {
        let path = format!("/0/removed_members/{id}");
        removed.insert(id.to_string(), leaf(&path, ""));
    }
    let mut zero = Map::new();
    zero.insert("members".to_owned(), dir("/0/members", member_dirs));
    if !removed.is_empty() {
        zero.insert("removed_members".to_owned(), dir("/0/removed_members", removed));
    }
    if let Some(version) = &members.cluster_version {
        zero.insert("version".to_owned(), leaf("/0/version", version));
    }
    let mut root = Map::new();
    root.insert("0".to_owned(), dir("/0", zero));
    root.insert("1".to_owned(), dir("/1", Map::new()));
    let json = json!({ "Root": dir("/", root), "CurrentIndex": 0, "CurrentVersion": 2 });
    json.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            id: 10_276_657_743_932_975_437,
            peer_urls: Some(vec!["http://localhost:2380".to_owned()]),
            name: "default".to_owned(),
            ..Member::default()
        }
    }

    fn add(member: &Member) -> raft::ConfChange {
        raft::ConfChange {
            id: 0,
            kind: raft::ConfChangeKind::AddNode,
            node: MemberId(member.id),
            context: member.to_json(),
        }
    }

    #[test]
    fn a_member_is_stored_as_etcd_stores_it() {
        let json =
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
        assert_eq!(member().to_json(), json.as_bytes());
        assert_eq!(Member::from_json(json.as_bytes()), Some(member()));
    }

    #[test]
    fn a_conf_state_leaves_empty_lists_out() {
        let state = ConfState { voters: vec![MemberId(7)], ..ConfState::default() };
        assert_eq!(conf_state_json(&state), &br#"{"voters":[7],"auto_leave":false}"#[..]);
    }

    #[test]
    fn changes_are_checked_in_etcds_order() {
        let mut members = Members::default();
        let change = add(&member());
        members.check(&change, 1).unwrap();
        members.change(&change);
        assert_eq!(members.check(&change, 1), Err(Rejected::IdExists));
        let twin = Member { id: 5, ..member() };
        assert_eq!(members.check(&add(&twin), 1), Err(Rejected::UrlExists));
        let remove = raft::ConfChange {
            kind: raft::ConfChangeKind::RemoveNode,
            context: Bytes::new(),
            ..change.clone()
        };
        members.check(&remove, 1).unwrap();
        assert_eq!(members.change(&remove).len(), 2);
        assert_eq!(members.check(&remove, 1), Err(Rejected::Removed));
        assert_eq!(members.check(&change, 1), Err(Rejected::Removed));
    }
}
