//! The responses of a call for whoever takes them within the process.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use api::error::Status;
use bytes::Bytes;

use crate::answer::ENVELOPE_BYTES;
use crate::stream::{Gone, Out, Serving, Sink};

/// The responses of one call. Dropping them ends the call.
pub struct Responses {
    /// `None` once it has ended.
    serving: Option<Serving>,
    feed: Rc<Feed>,
    end: Option<Status>,
}

impl Responses {
    /// Those of a call that is served into the sink.
    pub(crate) fn new(serve: impl FnOnce(Out) -> Serving) -> Self {
        let feed = Rc::new(Feed::default());
        Self { serving: Some(serve(Rc::clone(&feed) as _)), feed, end: None }
    }

    /// The next message; `None` at the end of a call that went well.
    ///
    /// # Errors
    /// The call's, which is its end as well.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(message) = self.feed.take() {
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(serving) = &mut self.serving else {
                return Poll::Ready(self.end.take().map(Err));
            };
            match serving.as_mut().poll(cx) {
                Poll::Ready(served) => {
                    self.serving = None;
                    self.end = served.err();
                }
                Poll::Pending => {
                    self.feed.wait(cx);
                    if self.feed.whole().is_none() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// Where responses wait for whoever takes them. It takes more only while it holds no whole one, so
/// that what a stream has to tell waits where it waits for a slow client.
#[derive(Default)]
struct Feed {
    /// Messages in their envelopes.
    sealed: RefCell<Vec<u8>>,
    waiting: RefCell<Option<Waker>>,
}

impl Feed {
    fn wait(&self, cx: &Context<'_>) {
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
    }

    /// Bytes of the first message, once it is whole.
    fn whole(&self) -> Option<usize> {
        let sealed = self.sealed.borrow();
        let (envelope, message) = sealed.split_first_chunk::<ENVELOPE_BYTES>()?;
        let length = u32::from_be_bytes([envelope[1], envelope[2], envelope[3], envelope[4]]);
        let length = usize::try_from(length).expect("a length of 32 bits fits");
        (message.len() >= length).then_some(length)
    }

    fn take(&self) -> Option<Bytes> {
        let length = self.whole()?;
        let mut sealed = self.sealed.borrow_mut();
        let rest = sealed.split_off(ENVELOPE_BYTES + length);
        let message = Bytes::from(std::mem::replace(&mut *sealed, rest));
        Some(message.slice(ENVELOPE_BYTES..))
    }
}

impl Sink for Feed {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        if self.whole().is_none() {
            self.sealed.borrow_mut().extend_from_slice(sealed);
            sealed.clear();
        }
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.try_send(sealed)?;
        if sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // Whoever takes the first message polls the stream, of which this is part.
        self.wait(cx);
        Poll::Pending
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn compress(&self, message: &[u8]) -> Bytes {
        unreachable!("messages of {} bytes go out plain", message.len())
    }

    /// What does not leave the process is not counted.
    fn count(&self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::envelope;

    fn sealed(message: &'static [u8]) -> Bytes {
        [&envelope(message.len())[..], message].concat().into()
    }

    #[test]
    fn a_feed_holds_one_whole_message() {
        let feed = Feed::default();
        let mut first = sealed(b"first");
        let mut rest = first.split_off(6);
        feed.try_send(&mut first).unwrap();
        assert!(first.is_empty() && feed.take().is_none());
        feed.try_send(&mut rest).unwrap();
        assert!(rest.is_empty());
        let mut second = sealed(b"2");
        feed.try_send(&mut second).unwrap();
        assert_eq!(second, sealed(b"2"), "the first has not been taken");
        assert_eq!(feed.take().as_deref(), Some(&b"first"[..]));
        feed.try_send(&mut second).unwrap();
        assert_eq!(feed.take().as_deref(), Some(&b"2"[..]));
        assert!(feed.take().is_none());
    }

    #[test]
    fn what_was_sent_comes_before_the_end() {
        let mut cx = Context::from_waker(Waker::noop());
        let refusal = Status::from(api::error::ApiError::NoLeader);
        let end = refusal.clone();
        let mut responses = Responses::new(|sink| {
            Box::pin(async move {
                sink.try_send(&mut sealed(b"first")).unwrap();
                Err(end)
            })
        });
        let first = responses.poll_next(&mut cx);
        assert_eq!(first, Poll::Ready(Some(Ok(Bytes::from_static(b"first")))));
        assert_eq!(responses.poll_next(&mut cx), Poll::Ready(Some(Err(refusal))));
        assert_eq!(responses.poll_next(&mut cx), Poll::Ready(None));
    }
}
