//! What a connection keeps of messages that are not whole.
//!
//! A message may be longer than a stream's window, which must therefore be given back before the
//! message is whole; no window bounds what many streams keep together. This does.

use std::cell::Cell;
use std::rc::Rc;

use api::error::{Code, Status};

/// Bytes of messages that are not whole which a connection keeps; whoever would need more is refused.
const GATHERED_BYTES: usize = 64 << 20;

/// Bytes of a connection, as its calls count them.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered(Rc<Cell<usize>>);

impl Gathered {
    /// The share of a call, which has nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { all: self.clone(), bytes: 0 }
    }
}

/// The bytes of one call; they no longer count once it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    all: Gathered,
    bytes: usize,
}

impl Share {
    /// The call keeps as many bytes now.
    ///
    /// # Errors
    /// All calls together would keep too much; this one keeps nothing then.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let Gathered(all) = &self.all;
        let others = all.get() - self.bytes;
        let is_allowed = bytes == 0 || others.saturating_add(bytes) <= GATHERED_BYTES;
        self.bytes = if is_allowed { bytes } else { 0 };
        all.set(others + self.bytes);
        if is_allowed { Ok(()) } else { Err(too_much()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.0.set(self.all.0.get() - self.bytes);
    }
}

fn too_much() -> Status {
    let text = "too many bytes of messages that are not complete on one connection";
    Status::new(Code::ResourceExhausted, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_keep_together_is_bounded_and_comes_back() {
        let all = Gathered::default();
        let (mut first, mut second) = (all.share(), all.share());
        first.set(GATHERED_BYTES - 10).unwrap();
        second.set(10).unwrap();
        assert_eq!(second.set(11).unwrap_err().code, Code::ResourceExhausted);
        assert_eq!(all.0.get(), GATHERED_BYTES - 10, "who was refused keeps nothing");
        second.set(10).unwrap();
        drop(first);
        assert_eq!(all.0.get(), 10);
        second.set(GATHERED_BYTES).unwrap();
        second.set(0).unwrap();
        assert_eq!(all.0.get(), 0);
    }
}
