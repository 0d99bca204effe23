//! What a connection keeps of messages that are not whole.
//!
//! A message may be longer than a stream's window, which must therefore be given back before the
//! message is whole; no window bounds what many streams keep together. This does.

use std::fmt;
use std::rc::Rc;

use api::error::{Code, Status};

use super::Session;

/// Bytes of messages that are not whole which a connection keeps; whoever would need more is refused.
const GATHERED_BYTES: usize = 64 << 20;

/// What one call has of them; it no longer counts once this is dropped.
pub(super) struct Share {
    session: Rc<Session>,
    bytes: usize,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Share {
    /// The share of a call that has nothing yet.
    pub(super) fn new(session: &Rc<Session>) -> Self {
        Self { session: Rc::clone(session), bytes: 0 }
    }

    /// The call keeps as many bytes now.
    ///
    /// # Errors
    /// All calls together would keep too much; this one keeps nothing then.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let all = &self.session.gathered;
        let others = all.get() - self.bytes;
        let is_allowed = bytes == 0 || others.saturating_add(bytes) <= GATHERED_BYTES;
        self.bytes = if is_allowed { bytes } else { 0 };
        all.set(others + self.bytes);
        if is_allowed { Ok(()) } else { Err(too_much()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.session.gathered.update(|all| all - self.bytes);
    }
}

fn too_much() -> Status {
    let text = "too many bytes of messages that are not complete on one connection";
    Status::new(Code::ResourceExhausted, text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Origin, Settings};

    #[test]
    fn what_calls_keep_together_is_bounded_and_comes_back() {
        let session =
            Session::new(Rc::new(Settings::default()), Arc::default(), &Origin::default());
        let all = || session.gathered.get();
        let (mut first, mut second) = (Share::new(&session), Share::new(&session));
        first.set(GATHERED_BYTES - 10).unwrap();
        second.set(10).unwrap();
        assert_eq!(second.set(11).unwrap_err().code, Code::ResourceExhausted);
        assert_eq!(all(), GATHERED_BYTES - 10, "who was refused keeps nothing");
        second.set(10).unwrap();
        drop(first);
        assert_eq!(all(), 10);
        second.set(GATHERED_BYTES).unwrap();
        second.set(0).unwrap();
        assert_eq!(all(), 0);
    }
}
