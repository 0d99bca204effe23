//! One queue type for every join between threads and tasks.
//!
//! Invariants: what was pushed is received once, in the order of each producer; a consumer that
//! sleeps while something is queued will be woken; the queue never holds more than its limit
//! except through [`Inbox::push_event`].

use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering, lock};

/// The inbox is at its limit; what was to be pushed is handed back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// The consumer will look again before it sleeps.
const AWAKE: u8 = 0;
/// It sleeps until it is woken.
const ASLEEP: u8 = 1;
/// It sleeps until it is woken or its time is up.
const DOZING: u8 = 2;

/// Items queued for a dozing consumer that wake it.
const LAZY_ITEMS: usize = 256;

#[derive(Debug)]
struct Queue<T> {
    items: Vec<T>,
    closed: bool,
    /// The consumer is to look though nothing is queued.
    roused: bool,
    consumer: Option<Waker>,
}

/// Many producers, one consumer that swaps the whole queue out. The consumer may be a task
/// ([`Inbox::poll_recv`]) or a thread (`osenv::RecvBlocking`); a producer wakes it only if it said
/// that it sleeps.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    /// [`AWAKE`], [`ASLEEP`] or [`DOZING`].
    consumer: AtomicU8,
    limit: usize,
}

impl<T> Inbox<T> {
    /// An inbox that takes up to `limit` items.
    pub fn new(limit: usize) -> Self {
        Self {
            queue: Mutex::new(Queue {
                items: Vec::new(),
                closed: false,
                roused: false,
                consumer: None,
            }),
            consumer: AtomicU8::new(AWAKE),
            limit,
        }
    }

    /// Wakes the consumer if it sleeps. Whatever was pushed needs it, unless the producer sees to it
    /// that somebody takes it ([`crate::Seat`]).
    pub fn wake(&self) {
        if self.consumer.load(Ordering::SeqCst) != AWAKE
            && self.consumer.swap(AWAKE, Ordering::SeqCst) != AWAKE
        {
            let waker = lock(&self.queue).consumer.clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Queues an item.
    ///
    /// # Errors
    /// [`Full`] at the limit or after [`Inbox::close`].
    pub fn push(&self, item: T) -> Result<(), Full<T>> {
        {
            let mut queue = lock(&self.queue);
            if queue.closed || queue.items.len() >= self.limit {
                return Err(Full(item));
            }
            queue.items.push(item);
        }
        self.wake();
        Ok(())
    }

    /// Queues an item even at the limit. For events whose number is bounded by what their sender
    /// was given to do (completions), so that refusing them could only lose one.
    pub fn push_event(&self, item: T) {
        lock(&self.queue).items.push(item);
        self.wake();
    }

    /// As [`Inbox::push_event`], but wakes nobody: the producer looks after it.
    pub fn push_event_quietly(&self, item: T) {
        lock(&self.queue).items.push(item);
    }

    /// As [`Inbox::push_event`], but a consumer that will look by itself when its time is up is not
    /// woken for this, unless much has gathered. For what nobody waits for: a wake costs two turns
    /// of the scheduler.
    pub fn push_lazily(&self, item: T) {
        let queued = {
            let mut queue = lock(&self.queue);
            queue.items.push(item);
            queue.items.len()
        };
        if queued >= LAZY_ITEMS || self.consumer.load(Ordering::SeqCst) != DOZING {
            self.wake();
        }
    }

    /// Lets the consumer look once though nothing may be queued: something that it waits for besides
    /// has changed.
    pub fn rouse(&self) {
        lock(&self.queue).roused = true;
        self.wake();
    }

    /// Wakes the consumer if anything was pushed lazily.
    pub fn nudge(&self) {
        if !self.is_empty() {
            self.wake();
        }
    }

    /// Queues a batch with one lock and at most one wake; what does not fit stays in `items`.
    pub fn push_all(&self, items: &mut Vec<T>) {
        if !items.is_empty() {
            self.push_all_quietly(items);
            self.wake();
        }
    }

    /// As [`Inbox::push_all`], but wakes nobody: the producer looks after them.
    pub fn push_all_quietly(&self, items: &mut Vec<T>) {
        let mut queue = lock(&self.queue);
        if !queue.closed {
            let room = self.limit.saturating_sub(queue.items.len()).min(items.len());
            queue.items.extend(items.drain(..room));
        }
    }

    /// Takes no more items and wakes the consumer; a thread that receives ends once
    /// the queue is empty.
    pub fn close(&self) {
        let waker = {
            let mut queue = lock(&self.queue);
            queue.closed = true;
            queue.consumer.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Items queued now.
    pub fn len(&self) -> usize {
        lock(&self.queue).items.len()
    }

    /// Whether nothing is queued now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Swaps everything queued into `out`, which must be empty (its storage becomes the queue's).
    /// Returns whether there was anything.
    pub fn take(&self, out: &mut Vec<T>) -> bool {
        debug_assert!(out.is_empty(), "items left in the buffer would be queued again");
        std::mem::swap(&mut lock(&self.queue).items, out);
        !out.is_empty()
    }

    /// For a task: everything queued, or pending with the task's waker kept. Nothing after
    /// [`Inbox::rouse`].
    pub fn poll_recv(&self, out: &mut Vec<T>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_or(ASLEEP, out, cx)
    }

    /// As [`Inbox::poll_recv`], for a consumer that will also look by itself after some time: what
    /// is pushed lazily does not wake it.
    pub fn poll_recv_dozing(&self, out: &mut Vec<T>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_or(DOZING, out, cx)
    }

    /// As [`Inbox::poll_recv`], but leaves what is queued where it is: for an automaton that
    /// others may run too ([`crate::Seat`]), who take it at the beginning of a turn.
    pub fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_queue(ASLEEP, cx).map(|_| ())
    }

    /// As [`Inbox::poll_filled`], dozing ([`Inbox::poll_recv_dozing`]).
    pub fn poll_filled_dozing(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_queue(DOZING, cx).map(|_| ())
    }

    /// Whether the consumer sleeps until it is woken or its time is up.
    pub fn is_dozing(&self) -> bool {
        self.consumer.load(Ordering::SeqCst) == DOZING
    }

    fn poll_or(&self, sleep: u8, out: &mut Vec<T>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_queue(sleep, cx).map(|mut queue| std::mem::swap(&mut queue.items, out))
    }

    fn poll_queue(&self, sleep: u8, cx: &mut Context<'_>) -> Poll<MutexGuard<'_, Queue<T>>> {
        let mut queue = lock(&self.queue);
        if !std::mem::take(&mut queue.roused) && queue.items.is_empty() {
            if queue.consumer.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                queue.consumer = Some(cx.waker().clone());
            }
            // Set while the lock is held: a producer that pushes afterwards sees it.
            self.consumer.store(sleep, Ordering::SeqCst);
            return Poll::Pending;
        }
        Poll::Ready(queue)
    }

    /// For a task: waits until something is queued and takes it all.
    pub async fn recv(&self, out: &mut Vec<T>) {
        std::future::poll_fn(|cx| self.poll_recv(out, cx)).await;
    }

    /// Whether the inbox was closed and holds nothing more.
    pub fn is_finished(&self) -> bool {
        let queue = lock(&self.queue);
        queue.closed && queue.items.is_empty()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_refuses_items_but_not_events() {
        let inbox = Inbox::new(2);
        inbox.push(1).unwrap();
        let mut batch = vec![2, 3];
        inbox.push_all(&mut batch);
        assert_eq!(batch, [3]);
        assert_eq!(inbox.push(4), Err(Full(4)));
        inbox.push_event(5);
        assert_eq!(inbox.len(), 3);
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new(8));
            let producer = {
                let inbox = Arc::clone(&inbox);
                loom::thread::spawn(move || {
                    inbox.push(1).unwrap();
                    inbox.push(2).unwrap();
                })
            };
            let got = loom::future::block_on(async {
                let (mut out, mut got) = (Vec::new(), Vec::new());
                while got.len() < 2 {
                    inbox.recv(&mut out).await;
                    got.append(&mut out);
                }
                got
            });
            assert_eq!(got, [1, 2]);
            producer.join().unwrap();
        });
    }
}
