//! What must hold between members, looked at whenever one does something.
//!
//! One entry per index, one leader per term, one vote per member and term, one state per applied
//! index; terms and commit indexes that never go back; nothing applied that is not durable where it
//! is applied. What clients may see is for `model` to judge.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::etcdserverpb::{AlarmType, InternalRaftRequest};
use bytes::Bytes;
use env::MayBlock;
use machine::Auth;
use machine::membership::v2_store_json;
use member::{MemberView, NodeStatus};
use model::Logged;
use model::trail::{self, Trail};
use model::users::Refusal;
use prost::Message as _;
use raft::{Body, Entry, EntryKind, Message};
use store::compact::Step;
use types::{Index, MemberId, Term};

/// The state is hashed at every index that this divides.
const HASHED: u64 = 32;

/// What is remembered of all members.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The hash of the entry at each index, once some member has committed it.
    entries: Vec<Option<u64>>,
    /// What each entry asks for: the request's id, and the lease that it ends, if it does.
    requests: Vec<(u64, Option<i64>)>,
    /// The store's revision after each index.
    revisions: BTreeMap<Index, i64>,
    /// What the state hashes to after some indexes, and who said so.
    states: BTreeMap<Index, (MemberId, State)>,
    leaders: BTreeMap<Term, MemberId>,
    /// Whom each member gave its vote.
    votes: BTreeMap<(MemberId, Term), MemberId>,
    /// The highest term that each member has told others of.
    told: BTreeMap<MemberId, Term>,
    /// States compared.
    pub(crate) compared: u64,
    /// Whether authentication was on behind each index, and its revision.
    auth: BTreeMap<Index, (bool, u64)>,
    /// The log itself, if it is kept.
    log: Option<Vec<Option<Bytes>>>,
    /// One member's data was made different on purpose.
    pub(crate) diverged: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct State {
    /// Hash of the keys, compact revision, revision.
    keys: (u32, i64, i64),
    members: u64,
    leases: u64,
    alarms: u64,
    auth: Arc<Auth>,
}

fn fnv(parts: impl IntoIterator<Item = u8>) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for byte in parts {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash
}

fn entry_hash(entry: &Entry) -> u64 {
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    };
    let head = entry.term.0.to_le_bytes().into_iter().chain([kind]);
    fnv(head.chain(entry.data.iter().copied()))
}

fn request(entry: &Entry) -> (u64, Option<i64>) {
    let id = machine::command::request_id(&entry.data).map_or(0, |id| id.0);
    // Ends of leases are short.
    let lease = (entry.data.len() < 64)
        .then(|| InternalRaftRequest::decode(entry.data.clone()).ok()?.lease_revoke)
        .flatten();
    (id, lease.map(|revoke| revoke.id))
}

impl Checks {
    /// Keeps the log, for [`Checks::trail`].
    pub(crate) fn keep_log(&mut self) {
        self.log = Some(Vec::new());
    }

    /// Gives the log, if it was kept, and what members showed, for the checker of users.
    pub(crate) fn trail(&mut self, trail: &mut Trail, made_of: impl Fn(u64) -> Option<usize>) {
        let logged = |data: Option<Bytes>| {
            let request = data.map(|data| {
                InternalRaftRequest::decode(data).expect("members decoded it when they applied it")
            });
            let header = request.as_ref().and_then(|request| request.header.as_ref());
            let asked = header.and_then(|header| made_of(header.id));
            trail::Logged { request, asked }
        };
        trail.log = self.log.take().into_iter().flatten().map(logged).collect();
        // What was made different on purpose shows what nobody did.
        for (index, revision) in self.revisions.iter().filter(|_| !self.diverged) {
            let shown = trail::Shown { revision: *revision, auth: self.auth[index] };
            trail.shown.insert(index.0, shown);
        }
    }

    /// An entry goes to a member's state, whose log holds everything up to `durable`.
    pub(crate) fn committed(
        &mut self,
        id: MemberId,
        entry: &Entry,
        durable: Index,
    ) -> Result<(), String> {
        let index = entry.index;
        if index > durable {
            return Err(format!("{id} applies entry {index}, its log holds {durable}"));
        }
        let place = usize::try_from(index.0).expect("a short log");
        if self.entries.len() <= place {
            self.entries.resize(place + 1, None);
            self.requests.resize(place + 1, (0, None));
        }
        let hash = entry_hash(entry);
        if self.entries[place].is_none() && entry.kind == EntryKind::Normal {
            self.requests[place] = request(entry);
            if let Some(log) = &mut self.log {
                log.resize(log.len().max(place + 1), None);
                log[place] = Some(entry.data.clone()).filter(|data| !data.is_empty());
            }
        }
        match self.entries[place].replace(hash) {
            Some(other) if other != hash => {
                return Err(format!("{id} applies another entry {index} than others did"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The log as the model reads it, by the places of requests in the history.
    /// Those that were refused changed nothing.
    pub(crate) fn log(
        &self,
        places: &BTreeMap<u64, usize>,
        refused: &BTreeMap<u64, Refusal>,
    ) -> Vec<Logged> {
        let logged = |(index, (id, lease)): (usize, &(u64, Option<i64>))| {
            if refused.contains_key(&(index as u64)) {
                return None;
            }
            let operation = places.get(id).map(|place| Logged::Operation(*place));
            operation.or(lease.map(Logged::Expiry))
        };
        self.requests.iter().enumerate().filter_map(logged).collect()
    }

    /// The last entry that any member has committed.
    pub(crate) fn last_committed(&self) -> Index {
        Index(self.entries.len().saturating_sub(1) as u64)
    }

    /// How many terms had a leader.
    pub(crate) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A member shows a state.
    pub(crate) fn applied(
        &mut self,
        id: MemberId,
        view: &MemberView,
        leases: &machine::Leases,
    ) -> Result<(), String> {
        let index = view.store.applied_index();
        if view.alarms.is_set(AlarmType::Corrupt) && !self.diverged {
            return Err(format!("after {index} {id} holds data for corrupt that is not"));
        }
        let revision = view.store.revision().0;
        let known = *self.revisions.entry(index).or_insert(revision);
        if known != revision {
            return Err(format!("{id} is at revision {revision} after {index}, others at {known}"));
        }
        let auth = (view.auth.is_enabled(), view.auth.revision());
        let known = *self.auth.entry(index).or_insert(auth);
        if known != auth {
            return Err(format!("{id} has {auth:?} of users after {index}, others {known:?}"));
        }
        if index.0.is_multiple_of(HASHED) && !self.diverged {
            self.compare(id, view, leases)
        } else {
            Ok(())
        }
    }

    fn compare(
        &mut self,
        id: MemberId,
        view: &MemberView,
        leases: &machine::Leases,
    ) -> Result<(), String> {
        // A disk that fails tells its member soon enough.
        let Some(keys) = hash_keys(view) else { return Ok(()) };
        let all = leases.iter().flat_map(|(lease, l)| {
            let keys = l.keys().flat_map(|key| key.to_vec());
            let head = [lease.0.to_le_bytes(), l.ttl.to_le_bytes()].concat();
            head.into_iter().chain(keys)
        });
        let alarms = view.alarms.list(0);
        let alarms = alarms.iter().flat_map(|a| format!("{a:?}").into_bytes());
        let state = State {
            keys,
            members: fnv(v2_store_json(&view.members)),
            leases: fnv(all),
            alarms: fnv(alarms),
            auth: Arc::clone(&view.auth),
        };
        let index = view.store.applied_index();
        let (first, known) = self.states.entry(index).or_insert_with(|| (id, state.clone()));
        if *first != id {
            self.compared += 1;
        }
        if *known != state {
            return Err(format!("after {index} {first} holds {known:?}, {id} holds {state:?}"));
        }
        Ok(())
    }

    /// A member shows its part in raft.
    pub(crate) fn status(
        &mut self,
        id: MemberId,
        before: &NodeStatus,
        now: &NodeStatus,
    ) -> Result<(), String> {
        if now.is_leader {
            let known = *self.leaders.entry(now.term).or_insert(id);
            if known != id {
                return Err(format!("{known} and {id} lead in term {}", now.term));
            }
        }
        let told = self.told.get(&id).copied().unwrap_or_default();
        if now.term < before.term.max(told) || now.commit < before.commit {
            return Err(format!("{id} went back from {before:?}, told {told}, to {now:?}"));
        }
        Ok(())
    }

    /// A member says something to another.
    pub(crate) fn sent(&mut self, id: MemberId, message: &Message) -> Result<(), String> {
        let vote = match &message.body {
            Body::Vote { .. } => Some(id),
            Body::VoteReply { reject: false } => Some(message.to),
            Body::AppendReply { .. } | Body::Append { .. } | Body::Heartbeat { .. } => None,
            // An inquiry names a term that nobody has begun, what is sent on none, and an answer to
            // a heartbeat says only that no later term is known yet.
            _ => return Ok(()),
        };
        let told = self.told.entry(id).or_default();
        *told = (*told).max(message.term);
        let Some(to) = vote else { return Ok(()) };
        let known = *self.votes.entry((id, message.term)).or_insert(to);
        if known != to {
            return Err(format!("{id} votes for {known} and for {to} in term {}", message.term));
        }
        Ok(())
    }
}

/// The hash of the newest revision, with what it depends on; `None` if the disk fails.
pub(crate) fn hash_keys(view: &MemberView) -> Option<(u32, i64, i64)> {
    let may = MayBlock::on_this_thread();
    let mut hasher = view.store.hash_kv(0).ok()?;
    while hasher.step(&may, &view.store, usize::MAX).ok()? != Step::Done {}
    let hash = hasher.finish();
    Some((hash.hash, hash.compact_revision.0, hash.revision.0))
}
