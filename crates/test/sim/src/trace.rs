//! The event log: a hash of every line, and the last lines for people.

use std::collections::VecDeque;
use std::fmt::{self, Write};

/// Lines kept for the report of a failure.
const KEPT: usize = 60;

/// What happened, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    last: VecDeque<String>,
    /// Whether each line is printed as it comes.
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { print, ..Self::default() }
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
        if self.print {
            println!("{}", self.line);
            return;
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
