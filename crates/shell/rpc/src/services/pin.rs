//! What a long list keeps of the state it began with, while its client reads slowly.
//!
//! A list needs the values that it named when it began; a compaction may remove them. So it keeps
//! its View, which holds pages of the database and parts of the revision log, but not for ever:
//! after [`LIST_PIN_MS`](types::limits::LIST_PIN_MS) it lets go and takes the newest View for each
//! piece, and fails only if a compaction has removed what is left of it. No more than
//! [`MAX_PINNED_LISTS`] keep one at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use member::MemberView;
use tokio::task::JoinHandle;
use types::limits::MAX_PINNED_LISTS;

use crate::runtime::{Handle, Runtime};

/// A View that is kept, and counted while it is.
struct Kept {
    view: Arc<MemberView>,
    handle: Arc<Handle>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.handle.pins.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state that a list reads.
pub(super) struct Pin {
    rt: Rc<Runtime>,
    kept: Rc<RefCell<Option<Kept>>>,
    timer: Option<JoinHandle<()>>,
}

impl Pin {
    /// Keeps a View, unless too many lists do.
    pub(super) fn new(rt: &Rc<Runtime>, view: Arc<MemberView>) -> Self {
        let handle = &rt.handle;
        if !take(&handle.pins.count) {
            return Self { rt: Rc::clone(rt), kept: Rc::default(), timer: None };
        }
        let kept = Kept { view, handle: Arc::clone(handle) };
        let kept = Rc::new(RefCell::new(Some(kept)));
        let (held, age) = (Rc::clone(&kept), handle.pins.age);
        let timer = tokio::task::spawn_local(async move {
            tokio::time::sleep(age).await;
            held.borrow_mut().take();
        });
        Self { rt: Rc::clone(rt), kept, timer: Some(timer) }
    }

    /// What to read the next piece from.
    pub(super) fn view(&self) -> Arc<MemberView> {
        match &*self.kept.borrow() {
            Some(kept) => Arc::clone(&kept.view),
            None => self.rt.view(),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        // The aborted task may be dropped later than this.
        self.kept.borrow_mut().take();
    }
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
