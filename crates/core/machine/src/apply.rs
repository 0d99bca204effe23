//! Applying entries: the one place where the log becomes state.
//!
//! Invariants 4 and 5: entries come once and in order; what they do depends on nothing but them,
//! the state before and [`ApplyConfig`]. The consistent index travels with the batch that the
//! Applier seals.

use std::sync::Arc;

use api::error::ApiError;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, LeaseCheckpoint, LeaseGrantRequest,
    RequestHeader,
};
use api::leasepb;
use api::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use bytes::Bytes;
use env::{Access, HashSeed, MayBlock};
use prost::Message;
use raft::{Entry, EntryKind};

use store::{Bucket, CompactError, Op, RecoverError, Store, ValueError};
use types::{Index, LeaseId, MemberId, Revision, Version};

use crate::alarms::Alarms;
use crate::auth::{Auth, simple_token};
use crate::command::{self, Command, Decoded, OnCorrupt};
use crate::kv::{self, Context, Failed};
use crate::leases::Leases;
use crate::membership::{Member, Members, Rejected};
use crate::outcome::{AuthReply, CommandReply, Effect, Outcome, Secret};

/// Settings that may make members' results differ: etcd's own exceptions, named (invariant 5).
#[derive(Clone, Debug)]
pub struct ApplyConfig {
    /// This member.
    pub id: MemberId,
    /// Shortest time to live of a lease in seconds; follows from the election timeout.
    pub min_lease_ttl: i64,
    /// Greatest number of learners.
    pub max_learners: usize,
    /// Bytes of the backend beyond which NOSPACE is raised; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Whether lease checkpoints are stored whatever the cluster version (feature gate).
    pub persist_checkpoints: bool,
    /// Seed of the hash maps of keys. No result depends on it.
    pub hash_seed: HashSeed,
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
    auth: Arc<Auth>,
    /// The first auth revision, until an entry comes with which it is stored.
    unwritten: Option<Op>,
    /// Physical size of the backend as of the last commit, in bytes.
    pub backend_bytes: u64,
}

/// Why the state cannot be rebuilt from the backend.
#[derive(Debug)]
pub enum MachineError {
    /// The key bucket could not be read.
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
        let mut auth = Auth::default();
        let unwritten = auth.loaded();
        Self {
            leases: Leases::new(config.hash_seed),
            config,
            store: Store::empty(),
            members: Arc::default(),
            alarms: Arc::default(),
            auth: Arc::new(auth),
            unwritten,
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
        let mut leases = Leases::new(config.hash_seed);
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
        let mut auth = Auth::default();
        for bucket in [Bucket::Auth, Bucket::AuthUsers, Bucket::AuthRoles] {
            each(&backend, may, bucket, |key, value| {
                auth.insert_stored(bucket, key, value).map_err(|_| malformed(bucket))
            })?;
        }
        let unwritten = auth.loaded();
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
            auth: Arc::new(auth),
            unwritten,
            backend_bytes,
        })
    }

    /// This member's settings.
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

    /// Users and roles, as of the last entry.
    #[must_use]
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// Applies one entry. `wants_reply` says whether a caller on this member waits for its reply.
    ///
    /// # Errors
    /// [`ValueError`]: the backend failed under apply, which is fatal.
    pub fn apply(
        &mut self,
        may: &MayBlock,
        entry: &Entry,
        wants_reply: bool,
    ) -> Result<Outcome, ValueError> {
        if let Some(op) = self.unwritten.take() {
            self.store.local(op);
        }
        let (mut effects, mut kind) = (Vec::new(), None);
        let reply = match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => Ok(CommandReply::Empty),
            EntryKind::Normal => {
                // The gateway accepts nothing that does not decode, here and in Go.
                let decoded = command::decode(entry.data.clone())
                    .unwrap_or_else(|e| panic!("entry {} is not a request: {e}", entry.index));
                kind = decoded.command.as_ref().map(Command::kind);
                match self.run(may, entry.index, decoded, wants_reply, &mut effects) {
                    Ok(reply) => Ok(reply),
                    Err(Failed::Refused(error)) => Err(error),
                    Err(Failed::Broken(error)) => return Err(error),
                }
            }
            EntryKind::ConfChange => match self.conf_change(entry.data.clone()) {
                Ok(change) => {
                    effects.push(Effect::ConfChange(Some(change)));
                    Ok(CommandReply::Members(Arc::clone(&self.members)))
                }
                Err(rejected) => {
                    effects.push(Effect::ConfChange(None));
                    Err(rejected.into())
                }
            },
            // etcd never proposes these; raft is told that nothing changed.
            EntryKind::ConfChangeV2 => {
                effects.push(Effect::ConfChange(None));
                Ok(CommandReply::Empty)
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

    /// The guards of a command before it is applied, in etcd's order: a CORRUPT alarm, a NOSPACE
    /// alarm, permission.
    fn guard(&self, command: &Command, header: &RequestHeader) -> Result<(), ApiError> {
        let row = command.kind().row();
        if row.on_corrupt == OnCorrupt::Refuse && self.alarms.is_set(AlarmType::Corrupt) {
            return Err(ApiError::Corrupt);
        }
        if command.cost() > 0 && self.alarms.is_set(AlarmType::Nospace) {
            return Err(ApiError::NoSpace);
        }
        command::permitted(&self.auth, &self.leases, command, header)
    }

    /// Does what a command asks for, if nothing refuses it.
    fn run(
        &mut self,
        may: &MayBlock,
        index: Index,
        Decoded { header, command }: Decoded,
        wants_reply: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<CommandReply, Failed> {
        let Some(command) = command else {
            //= etcd 3.7.3: server/etcdserver/apply/uber_applier.go#dispatch
            panic!("not implemented apply: an entry holds a command that this version lacks");
        };
        if let Err(refused) = self.guard(&command, &header) {
            if let Command::LeaseRevoke(revoke) = command {
                effects.push(Effect::LeaseKept(LeaseId(revoke.id)));
            }
            return Err(refused.into());
        }
        // The quota is looked at before, for the size then counts (I4).
        let cost = command.cost();
        let is_over = cost > 0 && self.config.over_quota(self.backend_bytes, cost);
        let reply = self.effect(may, index, command, wants_reply, effects)?;
        if is_over {
            // What crossed the quota is applied, but answered with the error, and the alarm is due.
            effects.push(Effect::NoSpace);
            return Err(ApiError::NoSpace.into());
        }
        Ok(reply)
    }

    fn effect(
        &mut self,
        may: &MayBlock,
        index: Index,
        command: Command,
        wants_reply: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<CommandReply, Failed> {
        let mut cx =
            Context { store: &mut self.store, leases: &mut self.leases, may, reply: wants_reply };
        Ok(match command {
            Command::Put(put) => CommandReply::Put(kv::put(&mut cx, &put)?),
            Command::DeleteRange(delete) => CommandReply::Delete(kv::delete(&mut cx, &delete)?),
            Command::Txn(txn) => CommandReply::Txn(Box::new(kv::txn(&mut cx, &txn)?)),
            Command::Compaction(compaction) => self.compact(&compaction, effects)?,
            Command::LeaseGrant(grant) => self.grant(&grant, effects)?,
            Command::LeaseRevoke(revoke) => {
                let id = LeaseId(revoke.id);
                let (keys, op) = cx.leases.revoke(id)?;
                kv::delete_keys(&mut cx, &keys);
                self.store.local(op);
                effects.push(Effect::LeaseRevoked(id));
                CommandReply::Empty
            }
            Command::LeaseCheckpoint(checkpoint) => {
                self.checkpoint(&checkpoint.checkpoints, effects);
                CommandReply::Empty
            }
            Command::Alarm(alarm) => CommandReply::Alarms(self.alarm(&alarm)),
            Command::ClusterVersionSet(set) => {
                let op = Arc::make_mut(&mut self.members).set_cluster_version(set.ver.clone());
                self.store.local(op);
                effects.push(Effect::ClusterVersion(set.ver));
                CommandReply::Empty
            }
            Command::ClusterMemberAttrSet(set) => {
                self.set_attributes(set, effects);
                CommandReply::Empty
            }
            Command::DowngradeInfoSet(set) => {
                let target = set.enabled.then_some(set.ver);
                let op = Arc::make_mut(&mut self.members).set_downgrade(target.clone());
                self.store.local(op);
                effects.push(Effect::Downgrade(target));
                CommandReply::Empty
            }
            // Reads of other members, from before 3.7, and etcd's own tests: they change nothing
            // (semantics P6).
            Command::Range(_) | Command::DowngradeVersionTest(_) => CommandReply::Empty,
            auth => CommandReply::Auth(self.authentication(index, auth, effects)?),
        })
    }

    /// A command of the Auth service, and what it means for tokens.
    fn authentication(
        &mut self,
        index: Index,
        command: Command,
        effects: &mut Vec<Effect>,
    ) -> Result<AuthReply, ApiError> {
        let was_enabled = self.auth.is_enabled();
        let mut ops = Vec::new();
        let reply = self.auth.apply(&command, &mut ops);
        let reply = reply.expect("all other commands have arms of their own")?;
        if !ops.is_empty() {
            effects.push(Effect::Auth { signing_revision: self.auth.signing_revision() });
        }
        ops.into_iter().for_each(|op| self.store.local(op));
        match command {
            Command::Authenticate(request) => {
                let token = Secret(simple_token(&request.simple_token, index));
                effects.push(Effect::TokenAssigned { user: request.name, token });
            }
            Command::AuthUserDelete(request) => {
                effects.push(Effect::UserTokensEnded(request.name));
            }
            Command::AuthUserChangePassword(request) => {
                effects.push(Effect::UserTokensEnded(request.name));
            }
            Command::AuthDisable(_) if was_enabled => effects.push(Effect::TokensEnded),
            _ => {}
        }
        Ok(reply)
    }

    fn compact(
        &mut self,
        request: &CompactionRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<CommandReply, ApiError> {
        let revision = Revision(request.revision);
        let compacted = self.store.compact(revision).map_err(|e| match e {
            CompactError::Compacted => ApiError::Compacted,
            CompactError::FutureRevision => ApiError::FutureRevision,
        })?;
        effects.push(Effect::Compaction(compacted));
        Ok(CommandReply::Compact { revision })
    }

    fn grant(
        &mut self,
        request: &LeaseGrantRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<CommandReply, ApiError> {
        let id = LeaseId(request.id);
        let (ttl, op) = self.leases.grant(id, request.ttl, self.config.min_lease_ttl)?;
        self.store.local(op);
        effects.push(Effect::LeaseGranted { id, ttl });
        Ok(CommandReply::LeaseGrant { id, ttl })
    }

    fn checkpoint(&mut self, checkpoints: &[LeaseCheckpoint], effects: &mut Vec<Effect>) {
        let version = self.members.cluster_version.as_deref().and_then(Version::parse);
        let persist = self.config.persist_checkpoints
            || version.is_some_and(|version| version >= CHECKPOINTS_STORED_SINCE);
        for checkpoint in checkpoints {
            let (id, remaining) = (LeaseId(checkpoint.id), checkpoint.remaining_ttl);
            if let Some(op) = self.leases.checkpoint(id, remaining, persist) {
                self.store.local(op);
            }
            effects.push(Effect::LeaseCheckpoint { id, remaining });
        }
    }

    fn set_attributes(&mut self, set: ClusterMemberAttrSetRequest, effects: &mut Vec<Effect>) {
        let id = MemberId(set.member_id);
        let Attributes { name, client_urls } = set.member_attributes.unwrap_or_default();
        let members = Arc::make_mut(&mut self.members);
        if let Some(op) = members.set_attributes(id, name.clone(), client_urls.clone()) {
            self.store.local(op);
        }
        effects.push(Effect::Attributes { id, name, client_urls });
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

/// The cluster version from which on lease checkpoints are stored.
const CHECKPOINTS_STORED_SINCE: Version = Version { major: 3, minor: 6 };

fn malformed(bucket: Bucket) -> MachineError {
    MachineError::Malformed(match bucket {
        Bucket::Lease => "lease",
        Bucket::Members => "members",
        Bucket::MembersRemoved => "members_removed",
        Bucket::Cluster => "cluster",
        Bucket::Auth => "auth",
        Bucket::AuthUsers => "authUsers",
        Bucket::AuthRoles => "authRoles",
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
