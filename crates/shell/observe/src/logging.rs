//! Log lines in etcd's JSON shape: level, ts, caller, msg, then fields.
//!
//! Texts that tools and people grep for are etcd's. Whoever logs never waits for an output: lines
//! are queued, and a thread per output writes them ([`Log::line`] of a fatal one waits for that, for
//! a bounded time).

use std::fs::File;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use osenv::Clock;
use serde_json::{Map, Value};

use crate::writer::{Urgency, Writer};

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }

    /// The level of `--log-level`, by any name that zap has for it, in any case.
    //= go.uber.org/zap 1.28.0: zapcore/level.go#unmarshalText
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Some(Level::Debug),
            "info" | "" => Some(Level::Info),
            "warn" | "warning" => Some(Level::Warn),
            "error" => Some(Level::Error),
            "dpanic" | "panic" | "fatal" => Some(Level::Fatal),
            _ => None,
        }
    }
}

/// How lines look (`--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    #[default]
    Json,
    /// Columns separated by tabs, the fields as JSON behind them.
    Console,
}

/// Where log lines go. Dropping it waits, for a bounded time, until they are written.
pub struct Log {
    level: Level,
    format: Format,
    writers: Vec<Writer>,
}

impl Log {
    /// A log that says nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { level: Level::Fatal, format: Format::Json, writers: Vec::new() }
    }

    /// A log with `--log-level`, `--log-format` and `--log-outputs`. `/dev/null` among the outputs
    /// discards all.
    ///
    /// # Errors
    /// A file that cannot be opened, or a thread that cannot be had.
    pub fn open(level: Level, format: Format, outputs: &[String]) -> std::io::Result<Self> {
        let mut opened: Vec<Box<dyn Write + Send>> = Vec::new();
        if !outputs.iter().any(|o| o == "/dev/null") {
            for output in outputs {
                opened.push(match output.as_str() {
                    "default" | "stderr" | "systemd/journal" => Box::new(std::io::stderr()),
                    "stdout" => Box::new(std::io::stdout()),
                    path => Box::new(File::options().create(true).append(true).open(path)?),
                });
            }
        }
        Self::to(level, format, opened)
    }

    /// A log with these outputs.
    ///
    /// # Errors
    /// A thread that cannot be had.
    pub fn to(
        level: Level,
        format: Format,
        outputs: Vec<Box<dyn Write + Send>>,
    ) -> std::io::Result<Self> {
        let start = |output| Writer::start(output, Box::new(move |n| dropped(format, n)));
        let writers = outputs.into_iter().map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { level, format, writers })
    }

    /// Queues a line; a fatal one is written when this returns, if its output takes it within a
    /// second. `caller` is the file and line that it comes from.
    pub fn line(&self, level: Level, caller: &str, msg: &str, fields: &[(&str, Value)]) {
        if level < self.level || self.writers.is_empty() {
            return;
        }
        let text = text(self.format, level, caller, msg, fields);
        let is_fatal = level == Level::Fatal;
        for writer in &self.writers {
            writer.push(&text, if is_fatal { Urgency::Urgent } else { Urgency::Normal });
        }
        if is_fatal {
            self.flush();
        }
    }

    /// Waits until the lines so far are written, a second per output at the longest: for ends of
    /// the process that drop nothing.
    pub fn flush(&self) {
        for writer in &self.writers {
            writer.flush();
        }
    }
}

/// The line that tells of `count` others which an output did not take in time.
fn dropped(format: Format, count: u64) -> String {
    let caller = concat!(file!(), ":", line!()).trim_start_matches("crates/");
    let fields = [("dropped", Value::from(count))];
    let msg = "log lines were dropped because this output did not take them in time";
    text(format, Level::Warn, caller, msg, &fields)
}

fn text(format: Format, level: Level, caller: &str, msg: &str, fields: &[(&str, Value)]) -> String {
    match format {
        Format::Json => json_line(level, caller, msg, fields),
        Format::Console => console_line(level, caller, msg, fields),
    }
}

fn json_line(level: Level, caller: &str, msg: &str, fields: &[(&str, Value)]) -> String {
    let mut line = Map::new();
    line.insert("level".to_owned(), level.name().into());
    line.insert("ts".to_owned(), timestamp().into());
    line.insert("caller".to_owned(), caller.into());
    line.insert("msg".to_owned(), msg.into());
    for (name, value) in fields {
        line.insert((*name).to_owned(), value.clone());
    }
    format!("{}\n", Value::Object(line))
}

/// As zap's console encoder: a space behind each colon and comma of the fields.
fn console_line(level: Level, caller: &str, msg: &str, fields: &[(&str, Value)]) -> String {
    let mut line = format!("{}\t{}\t{caller}\t{msg}", timestamp(), level.name());
    if !fields.is_empty() {
        let shown: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}: {}", Value::from(*name), spaced(value)))
            .collect();
        line.push_str(&format!("\t{{{}}}", shown.join(", ")));
    }
    line.push('\n');
    line
}

fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Logs a line with the place it is written at.
#[macro_export]
macro_rules! log_line {
    ($log:expr, $level:ident, $msg:expr $(, $name:tt = $value:expr)* $(,)?) => {
        $log.line(
            $crate::logging::Level::$level,
            concat!("server/", file!(), ":", line!()).trim_start_matches("server/crates/"),
            $msg,
            &[$(($name, $crate::Value::from($value))),*],
        )
    };
}

/// Now as zap shows it in UTC: `2006-01-02T15:04:05.000000Z`.
fn timestamp() -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(Clock.wall().0);
    humantime::format_rfc3339_micros(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_six_digits_of_the_second() {
        let now = timestamp();
        assert_eq!(now.len(), "2006-01-02T15:04:05.000000Z".len(), "{now}");
        assert!(now.ends_with('Z') && humantime::parse_rfc3339(&now).is_ok(), "{now}");
    }
}
