//! Counts what a test wants bounded: probes of the index, turns of streams.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local!(static STEPS: Cell<u64> = const { Cell::new(0) });

/// Counts one; in tests only.
#[inline]
pub(crate) fn count() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

/// Steps on this thread since the last time.
#[cfg(test)]
pub(crate) fn take() -> u64 {
    STEPS.take()
}
