//! What is asked of whoever sits at the terminal: passwords, without echo.
//!
//! Invariant: a terminal that stopped echoing echoes again, however the question ends.

use std::io::{BufRead, Read, Stdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::output;

/// Longest line that is taken as a password, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// Exit code of a tool that a signal ends during a question; Go's `os.Exit(-1)`.
const EXIT_ASKING: i32 = 255;

/// Asks on stdout, reads a line from stdin and ends the question's line. A terminal does not show
/// what is typed; without a terminal the line is read as it comes. White space around it is not
/// part of the answer, and the end of stdin is an empty one.
///
/// # Errors
/// Why stdin cannot be read.
//= github.com/bgentry/speakeasy: speakeasy.go#FAsk
pub fn password(question: &str) -> Result<String, String> {
    output::out(question);
    let read = {
        let _hidden = Hidden::stdin();
        line(&mut std::io::stdin().lock())
    };
    output::out("\n");
    read
}

fn line(input: &mut impl BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE).read_until(b'\n', &mut line);
    read.map_err(|e| format!("failed during password entry: read /dev/stdin: {}", words(&e)))?;
    let line = String::from_utf8(line).map_err(|_| "the password is not UTF-8".to_owned())?;
    Ok(line.trim().to_owned())
}

/// An error of the system without Rust's `(os error N)`.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The first word of stdin; empty if there is none before the end of its first line.
///
/// # Errors
/// The word is not text.
//= go 1.26: fmt/scan.go#Scanf ("%s")
pub fn word() -> Result<String, String> {
    word_of(&mut std::io::stdin().lock())
}

fn word_of(input: &mut impl BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    // What cannot be read is as good as nothing, as it is to Scanf's caller.
    let _ = input.take(MAX_LINE).read_until(b'\n', &mut line);
    let line = String::from_utf8(line).map_err(|_| "the password is not UTF-8".to_owned())?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A terminal that does not echo, until this is dropped or a signal ends the process.
struct Hidden {
    before: Termios,
    watch: Handle,
    watcher: Option<JoinHandle<()>>,
    /// Whether signals end the process again as if nothing watched for them.
    is_over: Arc<AtomicBool>,
}

impl Hidden {
    /// `None` if stdin is no terminal, or none that can be told.
    fn stdin() -> Option<Self> {
        const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut signals = Signals::new(ENDING).ok()?;
        let is_over = Arc::new(AtomicBool::new(false));
        for signal in ENDING {
            let over = Arc::clone(&is_over);
            signal_hook::flag::register_conditional_default(signal, over).ok()?;
        }
        let watch = signals.handle();
        let shown = before.clone();
        let watcher = std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                show(&std::io::stdin(), &shown);
                std::process::exit(EXIT_ASKING);
            }
        });
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // What cannot be hidden is read all the same.
        let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
        Some(Self { before, watch, watcher: Some(watcher), is_over })
    }
}

fn show(stdin: &Stdin, before: &Termios) {
    // The terminal may be gone.
    let _ = tcsetattr(stdin, OptionalActions::Now, before);
}

impl Drop for Hidden {
    fn drop(&mut self) {
        show(&std::io::stdin(), &self.before);
        self.is_over.store(true, Ordering::SeqCst);
        self.watch.close();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_without_what_is_around_it_and_the_next_one_is_left() {
        let mut input = &b" pass word \r\nnext\n"[..];
        assert_eq!(line(&mut input).as_deref(), Ok("pass word"));
        assert_eq!(line(&mut input).as_deref(), Ok("next"));
        assert_eq!(line(&mut input).as_deref(), Ok(""));
        assert!(line(&mut &b"\xff\n"[..]).is_err());
    }

    #[test]
    fn a_word_is_the_first_of_the_first_line() {
        for (input, word) in [("a b\n", "a"), ("  a\n", "a"), ("\na\n", ""), ("", ""), ("a", "a")] {
            assert_eq!(word_of(&mut input.as_bytes()).as_deref(), Ok(word), "{input:?}");
        }
    }
}
