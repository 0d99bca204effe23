//! The revision oracle: one content for each revision, made out of acknowledged writes, what
//! watches saw, and as few operations of unknown outcome as are needed.
//!
//! Every write's header names its revision, so most revisions have their writer by name and the
//! replay is linear in the history. A revision without one was made by an operation whose outcome
//! nobody knows, or by the end of a lease: those are tried, with what watches saw of it, and the
//! replay goes back if a later answer contradicts.

use std::collections::{BTreeMap, BTreeSet};

use api::error::ApiError;
use api::etcdserverpb::response_op::Response as Op;
use api::etcdserverpb::{HashKvResponse, TxnResponse, WatchCreateRequest, WatchResponse};
use api::mvccpb::{Event, KeyValue};

use crate::history::{History, Leg, Logged, Operation, Outcome, Request, Response};
use crate::state::{Change, Mark, State};
use crate::violation::{Property, Violation};

/// Tries of unknown operations before a replay gives up.
const MAX_TRIES: usize = 2_000_000;

/// The content of every revision that anyone saw.
#[derive(Clone, Debug)]
pub struct Replay {
    state: State,
    first: i64,
    /// When each revision had been seen by someone.
    seen: Seen,
    /// (call, end, target) of every compaction that may have had effect.
    pub(crate) compactions: Vec<(u64, u64, i64)>,
    /// Revisions in which a lease ended by itself.
    pub(crate) expired: Vec<(i64, i64)>,
}

/// When each revision, or a later one, was first shown to someone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(BTreeMap<i64, u64>);

impl Seen {
    fn of(history: &History) -> Self {
        let mut first: BTreeMap<i64, u64> = BTreeMap::new();
        let mut show = |revision: i64, at: u64| {
            let known = first.entry(revision).or_insert(at);
            *known = (*known).min(at);
        };
        for op in &history.operations {
            if let (Some(response), Some(at)) = (op.response(), op.returned) {
                show(response.revision(), at);
            }
        }
        for (at, response) in
            history.watches.iter().flat_map(|w| &w.legs).flat_map(|l| &l.responses)
        {
            show(response.header.as_ref().map_or(0, |h| h.revision), *at);
            for event in &response.events {
                show(event.kv.as_ref().map_or(0, |kv| kv.mod_revision), *at);
            }
        }
        // A later revision shows the earlier ones too.
        let mut earliest = u64::MAX;
        for (_, at) in first.iter_mut().rev() {
            earliest = earliest.min(*at);
            *at = earliest;
        }
        Self(first)
    }

    pub(crate) fn at(&self, revision: i64) -> u64 {
        self.0.range(revision..).next().map_or(u64::MAX, |(_, at)| *at)
    }

    fn newest(&self) -> i64 {
        self.0.last_key_value().map_or(0, |(revision, _)| *revision)
    }
}

/// What watches saw of each revision, without the states before; and whether one of them would
/// have seen all of it.
pub(crate) fn observed(history: &History) -> BTreeMap<i64, (Vec<Event>, bool)> {
    let mut all: BTreeMap<i64, (Vec<Event>, bool)> = BTreeMap::new();
    for leg in history.watches.iter().flat_map(|w| &w.legs) {
        let whole = sees_all(&leg.request);
        let with_events = leg.responses.iter().map(|(_, r)| r);
        for (response, event) in with_events.flat_map(|r| r.events.iter().map(move |e| (r, e))) {
            let Some(kv) = &event.kv else { continue };
            let (events, complete) = all.entry(kv.mod_revision).or_default();
            *complete |= whole && !response.fragment;
            let plain = Event { prev_kv: None, ..event.clone() };
            if !events.contains(&plain) {
                events.push(plain);
            }
        }
    }
    all
}

/// Versions of keys that answers named, by their revision. They tell what an operation of unknown
/// outcome must have done there. Empty values are left out: they may have been left out of the
/// answer.
pub(crate) fn named(history: &History) -> BTreeMap<i64, Vec<Event>> {
    fn of_txn<'a>(response: &'a TxnResponse, found: &mut Vec<&'a KeyValue>) {
        for op in &response.responses {
            match &op.response {
                Some(Op::ResponseRange(r)) => found.extend(&r.kvs),
                Some(Op::ResponsePut(r)) => found.extend(&r.prev_kv),
                Some(Op::ResponseDeleteRange(r)) => found.extend(&r.prev_kvs),
                Some(Op::ResponseTxn(r)) => of_txn(r, found),
                None => {}
            }
        }
    }
    let mut found: Vec<&KeyValue> = Vec::new();
    for response in history.operations.iter().filter_map(Operation::response) {
        match response {
            Response::Range(r) => found.extend(&r.kvs),
            Response::Put(r) => found.extend(&r.prev_kv),
            Response::DeleteRange(r) => found.extend(&r.prev_kvs),
            Response::Txn(r) => of_txn(r, &mut found),
            _ => {}
        }
    }
    let legs = history.watches.iter().flat_map(|w| &w.legs);
    let events = legs.flat_map(|leg| &leg.responses).flat_map(|(_, r)| &r.events);
    found.extend(events.filter_map(|event| event.prev_kv.as_ref()));
    let mut all: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
    for kv in found.into_iter().filter(|kv| !kv.value.is_empty()) {
        let events = all.entry(kv.mod_revision).or_default();
        let event = Event { kv: Some(kv.clone()), ..Event::default() };
        if !events.contains(&event) {
            events.push(event);
        }
    }
    all
}

/// From and up to which revision a leg has been given everything, if it keeps its promises.
fn passed(leg: &Leg) -> Option<(i64, i64, &WatchCreateRequest)> {
    let revision = |r: &WatchResponse| r.header.as_ref().map_or(0, |h| h.revision);
    let created = leg.responses.first().map(|(_, r)| r).filter(|r| r.created && !r.canceled)?;
    let from = match leg.request.start_revision {
        0 => revision(created) + 1,
        start => start,
    };
    let told = leg.responses[1..].iter().map(|(_, r)| match r.events.last() {
        // The last revision of a fragment may go on.
        Some(event) => event.kv.as_ref().map_or(0, |kv| kv.mod_revision - i64::from(r.fragment)),
        None if r.canceled => 0,
        None => revision(r),
    });
    Some((from, told.max()?, &leg.request))
}

fn sees_all(request: &WatchCreateRequest) -> bool {
    let all = request.range_end[..] == [0] && (request.key.is_empty() || request.key[..] == [0]);
    all && request.filters.is_empty()
}

/// Whether everything that watches saw of a revision is among its changes.
pub(crate) fn agrees(changes: &[Change], events: &[Event]) -> bool {
    events.iter().all(|event| changes.iter().any(|change| change.event() == *event))
}

/// Whether an answer says that its operation changed a key; `None` if it does not tell.
fn changed(op: &Operation, response: &Response) -> Option<bool> {
    fn in_txn(response: &TxnResponse) -> bool {
        response.responses.iter().any(|op| match &op.response {
            Some(Op::ResponsePut(_)) => true,
            Some(Op::ResponseDeleteRange(r)) => r.deleted > 0,
            Some(Op::ResponseTxn(r)) => in_txn(r),
            Some(Op::ResponseRange(_)) | None => false,
        })
    }
    match (&op.request, response) {
        (_, Response::Put(_)) => Some(true),
        (_, Response::DeleteRange(r)) => Some(r.deleted > 0),
        (_, Response::Txn(r)) => Some(in_txn(r)),
        (_, Response::LeaseRevoke(_)) => None,
        _ => Some(false),
    }
}

/// One revision that is being explained.
struct Choice {
    revision: i64,
    mark: Mark,
    candidates: Vec<Origin>,
    next: usize,
}

/// Who made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// An operation, by its place.
    Operation(usize),
    /// A lease ended.
    Expiry(i64),
}

struct Builder<'h> {
    history: &'h History,
    state: State,
    owners: BTreeMap<i64, usize>,
    /// Answered operations that changed nothing, by the revision they saw.
    quiet: BTreeMap<i64, Vec<usize>>,
    revokes: BTreeMap<i64, Vec<usize>>,
    unknown: Vec<usize>,
    leases: BTreeSet<i64>,
    observed: BTreeMap<i64, (Vec<Event>, bool)>,
    named: BTreeMap<i64, Vec<Event>>,
    seen: Seen,
    /// What watches have gone past: from and up to which revision.
    passed: Vec<(i64, i64, &'h WatchCreateRequest)>,
    /// The origin of each revision so far, from the first on.
    origins: Vec<Origin>,
    /// Where in the log operations are, and how many entries it has.
    logged: BTreeMap<usize, usize>,
}

/// Entries of the log that are looked at for the maker of one revision: those between change
/// nothing.
const MAX_LOOKED_AT: usize = 4_000;

impl Replay {
    /// Replays a history.
    ///
    /// # Errors
    /// [`Property::Revisions`], [`Property::Phantom`] or [`Property::Reads`].
    pub fn of(history: &History) -> Result<Self, Violation> {
        let mut builder = Builder::new(history)?;
        let first = builder.state.revision();
        builder.run()?;
        let Builder { state, seen, origins, .. } = builder;
        let expired =
            origins.iter().zip(first + 1..).filter_map(|(origin, revision)| match origin {
                Origin::Expiry(lease) => Some((revision, *lease)),
                Origin::Operation(_) => None,
            });
        let expired = expired.collect();
        Ok(Self { state, first, seen, expired, compactions: compactions(history) })
    }

    /// The newest revision that anyone saw.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.state.revision()
    }

    /// The revision that everything began with.
    #[must_use]
    pub fn first(&self) -> i64 {
        self.first
    }

    /// How many revisions were made.
    #[must_use]
    pub fn revisions(&self) -> usize {
        usize::try_from(self.newest() - self.first).unwrap_or(0)
    }

    /// Every version of every key.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl<'h> Builder<'h> {
    fn new(history: &'h History) -> Result<Self, Violation> {
        let mut builder = Self {
            history,
            state: State { endless_leases: true, ..history.start() },
            owners: BTreeMap::new(),
            quiet: BTreeMap::new(),
            revokes: BTreeMap::new(),
            unknown: Vec::new(),
            leases: BTreeSet::new(),
            observed: observed(history),
            named: named(history),
            seen: Seen::of(history),
            passed: Vec::new(),
            origins: Vec::new(),
            logged: BTreeMap::new(),
        };
        for (at, logged) in history.log.iter().flatten().enumerate() {
            if let Logged::Operation(place) = logged {
                builder.logged.entry(*place).or_insert(at);
            }
        }
        for (place, op) in history.operations.iter().enumerate() {
            if let Request::LeaseGrant(r) = op.taken()
                && !matches!(op.outcome, Outcome::Refused(_))
            {
                builder.leases.insert(r.id);
                builder.state.leases.insert(r.id, r.ttl);
            }
            match &op.outcome {
                Outcome::Refused(_) => {}
                Outcome::Unknown if op.is_read() => {}
                Outcome::Unknown => builder.unknown.push(place),
                Outcome::Answered(response) => builder.answered(place, op, response)?,
            }
        }
        builder.leases.extend(builder.state.leases().keys());
        builder.passed = history.watches.iter().flat_map(|w| &w.legs).filter_map(passed).collect();
        Ok(builder)
    }

    fn answered(&mut self, at: usize, op: &Operation, got: &Response) -> Result<(), Violation> {
        let revision = got.revision();
        if matches!(op.request, Request::HashKv(_) | Request::LeaseKeepAlive(_)) {
            return Ok(());
        }
        match changed(op, got) {
            Some(true) => {
                if let Some(other) = self.owners.insert(revision, at) {
                    let other = &self.history.operations[other];
                    return Err(Violation::new(
                        Property::Revisions,
                        format!("revision {revision} was given to {op:?} and to {other:?}"),
                    ));
                }
            }
            Some(false) => self.quiet.entry(revision).or_default().push(at),
            None => self.revokes.entry(revision).or_default().push(at),
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Violation> {
        let newest = self.seen.newest();
        let first = self.state.revision();
        let mut choices: Vec<Choice> = Vec::new();
        let mut tries = 0;
        let mut failed = self.settle(first).err();
        if let Some(violation) = failed {
            return Err(violation);
        }
        while self.state.revision() < newest {
            let revision = self.state.revision() + 1;
            let candidates = self.candidates(revision);
            choices.push(Choice { revision, mark: self.state.mark(), candidates, next: 0 });
            failed = None;
            loop {
                let Some(choice) = choices.last_mut() else {
                    return Err(failed.expect("going back began with a failure"));
                };
                let (revision, mark) = (choice.revision, choice.mark);
                self.state.go_back(mark);
                self.origins.truncate(usize::try_from(revision - first - 1).unwrap_or(0));
                let Some(&origin) = choice.candidates.get(choice.next) else {
                    if failed.is_none() {
                        failed = Some(self.unexplained(revision));
                    }
                    choices.pop();
                    continue;
                };
                choice.next += 1;
                tries += 1;
                if tries > MAX_TRIES + self.history.operations.len() {
                    let mut violation = failed.unwrap_or_else(|| self.unexplained(revision));
                    violation.what += &format!(" (given up after {tries} tries)");
                    return Err(violation);
                }
                match self.explain(revision, origin) {
                    Ok(()) => break,
                    // The first failure is the one to tell: going back only makes it odder.
                    Err(violation) => failed = failed.or(Some(violation)),
                }
            }
        }
        Ok(())
    }

    fn unexplained(&self, revision: i64) -> Violation {
        let seen = self.observed.get(&revision).map(|(events, _)| events);
        Violation::new(
            Property::Phantom,
            format!(
                "revision {revision} was made by nothing that anyone asked for; seen: {seen:?}"
            ),
        )
    }

    /// Who can have made a revision, the likeliest first.
    fn candidates(&self, revision: i64) -> Vec<Origin> {
        if let Some(owner) = self.owners.get(&revision) {
            return vec![Origin::Operation(*owner)];
        }
        if let Some(log) = &self.history.log {
            return self.logged_behind(log);
        }
        let seen = self.seen.at(revision);
        let mut found: Vec<Origin> = Vec::new();
        let revokes = self.revokes.get(&revision).into_iter().flatten();
        found.extend(revokes.map(|at| Origin::Operation(*at)));
        // Those first that were called about when the revision before was made.
        let call = |at: &usize| self.history.operations[*at].call;
        let about = self.owners.range(..revision).next_back().map_or(0, |(_, at)| call(at));
        let unused = |at: &&usize| !self.origins.contains(&Origin::Operation(**at));
        let mut unknown: Vec<usize> =
            self.unknown.iter().filter(|at| call(at) <= seen).filter(unused).copied().collect();
        unknown.sort_by_cached_key(|at| call(at).abs_diff(about));
        found.extend(unknown.into_iter().map(Origin::Operation));
        found.extend(self.leases.iter().map(|lease| Origin::Expiry(*lease)));
        found
    }

    /// What the log holds behind the maker of the newest revision, in its order.
    fn logged_behind(&self, log: &[Logged]) -> Vec<Origin> {
        let from = self.origins.iter().rev().find_map(|origin| match origin {
            Origin::Operation(place) => self.logged.get(place).map(|at| at + 1),
            // A lease may be ended by several entries; only the first changes anything.
            Origin::Expiry(_) => None,
        });
        let from = from.unwrap_or(0);
        let unique = |at: usize, place: usize| self.logged.get(&place) == Some(&at);
        let mut found = Vec::new();
        for (at, logged) in log.iter().enumerate().skip(from).take(MAX_LOOKED_AT) {
            match logged {
                Logged::Operation(place) if unique(at, *place) => {
                    found.push(Origin::Operation(*place));
                    // Whoever was told of its revision made that one and no other.
                    let response = self.history.operations[*place].response();
                    let makes = response.and_then(|r| changed(&self.history.operations[*place], r));
                    if makes == Some(true) {
                        break;
                    }
                }
                // An operation has one place in the log.
                Logged::Operation(_) => {}
                Logged::Expiry(lease) => found.push(Origin::Expiry(*lease)),
            }
        }
        found
    }

    /// Lets `origin` make the next revision, and everything that saw it look.
    fn explain(&mut self, revision: i64, origin: Origin) -> Result<(), Violation> {
        let (request, response) = match origin {
            Origin::Operation(at) => {
                let op = &self.history.operations[at];
                (op.taken(), op.response())
            }
            Origin::Expiry(lease) => (Request::LeaseExpire(lease), None),
        };
        if let Origin::Expiry(lease) = origin
            && self.state.attached(lease).is_empty()
        {
            return Err(self.unexplained(revision));
        }
        let answer = self.state.apply(&request);
        if self.state.revision() != revision {
            return Err(match response {
                Some(_) => Violation::new(
                    Property::Revisions,
                    format!("{request:?} was told {response:?}, but it changes nothing there"),
                ),
                None => self.unexplained(revision),
            });
        }
        if let (Some(got), Ok(Some(answer))) = (response, &answer)
            && !answer.accepts(got)
        {
            return Err(Violation::new(
                Property::Revisions,
                format!("{request:?} was told {got:?}, not {answer:?}"),
            ));
        }
        if let Some((events, complete)) = self.observed.get(&revision) {
            let changes = self.state.changes(revision);
            let missing = |place: usize| {
                let removed = self.state.is_replaced(revision, place) && self.compacted(revision);
                !removed && !events.contains(&changes[place].event())
            };
            let all = 0..changes.len();
            if !agrees(changes, events) || (*complete && all.into_iter().any(missing)) {
                if response.is_none() {
                    return Err(self.unexplained(revision));
                }
                return Err(Violation::new(
                    Property::Revisions,
                    format!("revision {revision} has {changes:?}, watches saw {events:?}"),
                ));
            }
        }
        let contradicted = || {
            let named = self.named.get(&revision);
            named.is_some_and(|events| !agrees(self.state.changes(revision), events))
        };
        if response.is_none() && (contradicted() || self.was_missed(revision)) {
            return Err(self.unexplained(revision));
        }
        self.origins.push(origin);
        self.settle(revision)
    }

    /// Whether someone may have compacted to exactly this revision.
    fn compacted(&self, revision: i64) -> bool {
        self.history.compacts_itself
            || self.history.operations.iter().any(|op| {
                let to_it = matches!(&op.request, Request::Compact(r) if r.revision == revision);
                to_it && !matches!(op.outcome, Outcome::Refused(_))
            })
    }

    /// Whether a watch went past a revision without an event that it should have had of it.
    fn was_missed(&self, revision: i64) -> bool {
        let events = self.observed.get(&revision).map_or(&[][..], |(events, _)| events);
        if self.compacted(revision) {
            return false;
        }
        self.state.changes(revision).iter().any(|change| {
            let wanted = self.passed.iter().any(|(from, upto, request)| {
                (*from..=*upto).contains(&revision) && crate::watch::wants(request, change)
            });
            wanted && !events.contains(&change.event())
        })
    }

    /// Checks everything that saw the store at `revision`.
    fn settle(&mut self, revision: i64) -> Result<(), Violation> {
        let quiet = self.quiet.get(&revision).into_iter().flatten();
        let revokes = self.revokes.get(&revision).into_iter().flatten();
        let makers = &self.origins;
        let others = revokes.filter(|at| makers.last() != Some(&Origin::Operation(**at)));
        for at in quiet.chain(others) {
            let op = &self.history.operations[*at];
            let got = op.response().expect("only answered operations are listed");
            let request = match &op.request {
                // Whether it may be read at all is checked elsewhere.
                Request::Compact(_) => continue,
                Request::LeaseGrant(_) => continue,
                request => request,
            };
            let mark = self.state.mark();
            let answer = self.state.apply(request);
            let same = self.state.revision() == revision;
            self.state.go_back(mark);
            match answer {
                Ok(Some(answer)) if same && answer.accepts(got) => {}
                other => {
                    return Err(Violation::new(
                        Property::Reads,
                        format!("{request:?} was told {got:?}, not {other:?}"),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn compactions(history: &History) -> Vec<(u64, u64, i64)> {
    let compaction = |op: &Operation| match (&op.request, &op.outcome) {
        (_, Outcome::Refused(_)) => None,
        (Request::Compact(r), _) => Some((op.call, op.end(), r.revision)),
        _ => None,
    };
    history.operations.iter().filter_map(compaction).collect()
}

/// Checks the order of what was shown in real time, and that compacted and future revisions are
/// refused, and only those.
///
/// # Errors
/// [`Property::RealTime`] or [`Property::Compaction`].
pub fn check_reads(history: &History, replay: &Replay) -> Result<(), Violation> {
    let mut shown: Vec<(u64, i64)> = Vec::new();
    for op in &history.operations {
        if let (Some(response), Some(at)) = (op.response(), op.returned) {
            shown.push((at, response.revision()));
        }
    }
    for (at, response) in history.watches.iter().flat_map(|w| &w.legs).flat_map(|l| &l.responses) {
        shown.push((*at, response.header.as_ref().map_or(0, |h| h.revision)));
    }
    shown.sort_unstable();
    let mut newest = Vec::with_capacity(shown.len());
    let mut max = 0;
    for (at, revision) in &shown {
        max = max.max(*revision);
        newest.push((*at, max));
    }
    // The newest revision that anyone had been shown before a time.
    let before = |time: u64| {
        let end = newest.partition_point(|(at, _)| *at < time);
        newest[..end].last().map_or(replay.first, |(_, revision)| *revision)
    };
    for op in &history.operations {
        if op.is_serializable() && !history.one_member {
            continue;
        }
        let floor = before(op.call);
        if let Some(response) = op.response().filter(|r| r.header().is_some()) {
            let writes = changed(op, response) == Some(true);
            let least = if writes { floor + 1 } else { floor };
            if response.revision() < least {
                return Err(Violation::new(
                    Property::RealTime,
                    format!("revision {floor} had been seen before {op:?}"),
                ));
            }
        }
        check_compaction(history, replay, op, floor)?;
    }
    Ok(())
}

/// Revisions that an operation reads by number.
fn asked(request: &Request) -> Option<i64> {
    match request {
        Request::Range(r) if r.revision > 0 => Some(r.revision),
        Request::Compact(r) => Some(r.revision),
        _ => None,
    }
}

fn check_compaction(
    history: &History,
    replay: &Replay,
    op: &Operation,
    floor: i64,
) -> Result<(), Violation> {
    let Some(asked) = asked(&op.request) else { return Ok(()) };
    let fail = |why: &str| Err(Violation::new(Property::Compaction, format!("{why}: {op:?}")));
    // Not this very one.
    let own = (op.call, op.end(), asked);
    let compacts = matches!(op.request, Request::Compact(_));
    let others = || replay.compactions.iter().filter(move |other| !compacts || **other != own);
    // A compaction needs a revision above the last one; a read may be at it.
    let least = |target: i64| if compacts { target + 1 } else { target };
    match &op.outcome {
        Outcome::Answered(_) => {
            if others().any(|(_, end, target)| *end < op.call && asked < least(*target)) {
                return fail("answered behind a compaction");
            }
        }
        Outcome::Refused(status) if status.message == ApiError::Compacted.text() => {
            let start = history.start().compact_revision();
            let possible = history.compacts_itself
                || asked < least(start)
                || others().any(|(call, _, target)| *call <= op.end() && asked < least(*target));
            if !possible {
                return fail("nobody compacted that far");
            }
        }
        Outcome::Refused(status) if status.message == ApiError::FutureRevision.text() => {
            if asked <= floor {
                return fail("the revision had been seen before");
            }
        }
        Outcome::Refused(_) | Outcome::Unknown => {}
    }
    Ok(())
}

/// Checks that equal revisions have equal hashes, over restarts and members.
///
/// At a revision that was compacted to, etcd answers with the hash that the compaction stored,
/// which counts a tombstone there; before, it answers with one that does not. The two are told
/// apart by time. A member may lag behind, and then there may be either: two hashes at most.
///
/// # Errors
/// [`Property::Hashes`].
pub fn check_hashes(history: &History) -> Result<(), Violation> {
    let mut known: BTreeMap<(i64, i64), BTreeMap<Stored, BTreeSet<u32>>> = BTreeMap::new();
    for op in &history.operations {
        let Some(Response::HashKv(r)) = op.response() else { continue };
        let Some(stored) = is_stored_hash(history, op, r) else { continue };
        let of = (r.hash_revision, r.compact_revision);
        known.entry(of).or_default().entry(stored).or_default().insert(r.hash);
    }
    for ((revision, compacted), kinds) in known {
        let all: BTreeSet<u32> = kinds.values().flatten().copied().collect();
        let is_one = |(kind, hashes): (&Stored, &BTreeSet<u32>)| {
            *kind == Stored::Either || hashes.len() == 1
        };
        if all.len() > 2 || !kinds.iter().all(is_one) {
            return Err(Violation::new(
                Property::Hashes,
                format!("revision {revision} compacted at {compacted} has hashes {kinds:?}"),
            ));
        }
    }
    Ok(())
}

/// Whether a hash at a revision was stored by the compaction to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stored {
    No,
    Yes,
    /// It depends on whether the member had applied the compaction.
    Either,
}

/// Which hash this is; `None` if nobody can tell.
fn is_stored_hash(history: &History, op: &Operation, hash: &HashKvResponse) -> Option<Stored> {
    let revision = hash.hash_revision;
    let compactions = history.operations.iter().filter_map(|other| match &other.request {
        Request::Compact(r) if !matches!(other.outcome, Outcome::Refused(_)) => {
            Some((other, r.revision))
        }
        _ => None,
    });
    let to_it: Vec<_> = compactions.filter(|(_, target)| *target == revision).collect();
    if to_it.iter().all(|(compaction, _)| op.end() < compaction.call) {
        return (!history.compacts_itself).then_some(Stored::No);
    }
    if hash.compact_revision >= revision {
        return Some(Stored::No);
    }
    // Behind it only the stored hash counts from the compaction before, unless a member lags.
    let behind = to_it.iter().any(|(compaction, _)| compaction.end() < op.call);
    match (behind, history.one_member) {
        (true, true) => Some(Stored::Yes),
        (true, false) => Some(Stored::Either),
        (false, _) => None,
    }
}
