//! The deadlines of the calls that wait for a reply: one timer for all of a connection.
//!
//! Calls come and go by the hundred thousand a second and their deadlines hardly ever pass, so no
//! call has a timer of its own, nor a place in a queue of them. The timer is set to the first
//! deadline of the calls that were there when it last fired, and those are looked at again then.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Time between two looks at all calls, at least.
const STEP: Duration = Duration::from_millis(1);

/// When to look for calls whose deadlines have passed.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    timer: Option<Pin<Box<Sleep>>>,
    /// What the timer is set to; none while it needs no poll.
    next: Option<Instant>,
}

impl Deadlines {
    /// A call with this deadline waits now.
    pub(super) fn add(&mut self, deadline: Instant) {
        if self.next.is_none_or(|next| deadline < next) {
            self.next = Some(deadline);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
    }

    /// Whether all calls must be looked at: those that stay are then [`Deadlines::add`]ed again,
    /// with [`Deadlines::earliest`] at least.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(timer) = self.timer.as_mut().filter(|_| self.next.is_some()) else {
            return false;
        };
        let is_due = timer.as_mut().poll(cx).is_ready();
        if is_due {
            self.next = None;
        }
        is_due
    }

    /// When they may be looked at again.
    pub(super) fn earliest(now: Instant) -> Instant {
        now + STEP
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn due(deadlines: &mut Deadlines) {
        poll_fn(|cx| if deadlines.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_deadline_is_waited_for_whatever_their_order() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [5, 3, 4] {
            deadlines.add(at(seconds));
        }
        due(&mut deadlines).await;
        assert_eq!(Instant::now().duration_since(start).as_secs(), 3);
        // Whoever is still there is added again.
        for seconds in [5, 4] {
            deadlines.add(at(seconds));
        }
        due(&mut deadlines).await;
        assert_eq!(Instant::now().duration_since(start).as_secs(), 4);
        poll_fn(|cx| {
            assert!(!deadlines.poll(cx), "nobody is left");
            Poll::Ready(())
        })
        .await;
    }
}
