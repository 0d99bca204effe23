//! Walks over the newest changes in memory: the hub's, a lagging stream's, one watcher's.
//!
//! A walk goes revision by revision. Within one, every watcher that matches gets its events in one
//! response; the bytes are encoded once per distinct list of events.

use store::View;
use types::Revision;

use crate::events::Seen;
use crate::history::RESPONSE_BYTES;
use crate::hub::{Flow, Response, Sink, State, StreamId, WatchHub};
use crate::matcher::Matcher;

/// Whether a budgeted walk came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    More,
    /// The walk is complete.
    Done,
}

/// How far a resumed stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The stream keeps up with the hub again.
    Synced,
    /// The client's window is full again.
    Full,
    /// The budget is spent: call again.
    More,
}

/// Whose walk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Hub,
    Stream(u32),
}

/// The changes of one main revision.
struct Group<'v> {
    main: i64,
    events: Vec<Seen<'v>>,
}

/// Changes by main revision, out of memory.
struct Groups<'v> {
    tail: store::Tail<'v>,
    ahead: Option<Seen<'v>>,
}

impl<'v> Groups<'v> {
    /// From a main revision on; `None` if memory does not reach back that far.
    fn from(view: &'v View, main: i64) -> Option<Self> {
        let mut tail = view.tail(store::Rev::first_of(Revision(main)))?;
        let ahead = next_seen(&mut tail);
        Some(Self { tail, ahead })
    }

    /// Replaces `group` by the next revision's changes; false at the end.
    fn next(&mut self, group: &mut Group<'v>) -> bool {
        group.events.clear();
        let Some(first) = self.ahead.take() else { return false };
        group.main = first.main;
        group.events.push(first);
        while let Some(seen) = next_seen(&mut self.tail) {
            if seen.main != group.main {
                self.ahead = Some(seen);
                break;
            }
            group.events.push(seen);
        }
        true
    }
}

fn next_seen<'v>(tail: &mut store::Tail<'v>) -> Option<Seen<'v>> {
    let event = tail.next()?;
    let seen = Seen::new(event.rev(), event.is_tombstone(), event.stored());
    Some(seen.expect("memory holds what this process encoded"))
}

impl<A> WatchHub<A> {
    /// Gives synced watchers what is new in `view`, and answers progress requests at its end.
    /// `budget` is in events and responses; one revision may exceed it.
    pub fn advance(&mut self, view: &View, budget: usize, sink: &mut impl Sink) -> Step {
        let end = view.revision().0 + 1;
        if self.synced > 0 && self.position < end {
            match Groups::from(view, self.position) {
                Some(groups) => {
                    if self.walk_hub(view, groups, budget, sink) == Step::More {
                        return Step::More;
                    }
                }
                // This thread was away for longer than memory reaches back.
                None => self.all_to_history(),
            }
        }
        self.position = self.position.max(end);
        self.answer_progress(sink);
        Step::Done
    }

    fn walk_hub(
        &mut self,
        view: &View,
        mut groups: Groups<'_>,
        budget: usize,
        sink: &mut impl Sink,
    ) -> Step {
        let mut group = Group { main: 0, events: Vec::new() };
        let mut left = budget;
        while groups.next(&mut group) {
            let spent = group.events.len() + self.deliver(view, Scope::Hub, &group, sink).0;
            self.position = group.main + 1;
            left = left.saturating_sub(spent);
            if left == 0 && groups.ahead.is_some() {
                return Step::More;
            }
        }
        Step::Done
    }

    fn all_to_history(&mut self) {
        for slot in 0..u32::try_from(self.watchers.len()).expect("slots are u32") {
            let Some(watcher) = &self.watchers[slot as usize] else { continue };
            let synced = self.streams[watcher.stream as usize].lag.is_none();
            if synced && watcher.state == State::Live {
                self.demote(slot, self.position);
            }
        }
    }

    /// Makes a live watcher, which has everything below `position`, read history.
    fn demote(&mut self, slot: u32, position: i64) {
        self.detach(slot);
        let watcher = self.watcher_mut(slot);
        watcher.next = watcher.next.max(position);
        self.make_ready(slot);
    }

    /// Goes on with a stream whose client takes responses again. [`WatchHub::advance`] need not
    /// have come to the View's end.
    pub fn resume(
        &mut self,
        stream: StreamId,
        view: &View,
        budget: usize,
        sink: &mut impl Sink,
    ) -> Resumed {
        let (id, mut left) = (stream.0, budget);
        self.skip_idle(view.revision());
        let at = &mut self.streams[id as usize];
        let Some(lag) = &mut at.lag else { return Resumed::Synced };
        let position = lag.position;
        if position >= self.position || at.live == 0 {
            self.end_lag(id);
            return Resumed::Synced;
        }
        let Some(mut groups) = Groups::from(view, position) else {
            let slots: Vec<u32> = at.ids.values().copied().collect();
            for slot in slots {
                if self.watcher(slot).state == State::Live {
                    self.demote(slot, position);
                }
            }
            self.end_lag(id);
            return Resumed::Synced;
        };
        if lag.matcher.is_none() {
            let mut matcher = Matcher::new(self.hash_seed);
            for slot in at.ids.values() {
                let watcher = self.watchers[*slot as usize].as_ref().expect("ids name watchers");
                if watcher.state == State::Live {
                    matcher.insert(&watcher.keys, *slot);
                }
            }
            lag.matcher = Some(matcher);
        }
        let mut group = Group { main: 0, events: Vec::new() };
        while groups.next(&mut group) && group.main < self.position {
            let (responses, flow) = self.deliver(view, Scope::Stream(id), &group, sink);
            let full = flow == Flow::Full;
            let lag = self.streams[id as usize].lag.as_mut().expect("only end_lag ends it");
            lag.position = if full { group.main } else { group.main + 1 };
            if full {
                return Resumed::Full;
            }
            left = left.saturating_sub(group.events.len() + responses);
            if left == 0 {
                return Resumed::More;
            }
        }
        self.end_lag(id);
        Resumed::Synced
    }

    /// Brings one watcher, which is in no list, from its own position to the hub's, if memory
    /// reaches that far back and it is not more than `budget` events. Afterwards it is in a list.
    pub(crate) fn join(&mut self, slot: u32, view: &View, budget: usize, sink: &mut impl Sink) {
        let next = self.watcher(slot).next;
        if next >= self.position {
            self.make_live(slot);
            return;
        }
        let Some(mut groups) = Groups::from(view, next) else {
            self.make_ready(slot);
            return;
        };
        let watcher = self.watcher(slot);
        let (filter, prev, fragment) = (watcher.filter, watcher.prev, watcher.fragment);
        let (watch, stream) = (watcher.id, watcher.stream);
        let mut group = Group { main: 0, events: Vec::new() };
        let (mut wanted, mut end, mut seen, mut bytes) = (Vec::new(), next, 0, 0);
        while end < self.position && seen < budget && bytes < RESPONSE_BYTES {
            if !groups.next(&mut group) || group.main >= self.position {
                end = self.position;
                break;
            }
            seen += group.events.len();
            end = group.main + 1;
            for event in &group.events {
                if watcher.keys.contains(event.key) && !filter.drops(event.tombstone) {
                    bytes += event.size_bytes();
                    wanted.push(*event);
                }
            }
        }
        let mut flow = Flow::Open;
        if !wanted.is_empty() {
            let count = u32::try_from(wanted.len()).expect("changes of a revision fit");
            let list: Vec<u32> = (0..count).collect();
            self.bodies.clear();
            let Ok(body) = self.bodies.get(view, &wanted, &list, prev) else {
                self.watcher_mut(slot).cold = true;
                self.make_ready(slot);
                return;
            };
            let revision = self.revision();
            let response = Response::Events { watch, revision, body: &body, fragment };
            flow = sink.send(StreamId(stream), response);
            self.watcher_mut(slot).quiet = false;
        }
        self.watcher_mut(slot).next = end;
        if flow == Flow::Full {
            self.set_lag(stream, self.position);
            self.park(slot);
        } else if end < self.position {
            self.make_ready(slot);
        } else {
            self.make_live(slot);
        }
    }

    /// Gives the changes of one revision to whom they concern. Returns the number of responses,
    /// and for the scope of one stream whether that is full.
    fn deliver(
        &mut self,
        view: &View,
        scope: Scope,
        group: &Group<'_>,
        sink: &mut impl Sink,
    ) -> (usize, Flow) {
        let mut pairs = std::mem::take(&mut self.pairs);
        self.match_group(scope, group, &mut pairs);
        self.bodies.clear();
        let (mut responses, mut flow, mut list) = (0, Flow::Open, Vec::new());
        for pairs in pairs.chunk_by(|a, b| a.0 == b.0) {
            let slot = pairs[0].0;
            let watcher = self.watchers[slot as usize].as_mut().expect("matched just now");
            let stream = watcher.stream;
            if scope == Scope::Hub && self.streams[stream as usize].lag.is_some() {
                continue; // full since the match
            }
            list.clear();
            list.extend(pairs.iter().map(|pair| pair.1));
            let Ok(body) = self.bodies.get(view, &group.events, &list, watcher.prev) else {
                self.demote(slot, group.main);
                self.watcher_mut(slot).cold = true;
                continue;
            };
            watcher.next = group.main + 1;
            watcher.quiet = false;
            let (watch, fragment) = (watcher.id, watcher.fragment);
            let revision = Revision(group.main);
            let response = Response::Events { watch, revision, body: &body, fragment };
            responses += 1;
            if sink.send(StreamId(stream), response) == Flow::Full {
                if scope == Scope::Hub {
                    self.set_lag(stream, group.main);
                } else {
                    flow = Flow::Full;
                    break;
                }
            }
        }
        pairs.clear();
        self.pairs = pairs;
        (responses, flow)
    }

    /// (watcher, event) for everyone who is to get an event of the group, by watcher.
    fn match_group(&mut self, scope: Scope, group: &Group<'_>, pairs: &mut Vec<(u32, u32)>) {
        let mut found = std::mem::take(&mut self.found);
        for (i, event) in group.events.iter().enumerate() {
            let i = u32::try_from(i).expect("changes of a revision are counted by u32");
            found.clear();
            match scope {
                Scope::Hub => self.index.find(event.key, &mut found),
                Scope::Stream(stream) => {
                    let lag = self.streams[stream as usize].lag.as_ref();
                    let matcher = lag.and_then(|lag| lag.matcher.as_ref());
                    matcher.expect("made before its walk").find(event.key, &mut found);
                }
            }
            for &slot in &found {
                let watcher = self.watcher(slot);
                if watcher.next > event.main || watcher.filter.drops(event.tombstone) {
                    continue;
                }
                let lags = self.streams[watcher.stream as usize].lag.is_some();
                if scope != Scope::Hub || !lags {
                    pairs.push((slot, i));
                }
            }
        }
        self.found = found;
        // By watcher, and so in order of creation; mostly they are already.
        pairs.sort_unstable();
    }
}
