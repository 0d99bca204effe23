//! The open streams.

/// Names a stream to [`Connection`](crate::Connection). Copies may outlive it: whatever is said of a
/// stream that is gone has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub(crate) id: u32,
    pub(crate) place: u32,
}

impl StreamKey {
    /// The stream's number on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }
}
