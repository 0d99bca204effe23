//! Command lines that read, refuse and print as etcd's tools do.
//!
//! Their flags are pflag's and their command tree is cobra's: prefixes of names, the texts of
//! refusals and the exit codes are part of what scripts see. No parser of this ecosystem gives
//! them, so this one is ours; commands and flags are data.
//!
//! Owns: finding a command, reading flags, counting arguments, help, completion, what is printed
//! where, asking for passwords, Go's spellings of numbers, durations, strings and tables. Never: speaks to a
//! server. Read next: [`command`], [`flags`], [`output`], [`prompt`], [`text`].

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod command;
pub mod completion;
pub mod flags;
pub mod help;
pub mod output;
pub mod progress;
pub mod prompt;
pub mod text;

pub use command::{Command, Does, Found, Program, Takes, find, run};
pub use flags::{Flag, Need, Secrecy, ValueType, Values};

/// What is said of something that etcd has and this version does not.
#[must_use]
pub fn not_implemented(what: &str) -> String {
    format!("{what} is not implemented in {}; COMPAT.md lists what is", types::PRODUCT)
}

/// The arguments as text. Go's tools take any bytes; here those that are not UTF-8 are refused.
///
/// # Errors
/// Which argument is not text.
pub fn texts(args: impl Iterator<Item = std::ffi::OsString>) -> Result<Vec<String>, Exit> {
    let refused = |arg: std::ffi::OsString| {
        Exit::args(not_implemented(&format!("an argument that is not UTF-8 ({arg:?})")))
    };
    args.map(|arg| arg.into_string().map_err(refused)).collect()
}

/// How a command ended other than well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What follows `Error: ` on stderr; empty if everything was said.
    pub text: String,
}

impl Exit {
    /// A plain failure.
    pub const ERROR: u8 = 1;
    /// No connection.
    pub const BAD_CONNECTION: u8 = 2;
    /// Input of a transaction or watch that does not parse.
    pub const INVALID_INPUT: u8 = 3;
    /// An option or format that this command does not have.
    pub const BAD_FEATURE: u8 = 4;
    /// The command was interrupted.
    pub const INTERRUPTED: u8 = 5;
    /// A file could not be read or written.
    pub const IO: u8 = 6;
    /// Wrong arguments.
    pub const BAD_ARGS: u8 = 128;

    /// An end with a text.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Says why on stderr and gives the code.
    #[must_use]
    pub fn tell(self) -> u8 {
        if !self.text.is_empty() {
            output::err(format!("Error: {}", self.text));
        }
        self.code
    }

    /// An end about which everything was said.
    #[must_use]
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    /// Wrong arguments.
    pub fn args(text: impl Into<String>) -> Self {
        Self::new(Self::BAD_ARGS, text)
    }
}
