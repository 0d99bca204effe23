//! The body of an answer: whole, or lines as they come.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// What gives the lines of a body; `None` at the end.
type Next = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>>;

/// The body of an answer.
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Lines as they come. Dropping it ends what gives them.
    Lines(Next),
}

impl Default for Content {
    fn default() -> Self {
        Content::Whole(Bytes::new())
    }
}

impl From<Bytes> for Content {
    fn from(body: Bytes) -> Self {
        Content::Whole(body)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Whole(body) => f.debug_tuple("Whole").field(body).finish(),
            Content::Lines(_) => f.write_str("Lines(..)"),
        }
    }
}

impl Content {
    /// The next piece; `None` at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Content::Whole(body) => {
                Poll::Ready(Some(std::mem::take(body)).filter(|body| !body.is_empty()))
            }
            Content::Lines(next) => next(cx),
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().poll_piece(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(body) if body.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Content::Lines(_) => SizeHint::default(),
        }
    }
}
