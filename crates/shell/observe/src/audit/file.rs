//! The file of the audit log: appended to, and opened anew when it was moved away.
//!
//! Before each batch, ten times a second at most, it is looked whether the path still leads to the
//! file that is open. So whatever rotates logs needs to send no signal, and may copy and truncate as
//! well: each write goes to the end.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use osenv::Clock;

use super::line::Lines;
use crate::{Log, log_line};

/// Time between two lines of the ordinary log that tell of the same trouble.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Only the user of the process reads who did what.
const MODE: u32 = 0o600;

/// The open file, or whatever else the path leads to.
pub(super) struct File {
    path: PathBuf,
    file: std::fs::File,
    /// Device and inode.
    identity: (u64, u64),
    log: Arc<Log>,
    /// Lines that were not written since that was last told in the file.
    lost: u64,
    /// Half a line stands at the end.
    is_torn: bool,
    told: Option<Instant>,
}

fn open(path: &Path) -> io::Result<(std::fs::File, (u64, u64))> {
    // A pipe is opened for both, which does not wait for somebody to read it.
    let is_pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    let file = OpenOptions::new().read(is_pipe).append(true).create(true).mode(MODE).open(path)?;
    let found = file.metadata()?;
    Ok((file, (found.dev(), found.ino())))
}

impl File {
    pub(super) fn open(path: &Path, log: Arc<Log>) -> io::Result<Self> {
        let (file, identity) = open(path)?;
        let path = path.to_owned();
        Ok(Self { path, file, identity, log, lost: 0, is_torn: false, told: None })
    }

    /// Opens the file anew if the path no longer leads to it. One that cannot be opened is told,
    /// and the old one goes on.
    pub(super) fn follow(&mut self) {
        let found = std::fs::metadata(&self.path).map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            return;
        }
        match open(&self.path) {
            Ok((file, identity)) => {
                (self.file, self.identity, self.is_torn) = (file, identity, false);
            }
            Err(error) => self.tell("cannot open the audit log anew", &error),
        }
    }

    /// Goes on with another file.
    #[cfg(test)]
    pub(super) fn replace(&mut self, path: &Path) {
        let (file, identity) = open(path).expect("a test's file");
        (self.path, self.file, self.identity) = (path.to_owned(), file, identity);
    }

    /// Appends lines, which are empty then. What cannot be written is counted.
    pub(super) fn append(&mut self, lines: &mut Lines) {
        if lines.text.is_empty() {
            return;
        }
        if self.lost > 0 {
            let behind = std::mem::take(&mut lines.text);
            if self.is_torn {
                lines.text.push('\n');
            }
            lines.dropped(Clock.wall(), self.lost);
            lines.text.push_str(&behind);
        }
        let notice = u64::from(self.lost > 0) + u64::from(self.is_torn);
        let text = lines.text.as_bytes();
        let mut written = 0;
        while written < text.len() {
            match self.file.write(&text[written..]) {
                Ok(0) => {
                    return self.failed(lines, (written, notice), &io::ErrorKind::WriteZero.into());
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed(lines, (written, notice), &error),
            }
        }
        (self.lost, self.is_torn) = (0, false);
        lines.text.clear();
    }

    /// Only `written` bytes were, of text that begins with so many lines of our own.
    fn failed(&mut self, lines: &mut Lines, (written, notice): (usize, u64), error: &io::Error) {
        let (done, left) = lines.text.as_bytes().split_at(written);
        let ends = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count() as u64;
        let (done, missing) = (done.to_vec(), ends(left));
        if written > 0 {
            self.is_torn = done.last() != Some(&b'\n');
        }
        // What was to tell of the lines before is lost with them, or has told of them.
        if ends(&done) >= notice {
            self.lost = missing;
        } else {
            self.lost += missing.saturating_sub(notice - ends(&done));
        }
        lines.text.clear();
        self.tell("cannot write the audit log: lines are dropped", error);
    }

    /// Tells of trouble, now and then.
    fn tell(&mut self, text: &str, error: &io::Error) {
        if self.told.is_some_and(|told| told.elapsed() < TELL_AGAIN) {
            return;
        }
        self.told = Some(Instant::now());
        let path = self.path.display().to_string();
        let error = osenv::error_text(error);
        log_line!(self.log, Warn, text, "path" = path, "error" = error, "dropped" = self.lost);
    }
}
