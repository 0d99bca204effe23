//! Faults planted from outside the process.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use env::{IoError, IoErrorKind, IoOp};

/// What happens to the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The device fails (EIO).
    Broken,
    /// The device is full (ENOSPC).
    Full,
    /// It takes this much longer.
    Slow(Duration),
}

/// Which operation of one kind on matching paths fails, counted from 0 once the faults are armed.
#[derive(Debug)]
pub struct Fault {
    op: IoOp,
    /// What the path must contain; empty for every path.
    path: String,
    first: u64,
    /// How many in a row; `u64::MAX` for all that follow.
    times: u64,
    effect: Effect,
    seen: AtomicU64,
}

impl Fault {
    /// Reads `op,path,first,times,effect`, for example `Sync,wal,17,1,eio` or
    /// `Write,db,0,18446744073709551615,enospc` or `Sync,wal,0,5,200ms`.
    ///
    /// # Errors
    /// The text, if it is not of that form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("not a fault: {text}");
        let [op, path, first, times, effect] =
            <[&str; 5]>::try_from(text.split(',').collect::<Vec<_>>()).map_err(|_| bad())?;
        let ops = [IoOp::Write, IoOp::Sync, IoOp::SetLen, IoOp::Allocate, IoOp::Rename];
        let ops = ops.into_iter().chain([IoOp::Open, IoOp::SyncDir, IoOp::Read, IoOp::Remove]);
        let op = ops.into_iter().find(|o| format!("{o:?}") == op).ok_or_else(bad)?;
        let effect = match effect {
            "eio" => Effect::Broken,
            "enospc" => Effect::Full,
            slow => {
                let ms = slow.strip_suffix("ms").and_then(|n| n.parse().ok()).ok_or_else(bad)?;
                Effect::Slow(Duration::from_millis(ms))
            }
        };
        Ok(Self {
            op,
            path: path.to_owned(),
            first: first.parse().map_err(|_| bad())?,
            times: times.parse().map_err(|_| bad())?,
            effect,
            seen: AtomicU64::new(0),
        })
    }
}

/// All planted faults.
#[derive(Debug, Default)]
pub struct Faults {
    faults: Vec<Fault>,
    /// They count only while this file exists; always if `None`.
    armed_by: Option<PathBuf>,
}

impl Faults {
    /// Faults in one text, separated by `;`, armed by a file.
    ///
    /// # Errors
    /// As [`Fault::parse`].
    pub fn parse(text: &str, armed_by: Option<PathBuf>) -> Result<Self, String> {
        let faults = text.split(';').filter(|t| !t.is_empty()).map(Fault::parse);
        Ok(Self { faults: faults.collect::<Result<_, _>>()?, armed_by })
    }

    /// Counts an operation; waits if it is a slow one.
    ///
    /// # Errors
    /// The planted one.
    pub fn check(&self, op: IoOp, path: &Path) -> Result<(), IoError> {
        for fault in self.faults.iter().filter(|f| f.op == op) {
            let relevant = path.to_str().is_some_and(|p| p.contains(&fault.path));
            if !relevant || self.armed_by.as_ref().is_some_and(|file| !file.exists()) {
                continue;
            }
            let number = fault.seen.fetch_add(1, Ordering::SeqCst);
            if number < fault.first || number - fault.first >= fault.times {
                continue;
            }
            let (kind, text) = match fault.effect {
                Effect::Broken => (IoErrorKind::Other, "input/output error"),
                Effect::Full => (IoErrorKind::NoSpace, "no space left on device"),
                Effect::Slow(time) => {
                    std::thread::sleep(time);
                    continue;
                }
            };
            return Err(IoError { op, kind, path: path.to_path_buf(), text: text.to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_the_chosen_operations_of_the_chosen_path() {
        let faults = Faults::parse("Sync,wal,1,2,eio", None).unwrap();
        let hit = |op, path: &str| faults.check(op, Path::new(path)).is_err();
        assert!(!hit(IoOp::Sync, "/d/wal/a"));
        assert!(!hit(IoOp::Sync, "/d/db"));
        assert!(!hit(IoOp::Write, "/d/wal/a"));
        assert!(hit(IoOp::Sync, "/d/wal/a"));
        assert!(hit(IoOp::Sync, "/d/wal/b"));
        assert!(!hit(IoOp::Sync, "/d/wal/a"));
    }

    #[test]
    fn faults_wait_for_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("armed");
        let faults = Faults::parse("Write,,0,1,enospc", Some(file.clone())).unwrap();
        assert!(faults.check(IoOp::Write, Path::new("/x")).is_ok());
        std::fs::write(&file, "").unwrap();
        let error = faults.check(IoOp::Write, Path::new("/x")).unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        assert!(Faults::parse("Sync,wal,1,eio", None).is_err());
        assert!(Faults::parse("Nap,wal,1,1,eio", None).is_err());
        assert!(Faults::parse("Sync,wal,1,1,5s", None).is_err());
    }
}
