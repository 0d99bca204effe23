//! Programs that a command runs, and how their ends are told.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use cli::text;

/// A program that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why, in Go's words.
    pub text: String,
    /// The exit code of whoever passes it on.
    pub code: u8,
}

/// Runs a program with nothing on its stdin and waits for its end. The variables are added; those of
/// the environment that have the same name win if `wins` says so.
///
/// # Errors
/// It cannot be started, or did not end with 0.
pub fn run(words: &[String], variables: &[(&str, String)], wins: Wins) -> Result<(), Failed> {
    let Some((program, args)) = words.split_first() else {
        return Err(Failed { text: "exec: no command".to_owned(), code: 1 });
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    for (name, value) in variables {
        if wins == Wins::Added || std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ended(status)),
        Err(error) => Err(Failed { text: unstarted(program, &error), code: 1 }),
    }
}

/// Which of two variables of one name a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wins {
    /// What is added.
    Added,
    /// What the environment has.
    Environment,
}

//= go 1.26: os/exec/exec.go#Start
fn unstarted(program: &str, error: &std::io::Error) -> String {
    if !program.contains('/') && error.kind() == ErrorKind::NotFound {
        let shown = text::quote(program.as_bytes());
        return format!("exec: {shown}: executable file not found in $PATH");
    }
    format!("fork/exec {program}: {}", osenv::error_text(error))
}

//= go 1.26: os/exec_posix.go#String
fn ended(status: ExitStatus) -> Failed {
    if let Some(code) = status.code() {
        let text = format!("exit status {code}");
        return Failed { text, code: u8::try_from(code).unwrap_or(u8::MAX) };
    }
    let signal = status.signal().unwrap_or_default();
    let name = SIGNALS.iter().find(|(number, _)| *number == signal);
    let name = name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned());
    let core = if status.core_dumped() { " (core dumped)" } else { "" };
    Failed { text: format!("signal: {name}{core}"), code: u8::MAX }
}

/// Go's names of the signals that usually end a program.
const SIGNALS: &[(i32, &str)] = &[
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction"),
    (5, "trace/breakpoint trap"),
    (6, "aborted"),
    (7, "bus error"),
    (8, "floating point exception"),
    (9, "killed"),
    (10, "user defined signal 1"),
    (11, "segmentation fault"),
    (12, "user defined signal 2"),
    (13, "broken pipe"),
    (14, "alarm clock"),
    (15, "terminated"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<(), Failed> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run(&words, &[("QUORATE_TEST_A", "1".to_owned())], Wins::Added)
    }

    fn failed(text: &str, code: u8) -> Result<(), Failed> {
        Err(Failed { text: text.to_owned(), code })
    }

    #[test]
    fn ends_are_told_as_go_tells_them() {
        assert_eq!(shell("test $QUORATE_TEST_A = 1"), Ok(()));
        assert_eq!(shell("exit 7"), failed("exit status 7", 7));
        assert_eq!(shell("kill -9 $$"), failed("signal: killed", 255));
        let missing = |program: &str| run(&[program.to_owned()], &[], Wins::Added);
        assert_eq!(
            missing("no-such-program"),
            failed("exec: \"no-such-program\": executable file not found in $PATH", 1)
        );
        assert_eq!(
            missing("./no-such-program"),
            failed("fork/exec ./no-such-program: no such file or directory", 1)
        );
    }
}
