//! Threads that receive from an inbox: they park until something comes.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use handover::Inbox;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An inbox whose consumer is a thread.
pub trait RecvBlocking<T> {
    /// Waits until something is queued, the inbox closes or `timeout` passes, and takes it all into
    /// `out`, which must be empty. Returns `false` once the inbox is closed and empty.
    fn recv_blocking(&self, out: &mut Vec<T>, timeout: Option<Duration>) -> bool;

    /// Waits as [`RecvBlocking::recv_blocking`] does, but leaves what is queued where it is.
    fn wait_blocking(&self, timeout: Option<Duration>) -> bool;
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Parks until `poll` is ready, the inbox ends or the time comes.
fn park_until<T>(
    inbox: &Inbox<T>,
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> bool {
    loop {
        if WAKER.with(|waker| poll(&mut Context::from_waker(waker))).is_ready() {
            return true;
        }
        if inbox.is_finished() {
            return false;
        }
        match until {
            None => std::thread::park(),
            Some(until) => {
                let now = Instant::now();
                if now >= until {
                    return true;
                }
                std::thread::park_timeout(until - now);
            }
        }
    }
}

impl<T> RecvBlocking<T> for Inbox<T> {
    fn recv_blocking(&self, out: &mut Vec<T>, timeout: Option<Duration>) -> bool {
        match timeout.map(|t| Instant::now() + t) {
            None => park_until(self, None, |cx| self.poll_recv(out, cx)),
            until => park_until(self, until, |cx| self.poll_recv_dozing(out, cx)),
        }
    }

    fn wait_blocking(&self, timeout: Option<Duration>) -> bool {
        match timeout.map(|t| Instant::now() + t) {
            None => park_until(self, None, |cx| self.poll_filled(cx)),
            until => park_until(self, until, |cx| self.poll_filled_dozing(cx)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the inbox has it: so many wake a dozing consumer.
    const LAZY_ITEMS: usize = 256;

    #[test]
    fn every_item_arrives_once_and_in_its_producers_order() {
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let producers: Vec<_> = (0..4u64)
            .map(|p| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || {
                    for n in 0..5_000u64 {
                        inbox.push((p, n)).expect("no limit");
                        if n % 512 == 0 {
                            std::thread::sleep(Duration::from_micros(50));
                        }
                    }
                })
            })
            .collect();
        let (mut out, mut next, mut got) = (Vec::new(), [0; 4], 0);
        while got < 20_000 {
            assert!(inbox.recv_blocking(&mut out, Some(Duration::from_secs(10))));
            assert!(!out.is_empty(), "a wake-up was lost");
            for (p, n) in out.drain(..) {
                assert_eq!(next[p as usize], n);
                next[p as usize] += 1;
                got += 1;
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
    }

    #[test]
    fn what_is_pushed_lazily_waits_for_the_consumers_time_but_never_longer() {
        let inbox = Arc::new(Inbox::new(8));
        let push = |n: usize| {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || (0..n).for_each(|i| inbox.push_lazily(i)))
        };
        let (hour, mut out) = (Some(Duration::from_secs(3_600)), Vec::new());
        // Many wake a consumer with a time, one does if it has none.
        let producer = push(LAZY_ITEMS);
        let mut got = 0;
        while got < LAZY_ITEMS {
            assert!(inbox.recv_blocking(&mut out, hour));
            got += out.drain(..).count();
            // Those that came while nobody slept must not be waited for again.
            if got < LAZY_ITEMS && producer.is_finished() {
                assert!(inbox.take(&mut out));
            }
        }
        producer.join().unwrap();
        let producer = push(1);
        assert!(inbox.recv_blocking(&mut out, None));
        assert_eq!(out, [0]);
        producer.join().unwrap();
        out.clear();
        // One that nobody is woken for is there when the time is up.
        let waiting = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || {
                let mut out = Vec::new();
                inbox.recv_blocking(&mut out, Some(Duration::from_millis(200)));
                inbox.recv_blocking(&mut out, Some(Duration::from_millis(200)));
                out
            })
        };
        while !inbox.is_dozing() {
            std::thread::yield_now();
        }
        inbox.push_lazily(7);
        assert!(inbox.is_dozing());
        assert_eq!(waiting.join().unwrap(), [7]);
        // Or when somebody says so.
        inbox.push_lazily(8);
        inbox.nudge();
        assert!(inbox.recv_blocking(&mut out, hour));
        assert_eq!(out, [8]);
    }

    #[test]
    fn a_closed_inbox_is_drained_and_then_ends() {
        let inbox = Inbox::new(8);
        inbox.push(1).unwrap();
        inbox.close();
        let mut out = Vec::new();
        assert!(inbox.recv_blocking(&mut out, None));
        assert_eq!(out, [1]);
        out.clear();
        assert!(!inbox.recv_blocking(&mut out, None));
    }
}
