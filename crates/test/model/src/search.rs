//! A linearizability search: is there one order of all operations, true to real time, in which the
//! model answers each as it was answered?
//!
//! After Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with Lowe's memory of
//! (operations done, state) pairs that led nowhere (2017). Made for etcd's histories: every answer
//! names a revision, so an operation is tried only where that revision is next; an answered
//! operation that changes nothing is taken as soon as it fits. Operations of unknown outcome may
//! be taken at any time after their call, or never; leases may end by themselves.

use std::collections::{BTreeMap, HashSet};

use api::mvccpb::Event;

use crate::history::{History, Operation, Outcome, Request};
use crate::oracle::{agrees, named, observed};
use crate::state::{Mark, State};

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// An order; the numbers are places in `History::operations`. Operations without effect whose
    /// outcome nobody knows are left out.
    Linearizable(Vec<usize>),
    /// There is no such order.
    Impossible {
        /// The longest beginning of one.
        done: usize,
        /// An operation that would have had to follow.
        stuck: String,
    },
    /// The steps allowed were used up.
    Exhausted,
}

/// An operation on the way.
struct Item {
    /// Its place in the history; none for leases that end by themselves.
    place: Option<usize>,
    call: u64,
    end: u64,
    request: Request,
    outcome: Outcome,
    /// A random number, by which sets of operations are told apart.
    token: u128,
}

struct Frame {
    mark: Mark,
    done: usize,
    candidates: Vec<usize>,
    next: usize,
}

struct Searcher {
    items: Vec<Item>,
    taken: Vec<bool>,
    /// First item, by call, that is not taken.
    first: usize,
    order: Vec<usize>,
    /// Answered or refused items not taken yet.
    left: usize,
    set: u128,
    state: State,
    /// What watches saw of each revision, and what answers named of it.
    known: BTreeMap<i64, Vec<Event>>,
    steps: usize,
}

/// Searches with at most `max_steps` tries of an operation.
#[must_use]
pub fn linearize(history: &History, max_steps: usize) -> Search {
    let mut searcher = Searcher::new(history, max_steps);
    let mut frames: Vec<Frame> = Vec::new();
    let mut dead: HashSet<(u128, u64)> = HashSet::new();
    let mut furthest = (0, String::new());
    loop {
        searcher.take_what_changes_nothing();
        if searcher.left == 0 {
            let places = searcher.order.iter().filter_map(|i| searcher.items[*i].place);
            return Search::Linearizable(places.collect());
        }
        if searcher.steps == 0 {
            return Search::Exhausted;
        }
        if searcher.order.len() >= furthest.0 {
            furthest = (searcher.order.len(), searcher.next_due());
        }
        let fresh = dead.insert((searcher.set, searcher.state.fingerprint()));
        let candidates = if fresh { searcher.candidates() } else { Vec::new() };
        let (mark, done) = (searcher.state.mark(), searcher.order.len());
        frames.push(Frame { mark, done, candidates, next: 0 });
        // Takes the next candidate that fits, going back as far as it must.
        loop {
            let Some(frame) = frames.last_mut() else {
                return Search::Impossible { done: furthest.0, stuck: furthest.1 };
            };
            searcher.go_back(frame.done, frame.mark);
            let Some(&candidate) = frame.candidates.get(frame.next) else {
                frames.pop();
                continue;
            };
            frame.next += 1;
            if searcher.try_item(candidate) {
                break;
            }
            if searcher.steps == 0 {
                return Search::Exhausted;
            }
        }
    }
}

impl Searcher {
    fn new(history: &History, max_steps: usize) -> Self {
        let mut items = Vec::new();
        let mut entropy = env::SplitMix::new(1);
        let mut token = || {
            use env::Entropy;
            u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64())
        };
        let ignored = |op: &Operation| {
            op.is_serializable() || (op.is_read() && op.outcome == Outcome::Unknown)
        };
        for (place, op) in history.operations.iter().enumerate().filter(|(_, op)| !ignored(op)) {
            items.push(Item {
                place: Some(place),
                call: op.call,
                end: op.end(),
                request: op.taken(),
                outcome: op.outcome.clone(),
                token: token(),
            });
        }
        for (lease, call) in crate::lease::earliest_ends(history) {
            items.push(Item {
                place: None,
                call,
                end: u64::MAX,
                request: Request::LeaseExpire(lease),
                outcome: Outcome::Unknown,
                token: token(),
            });
        }
        items.sort_by_key(|item| (item.call, item.end));
        let left = items.iter().filter(|item| item.outcome != Outcome::Unknown).count();
        let mut known = named(history);
        for (revision, (events, _)) in observed(history) {
            known.entry(revision).or_default().extend(events);
        }
        Self {
            taken: vec![false; items.len()],
            items,
            first: 0,
            order: Vec::new(),
            left,
            set: 0,
            state: history.start(),
            known,
            steps: max_steps,
        }
    }

    /// The items that real time allows to come next.
    fn enabled(&mut self) -> Vec<usize> {
        while self.taken.get(self.first) == Some(&true) {
            self.first += 1;
        }
        let (mut found, mut soonest) = (Vec::new(), u64::MAX);
        for (i, item) in self.items.iter().enumerate().skip(self.first) {
            if self.taken[i] {
                continue;
            }
            if item.call > soonest {
                break;
            }
            soonest = soonest.min(item.end);
            found.push(i);
        }
        found.retain(|i| self.items[*i].call <= soonest);
        found
    }

    fn take(&mut self, i: usize) {
        self.taken[i] = true;
        self.set ^= self.items[i].token;
        self.left -= usize::from(self.items[i].outcome != Outcome::Unknown);
        self.order.push(i);
    }

    fn go_back(&mut self, done: usize, mark: Mark) {
        for i in self.order.drain(done..) {
            self.taken[i] = false;
            self.set ^= self.items[i].token;
            self.left += usize::from(self.items[i].outcome != Outcome::Unknown);
            self.first = self.first.min(i);
        }
        self.state.go_back(mark);
    }

    /// Applies an item if it fits here. Returns whether it did, and whether it changed anything.
    fn apply(&mut self, i: usize) -> Option<bool> {
        let item = &self.items[i];
        let hint = match &item.outcome {
            Outcome::Answered(response) => Some(response.revision()),
            Outcome::Refused(_) | Outcome::Unknown => None,
        };
        let now = self.state.revision();
        if hint.is_some_and(|hint| hint != now && hint != now + 1) {
            return None;
        }
        self.steps = self.steps.saturating_sub(1);
        let (mark, before) = (self.state.mark(), self.state.fingerprint());
        let result = self.state.apply(&item.request);
        let fits = match (&item.outcome, &result) {
            (Outcome::Answered(got), Ok(Some(answer))) => answer.accepts(got),
            // The gateway may refuse for reasons of its own (too many requests, sizes, who asks).
            (Outcome::Refused(status), _) if !is_models(status) => {
                self.state.go_back(mark);
                return Some(false);
            }
            (Outcome::Refused(status), Err(error)) => {
                (status.code, &status.message[..]) == (error.code(), error.text())
            }
            (Outcome::Refused(_), Ok(_)) => {
                self.state.go_back(mark);
                return None;
            }
            (Outcome::Unknown, Ok(_)) => true,
            _ => false,
        };
        let after = self.state.revision();
        let known = after == now
            || self
                .known
                .get(&after)
                .is_none_or(|events| agrees(self.state.changes(after), events));
        if !fits || !known {
            self.state.go_back(mark);
            return None;
        }
        Some(self.state.fingerprint() != before)
    }

    /// Takes every answered item that fits here and changes nothing: no order is lost by that.
    fn take_what_changes_nothing(&mut self) {
        loop {
            let mut progress = false;
            for i in self.enabled() {
                if self.items[i].outcome == Outcome::Unknown {
                    continue;
                }
                let mark = self.state.mark();
                match self.apply(i) {
                    Some(false) => {
                        self.take(i);
                        progress = true;
                    }
                    Some(true) => self.state.go_back(mark),
                    None => {}
                }
            }
            if !progress {
                return;
            }
        }
    }

    /// What might come next: answered operations first, then those nobody knows of; last those
    /// that make no revision, which are needed least.
    fn candidates(&mut self) -> Vec<usize> {
        let mut enabled = self.enabled();
        let makes_none = |item: &Item| match &item.request {
            Request::LeaseGrant(_) | Request::Compact(_) => true,
            Request::LeaseRevoke(r) => self.state.attached(r.id).is_empty(),
            Request::LeaseExpire(id) => self.state.attached(*id).is_empty(),
            _ => false,
        };
        enabled.sort_by_cached_key(|i| {
            let item = &self.items[*i];
            let unknown = item.outcome == Outcome::Unknown;
            (unknown, unknown && makes_none(item))
        });
        enabled
    }

    fn try_item(&mut self, i: usize) -> bool {
        let mark = self.state.mark();
        match self.apply(i) {
            Some(true) => {
                self.take(i);
                true
            }
            // Answered ones that change nothing were taken before; of others it is no use.
            Some(false) => {
                self.state.go_back(mark);
                false
            }
            None => false,
        }
    }

    /// The answered operation that ends first, for people.
    fn next_due(&self) -> String {
        let left = self.items.iter().zip(&self.taken).filter(|(_, taken)| !**taken);
        let due = left.map(|(item, _)| item).min_by_key(|item| item.end);
        due.map_or_else(String::new, |item| {
            format!("{:?} -> {:?} (store at {})", item.request, item.outcome, self.state.revision())
        })
    }
}

/// Whether the model itself would refuse with this status.
fn is_models(status: &api::error::Status) -> bool {
    use api::error::ApiError as E;
    let of_state = [
        E::EmptyKey,
        E::KeyNotFound,
        E::ValueProvided,
        E::LeaseProvided,
        E::TooManyOps,
        E::DuplicateKey,
        E::InvalidSortOption,
        E::Compacted,
        E::FutureRevision,
        E::LeaseNotFound,
        E::LeaseExists,
        E::LeaseTtlTooLarge,
    ];
    of_state.iter().any(|e| (e.code(), e.text()) == (status.code, &status.message[..]))
}
