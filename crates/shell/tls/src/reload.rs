//! Files that are read anew when they change.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::info::TlsError;

/// At most once in this time it is looked whether files have changed: a few system calls, which a
/// storm of connections should not each pay.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What became of files that have changed.
#[derive(Clone, Copy, Debug)]
pub enum Reload<'a> {
    /// They count from now on.
    Taken {
        /// All files of this end.
        files: &'a [String],
    },
    /// They cannot be used, and what was read before counts on.
    Kept {
        /// All files of this end.
        files: &'a [String],
        /// What is wrong.
        error: &'a TlsError,
    },
}

/// Who is told of files that have changed.
#[derive(Clone)]
pub struct Notify(Arc<dyn Fn(Reload<'_>) + Send + Sync>);

impl Notify {
    /// Calls `tell`, on a thread that serves connections: it must not wait.
    pub fn new(tell: impl Fn(Reload<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notify")
    }
}

/// What tells a file from its predecessor; `None` if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &str) -> Self {
        let facts = std::fs::metadata(path).ok();
        Self(facts.map(|f| (f.dev(), f.ino(), f.len(), f.mtime(), f.mtime_nsec())))
    }
}

/// A value made from files, and made again when they change.
pub(crate) struct Reloading<T> {
    files: Vec<String>,
    load: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
    notify: Notify,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl<T> Reloading<T> {
    /// Makes the value.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(
        files: Vec<String>,
        notify: Notify,
        load: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // A file that changes while it is read is read again: its stamp is taken before.
        let stamps = files.iter().map(|path| Stamp::of(path)).collect();
        let value = Arc::new(load()?);
        let state = Mutex::new(State { value, stamps, looked: Instant::now() });
        Ok(Self { files, load: Box::new(load), notify, state })
    }

    /// The value of the files as they are, or as they were when they last made sense.
    pub(crate) fn current(&self) -> Arc<T> {
        // A panic while it was held left a value that is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < LOOK_INTERVAL {
            return Arc::clone(&state.value);
        }
        state.looked = Instant::now();
        let stamps: Vec<Stamp> = self.files.iter().map(|path| Stamp::of(path)).collect();
        if stamps != state.stamps {
            state.stamps = stamps;
            match (self.load)() {
                Ok(value) => {
                    state.value = Arc::new(value);
                    (self.notify.0)(Reload::Taken { files: &self.files });
                }
                Err(error) => (self.notify.0)(Reload::Kept { files: &self.files, error: &error }),
            }
        }
        Arc::clone(&state.value)
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}
