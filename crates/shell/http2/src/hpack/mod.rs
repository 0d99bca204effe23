//! Header compression.

/// The tags of HPACK's static table.
#[derive(Debug)]
pub struct StaticTags<T>(pub(crate) Vec<T>);

impl<T> StaticTags<T> {
    /// Asks the protocol for the tag of each entry.
    #[must_use]
    pub fn of<P: crate::Protocol<Tag = T>>() -> Self {
        Self(Vec::new())
    }
}
