//! Applying entries: the one place where the log becomes state.
//!
//! Invariants 4 and 5: entries come once and in order; what they do depends on nothing but them,
//! the state before and [`ApplyConfig`]. The consistent index travels with the batch that the
//! Applier seals.

use std::sync::Arc;

use api::error::ApiError;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, InternalRaftRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use api::{leasepb, odd};
use bytes::Bytes;
use env::{Access, MayBlock};
use prost::Message;
use raft::{Entry, EntryKind};
use store::{Bucket, RecoverError, Store, ValueError};
use types::{LeaseId, MemberId, Version};

use crate::alarms::Alarms;
use crate::kv::{self, Context, Failed};
use crate::leases::Leases;
use crate::membership::{Member, Members, Rejected};
use crate::outcome::{Effect, Kind, Outcome, Reply};

/// What may differ between members: etcd's own exceptions to equal results, named (invariant 5).
#[derive(Clone, Debug)]
pub struct ApplyConfig {
    /// This member.
    pub id: MemberId,
    /// Shortest time to live of a lease in seconds, from the election timeout.
    pub min_lease_ttl: i64,
    /// Learners allowed in the cluster.
    pub max_learners: usize,
    /// Bytes of the backend beyond which NOSPACE is raised; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Whether lease checkpoints are stored whatever the cluster version (feature gate).
    pub persist_checkpoints: bool,
}

/// The state machine.
#[derive(Debug)]
pub struct Machine {
    config: ApplyConfig,
    /// Keys and values.
    pub store: Store,
    members: Arc<Members>,
    alarms: Arc<Alarms>,
    leases: Leases,
    /// Physical size of the backend as of the last commit, in bytes.
    pub backend_bytes: u64,
}

/// Why the state cannot be rebuilt from the backend.
#[derive(Debug)]
pub enum MachineError {
    /// The key bucket.
    Store(RecoverError),
    /// A small bucket could not be read.
    Backend(bolt::ReadError),
    /// A record in a small bucket is not what etcd writes there.
    Malformed(&'static str),
}

impl std::fmt::Display for MachineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MachineError::Store(e) => e.fmt(f),
            MachineError::Backend(e) => e.fmt(f),
            MachineError::Malformed(bucket) => write!(f, "malformed record in bucket {bucket}"),
        }
    }
}

impl std::error::Error for MachineError {}

impl From<bolt::ReadError> for MachineError {
    fn from(e: bolt::ReadError) -> Self {
        MachineError::Backend(e)
    }
}

impl Machine {
    /// The state of an empty backend.
    #[must_use]
    pub fn empty(config: ApplyConfig) -> Self {
        Self {
            config,
            store: Store::empty(),
            members: Arc::default(),
            alarms: Arc::default(),
            leases: Leases::default(),
            backend_bytes: 0,
        }
    }

    /// Rebuilds the state from the backend: leases before keys, so that keys find their lease.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn recover(
        config: ApplyConfig,
        may: &MayBlock,
        backend: bolt::ReadTx,
    ) -> Result<Self, MachineError> {
        let mut leases = Leases::default();
        each(&backend, may, Bucket::Lease, |_, value| {
            let lease = leasepb::Lease::decode(value).map_err(|_| malformed(Bucket::Lease))?;
            leases.insert_stored(&lease, config.min_lease_ttl);
            Ok(())
        })?;
        let mut members = Members::default();
        each(&backend, may, Bucket::Members, |_, value| {
            let member = Member::from_json(value).ok_or_else(|| malformed(Bucket::Members))?;
            members.insert_stored(member);
            Ok(())
        })?;
        each(&backend, may, Bucket::MembersRemoved, |key, _| {
            let id = std::str::from_utf8(key).ok().and_then(|k| u64::from_str_radix(k, 16).ok());
            members.insert_removed(MemberId(id.ok_or_else(|| malformed(Bucket::MembersRemoved))?));
            Ok(())
        })?;
        each(&backend, may, Bucket::Cluster, |key, value| {
            if key == b"clusterVersion" {
                let text = String::from_utf8(value.to_vec());
                let text = text.map_err(|_| malformed(Bucket::Cluster))?;
                members.cluster_version = Some(text);
            }
            if key == b"downgrade" && !members.insert_stored_downgrade(value) {
                return Err(malformed(Bucket::Cluster));
            }
            Ok(())
        })?;
        let mut alarms = Alarms::default();
        each(&backend, may, Bucket::Alarm, |key, _| {
            let alarm = AlarmMember::decode(key).map_err(|_| malformed(Bucket::Alarm))?;
            alarms.insert_stored(alarm);
            Ok(())
        })?;
        let backend_bytes = backend.size_bytes();
        let store = Store::recover_with_leases(may, backend, &mut |key, lease| {
            leases.attach(key, lease);
        })
        .map_err(MachineError::Store)?;
        Ok(Self {
            config,
            store,
            members: Arc::new(members),
            alarms: Arc::new(alarms),
            leases,
            backend_bytes,
        })
    }

    /// What may differ between members.
    #[must_use]
    pub fn config(&self) -> &ApplyConfig {
        &self.config
    }

    /// The members, as of the last entry.
    #[must_use]
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The alarms, as of the last entry.
    #[must_use]
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// The leases, as of the last entry.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Applies one entry. `wants_reply` tells whether someone on this member waits for it.
    ///
    /// # Errors
    /// [`ValueError`]: the backend failed under apply, which is fatal.
    pub fn apply(
        &mut self,
        may: &MayBlock,
        entry: &Entry,
        wants_reply: bool,
    ) -> Result<Outcome, ValueError> {
        let (mut effects, mut kind) = (Vec::new(), Kind::None);
        let reply = match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => Ok(Reply::Empty),
            EntryKind::Normal => {
                match odd::decode::<InternalRaftRequest>(entry.data.clone()) {
                    Ok(request) => {
                        kind = Kind::of(&request);
                        match self.request(may, request, wants_reply, &mut effects) {
                            Ok(reply) => Ok(reply),
                            Err(Failed::Refused(error)) => Err(error),
                            Err(Failed::Broken(error)) => return Err(error),
                        }
                    }
                    // The gateway accepts nothing that does not decode, here and in Go.
                    Err(e) => panic!("entry {} is not a request: {e}", entry.index),
                }
            }
            EntryKind::ConfChange => match self.conf_change(entry.data.clone()) {
                Ok(change) => {
                    effects.push(Effect::ConfChange(Some(change)));
                    Ok(Reply::Members(Arc::clone(&self.members)))
                }
                Err(rejected) => {
                    effects.push(Effect::ConfChange(None));
                    Err(rejected.into())
                }
            },
            // etcd never proposes these; raft is told that nothing changed.
            EntryKind::ConfChangeV2 => {
                effects.push(Effect::ConfChange(None));
                Ok(Reply::Empty)
            }
        };
        Ok(Outcome {
            index: entry.index,
            term: entry.term,
            kind,
            revision: self.store.revision(),
            reply,
            effects,
        })
    }

    fn conf_change(&mut self, data: Bytes) -> Result<raft::ConfChange, Rejected> {
        let change = raft::ConfChange::decode(data).map_err(|_| Rejected::Malformed)?;
        self.members.check(&change, self.config.max_learners)?;
        for op in Arc::make_mut(&mut self.members).change(&change) {
            self.store.local(op);
        }
        Ok(change)
    }

    fn request(
        &mut self,
        may: &MayBlock,
        request: InternalRaftRequest,
        wants_reply: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Failed> {
        let mut cx =
            Context { store: &mut self.store, leases: &mut self.leases, may, reply: wants_reply };
        let corrupt = self.alarms.is_set(AlarmType::Corrupt);
        let full = self.alarms.is_set(AlarmType::Nospace);
        let refuse_if = |bad: bool, error: ApiError| if bad { Err(error) } else { Ok(()) };
        if let Some(put) = &request.put {
            refuse_if(corrupt, ApiError::Corrupt)?;
            refuse_if(full, ApiError::NoSpace)?;
            let over = self.config.over_quota(self.backend_bytes, put_cost(put));
            let reply = kv::put(&mut cx, put)?;
            return over_quota(over, effects, Reply::Put(reply));
        }
        if let Some(delete) = &request.delete_range {
            refuse_if(corrupt, ApiError::Corrupt)?;
            return Ok(Reply::Delete(kv::delete(&mut cx, delete)?));
        }
        if let Some(txn) = &request.txn {
            refuse_if(corrupt, ApiError::Corrupt)?;
            let cost = txn_cost(txn);
            refuse_if(full && cost > 0, ApiError::NoSpace)?;
            let over = cost > 0 && self.config.over_quota(self.backend_bytes, cost);
            let reply = kv::txn(&mut cx, txn)?;
            return over_quota(over, effects, Reply::Txn(Box::new(reply)));
        }
        if let Some(compaction) = &request.compaction {
            refuse_if(corrupt, ApiError::Corrupt)?;
            let revision = types::Revision(compaction.revision);
            let compacted = self.store.compact(revision).map_err(|e| match e {
                store::CompactError::Compacted => ApiError::Compacted,
                store::CompactError::FutureRevision => ApiError::FutureRevision,
            })?;
            effects.push(Effect::Compaction(compacted));
            return Ok(Reply::Compact { revision });
        }
        if let Some(grant) = &request.lease_grant {
            refuse_if(corrupt, ApiError::Corrupt)?;
            refuse_if(full, ApiError::NoSpace)?;
            let over = self.config.over_quota(self.backend_bytes, LEASE_COST);
            let id = LeaseId(grant.id);
            let (ttl, op) = self.leases.grant(id, grant.ttl, self.config.min_lease_ttl)?;
            self.store.local(op);
            effects.push(Effect::LeaseGranted { id, ttl });
            return over_quota(over, effects, Reply::LeaseGrant { id, ttl });
        }
        if let Some(revoke) = &request.lease_revoke {
            refuse_if(corrupt, ApiError::Corrupt)?;
            let id = LeaseId(revoke.id);
            let (keys, op) = cx.leases.revoke(id)?;
            kv::delete_keys(&mut cx, &keys);
            self.store.local(op);
            effects.push(Effect::LeaseRevoked(id));
            return Ok(Reply::Empty);
        }
        if let Some(checkpoint) = &request.lease_checkpoint {
            let persist = self.config.persist_checkpoints
                || self
                    .members
                    .cluster_version
                    .as_deref()
                    .and_then(Version::parse)
                    .is_some_and(|v| v >= CHECKPOINTS_STORED_SINCE);
            for c in &checkpoint.checkpoints {
                let id = LeaseId(c.id);
                if let Some(op) = self.leases.checkpoint(id, c.remaining_ttl, persist) {
                    self.store.local(op);
                }
                effects.push(Effect::LeaseCheckpoint { id, remaining: c.remaining_ttl });
            }
            return Ok(Reply::Empty);
        }
        if let Some(alarm) = &request.alarm {
            return Ok(Reply::Alarms(self.alarm(alarm)));
        }
        if let Some(set) = request.cluster_version_set {
            let op = Arc::make_mut(&mut self.members).set_cluster_version(set.ver.clone());
            self.store.local(op);
            effects.push(Effect::ClusterVersion(set.ver));
            return Ok(Reply::Empty);
        }
        if let Some(set) = request.cluster_member_attr_set {
            let (id, attributes) = (MemberId(set.member_id), set.member_attributes);
            let attributes = attributes.unwrap_or_default();
            let (name, client_urls) = (attributes.name, attributes.client_urls);
            let members = Arc::make_mut(&mut self.members);
            if let Some(op) = members.set_attributes(id, name.clone(), client_urls.clone()) {
                self.store.local(op);
            }
            effects.push(Effect::Attributes { id, name, client_urls });
            return Ok(Reply::Empty);
        }
        if let Some(set) = request.downgrade_info_set {
            let target = set.enabled.then_some(set.ver);
            let op = Arc::make_mut(&mut self.members).set_downgrade(target.clone());
            self.store.local(op);
            effects.push(Effect::Downgrade(target));
            return Ok(Reply::Empty);
        }
        if request.range.is_some() || is_read(&request) {
            // Reads of other members, from before 3.7: nothing to do here (semantics P6).
            return Ok(Reply::Empty);
        }
        //= etcd 3.7.1: server/etcdserver/apply/uber_applier.go#dispatch
        panic!("not implemented apply: an entry holds a request that this version does not know");
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Vec<AlarmMember> {
        let alarms = Arc::make_mut(&mut self.alarms);
        let (changed, op) = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) => alarms.set(request.alarm, request.member_id),
            Ok(AlarmAction::Deactivate) => alarms.clear(request.alarm, request.member_id),
            Ok(AlarmAction::Get) | Err(_) => (alarms.list(request.alarm), None),
        };
        if let Some(op) = op {
            self.store.local(op);
        }
        changed
    }
}

impl ApplyConfig {
    //= etcd 3.7.1: server/storage/quota.go#Available
    fn over_quota(&self, backend_bytes: u64, cost: u64) -> bool {
        self.quota_bytes.is_some_and(|quota| backend_bytes.saturating_add(cost) >= quota)
    }
}

/// What crossed the quota is applied, but answered with the error, and the alarm is due (I4).
fn over_quota(over: bool, effects: &mut Vec<Effect>, reply: Reply) -> Result<Reply, Failed> {
    if over {
        effects.push(Effect::NoSpace);
        return Err(ApiError::NoSpace.into());
    }
    Ok(reply)
}

/// The cluster version from which on lease checkpoints are stored.
const CHECKPOINTS_STORED_SINCE: Version = Version { major: 3, minor: 6 };

/// What a lease grant counts against the quota, in bytes.
pub const LEASE_COST: u64 = 64;
const PUT_OVERHEAD: u64 = 256;

/// What a put counts against the quota, in bytes.
#[must_use]
pub fn put_cost(put: &api::etcdserverpb::PutRequest) -> u64 {
    PUT_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// What a transaction counts against the quota: its dearer branch, in bytes.
//= etcd 3.7.1: server/storage/quota.go#costTxn
#[must_use]
pub fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| {
        ops.iter().fold(0u64, |sum, op| {
            sum.saturating_add(match &op.request {
                Some(Request::RequestPut(put)) => put_cost(put),
                Some(Request::RequestTxn(inner)) => txn_cost(inner),
                _ => 0,
            })
        })
    };
    branch(&txn.success).max(branch(&txn.failure))
}

fn is_read(request: &InternalRaftRequest) -> bool {
    request.auth_user_get.is_some()
        || request.auth_role_get.is_some()
        || request.auth_status.is_some()
        || request.auth_user_list.is_some()
        || request.auth_role_list.is_some()
}

fn malformed(bucket: Bucket) -> MachineError {
    MachineError::Malformed(match bucket {
        Bucket::Lease => "lease",
        Bucket::Members => "members",
        Bucket::MembersRemoved => "members_removed",
        Bucket::Cluster => "cluster",
        _ => "alarm",
    })
}

fn each(
    backend: &bolt::ReadTx,
    may: &MayBlock,
    bucket: Bucket,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), MachineError>,
) -> Result<(), MachineError> {
    use std::ops::Bound::Unbounded;
    let mut scan = backend.scan(may, bucket.name(), (Unbounded, Unbounded), Access::Scan);
    while let Some((key, value)) = scan.next_ref()? {
        visit(key, value)?;
    }
    Ok(())
}
