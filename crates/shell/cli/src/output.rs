//! What tools print: answers on stdout, errors and log lines on stderr.
//!
//! Invariant: whoever reads may go away at any time. A write that nobody takes ends the tool as
//! SIGPIPE ends a Go program, and never panics; so tools print through here alone.

use std::io::{ErrorKind, Write};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Map;
pub use serde_json::Value;
use signal_hook::consts::SIGPIPE;

/// Writes to stdout and flushes it.
pub fn out(text: impl AsRef<[u8]>) {
    write(&mut std::io::stdout().lock(), text.as_ref());
}

/// Writes a line to stderr.
pub fn err(text: impl AsRef<[u8]>) {
    let mut line = text.as_ref().to_vec();
    line.push(b'\n');
    write(&mut std::io::stderr().lock(), &line);
}

/// Writes to stderr, without ending a line.
pub fn raw_err(text: impl AsRef<[u8]>) {
    write(&mut std::io::stderr().lock(), text.as_ref());
}

/// Writes all of it. A closed pipe ends the process by SIGPIPE, which shells show as 141; other
/// failures (a full disk behind a redirection) are dropped, as `fmt.Println` drops them.
fn write(to: &mut impl Write, bytes: &[u8]) {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    if written.is_err_and(|e| e.kind() == ErrorKind::BrokenPipe) {
        end_by_sigpipe();
    }
}

/// Ends the process as a write would if stdout is a pipe that nobody reads any more. For commands
/// that may wait long between two writes.
pub fn end_if_nobody_reads() {
    let stdout = std::io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let looked = poll(&mut polled, Some(&now));
    if looked.is_ok() && polled[0].revents().contains(PollFlags::ERR) {
        end_by_sigpipe();
    }
}

fn end_by_sigpipe() -> ! {
    let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
    // Only where the signal is blocked.
    std::process::exit(128 + SIGPIPE)
}

/// How important a log line of a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }
}

/// Writes a log line to stderr in the console shape of Go's zap: columns between tabs, the last of
/// them the fields as JSON.
pub fn console(level: Level, caller: &str, msg: &str, fields: &[(&str, Value)]) {
    err(console_line(
        level,
        &humantime::format_rfc3339_seconds(SystemTime::now()),
        caller,
        msg,
        fields,
    ));
}

fn console_line(
    level: Level,
    time: &dyn std::fmt::Display,
    caller: &str,
    msg: &str,
    fields: &[(&str, Value)],
) -> String {
    let caller = caller.trim_start_matches("crates/");
    let line = format!("{time}\t{}\t{caller}\t{msg}", level.name());
    if fields.is_empty() {
        return line;
    }
    // This encoder has a space behind each colon and comma.
    let pair = |(name, value): &(&str, Value)| format!("{}: {value}", Value::from(*name));
    let pairs: Vec<_> = fields.iter().map(pair).collect();
    format!("{line}\t{{{}}}", pairs.join(", "))
}

/// Writes a log line to stderr in the JSON shape of Go's zap. `caller` is where it comes from.
pub fn log(level: Level, caller: &str, msg: &str, fields: &[(&str, Value)]) {
    err(log_line(level, &humantime::format_rfc3339_micros(SystemTime::now()), caller, msg, fields));
}

fn log_line(
    level: Level,
    time: &dyn std::fmt::Display,
    caller: &str,
    msg: &str,
    fields: &[(&str, Value)],
) -> String {
    let mut line = Map::new();
    line.insert("level".to_owned(), level.name().into());
    line.insert("ts".to_owned(), time.to_string().into());
    line.insert("caller".to_owned(), caller.trim_start_matches("crates/").into());
    line.insert("msg".to_owned(), msg.into());
    for (name, value) in fields {
        line.insert((*name).to_owned(), value.clone());
    }
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_its_fields_in_zaps_order() {
        let fields = [("path", "a\"b".into()), ("attempt", 0.into())];
        let line = log_line(Level::Warn, &"T", "ctl/src/x.rs:1", "said", &fields);
        let expected = "{\"level\":\"warn\",\"ts\":\"T\",\"caller\":\"ctl/src/x.rs:1\",\
                        \"msg\":\"said\",\"path\":\"a\\\"b\",\"attempt\":0}";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_console_line_has_its_fields_behind_the_last_tab() {
        let fields = [("storage-version", "3.6".into()), ("size", 7.into())];
        let line = console_line(Level::Warn, &"T", "crates/a.rs", "said", &fields);
        assert_eq!(line, "T\twarn\ta.rs\tsaid\t{\"storage-version\": \"3.6\", \"size\": 7}");
        assert_eq!(console_line(Level::Error, &"T", "a", "said", &[]), "T\terror\ta\tsaid");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_dropped() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        write(&mut Full, b"text");
    }
}
