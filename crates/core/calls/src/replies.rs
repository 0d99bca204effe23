//! Replies that find who waits for them: a future, or a connection's queue.
//!
//! Each runtime has one table; only its thread touches it, so there is no lock. A token names
//! (runtime, generation, slot): a reply that comes after its place was given back meets another
//! generation and is discarded. Invariant: a place that was registered is given back by dropping
//! its [`Wait`], or by its reply's arrival at a [`Recipient`].

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use types::ReplyToken as Token;

fn generation(token: Token) -> u32 {
    (token.0 >> 32) as u32 & 0xff_ffff
}

fn slot(token: Token) -> usize {
    token.0 as u32 as usize
}

/// Takes replies that no future waits for: a call that waits is then a number, not a task.
pub trait Recipient<T> {
    /// The reply to the call with this key. Nothing of the table may be used meanwhile.
    fn receive(&self, key: u64, reply: T);
}

enum State<T> {
    Free,
    Waiting(Option<Waker>),
    /// Handed to the recipient when it comes, and the place is free.
    Addressed(Rc<dyn Recipient<T>>, u64),
    Done(T),
}

struct Entry<T> {
    generation: u32,
    state: State<T>,
}

struct Table<T> {
    runtime: u8,
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    /// The entry of a token whose place was not given back since.
    fn entry(&mut self, token: Token) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(slot(token))?;
        (entry.generation == generation(token)).then_some(entry)
    }

    /// Frees the place of a token; what it held.
    fn free(&mut self, token: Token) -> Option<State<T>> {
        let entry = self.entry(token)?;
        if matches!(entry.state, State::Free) {
            return None;
        }
        let old = std::mem::replace(&mut entry.state, State::Free);
        self.free.push(slot(token) as u32);
        Some(old)
    }
}

/// One runtime's table of those who wait. Clones share it.
pub(crate) struct Replies<T>(Rc<RefCell<Table<T>>>);

impl<T> Clone for Replies<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Replies<T> {
    /// The table of runtime number `runtime`.
    pub(crate) fn new(runtime: u8) -> Self {
        Self(Rc::new(RefCell::new(Table { runtime, entries: Vec::new(), free: Vec::new() })))
    }

    /// Reserves a place for one reply, which must carry this token. To be waited for with
    /// [`Replies::wait`].
    ///
    /// # Panics
    /// Beyond 2^32 waiting calls.
    pub(crate) fn register(&self) -> Token {
        let mut table = self.0.borrow_mut();
        let slot = table.free.pop().unwrap_or_else(|| {
            table.entries.push(Entry { generation: 0, state: State::Free });
            u32::try_from(table.entries.len() - 1).expect("fewer than 2^32 calls wait at once")
        });
        let runtime = table.runtime;
        let entry = &mut table.entries[slot as usize];
        entry.generation = (entry.generation + 1) & 0xff_ffff;
        entry.state = State::Waiting(None);
        let generation = u64::from(entry.generation);
        Token(u64::from(runtime) << 56 | generation << 32 | u64::from(slot))
    }

    /// The future of a place that was registered. There is one for each.
    pub(crate) fn wait(&self, token: Token) -> Wait<T> {
        let generation_now = self.0.borrow().entries[slot(token)].generation;
        assert!(generation_now == generation(token), "a place is waited for once");
        Wait { table: self.clone(), token }
    }

    /// Has the reply of a place that was registered handed to `to`, with this key. To be taken back
    /// by [`Replies::release`] before it came.
    pub(crate) fn address(&self, token: Token, to: Rc<dyn Recipient<T>>, key: u64) {
        let mut table = self.0.borrow_mut();
        let entry = table.entry(token).expect("a place is addressed once, at its registration");
        if !matches!(entry.state, State::Done(_)) {
            entry.state = State::Addressed(to, key);
            return;
        }
        let addressed = State::Addressed(Rc::clone(&to), key);
        let State::Done(reply) = std::mem::replace(&mut entry.state, addressed) else { return };
        table.free(token);
        drop(table);
        to.receive(key, reply);
    }

    /// Gives a place back; its reply, if it still comes, is discarded.
    pub(crate) fn release(&self, token: Token) {
        let old = self.0.borrow_mut().free(token);
        // Dropped outside the borrow: a reply may own futures of this very table.
        drop(old);
    }

    /// Gives the reply to whoever waits for it, if anyone still does.
    pub(crate) fn resolve(&self, token: Token, reply: T) {
        let mut table = self.0.borrow_mut();
        let Some(entry) = table.entry(token) else { return };
        match &mut entry.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                entry.state = State::Done(reply);
                drop(table);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Addressed(..) => {
                let Some(State::Addressed(to, key)) = table.free(token) else {
                    unreachable!("matched above")
                };
                drop(table);
                to.receive(key, reply);
            }
            State::Free | State::Done(_) => {}
        }
    }

    /// Places that are reserved now.
    pub(crate) fn waiting(&self) -> usize {
        let table = self.0.borrow();
        table.entries.len() - table.free.len()
    }
}

/// Waits for one reply; dropping it gives the place back.
pub(crate) struct Wait<T> {
    table: Replies<T>,
    token: Token,
}

impl<T> Future for Wait<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut table = self.table.0.borrow_mut();
        let entry = &mut table.entries[slot(self.token)];
        match &mut entry.state {
            State::Waiting(waker) => {
                if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            State::Done(_) => match std::mem::replace(&mut entry.state, State::Waiting(None)) {
                State::Done(reply) => Poll::Ready(reply),
                _ => unreachable!("matched above"),
            },
            State::Free | State::Addressed(..) => {
                unreachable!("a place with a future is freed only by dropping it")
            }
        }
    }
}

impl<T> Drop for Wait<T> {
    fn drop(&mut self) {
        self.table.release(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(wait: &mut Wait<T>) -> Poll<T> {
        Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_reply_reaches_the_future_of_its_token() {
        let replies = Replies::new(3);
        let (a, b) = (replies.register(), replies.register());
        assert_eq!(a.runtime(), 3);
        let (mut first, mut second) = (replies.wait(a), replies.wait(b));
        assert!(poll(&mut second).is_pending());
        replies.resolve(b, "b");
        replies.resolve(a, "a");
        assert_eq!((poll(&mut first), poll(&mut second)), (Poll::Ready("a"), Poll::Ready("b")));
    }

    #[test]
    fn a_reply_may_come_before_anybody_waits() {
        let replies = Replies::new(0);
        let token = replies.register();
        replies.resolve(token, 1);
        assert_eq!(poll(&mut replies.wait(token)), Poll::Ready(1));
        assert_eq!(replies.waiting(), 0);
    }

    #[derive(Default)]
    struct Queue(RefCell<Vec<(u64, u32)>>);

    impl Recipient<u32> for Queue {
        fn receive(&self, key: u64, reply: u32) {
            self.0.borrow_mut().push((key, reply));
        }
    }

    #[test]
    fn a_reply_reaches_its_recipient_once_and_frees_the_place() {
        let replies = Replies::new(0);
        let queue = Rc::new(Queue::default());
        let to = Rc::clone(&queue) as Rc<dyn Recipient<u32>>;
        let (a, early, gone) = (replies.register(), replies.register(), replies.register());
        replies.address(a, Rc::clone(&to), 7);
        replies.resolve(early, 2);
        replies.address(early, Rc::clone(&to), 8);
        replies.address(gone, to, 9);
        replies.release(gone);
        for token in [a, a, early, gone] {
            replies.resolve(token, 1);
        }
        assert_eq!(*queue.0.borrow(), [(8, 2), (7, 1)]);
        assert_eq!(replies.waiting(), 0);
        replies.release(a);
        assert_eq!(replies.waiting(), 0, "a place is given back once");
    }

    #[test]
    fn a_late_reply_does_not_reach_the_next_user_of_the_place() {
        let replies = Replies::new(0);
        let late = replies.register();
        drop(replies.wait(late));
        let token = replies.register();
        let mut next = replies.wait(token);
        replies.resolve(late, 1);
        assert!(poll(&mut next).is_pending());
        replies.resolve(token, 2);
        assert_eq!(poll(&mut next), Poll::Ready(2));
        drop(next);
        assert_eq!(replies.waiting(), 0);
    }
}
