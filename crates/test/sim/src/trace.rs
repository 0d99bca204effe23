//! The event log: a hash of every line, and the last lines for people.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{BufWriter, Write as _};

/// Lines kept for the report of a failure.
const KEPT: usize = 60;

/// Where the lines go.
#[derive(Debug, Default)]
pub enum Log {
    /// Nowhere; the last ones are kept.
    #[default]
    Nowhere,
    /// To stdout.
    Stdout,
    /// Into a file.
    File(BufWriter<File>),
}

/// What happened, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    last: VecDeque<String>,
    log: Log,
}

impl Trace {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, ..Self::default() }
    }

    pub(crate) fn event(&mut self, now: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        let written = write!(self.line, "{now:>12} {what}");
        written.expect("writing to a text does not fail");
        // FNV-1a, over the bytes of the line and its end.
        for byte in self.line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.lines += 1;
        match &mut self.log {
            Log::Nowhere => {}
            Log::Stdout => println!("{}", self.line),
            // A log that cannot be written is of no use, and no finding.
            Log::File(file) => drop(writeln!(file, "{}", self.line)),
        }
        let mut kept = if self.last.len() == KEPT {
            self.last.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        kept.clone_from(&self.line);
        self.last.push_back(kept);
    }

    /// The hash of all lines.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
