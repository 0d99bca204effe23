//! Watches: what etcd's robustness suite asks of them, by its names.
//!
//! //= etcd main: tests/robustness/validate/watch.go

use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use api::mvccpb::{Event, KeyValue, event::EventType};

use crate::history::{History, Leg, Watch};
use crate::oracle::Replay;
use crate::range::inside;
use crate::state::{Change, State};
use crate::violation::{Property, Violation};

/// What the checks looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Events delivered.
    pub events: usize,
    /// Watches cancelled by a compaction.
    pub cancelled: usize,
}

/// Checks all watches against the content of the revisions.
///
/// # Errors
/// The first property that is broken.
pub fn check(history: &History, replay: &Replay) -> Result<Watched, Violation> {
    let mut watched = Watched::default();
    for watch in &history.watches {
        check_watch(history, replay, watch, &mut watched).map_err(|v| {
            Violation::new(v.property, format!("watch of client {}: {}", watch.client, v.what))
        })?;
    }
    Ok(watched)
}

/// From where a watch may go on: behind its last event, at the latest behind what it was told.
#[derive(Clone, Copy, Debug)]
struct Resume {
    least: i64,
    most: i64,
}

fn check_watch(
    history: &History,
    replay: &Replay,
    watch: &Watch,
    watched: &mut Watched,
) -> Result<(), Violation> {
    let mut resume: Option<Resume> = None;
    for leg in &watch.legs {
        let start = leg.request.start_revision;
        if let Some(Resume { least, most }) = resume.filter(|r| start < r.least || start > r.most) {
            return fail(
                Property::Resumable,
                format!("resumed from {start}, which is not in {least}..={most}"),
            );
        }
        resume = check_leg(history, replay, leg, resume, watched)?;
    }
    Ok(())
}

/// Checks one leg. Returns from where the next may go on; nothing if it was cancelled.
fn check_leg(
    history: &History,
    replay: &Replay,
    leg: &Leg,
    before: Option<Resume>,
    watched: &mut Watched,
) -> Result<Option<Resume>, Violation> {
    let start = leg.request.start_revision;
    let Some((_, created)) = leg.responses.first() else {
        let same = (start > 0).then_some(Resume { least: start, most: start });
        return Ok(before.or(same));
    };
    if !created.created {
        return fail(
            Property::Ordered,
            format!("the first response is not `created`: {created:?}"),
        );
    }
    if created.canceled {
        return Ok(None);
    }
    let from = if start == 0 { revision_of(created) + 1 } else { start };
    let mut check = LegCheck {
        history,
        replay,
        leg,
        from,
        next: from,
        last: from - 1,
        whole: from - 1,
        told: 0,
        open: None,
    };
    for (at, response) in &leg.responses[1..] {
        if response.canceled {
            if response.compact_revision != 0 {
                check.cancelled(*at, response)?;
                watched.cancelled += 1;
            }
            return Ok(None);
        }
        watched.events += response.events.len();
        if response.events.is_empty() {
            check.bookmark(response)?;
        } else {
            check.check_start()?;
            check.events(*at, response)?;
        }
    }
    if let Some(must) = leg.must_reach {
        check.check_start()?;
        check.deliver_all_below(must + 1)?;
    }
    Ok(Some(Resume { least: check.whole + 1, most: check.next }))
}

fn fail<T>(property: Property, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::new(property, what))
}

fn revision_of(response: &WatchResponse) -> i64 {
    response.header.as_ref().map_or(0, |h| h.revision)
}

struct LegCheck<'a> {
    history: &'a History,
    replay: &'a Replay,
    leg: &'a Leg,
    /// The first revision that is wanted.
    from: i64,
    /// The first revision that may still come: everything wanted below has come.
    next: i64,
    /// The last revision with an event.
    last: i64,
    /// As `last`, but as of the last response that was not a fragment: clients put fragments
    /// together before they count them.
    whole: i64,
    /// The last revision of a progress notification.
    told: i64,
    /// The revision that a fragment left open, and the place among its wanted changes.
    open: Option<(i64, usize)>,
}

/// Whether a watch wants a change.
#[must_use]
pub fn wants(request: &WatchCreateRequest, change: &Change) -> bool {
    let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
    let drops = match change.version.tombstone {
        true => filtered(FilterType::Nodelete),
        false => filtered(FilterType::Noput),
    };
    let low: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
    !drops && inside(&change.key, low, &request.range_end)
}

impl LegCheck<'_> {
    fn state(&self) -> &State {
        self.replay.state()
    }

    /// The changes of a revision that this watch wants, and whether each must come. What the same
    /// revision replaced may be missing once it has been compacted to.
    fn wanted(&self, revision: i64) -> Vec<(&Change, bool)> {
        let compacted = || {
            self.history.compacts_itself
                || self.compactions().any(|(_, _, target)| target == revision)
        };
        let changes = self.state().changes(revision).iter().enumerate();
        let wanted = changes.filter(|(_, change)| wants(&self.leg.request, change));
        wanted
            .map(|(place, change)| {
                (change, !(self.state().is_replaced(revision, place) && compacted()))
            })
            .collect()
    }

    /// A fragment may end with a revision; then nothing of it may be missing.
    fn end_fragments(&mut self) -> Result<(), Violation> {
        let Some((revision, skip)) = self.open.take() else { return Ok(()) };
        if self.wanted(revision)[skip..].iter().any(|(_, must)| *must) {
            return fail(Property::Atomic, format!("revision {revision} came in part"));
        }
        (self.next, self.last) = (revision + 1, revision);
        Ok(())
    }

    /// Everything wanted below a revision must have come.
    fn deliver_all_below(&mut self, revision: i64) -> Result<(), Violation> {
        self.end_fragments()?;
        for missing in self.next..revision.min(self.replay.newest() + 1) {
            if let Some((change, _)) = self.wanted(missing).iter().find(|(_, must)| *must) {
                let first = self.leg.request.start_revision;
                return fail(
                    Property::Reliable,
                    format!("revision {missing} never came (from {first}): {change:?}"),
                );
            }
        }
        self.next = self.next.max(revision);
        Ok(())
    }

    /// A watch that begins below a compaction is cancelled, not served.
    fn check_start(&self) -> Result<(), Violation> {
        let (from, opened) = (self.from, self.leg.opened);
        let late = self.compactions().find(|(_, end, target)| *end < opened && from < *target);
        match late.filter(|_| self.history.one_member && self.leg.request.start_revision > 0) {
            Some((_, _, target)) => fail(
                Property::Cancelled,
                format!("goes on from {from} though compacted at {target}"),
            ),
            None => Ok(()),
        }
    }

    fn bookmark(&mut self, response: &WatchResponse) -> Result<(), Violation> {
        let revision = revision_of(response);
        if revision + 1 < self.next {
            return fail(
                Property::Bookmarkable,
                format!("told {revision} after revision {} had come", self.next - 1),
            );
        }
        self.deliver_all_below(revision + 1).map_err(|v| {
            Violation::new(Property::Bookmarkable, format!("told {revision}, but {}", v.what))
        })?;
        self.told = revision;
        Ok(())
    }

    fn events(&mut self, at: u64, response: &WatchResponse) -> Result<(), Violation> {
        if response.fragment && !self.leg.request.fragment {
            return fail(Property::Atomic, "a fragment came that was not asked for");
        }
        let mut rest = &response.events[..];
        while let Some(first) = rest.first() {
            let revision = revision_of_event(first)?;
            let same = |e: &&Event| e.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision);
            let count = rest.iter().take_while(same).count();
            let (events, later) = rest.split_at(count);
            let ends = !later.is_empty() || !response.fragment;
            self.revision(at, revision, events, ends)?;
            rest = later;
        }
        if revision_of(response) + 1 < self.next {
            return fail(
                Property::Events,
                format!("the header is older than the events: {response:?}"),
            );
        }
        Ok(())
    }

    /// The events of one revision in one response; `ends` if no fragment with more of it follows.
    fn revision(
        &mut self,
        at: u64,
        revision: i64,
        events: &[Event],
        ends: bool,
    ) -> Result<(), Violation> {
        let skip = match self.open.take() {
            Some((open, skip)) if open == revision => skip,
            other => {
                self.open = other;
                self.end_fragments()?;
                0
            }
        };
        if revision < self.next {
            let property = match revision {
                r if r < self.from => Property::Resumable,
                r if r <= self.told => Property::Bookmarkable,
                r if r == self.last => Property::Unique,
                _ => Property::Ordered,
            };
            return fail(property, format!("revision {revision} came after {}", self.next - 1));
        }
        if skip == 0 {
            self.deliver_all_below(revision)?;
        }
        let wanted = self.wanted(revision);
        let mut place = skip;
        for (i, event) in events.iter().enumerate() {
            // A transaction may delete a key twice, with a put in between (semantics R3).
            let times = |event: &Event| {
                self.state().changes(revision).iter().filter(|c| same_event(c, event)).count()
            };
            if events[..i].iter().filter(|e| *e == event).count() >= times(event).max(1) {
                return fail(Property::Unique, format!("came twice: {event:?}"));
            }
            let next = wanted[place..].iter().position(|(c, must)| *must || same_event(c, event));
            let Some(next) = next else {
                return fail(Property::Events, format!("not of this watch: {event:?}"));
            };
            self.event(at, wanted[place + next].0, event)?;
            place += next + 1;
        }
        if ends {
            if let Some((missing, _)) = wanted[place..].iter().find(|(_, must)| *must) {
                return fail(Property::Atomic, format!("came without {missing:?}: {events:?}"));
            }
            self.next = revision + 1;
            self.last = revision;
        } else {
            self.open = Some((revision, place));
        }
        Ok(())
    }

    fn event(&self, at: u64, change: &Change, event: &Event) -> Result<(), Violation> {
        let want = change.event();
        if (want.r#type, &want.kv) != (event.r#type, &event.kv) {
            return fail(Property::Events, format!("{event:?} came for {want:?}"));
        }
        let revision = change.version.main;
        if event.r#type == EventType::Put as i32 {
            let kv = event.kv.as_ref().expect("compared above");
            let created = kv.create_revision == kv.mod_revision;
            if created != (kv.version == 1) {
                return fail(Property::Events, format!("created or modified? {event:?}"));
            }
        }
        let before = self.before(change);
        let shown = event.prev_kv.as_ref();
        if !self.leg.request.prev_kv {
            return match shown {
                None => Ok(()),
                Some(kv) => fail(Property::PrevKv, format!("nobody asked for {kv:?}")),
            };
        }
        // The state before is gone once that revision is compacted (semantics F13).
        let may_be_gone =
            self.compactions().any(|(call, _, target)| call <= at && revision - 1 < target)
                || self.history.compacts_itself
                || revision - 1 < self.history.start().compact_revision();
        match (before, shown) {
            (None, None) => Ok(()),
            (Some(before), Some(shown)) if before == *shown => Ok(()),
            (Some(_), None) if may_be_gone => Ok(()),
            (before, shown) => fail(
                Property::PrevKv,
                format!("{shown:?} came as the state before {revision}, which was {before:?}"),
            ),
        }
    }

    /// The state before a change; none for a key that the change creates, even if its revision
    /// deleted it first (semantics F13).
    fn before(&self, change: &Change) -> Option<KeyValue> {
        let version = &change.version;
        if !version.tombstone && version.create == version.main {
            return None;
        }
        self.state().kv(&change.key, change.version.main - 1)
    }

    /// (call, end, target) of every compaction that may have had effect.
    fn compactions(&self) -> impl Iterator<Item = (u64, u64, i64)> {
        self.replay.compactions.iter().copied()
    }

    fn cancelled(&self, at: u64, response: &WatchResponse) -> Result<(), Violation> {
        let target = response.compact_revision;
        let asked = self.compactions().any(|(call, _, t)| t == target && call <= at);
        let known = asked
            || self.history.compacts_itself
            || target == self.history.start().compact_revision();
        if !known {
            return fail(Property::Cancelled, format!("nobody compacted at {target}"));
        }
        if self.next >= target {
            let next = self.next;
            return fail(
                Property::Cancelled,
                format!("needed nothing below {next}, cancelled for a compaction at {target}"),
            );
        }
        if !response.events.is_empty() || !response.cancel_reason.is_empty() {
            return fail(Property::Cancelled, format!("brings more than it should: {response:?}"));
        }
        Ok(())
    }
}

fn same_event(change: &Change, event: &Event) -> bool {
    let plain = change.event();
    (plain.r#type, &plain.kv) == (event.r#type, &event.kv)
}

fn revision_of_event(event: &Event) -> Result<i64, Violation> {
    match &event.kv {
        Some(kv) => Ok(kv.mod_revision),
        None => fail(Property::Events, format!("an event without key: {event:?}")),
    }
}
