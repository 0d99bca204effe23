//! The newest value of something that one thread publishes and many read.

use std::sync::Arc;

use crate::sync::{Mutex, lock};

/// Holds the newest published value. Readers clone an `Arc` under a lock that is held for that
/// clone alone; the value that was replaced is dropped outside it.
#[derive(Debug)]
pub struct Slot<T>(Mutex<Arc<T>>);

impl<T> Slot<T> {
    /// A slot that begins with `value`.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    /// The newest value.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&lock(&self.0))
    }

    /// Publishes a value and returns the one before it, so that the caller decides where its last
    /// reference is dropped.
    pub fn store(&self, value: T) -> Arc<T> {
        let new = Arc::new(value);
        std::mem::replace(&mut *lock(&self.0), new)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn readers_keep_the_value_they_loaded() {
        let slot = Slot::new(1);
        let old = slot.load();
        assert_eq!(*slot.store(2), 1);
        assert_eq!((*old, *slot.load()), (1, 2));
    }
}
