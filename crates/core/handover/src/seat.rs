//! An automaton that several threads may run, one at a time.
//!
//! It has a thread of its own, which runs it whenever its [`Inbox`] holds something. A thread that
//! brings it a little work may take the turn itself instead of waking that thread: a wake costs as
//! much as dozens of small requests, and the one who brings work mostly has nothing else to do.
//!
//! How nothing is lost: what was pushed quietly is taken at the beginning of a turn, never before
//! the seat is had. Whoever does not get the seat wakes the automaton's thread ([`Inbox::wake`]),
//! which waits for the seat: either it finds what was pushed, or the turn it waited for took it.
//!
//! [`Inbox`]: crate::Inbox
//! [`Inbox::wake`]: crate::Inbox::wake

use crate::sync::{Mutex, MutexGuard, lock};

/// Holds an automaton with what its turns need, until it ends.
#[derive(Debug)]
pub struct Seat<A>(Mutex<Option<A>>);

impl<A> Seat<A> {
    /// A seat for an automaton that has not ended.
    pub fn new(automaton: A) -> Self {
        Self(Mutex::new(Some(automaton)))
    }

    /// Runs `turn` once nobody else does; `None` if the automaton has ended. For its own thread.
    pub fn run<R>(&self, turn: impl FnOnce(&mut A) -> R) -> Option<R> {
        lock(&self.0).as_mut().map(turn)
    }

    /// Runs `turn` if nobody else is at it and the automaton has not ended.
    pub fn try_run<R>(&self, turn: impl FnOnce(&mut A) -> R) -> Option<R> {
        let mut seat: MutexGuard<'_, Option<A>> = self.0.try_lock().ok()?;
        seat.as_mut().map(turn)
    }

    /// Ends the automaton: nobody runs it any more.
    pub fn end(&self) {
        *lock(&self.0) = None;
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_until_the_end() {
        let seat = Seat::new(1);
        seat.run(|n| {
            *n += 1;
            assert_eq!(seat.try_run(|_| ()), None, "somebody is at it");
        });
        assert_eq!(seat.try_run(|n| *n), Some(2));
        seat.end();
        assert_eq!((seat.run(|n| *n), seat.try_run(|n| *n)), (None, None));
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::*;
    use crate::Inbox;
    use loom::sync::Arc;
    use std::future::poll_fn;

    /// A turn: takes all that is queued.
    fn turn(inbox: &Inbox<u8>, done: &mut Vec<u8>) {
        let mut items = Vec::new();
        inbox.take(&mut items);
        // The model sees no moment between two unlocks by itself: here others meet a taken seat.
        loom::thread::yield_now();
        done.append(&mut items);
    }

    /// Switches away from a thread that could go on, at most: beyond it the model has no end.
    const PREEMPTIONS: usize = 2;

    #[test]
    fn what_a_borrower_brings_is_done_by_it_or_by_the_owner() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(|| {
            let inbox = Arc::new(Inbox::new(8));
            let seat = Arc::new(Seat::new(Vec::new()));
            let borrowers = [1, 2].map(|n| {
                let (inbox, seat) = (Arc::clone(&inbox), Arc::clone(&seat));
                loom::thread::spawn(move || {
                    inbox.push_event_quietly(n);
                    let borrowed = seat.try_run(|done| {
                        turn(&inbox, done);
                        done.len()
                    });
                    // The owner of this model waits for the last of both.
                    if borrowed.is_none_or(|done| done == 2) {
                        inbox.wake();
                    }
                })
            });
            loom::future::block_on(poll_fn(|cx| {
                loop {
                    let filled = inbox.poll_filled_dozing(cx);
                    let done = seat.run(|done| {
                        turn(&inbox, done);
                        done.len()
                    });
                    if done == Some(2) {
                        return std::task::Poll::Ready(());
                    }
                    if filled.is_pending() {
                        return std::task::Poll::Pending;
                    }
                }
            }));
            for borrower in borrowers {
                borrower.join().unwrap();
            }
            seat.run(|done| {
                done.sort_unstable();
                assert_eq!(*done, [1, 2]);
            });
        });
    }
}
