//! What users asked for and were told, held against the log: who may do what is decided by the order
//! of its entries.
//!
//! A change is decided where its entry stands, by the user and the auth revision that it is signed
//! with. Everything else is decided by what one member knows, which is the state behind some entry
//! between the last one that it knew when it was asked and the last one that anybody had committed
//! when it answered: one of these states must permit what was answered, and one must refuse what was
//! refused. The log is replayed for that, with the leases that keys hang on.

use std::collections::{BTreeMap, BTreeSet};

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{AlarmType, InternalRaftRequest, RequestOp, TxnRequest};
use api::etcdserverpb::{LeaseGrantRequest, WatchCreateRequest};
use bytes::Bytes;

use crate::history::Request;
use crate::state::State;
use crate::txn::is_read_only;
use crate::users::{Access, Need, Refusal, Users, of_delete, of_lease, of_put, of_txn};
use crate::violation::{Property, Violation};

/// What somebody asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Something of the model's.
    Call(Request),
    /// A new watch.
    Watch(WatchCreateRequest),
    /// How long a lease lives yet, and perhaps its keys.
    TimeToLive {
        /// The lease.
        lease: i64,
        /// Whether its keys are asked for.
        keys: bool,
    },
    /// A key that was shown beside something else.
    SeeKey(Bytes),
    /// Which leases there are.
    Leases,
    /// A token.
    LogIn {
        /// Who wants it.
        user: String,
        /// What it calls its password.
        password: String,
    },
    /// A change of users, roles or authentication; the password that comes with it.
    Change(Option<String>),
    /// To have callers say who they are.
    Enable,
    /// What somebody's roles are.
    SeeUser(String),
    /// What a role permits.
    SeeRole(String),
    /// Something that root alone may, by what the member that is asked knows.
    Root,
}

impl Wish {
    /// Whether an entry of the log decides.
    #[must_use]
    pub fn is_decided_by_entry(&self) -> bool {
        match self {
            Wish::Call(Request::Put(_) | Request::DeleteRange(_) | Request::LeaseRevoke(_)) => true,
            Wish::Call(Request::Txn(r)) => !is_read_only(r),
            Wish::Change(_) | Wish::Enable | Wish::SeeUser(_) | Wish::SeeRole(_) => true,
            _ => false,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was done; the revision of the store that a read named.
    Done(i64),
    /// The caller may not.
    Refused(Refusal),
    /// Its token stands for nobody.
    BadToken,
    /// Anything else, or nothing.
    Other,
}

/// Something that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// In whose name.
    pub user: Option<String>,
    /// The last entry that was committed when it got its token.
    pub token_since: u64,
    /// What.
    pub wish: Wish,
    /// The entries that whoever decides must know of, and those that it can know of.
    pub from: u64,
    /// See above.
    pub upto: u64,
    /// What came of it.
    pub told: Told,
}

/// An entry of the log.
#[derive(Clone, Debug, Default)]
pub struct Logged {
    /// What it asks for, and who signed it; `None` for what is no request.
    pub request: Option<InternalRaftRequest>,
    /// The place of what it was made of.
    pub asked: Option<usize>,
}

/// What members showed behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Revision of the store.
    pub revision: i64,
    /// Whether authentication was on, and its revision.
    pub auth: (bool, u64),
}

/// A log, and what users asked and were told.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The log: entry 1 has place 1.
    pub log: Vec<Logged>,
    /// What members showed, by the entry.
    pub shown: BTreeMap<u64, Shown>,
    /// In any order.
    pub asked: Vec<Asked>,
}

/// What [`check`] found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Entries that were refused for who signed them.
    pub refused: BTreeMap<u64, Refusal>,
    /// Calls and watches that were let in while authentication was on.
    pub let_in: usize,
    /// Those that were refused.
    pub turned_away: usize,
    /// Tokens that were refused of users that there were no more.
    pub of_the_gone: usize,
    /// Who there is in the end.
    pub users: Users,
}

fn fail<T>(what: String) -> Result<T, Violation> {
    Err(Violation::new(Property::Permitted, what))
}

/// Checks that everything that was done was permitted, and that what was refused was not.
///
/// # Errors
/// [`Property::Permitted`].
pub fn check(trail: &Trail) -> Result<Walked, Violation> {
    let mut walk = Walk::new(trail);
    let mut waiting: Vec<(usize, (bool, u64))> = Vec::new();
    let mut order: Vec<usize> = (0..trail.asked.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(trail.asked[*place].from));
    let last = trail.log.len().saturating_sub(1) as u64;
    for index in 0..=last {
        walk.entry(index)?;
        while let Some(place) = order.pop_if(|place| trail.asked[*place].from <= index) {
            waiting.push((place, walk.auth()));
        }
        let mut still = Vec::with_capacity(waiting.len());
        for (place, since) in waiting {
            let asked = &trail.asked[place];
            if walk.explains(place, since) {
                walk.count(asked);
            } else if index >= asked.upto.min(last) {
                let auth = walk.auth();
                return fail(format!("{asked:?}: no state explains it (by {auth:?})"));
            } else {
                still.push((place, since));
            }
        }
        waiting = still;
    }
    Ok(Walked { users: walk.users, ..walk.walked })
}

/// The state behind an entry, naively.
struct Walk<'t> {
    trail: &'t Trail,
    index: u64,
    state: State,
    users: Users,
    alarms: BTreeSet<(u64, i32)>,
    /// Passwords by their hashes.
    passwords: BTreeMap<&'t str, &'t str>,
    /// The entries that ended all tokens, and those of a user.
    ended: BTreeMap<Option<&'t str>, u64>,
    /// Of what was asked for: whether an entry of it was permitted, refused, or neither.
    decided: BTreeMap<usize, Result<(), Refusal>>,
    walked: Walked,
}

impl<'t> Walk<'t> {
    fn new(trail: &'t Trail) -> Self {
        Self {
            trail,
            index: 0,
            state: State::default(),
            users: Users::default(),
            alarms: BTreeSet::new(),
            passwords: BTreeMap::new(),
            ended: BTreeMap::new(),
            decided: BTreeMap::new(),
            walked: Walked::default(),
        }
    }

    /// Whether authentication is on, and its revision.
    fn auth(&self) -> (bool, u64) {
        (self.users.is_enabled(), self.users.revision())
    }

    /// Goes on to an entry, and compares with what members showed behind it.
    fn entry(&mut self, index: u64) -> Result<(), Violation> {
        self.index = index;
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(Logged { request, asked }) = self.trail.log.get(place) else { return Ok(()) };
        if let Some(request) = request {
            self.run(request, *asked)?;
        }
        let own = Shown { revision: self.state.revision(), auth: self.auth() };
        match self.trail.shown.get(&index) {
            Some(shown) if *shown != own => fail(format!(
                "behind entry {index} members show {shown:?}, what is permitted leads to {own:?}; \
                 the entry: {request:?}, refused so far: {:?}",
                self.walked.refused.last_key_value()
            )),
            _ => Ok(()),
        }
    }

    /// Does what an entry asks for, if whoever signed it may.
    fn run(
        &mut self,
        request: &'t InternalRaftRequest,
        asked: Option<usize>,
    ) -> Result<(), Violation> {
        if self.is_barred(request) {
            return Ok(());
        }
        let verdict = self.verdict(request);
        if let (Some(place), true) = (asked, self.users.is_enabled()) {
            let user = self.trail.asked[place].user.as_deref().unwrap_or_default();
            let signed = request.header.as_ref().map_or("", |header| &header.username);
            if user != signed && !signed.is_empty() {
                let index = self.index;
                return fail(format!("entry {index} of {user:?} is signed by {signed:?}"));
            }
        }
        if let Some(place) = asked {
            self.decided.insert(place, verdict);
        }
        if let Err(refusal) = verdict {
            self.walked.refused.insert(self.index, refusal);
            return Ok(());
        }
        self.note_tokens(request, asked);
        if self.users.apply(request).is_none()
            && let Some(request) = data_of(request)
        {
            // Refused for another reason it changes nothing.
            let _ = self.state.apply(&request);
        }
        if let Some(alarm) = &request.alarm {
            let key = (alarm.member_id, alarm.alarm);
            match alarm.action() {
                AlarmAction::Activate if alarm.alarm != 0 => drop(self.alarms.insert(key)),
                AlarmAction::Deactivate => drop(self.alarms.remove(&key)),
                AlarmAction::Get | AlarmAction::Activate => {}
            }
        }
        Ok(())
    }

    /// Whether an alarm refuses an entry, whoever signed it (semantics I5, I9).
    fn is_barred(&self, request: &InternalRaftRequest) -> bool {
        let is_set = |alarm| self.alarms.iter().any(|(_, set)| *set == alarm as i32);
        let Some(data) = data_of(request) else { return false };
        let costs = match &data {
            Request::Put(_) | Request::LeaseGrant(_) => true,
            Request::Txn(txn) => has_put(txn),
            _ => false,
        };
        is_set(AlarmType::Corrupt) || costs && is_set(AlarmType::Nospace)
    }

    /// Whether whoever signed an entry may do what it asks for.
    fn verdict(&self, request: &InternalRaftRequest) -> Result<(), Refusal> {
        let (user, known) =
            request.header.as_ref().map_or(("", 0), |h| (&h.username[..], h.auth_revision));
        let mut all = Vec::new();
        let r = request;
        if let Some(r) = &r.put {
            of_put(r, &self.state, &mut all);
        } else if let Some(r) = &r.delete_range {
            of_delete(r, &mut all);
        } else if let Some(r) = &r.txn {
            of_txn(r, &self.state, &mut all);
        } else if let Some(r) = &r.lease_revoke {
            all = of_lease(r.id, Need::Write, &self.state);
        } else if let Some(r) = &r.auth_user_get {
            return self.root_or(user, r.name == user);
        } else if let Some(r) = &r.auth_role_get {
            return self.root_or(user, self.users.has_role(user, &r.role));
        } else if is_change(r) || r.auth_user_list.is_some() || r.auth_role_list.is_some() {
            return self.root_or(user, false);
        }
        self.users.permit(user, known, &all)
    }

    /// Whether somebody has the role root, or may for another reason.
    fn root_or(&self, user: &str, or: bool) -> Result<(), Refusal> {
        match () {
            () if !self.users.is_enabled() || self.users.is_root(user) || or => Ok(()),
            () if user.is_empty() => Err(Refusal::Nobody),
            () => Err(Refusal::Denied),
        }
    }

    fn note_tokens(&mut self, request: &'t InternalRaftRequest, asked: Option<usize>) {
        let r = request;
        let of_user = match (&r.auth_user_delete, &r.auth_user_change_password) {
            (Some(r), _) => Some(&r.name[..]),
            (_, Some(r)) => Some(&r.name[..]),
            _ => None,
        };
        if of_user.is_some() || r.auth_disable.is_some() {
            self.ended.insert(of_user, self.index);
        }
        let hash = match (&r.auth_user_add, &r.auth_user_change_password) {
            (Some(r), _) => Some(&r.hashed_password[..]),
            (_, Some(r)) => Some(&r.hashed_password[..]),
            _ => None,
        };
        let wish = asked.map(|place| &self.trail.asked[place].wish);
        if let (Some(hash), Some(Wish::Change(Some(password)))) = (hash, wish) {
            self.passwords.insert(hash, password);
        }
    }

    /// Whether the state here explains what came of something.
    fn explains(&self, place: usize, since: (bool, u64)) -> bool {
        let asked = &self.trail.asked[place];
        let by_entry = asked.wish.is_decided_by_entry();
        match (asked.told, self.decided.get(&place)) {
            (Told::Other | Told::BadToken, _) => true,
            (Told::Done(_), decided) if by_entry => decided == Some(&Ok(())),
            (Told::Done(revision), _) => {
                // Only reads of keys name the revision that they are of.
                let is_read = matches!(asked.wish, Wish::Call(Request::Range(_) | Request::Txn(_)));
                let is_of_here = !is_read || revision == self.state.revision();
                is_of_here && self.has_token(asked) && self.may(asked).is_ok()
            }
            (Told::Refused(_), Some(Err(_))) if by_entry => true,
            // It did not come to its entry, or is one that none decides.
            (Told::Refused(Refusal::Old), _) => since != self.auth(),
            (Told::Refused(_), _) => self.may(asked).is_err(),
        }
    }

    /// Whether the token of a call was still good here.
    fn has_token(&self, asked: &Asked) -> bool {
        let since = |whose| self.ended.get(&whose).copied().unwrap_or(0);
        match &asked.user {
            Some(user) if self.users.is_enabled() => {
                since(None).max(since(Some(&user[..]))) <= asked.token_since
            }
            _ => true,
        }
    }

    /// Whether somebody may do something by the state here.
    fn may(&self, asked: &Asked) -> Result<(), Refusal> {
        let user = asked.user.as_deref().unwrap_or_default();
        let known = if asked.user.is_some() { self.users.revision() } else { 0 };
        let is_nobody = self.users.is_enabled() && asked.user.is_none();
        let somebody = if is_nobody { Err(Refusal::Nobody) } else { Ok(()) };
        let mut all = Vec::new();
        match &asked.wish {
            Wish::Call(Request::Range(r)) => all.push(Access::read(&r.key, &r.range_end)),
            Wish::Call(Request::Put(r)) => of_put(r, &self.state, &mut all),
            Wish::Call(Request::DeleteRange(r)) => of_delete(r, &mut all),
            Wish::Call(Request::Txn(r)) => of_txn(r, &self.state, &mut all),
            Wish::Call(Request::LeaseGrant(_) | Request::LeaseExpire(_)) => return somebody,
            Wish::Call(Request::LeaseRevoke(r)) => {
                somebody?;
                all = of_lease(r.id, Need::Write, &self.state);
            }
            Wish::Call(Request::LeaseKeepAlive(lease)) => {
                somebody?;
                all = of_lease(*lease, Need::Write, &self.state);
            }
            Wish::Call(Request::Compact(_) | Request::HashKv(_)) | Wish::Change(_) | Wish::Root => {
                return self.root_or(user, false);
            }
            Wish::Enable => return self.root_or(user, false),
            Wish::Watch(r) => {
                let key = if r.key.is_empty() { &Bytes::from_static(&[0]) } else { &r.key };
                all.push(Access::read(key, &r.range_end));
            }
            Wish::SeeKey(key) => all.push(Access::read(key, &Bytes::new())),
            Wish::TimeToLive { keys: false, .. } => return somebody,
            Wish::TimeToLive { lease, keys: true } => {
                somebody?;
                all = of_lease(*lease, Need::Read, &self.state);
            }
            Wish::Leases => {
                somebody?;
                let leases = self.state.leases().keys();
                all = leases.flat_map(|id| of_lease(*id, Need::Read, &self.state)).collect();
            }
            Wish::LogIn { user, password } => {
                let hash = self.users.hash(user);
                let fits = hash.and_then(|hash| self.passwords.get(hash)) == Some(&&password[..]);
                let is_right = self.users.is_enabled() && fits;
                return if is_right { Ok(()) } else { Err(Refusal::Denied) };
            }
            Wish::SeeUser(name) => return self.root_or(user, name == user),
            Wish::SeeRole(role) => return self.root_or(user, self.users.has_role(user, role)),
        }
        self.users.permit(user, known, &all)
    }

    fn count(&mut self, asked: &Asked) {
        let counts = self.users.is_enabled();
        self.walked.let_in += usize::from(counts && matches!(asked.told, Told::Done(_)));
        let user = asked.user.as_deref().unwrap_or_default();
        let is_gone = asked.told == Told::BadToken && self.users.hash(user).is_none();
        self.walked.of_the_gone += usize::from(is_gone);
        self.walked.turned_away += usize::from(matches!(asked.told, Told::Refused(_)));
    }
}

fn is_change(r: &InternalRaftRequest) -> bool {
    r.auth_enable.is_some()
        || r.auth_disable.is_some()
        || r.auth_user_add.is_some()
        || r.auth_user_delete.is_some()
        || r.auth_user_change_password.is_some()
        || r.auth_user_grant_role.is_some()
        || r.auth_user_revoke_role.is_some()
        || r.auth_role_add.is_some()
        || r.auth_role_delete.is_some()
        || r.auth_role_grant_permission.is_some()
        || r.auth_role_revoke_permission.is_some()
}

fn has_put(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|RequestOp { request }| match request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(inner)) => has_put(inner),
        _ => false,
    })
}

/// What an entry does to keys and leases.
fn data_of(r: &InternalRaftRequest) -> Option<Request> {
    let grant = |r: &LeaseGrantRequest| Request::LeaseGrant(*r);
    let of_keys = r.put.clone().map(Request::Put);
    let of_keys = of_keys.or_else(|| r.delete_range.clone().map(Request::DeleteRange));
    let of_keys = of_keys.or_else(|| r.txn.clone().map(Request::Txn));
    let of_keys = of_keys.or_else(|| r.compaction.map(Request::Compact));
    of_keys
        .or_else(|| r.lease_grant.as_ref().map(grant))
        .or_else(|| r.lease_revoke.map(Request::LeaseRevoke))
}
