//! The View that a long list keeps while its client reads slowly.
//!
//! A list needs the values that it named when it began; a compaction may remove them. So it keeps
//! its View, which holds pages of the database and parts of the revision log, but not for ever:
//! after [`LIST_PIN_MS`](types::limits::LIST_PIN_MS) it lets go and takes the newest View for each
//! piece, and fails only if a compaction has removed what is left of it. No more than
//! [`MAX_PINNED_LISTS`] keep one at once.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use member::MemberView;
use types::limits::MAX_PINNED_LISTS;

use crate::caller::Allowed;
use crate::member::Member;
use crate::shared::Shared;
use crate::timers::Sleep;

/// A View that is kept, and counted while it is.
struct Kept {
    view: Arc<MemberView>,
    shared: Arc<Shared>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.pins.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A View that may be kept, and the task that lets it go.
#[derive(Default)]
struct State {
    kept: RefCell<Option<Kept>>,
    waker: RefCell<Option<Waker>>,
}

/// The state that a list reads.
pub(crate) struct Pin {
    member: Rc<Member>,
    state: Rc<State>,
    allowed: Allowed,
}

impl Pin {
    /// Keeps a View, unless too many lists do.
    pub(crate) fn new(member: &Rc<Member>, view: Arc<MemberView>, allowed: Allowed) -> Self {
        let (shared, state) = (&member.shared, Rc::new(State::default()));
        if take(&shared.pins.count) {
            *state.kept.borrow_mut() = Some(Kept { view, shared: Arc::clone(shared) });
            member.spawn(let_go(Rc::downgrade(&state), member.sleep(shared.pins.age)));
        }
        Self { member: Rc::clone(member), state, allowed }
    }

    /// What to read the next piece from.
    pub(crate) fn view(&self) -> Arc<MemberView> {
        match &*self.state.kept.borrow() {
            Some(kept) => Arc::clone(&kept.view),
            None => self.member.view().open(self.allowed),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.state.kept.borrow_mut().take();
        if let Some(task) = self.state.waker.borrow_mut().take() {
            task.wake();
        }
    }
}

/// Drops a View when it was kept for long, whatever its list is doing then. Ends when the list has
/// ended.
async fn let_go(state: Weak<State>, mut age: Sleep) {
    poll_fn(|cx| {
        let Some(state) = state.upgrade().filter(|state| state.kept.borrow().is_some()) else {
            return Poll::Ready(());
        };
        if std::pin::Pin::new(&mut age).poll(cx).is_pending() {
            *state.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.kept.borrow_mut().take();
        Poll::Ready(())
    })
    .await;
}

/// Counts one more, if there is room.
fn take(count: &AtomicUsize) -> bool {
    let more = |now| (now < MAX_PINNED_LISTS).then_some(now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let count = AtomicUsize::new(0);
        assert!((0..MAX_PINNED_LISTS).all(|_| take(&count)));
        assert!(!take(&count));
        count.fetch_sub(1, Ordering::Relaxed);
        assert!(take(&count) && !take(&count));
    }
}
