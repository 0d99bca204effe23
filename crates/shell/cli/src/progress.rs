//! How far something is, on stderr: a line that is drawn again on a terminal, and a line after line
//! where there is none, as etcd's tools show it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use crate::output;

/// Least time between two drawings.
//= github.com/cheggaaa/pb: v3/pb.go#defaultRefreshRate
const REFRESH: Duration = Duration::from_millis(200);

/// Columns where no terminal says how many it has.
const COLUMNS: usize = 100;

/// Time until a rate is known.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// Progress towards a known number of steps.
#[derive(Debug)]
pub struct Bar {
    total: u64,
    done: u64,
    began: Instant,
    drawn: Option<Instant>,
    is_terminal: bool,
}

impl Bar {
    /// Begins, and shows that nothing is done yet.
    #[must_use]
    pub fn start(total: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let mut bar = Self { total, done: 0, began: Instant::now(), drawn: None, is_terminal };
        bar.draw();
        bar
    }

    /// So many steps are done. Shows it if the last drawing is old enough.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REFRESH) {
            self.draw();
        }
    }

    /// Shows how far it came, for the last time.
    pub fn finish(mut self) {
        self.draw();
        if self.is_terminal {
            output::raw_err("\n");
        }
    }

    fn draw(&mut self) {
        self.drawn = Some(Instant::now());
        let columns = if self.is_terminal { columns() } else { COLUMNS };
        let line = line(self.done, self.total, self.began.elapsed(), columns);
        output::raw_err(if self.is_terminal { format!("\r{line}") } else { line });
    }
}

fn columns() -> usize {
    let size = tcgetwinsize(std::io::stderr());
    size.map_or(COLUMNS, |size| usize::from(size.ws_col)).max(1)
}

/// `N / TOTAL [--->___] P% R p/s`, as many columns as there are.
fn line(done: u64, total: u64, elapsed: Duration, columns: usize) -> String {
    let part = if total == 0 { 1.0 } else { done as f64 / total as f64 };
    let rate = if elapsed < RATE_AFTER || done == 0 {
        "?".to_owned()
    } else {
        format!("{:.0}", done as f64 / elapsed.as_secs_f64())
    };
    let mut out = format!("{done} / {total} [");
    let tail = format!("] {:.2}% {rate} p/s", part * 100.0);
    let room = columns.saturating_sub(out.len() + tail.len());
    let filled = ((room as f64 * part) as usize).min(room);
    if filled > 0 {
        let head = if filled < room { ">" } else { "-" };
        let _ = write!(out, "{}{head}", "-".repeat(filled - 1));
    }
    let _ = write!(out, "{}{tail}", "_".repeat(room - filled));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_as_many_columns_as_there_are() {
        let short = Duration::from_millis(10);
        let seconds = Duration::from_secs;
        assert_eq!(line(0, 60, short, 40), "0 / 60 [___________________] 0.00% ? p/s");
        assert_eq!(line(30, 60, seconds(30), 40), "30 / 60 [------->_________] 50.00% 1 p/s");
        assert_eq!(line(60, 60, seconds(60), 40), "60 / 60 [----------------] 100.00% 1 p/s");
        assert_eq!(line(1, 2, short, 3), "1 / 2 [] 50.00% ? p/s");
    }
}
