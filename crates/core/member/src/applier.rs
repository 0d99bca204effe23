//! Applier: committed entries become state, and state becomes a View.
//!
//! Owns the machine. One turn applies everything that is queued, freezes it into one batch,
//! publishes one View and gives out the replies. The order in which the outputs must leave is
//! fixed: events to Node, then the View, then the replies; so what was acknowledged is visible to
//! every later read, and a keep-alive right after its grant finds its lease.

mod compaction;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::AlarmType;
use bytes::Bytes;
use env::{Failpoint, Failpoints, Hooks, Instant, MayBlock, buggify, sometimes};
use machine::apply::MachineError;
use machine::auth::{Attached, Want, Who};
use machine::membership::conf_state_json;
use machine::{Alarms, Auth, Effect, Machine, Members};
use raft::{EntryKind, SnapshotMeta};
use store::hash::{CompactionHashes, KvHasher};
use store::{Batch, Bucket, Op, Released, ValueError, View};
use types::limits::{COMPACTION_BATCH, COMPACTION_SLEEP_MS};
use types::{Index, LeaseId, ReplyToken, Revision, Term};

use crate::message::{Applied, BackendCommitted, Committed, Installed, NodeInput, Reply, Sealed};
use crate::probes;
use crate::storage_version::StorageVersion;
use crate::tokens::Tokens;
use compaction::HASH_EVERY;

pub use compaction::FinishedCompaction;

/// Bytes of entries applied per turn, and so roughly of a batch; one entry may be larger.
const TURN_BYTES: usize = 4 << 20;

/// How long a refusal for want of space waits for its alarm (semantics I4).
const REFUSAL_WAIT: Duration = Duration::from_secs(5);

/// An input of Applier.
#[derive(Debug)]
pub enum ApplierInput {
    /// Apply this entry; they come in order.
    Committed(Committed),
    /// The backend holds everything up to and including this batch.
    BackendCommitted {
        /// The last batch of the commit.
        batch: Arc<Batch>,
        /// A read transaction on the result.
        backend: bolt::ReadTx,
    },
    /// Answer with the keys attached to a lease.
    LeaseKeys {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The lease's id.
        lease: LeaseId,
    },
    /// Answer whether somebody may do something with leases, by the keys attached to them now.
    PermitLeases {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The user.
        user: String,
        /// The auth revision at which it was identified.
        revision: u64,
        /// What is asked for.
        wish: LeaseWish,
    },
    /// Answer when no compaction has work left and the backend holds its result.
    AwaitCompaction(ReplyToken),
    /// Answer when the backend holds everything applied so far.
    AwaitBackend(ReplyToken),
    /// Have the database copied into a fresh file; answer when it is in use.
    Defragment(ReplyToken),
    /// The copy is in use, with the same content, or failed and nothing changed.
    Defragmented(Result<bolt::ReadTx, String>),
    /// Let a received snapshot, whose record is durable, take the place of everything. Entries
    /// behind it come afterwards.
    Install(SnapshotMeta),
    /// The received snapshot is the database now.
    Installed {
        /// The snapshot.
        meta: SnapshotMeta,
        /// Its contents.
        backend: bolt::ReadTx,
    },
    /// A snapshot of the log covers everything up to here.
    SnapshotSaved(Index),
    /// Answer when an entry is applied and published.
    AwaitApplied {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The entry's index.
        index: Index,
    },
}

/// What somebody wants to do with leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseWish {
    /// Change one.
    Change(LeaseId),
    /// See the keys of one.
    Read(LeaseId),
    /// See which there are.
    ReadAll,
}

/// Everything that readers see, as of one applied entry.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Keys and values.
    pub store: View,
    /// The members.
    pub members: Arc<Members>,
    /// The alarms.
    pub alarms: Arc<Alarms>,
    /// Users and roles.
    pub auth: Arc<Auth>,
    /// The storage version, once one is durably stored.
    pub storage_version: Option<Bytes>,
    /// Hashes of the last compactions since the start.
    pub hashes: Arc<CompactionHashes>,
    /// Counters of operations on the store since the start.
    pub counts: store::Counts,
}

/// The outputs of one turn of Applier, in the order in which they must leave.
#[derive(Debug, Default)]
pub struct ApplierOutput {
    /// First: inputs for Node.
    pub node: Vec<NodeInput>,
    /// Second: the View to publish.
    pub view: Option<MemberView>,
    /// Third: replies for the runtimes.
    pub replies: Vec<(ReplyToken, Reply)>,
    /// Batches for the Committer, in order.
    pub batches: Vec<Sealed>,
    /// Whether this turn removed a part of what is compacted.
    pub sliced: bool,
    /// Whether the Committer should commit at once.
    pub flush: bool,
    /// Whether the Committer should defragment, after the batches.
    pub defragment: bool,
    /// The snapshot that the Committer should install, after the batches.
    pub install: Option<SnapshotMeta>,
    /// What the installed database holds, for the Committer; before the batches.
    pub holds: Option<BackendCommitted>,
    /// A compaction that has removed all it had to, in this turn.
    pub compacted: Option<FinishedCompaction>,
    /// Memory to be dropped where there is time.
    pub released: Vec<Released>,
}

/// Why applying cannot go on. Fatal.
#[derive(Debug)]
pub enum ApplyFailure {
    /// The backend failed under apply.
    Value(ValueError),
    /// The state cannot be read from an installed snapshot.
    Install(MachineError),
    /// An installed database is ahead of its snapshot's name.
    Ahead {
        /// What it holds.
        database: Index,
        /// What the snapshot names.
        snapshot: Index,
    },
}

impl std::fmt::Display for ApplyFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApplyFailure::Value(e) => e.fmt(f),
            ApplyFailure::Install(e) => e.fmt(f),
            ApplyFailure::Ahead { database, snapshot } => {
                write!(f, "the database of snapshot {snapshot} holds entry {database}")
            }
        }
    }
}

impl std::error::Error for ApplyFailure {}

impl From<ValueError> for ApplyFailure {
    fn from(e: ValueError) -> Self {
        ApplyFailure::Value(e)
    }
}

/// The pace at which a compaction removes dead revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPace {
    /// Revisions removed per slice (`--compaction-batch-limit`).
    pub batch: usize,
    /// Rest between slices (`--compaction-sleep-interval`).
    pub sleep: Duration,
}

impl Default for CompactionPace {
    fn default() -> Self {
        Self { batch: COMPACTION_BATCH, sleep: Duration::from_millis(COMPACTION_SLEEP_MS) }
    }
}

/// A reply that waits for the backend.
#[derive(Debug)]
struct Waiting {
    token: ReplyToken,
    /// Set once nothing but the commit of this batch is missing.
    batch: Option<u64>,
}

/// The automaton that applies committed entries.
#[derive(Debug)]
pub struct Applier {
    machine: Machine,
    /// The last entry applied, and its term.
    applied: (Index, Term),
    last_batch: u64,
    committed_batch: u64,
    /// Committed entries that are not applied yet.
    waiting_entries: VecDeque<Committed>,
    waiting: Vec<Waiting>,
    /// Who waits for the defragmentation that runs.
    defragmenting: Vec<ReplyToken>,
    readers: Vec<(Index, ReplyToken)>,
    /// Refusals for want of space, held until the alarm is set, and since when.
    refused: VecDeque<(Instant, ReplyToken, Reply)>,
    next_slice: Option<Instant>,
    /// When the compaction that runs began, and the versions that earlier ones had removed.
    compaction_began: Option<(Instant, u64)>,
    pace: CompactionPace,
    storage_version: StorageVersion,
    /// What a start found to be written, for the first turn.
    unwritten: Option<Op>,
    /// A received snapshot, behind entries that are still to be applied: somebody waits for those.
    received: Option<SnapshotMeta>,
    /// A snapshot is being installed: nothing is applied.
    installing: bool,
    /// The compact revision before the compaction whose hash is still to be begun.
    to_hash: Option<Revision>,
    hashing: Option<KvHasher>,
    hashes: Arc<CompactionHashes>,
    tokens: Arc<Tokens>,
    failpoints: Failpoints,
    hooks: Hooks,
}

/// What one call of [`Applier::handle`] did.
#[derive(Debug, Default)]
struct Turn {
    effects: Vec<(Index, Effect)>,
    /// Whether an entry changed the members.
    conf_changed: bool,
    /// The last entry that was applied before.
    before: Index,
    /// Whether a new View is due.
    published: bool,
}

impl Applier {
    /// An applier over a recovered machine, whose database has this storage version. The newest
    /// snapshot covers `snapshot`.
    #[must_use]
    pub fn new(
        machine: Machine,
        storage_version: Option<Bytes>,
        snapshot: Index,
        pace: CompactionPace,
        hooks: Hooks,
    ) -> Self {
        let applied = (machine.store.applied_index(), machine.store.applied_term());
        let next_slice = machine.store.is_compacting().then_some(Instant(0));
        let mut applier = Self {
            machine,
            applied,
            last_batch: 0,
            committed_batch: 0,
            waiting_entries: VecDeque::new(),
            waiting: Vec::new(),
            defragmenting: Vec::new(),
            readers: Vec::new(),
            refused: VecDeque::new(),
            next_slice,
            compaction_began: None,
            pace,
            storage_version: StorageVersion::new(storage_version),
            unwritten: None,
            received: None,
            installing: false,
            to_hash: None,
            hashing: None,
            hashes: Arc::default(),
            tokens: Arc::default(),
            failpoints: Failpoints::default(),
            hooks,
        };
        applier.unwritten = applier.settle_storage_version(snapshot);
        applier
    }

    /// Lets the storage version follow what the recovered state says of the cluster's.
    fn settle_storage_version(&mut self, snapshot: Index) -> Option<Op> {
        let version = self.machine.members().cluster_version.as_ref()?;
        self.storage_version.follow(version, self.applied.0, snapshot)
    }

    /// Whether something that must not take long waits for a snapshot of the log.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.storage_version.is_to_be_lowered()
    }

    /// Lets tests from outside reach the moments of this automaton and of its store.
    pub fn set_failpoints(&mut self, failpoints: Failpoints) {
        self.machine.store.set_failpoints(failpoints.clone());
        self.failpoints = failpoints;
    }

    /// Where the tokens of those who log in are kept.
    pub fn set_tokens(&mut self, tokens: Arc<Tokens>) {
        self.tokens = tokens;
    }

    /// A View of the current state.
    #[must_use]
    pub fn view(&self) -> MemberView {
        MemberView {
            store: self.machine.store.publish(),
            members: Arc::clone(self.machine.members()),
            alarms: Arc::clone(self.machine.alarms()),
            auth: Arc::clone(self.machine.auth()),
            storage_version: self.storage_version.stored().cloned(),
            hashes: Arc::clone(&self.hashes),
            counts: self.machine.store.counts(),
        }
    }

    /// The machine, for what is recovered from it.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether applying must wait until the backend has caught up. Node then refuses proposals once
    /// the gap between committed and applied has its limit.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.machine.store.is_over_limit()
    }

    /// When [`Applier::handle`] must be called even without input.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.unwritten.is_some() || (self.may_apply() && !self.waiting_entries.is_empty()) {
            return Some(Instant(0));
        }
        let may_compact = self.defragmenting.is_empty() && !self.installing;
        let slice = self.next_slice.filter(|_| may_compact);
        let refused = self.refused.front().map(|(since, ..)| *since + REFUSAL_WAIT);
        slice.into_iter().chain(refused).min()
    }

    fn may_apply(&self) -> bool {
        !self.installing && !self.is_over_limit()
    }

    /// Applies everything in `inputs`.
    ///
    /// # Errors
    /// [`ApplyFailure`], which is fatal.
    pub fn handle(
        &mut self,
        may: &MayBlock,
        now: Instant,
        inputs: &mut Vec<ApplierInput>,
        out: &mut ApplierOutput,
    ) -> Result<(), ApplyFailure> {
        let mut turn = Turn { before: self.applied.0, ..Turn::default() };
        self.unwritten.take().into_iter().for_each(|op| self.machine.store.local(op));
        for input in inputs.drain(..) {
            self.take(may, input, &mut turn, out)?;
        }
        // A copy of the database never looks back: nothing is removed while one is made.
        let may_compact = self.defragmenting.is_empty() && !self.installing;
        let is_due = |at: Option<Instant>| may_compact && at.is_some_and(|at| at <= now);
        // Before this turn's entries, so that however many come in each, every turn hashes.
        let hashed =
            is_due(self.next_slice) && !self.machine.store.has_pending() && self.hash(may)?;
        if hashed {
            self.next_slice = Some(now + HASH_EVERY);
            turn.published = true;
        }
        self.apply_waiting(may, now, &mut turn, out)?;
        if self.waiting_entries.is_empty()
            && let Some(meta) = self.received.take()
        {
            self.installing = true;
            out.install = Some(meta);
        }
        // What a compaction is to remove stays until it is hashed; one that this very turn applied is
        // hashed from the next one on.
        let is_hashing = self.to_hash.is_some() || self.hashing.is_some();
        let sliced = is_due(self.next_slice) && !is_hashing;
        if sliced {
            out.compacted = self.compact(now).or(out.compacted.take());
        }
        out.sliced = sliced;
        self.give_out(turn, sliced, out);
        self.wake(now, out);
        Ok(())
    }

    /// Takes one input in. Entries only queue here.
    fn take(
        &mut self,
        may: &MayBlock,
        input: ApplierInput,
        turn: &mut Turn,
        out: &mut ApplierOutput,
    ) -> Result<(), ApplyFailure> {
        match input {
            ApplierInput::Committed(committed) => self.waiting_entries.push_back(committed),
            ApplierInput::BackendCommitted { batch, backend } => {
                self.machine.backend_bytes = backend.size_bytes();
                self.committed_batch = batch.number();
                self.storage_version.committed(batch.number());
                out.released.push(self.machine.store.committed(&batch, backend));
                turn.published = true;
            }
            ApplierInput::LeaseKeys { token, lease } => {
                let keys = self.machine.leases().get(lease);
                let keys = keys.map(|l| l.keys().cloned().collect()).unwrap_or_default();
                out.replies.push((token, Reply::LeaseKeys(keys)));
            }
            ApplierInput::PermitLeases { token, user, revision, wish } => {
                let reply = self.permit_leases(&user, revision, wish);
                out.replies.push((token, reply));
            }
            ApplierInput::AwaitCompaction(token) => {
                self.waiting.push(Waiting { token, batch: None });
            }
            ApplierInput::Defragment(token) => {
                // One copy serves all who asked before it is done.
                out.defragment |= self.defragmenting.is_empty();
                self.defragmenting.push(token);
            }
            ApplierInput::Defragmented(result) => self.defragmented(result, turn, out),
            ApplierInput::Install(meta) => {
                let waits = !self.waiting_entries.is_empty();
                sometimes!(self.hooks, probes::RECEIVED_WAITS, waits);
                self.received = Some(meta);
            }
            ApplierInput::Installed { meta, backend } => {
                self.install(may, &meta, backend, out)?;
                turn.before = self.applied.0;
                turn.published = true;
            }
            ApplierInput::SnapshotSaved(index) => {
                let op = self.storage_version.snapshot_saved(index);
                op.into_iter().for_each(|op| self.machine.store.local(op));
            }
            ApplierInput::AwaitApplied { token, index } => self.readers.push((index, token)),
            ApplierInput::AwaitBackend(token) => {
                // What was applied before this question is sealed already.
                self.waiting.push(Waiting { token, batch: Some(self.last_batch) });
                out.flush = true;
            }
        }
        Ok(())
    }

    fn permit_leases(&self, user: &str, revision: u64, wish: LeaseWish) -> Reply {
        let want = match wish {
            LeaseWish::Change(lease) => Want::ChangeLease(lease),
            LeaseWish::Read(lease) => Want::ReadLease(lease),
            LeaseWish::ReadAll => Want::ReadAllLeases,
        };
        let attached = Attached::Known(self.machine.leases());
        let permitted = self.machine.auth().permit(Who { user, revision }, want, attached);
        permitted.map_or_else(Reply::Refused, |()| Reply::Done)
    }

    /// The copy of the database took the place of the old one, or could not be made.
    fn defragmented(
        &mut self,
        result: Result<bolt::ReadTx, String>,
        turn: &mut Turn,
        out: &mut ApplierOutput,
    ) {
        let failure = match result {
            Ok(backend) => {
                self.machine.backend_bytes = backend.size_bytes();
                self.machine.store.replace_backend(backend);
                turn.published = true;
                None
            }
            Err(why) => Some(why),
        };
        for token in self.defragmenting.drain(..) {
            let reply = failure.clone().map_or(Reply::Done, Reply::Failed);
            out.replies.push((token, reply));
        }
    }

    /// Applies entries that wait, as many as a turn may.
    fn apply_waiting(
        &mut self,
        may: &MayBlock,
        now: Instant,
        turn: &mut Turn,
        out: &mut ApplierOutput,
    ) -> Result<(), ApplyFailure> {
        let mut bytes = 0;
        while bytes < TURN_BYTES && self.may_apply() {
            let Some(Committed { entry, token }) = self.waiting_entries.pop_front() else { break };
            bytes += entry.data.len();
            if buggify!(self.hooks, "applier: a short turn") {
                bytes = TURN_BYTES;
            }
            assert!(entry.index > self.applied.0, "an entry is applied once, in order");
            self.failpoints.hit(match entry.kind {
                EntryKind::Normal => Failpoint::BeforeApplyOneEntryNormal,
                _ => Failpoint::BeforeApplyOneConfChange,
            });
            let mut outcome = self.machine.apply(may, &entry, token.is_some())?;
            self.applied = (entry.index, entry.term);
            for effect in outcome.effects.drain(..) {
                turn.conf_changed |= matches!(effect, Effect::ConfChange(Some(_)));
                self.effect(now, entry.index, &effect);
                turn.effects.push((entry.index, effect));
            }
            if let Some(token) = token {
                let raises = matches!(outcome.reply, Err(ApiError::NoSpace));
                let reply = Reply::Applied(Box::new(outcome));
                if raises && !self.machine.alarms().is_set(AlarmType::Nospace) {
                    self.refused.push_back((now, token, reply));
                } else {
                    out.replies.push((token, reply));
                }
            }
        }
        let over = self.is_over_limit() && !self.waiting_entries.is_empty();
        sometimes!(self.hooks, probes::OVER_LIMIT, over);
        Ok(())
    }

    /// Gives out what the turn changed: a batch for the backend, effects for Node, a View.
    fn give_out(&mut self, mut turn: Turn, sliced: bool, out: &mut ApplierOutput) {
        let applied = self.applied.0 > turn.before;
        if applied || sliced || self.machine.store.has_pending() {
            let members = Arc::clone(self.machine.members());
            let conf_state = turn.conf_changed.then(|| conf_state_json(&members.conf_state()));
            let (index, term) = self.applied;
            let batch = self.machine.store.seal(index, term, conf_state);
            self.last_batch = batch.number();
            // The next server may be of another version.
            out.flush |= self.storage_version.sealed(self.last_batch);
            out.batches.push(Sealed { batch, members });
            turn.published = true;
        }
        if applied {
            let applied = Applied { index: self.applied.0, effects: turn.effects };
            out.node.push(NodeInput::Applied(applied));
        }
        if turn.published {
            out.view = Some(self.view());
        }
    }

    /// Everything begins anew from an installed database. Waiting readers and callers stay.
    fn install(
        &mut self,
        may: &MayBlock,
        meta: &SnapshotMeta,
        backend: bolt::ReadTx,
        out: &mut ApplierOutput,
    ) -> Result<(), ApplyFailure> {
        let storage_version = backend
            .get(may, Bucket::Meta.name(), store::meta::STORAGE_VERSION)
            .map_err(|e| ApplyFailure::Install(e.into()))?;
        let limits = self.machine.store.limits();
        let config = self.machine.config().clone();
        let mut machine = Machine::recover(config, may, backend).map_err(ApplyFailure::Install)?;
        machine.store.set_limits(limits);
        machine.store.set_failpoints(self.failpoints.clone());
        let database = machine.store.applied_index();
        if database > meta.index {
            return Err(ApplyFailure::Ahead { database, snapshot: meta.index });
        }
        let compacting = self.machine.store.is_compacting();
        sometimes!(self.hooks, probes::INSTALLED_AMID_COMPACTION, compacting);
        // etcd keeps tokens that the entries in between ended.
        if !self.machine.auth().keeps_tokens(machine.auth()) {
            self.tokens.end_all();
        }
        self.machine = machine;
        self.applied = (meta.index, meta.term);
        self.storage_version = StorageVersion::new(storage_version);
        let op = self.settle_storage_version(meta.index);
        op.into_iter().for_each(|op| self.machine.store.local(op));
        (self.last_batch, self.committed_batch) = (0, 0);
        for waiting in &mut self.waiting {
            // The installed database holds all there was.
            waiting.batch = waiting.batch.map(|_| 0);
        }
        self.installing = false;
        self.next_slice = self.machine.store.is_compacting().then_some(Instant(0));
        (self.to_hash, self.hashing, self.compaction_began) = (None, None, None);
        let members = Arc::clone(self.machine.members());
        let leases = self.machine.leases().iter();
        out.node.push(NodeInput::Installed(Installed {
            index: meta.index,
            members: Arc::clone(&members),
            signing_revision: self.machine.auth().signing_revision(),
            leases: leases.map(|(id, lease)| (id, lease.ttl, lease.remaining)).collect(),
        }));
        out.holds = Some(BackendCommitted { index: meta.index, term: meta.term, members });
        Ok(())
    }

    fn effect(&mut self, now: Instant, index: Index, effect: &Effect) {
        match effect {
            Effect::Compaction(compacted) => {
                self.next_slice = Some(now);
                self.compaction_began = Some((now, self.machine.store.counts().compacted));
                // etcd stores no hash if the compaction before had not ended.
                self.to_hash = compacted.previous_finished.then_some(compacted.previous);
                self.hashing = None;
            }
            // No snapshot covers what is only applied now.
            Effect::ClusterVersion(version) => {
                let op = self.storage_version.follow(version, index, Index(0));
                op.into_iter().for_each(|op| self.machine.store.local(op));
            }
            Effect::TokenAssigned { user, token } => self.tokens.assign(now, user, &token.0),
            Effect::UserTokensEnded(user) => self.tokens.end_of_user(user),
            Effect::TokensEnded => self.tokens.end_all(),
            _ => {}
        }
    }

    fn wake(&mut self, now: Instant, out: &mut ApplierOutput) {
        let full = self.machine.alarms().is_set(AlarmType::Nospace);
        let late = |since: Instant| full || since + REFUSAL_WAIT <= now;
        while self.refused.front().is_some_and(|(since, ..)| late(*since)) {
            out.replies.extend(self.refused.pop_front().map(|(_, token, reply)| (token, reply)));
        }
        let applied = self.applied.0;
        self.readers.retain(|(index, token)| {
            let done = *index <= applied;
            if done {
                out.replies.push((*token, Reply::Done));
            }
            !done
        });
        if self.waiting.is_empty() {
            return;
        }
        let compacting = self.machine.store.is_compacting();
        let (last, committed) = (self.last_batch, self.committed_batch);
        self.waiting.retain_mut(|waiting| {
            if waiting.batch.is_none() && !compacting {
                waiting.batch = Some(last);
                out.flush = true;
            }
            let done = waiting.batch.is_some_and(|batch| batch <= committed);
            if done {
                out.replies.push((waiting.token, Reply::Done));
            }
            !done
        });
    }
}

/// The outcome of a call whose entry was applied.
///
/// # Errors
/// Node's refusal of the proposal. That of the machine is within the outcome.
pub fn outcome(reply: Reply) -> Result<Box<machine::Outcome>, ApiError> {
    match reply {
        Reply::Applied(outcome) => Ok(outcome),
        Reply::Refused(error) => Err(error),
        other => unreachable!("a proposal is answered by its outcome, not {other:?}"),
    }
}
