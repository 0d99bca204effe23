//! What the calls of a run came to.

use std::collections::VecDeque;

use super::call::{Event, Failure};
use super::message::{Put, put_of, ttl_of};
use crate::histogram::Histogram;

/// What answers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A call is done when it ends.
    Ended,
    /// The same, and its message says whether it put, and the revision for the next one.
    CompareAndPut,
    /// Each message renews a lease; the call ends only if something is wrong.
    KeepAlive,
}

/// Which operations belong to the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those that end in it, as a closed loop has it.
    Ended,
    /// Those that were intended in it, whenever they end: an open loop leaves out none.
    Intended,
}

/// A call of its own, or with keep-alives an open stream.
#[derive(Debug, Default)]
pub struct Slot {
    /// The connection that its calls take.
    pub peer: usize,
    /// When what is not answered was to be sent.
    sent: Times,
    /// The revision of its key, if answers tell it.
    pub revision: i64,
    /// Whether its stream is open.
    pub is_open: bool,
    /// What failed although the status will be OK.
    not_done: Option<&'static str>,
}

/// Times in their order. The first lies inline: calls have one only, and then none of their memory
/// is elsewhere.
#[derive(Debug, Default)]
struct Times {
    first: Option<u64>,
    more: VecDeque<u64>,
}

impl Times {
    fn push(&mut self, time: u64) {
        match self.first {
            None => self.first = Some(time),
            Some(_) => self.more.push_back(time),
        }
    }

    fn pop(&mut self) -> Option<u64> {
        std::mem::replace(&mut self.first, self.more.pop_front())
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl Slot {
    /// One whose calls take this connection, and whose key has this revision.
    #[must_use]
    pub fn new(peer: usize, revision: i64) -> Self {
        Self { peer, revision, ..Self::default() }
    }
}

/// What calls came to. Times are nanoseconds since the beginning of the run.
#[derive(Debug)]
pub struct Tally {
    /// All slots by their numbers.
    pub slots: Vec<Slot>,
    /// Slots whose operation ended since this was emptied last.
    pub ended: Vec<u32>,
    /// Durations of what succeeded.
    pub latency: Histogram,
    /// How many failed.
    pub failed: u64,
    /// How the first of them failed.
    pub first_failure: Option<String>,
    /// How the last one failed that was measured or not.
    pub last_failure: Option<Failure>,
    /// Operations that are not over.
    pub outstanding: u64,
    /// The time that is measured.
    pub measured: std::ops::Range<u64>,
    meaning: Meaning,
    counted: Counted,
}

impl Tally {
    /// An empty one.
    #[must_use]
    pub fn new(meaning: Meaning, counted: Counted, measured: std::ops::Range<u64>) -> Self {
        Self {
            slots: Vec::new(),
            ended: Vec::new(),
            latency: Histogram::default(),
            failed: 0,
            first_failure: None,
            last_failure: None,
            outstanding: 0,
            measured,
            meaning,
            counted,
        }
    }

    /// Takes note of an operation that a slot is to do, and since when.
    pub fn intended(&mut self, slot: u32, at: u64) {
        self.slots[slot as usize].sent.push(at);
        self.outstanding += 1;
    }

    /// Takes note of what happened to a slot's call.
    pub fn on(&mut self, slot: u32, event: Event<'_>, now: u64) {
        let known = &mut self.slots[slot as usize];
        match (event, self.meaning) {
            (Event::Message(message), Meaning::KeepAlive) => {
                let is_alive = ttl_of(message) > 0;
                let outcome = if is_alive { Ok(()) } else { Err(LEASE_GONE) };
                self.finish(slot, outcome, now);
            }
            (Event::Message(message), Meaning::CompareAndPut) => {
                let put = put_of(message);
                let (Put::Done(revision) | Put::Conflict(revision)) = put;
                known.revision = revision;
                known.not_done = matches!(put, Put::Conflict(_)).then_some(CONFLICT);
            }
            (Event::Message(_), Meaning::Ended) => {}
            (Event::Ended(outcome), Meaning::KeepAlive) => {
                known.is_open = false;
                let why = outcome.err().unwrap_or(STREAM_OVER);
                self.fail_all(slot, &why, now);
            }
            (Event::Ended(outcome), _) => {
                let not_done =
                    known.not_done.take().map_or(Ok(()), |why| Err(Failure::NotDone(why)));
                self.finish(slot, outcome.and(not_done), now);
            }
        }
    }

    /// Ends everything that a slot waits for.
    pub fn fail_all(&mut self, slot: u32, why: &Failure, now: u64) {
        while !self.slots[slot as usize].sent.is_empty() {
            self.finish(slot, Err(why.clone()), now);
        }
    }

    /// Takes note of a failure that no slot has.
    pub fn fail(&mut self, why: &Failure, intended: u64, now: u64) {
        self.count(Err(why), intended, now);
    }

    fn finish(&mut self, slot: u32, outcome: Result<(), Failure>, now: u64) {
        // A message that nobody asked for answers nothing.
        let Some(began) = self.slots[slot as usize].sent.pop() else { return };
        self.outstanding -= 1;
        self.count(outcome.as_ref().copied(), began, now);
        self.ended.push(slot);
    }

    fn count(&mut self, outcome: Result<(), &Failure>, began: u64, now: u64) {
        if let Err(why) = outcome {
            self.last_failure = Some(why.clone());
        }
        let at = if self.counted == Counted::Ended { now } else { began };
        if self.measured.contains(&at) {
            match outcome {
                Ok(()) => self.latency.add(now.saturating_sub(began)),
                Err(why) => {
                    self.failed += 1;
                    self.first_failure.get_or_insert_with(|| why.to_string());
                }
            }
        }
    }
}

const LEASE_GONE: Failure = Failure::NotDone("the lease is gone");
const STREAM_OVER: Failure = Failure::NotDone("the stream ended");
const CONFLICT: &str = "the key had another revision, so it was not put";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_counts_from_the_intended_time() {
        let mut tally = Tally::new(Meaning::Ended, Counted::Intended, 1_000_000..2_000_000);
        tally.slots.push(Slot::default());
        // Intended before, in and behind the measured time; all end long after it.
        for at in [999_999, 1_000_000, 1_999_999, 2_000_000] {
            tally.intended(0, at);
            tally.on(0, Event::Ended(Ok(())), 101_500_000);
        }
        assert_eq!(tally.latency.len(), 2);
        let slowest = tally.latency.quantile_us(1.0);
        assert!((96_000.0..=100_500.0).contains(&slowest), "{slowest}");
        assert_eq!((tally.failed, tally.outstanding), (0, 0));
    }

    #[test]
    fn a_closed_loop_counts_what_ends_in_the_measured_time() {
        let mut tally = Tally::new(Meaning::Ended, Counted::Ended, 100..200);
        tally.slots.push(Slot::default());
        for (began, ended) in [(10, 99), (10, 100), (150, 199), (150, 200)] {
            tally.intended(0, began);
            tally.on(0, Event::Ended(Ok(())), ended);
        }
        assert_eq!(tally.latency.len(), 2);
        assert_eq!(tally.ended, [0, 0, 0, 0]);
    }

    #[test]
    fn failures_are_no_successes() {
        let mut tally = Tally::new(Meaning::Ended, Counted::Ended, 0..100);
        tally.slots.push(Slot::default());
        let refused = Failure::Status("8".to_owned(), "etcdserver: too many requests".to_owned());
        tally.intended(0, 1);
        tally.on(0, Event::Ended(Err(refused)), 2);
        tally.intended(0, 3);
        tally.on(0, Event::Ended(Err(Failure::Reset(11))), 4);
        assert_eq!((tally.failed, tally.latency.len()), (2, 0));
        let first = tally.first_failure.unwrap();
        assert_eq!(first, "status 8: etcdserver: too many requests");
    }

    #[test]
    fn a_stream_that_ends_fails_all_that_it_was_asked() {
        let mut tally = Tally::new(Meaning::KeepAlive, Counted::Ended, 0..100);
        tally.slots.push(Slot { is_open: true, ..Slot::default() });
        for at in 0..4 {
            tally.intended(0, at);
        }
        // TTL 60, then a lease that is gone, then the end, which is no success even with status 0.
        tally.on(0, Event::Message(&[0x18, 60]), 5);
        tally.on(0, Event::Message(&[]), 6);
        tally.on(0, Event::Ended(Ok(())), 7);
        assert_eq!((tally.latency.len(), tally.failed, tally.outstanding), (1, 3, 0));
        assert!(!tally.slots[0].is_open);
    }

    #[test]
    fn a_compare_that_does_not_hold_is_a_failure_and_gives_the_revision() {
        let mut tally = Tally::new(Meaning::CompareAndPut, Counted::Ended, 0..100);
        tally.slots.push(Slot::default());
        // `header` with revision 9 and `succeeded`; then neither.
        for (message, failed, revision) in [(&[0x0a, 2, 0x18, 9, 0x10, 1][..], 0, 9), (&[], 1, 0)] {
            tally.intended(0, 1);
            tally.on(0, Event::Message(message), 2);
            tally.on(0, Event::Ended(Ok(())), 2);
            assert_eq!((tally.failed, tally.slots[0].revision), (failed, revision));
        }
    }
}
