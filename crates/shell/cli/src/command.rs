//! The tree of commands, as cobra walks it.

use std::ffi::OsString;
use std::fmt::Write as _;

use crate::flags::{Flag, ValueType, Values};
use crate::help::usage;
use crate::{Exit, not_implemented, output};

/// A command; `R` is what runs it.
#[derive(Debug)]
pub struct Command<R: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, for help.
    pub args: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// How many arguments it takes.
    pub takes: Takes,
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Flags that its sub-commands have too.
    pub shared_flags: &'static [Flag],
    /// Sub-commands.
    pub commands: &'static [Command<R>],
    /// What it does.
    pub does: Does<R>,
}

impl<R: Copy> Command<R> {
    /// A command that runs: its name, its arguments and one line about it, what it takes.
    #[must_use]
    pub const fn leaf(
        (name, args, about): (&'static str, &'static str, &'static str),
        takes: Takes,
        flags: &'static [Flag],
        run: R,
    ) -> Self {
        let does = Does::Runs(run);
        Self { name, args, about, takes, flags, shared_flags: &[], commands: &[], does }
    }

    /// A command of sub-commands.
    #[must_use]
    pub const fn group(
        name: &'static str,
        about: &'static str,
        commands: &'static [Command<R>],
    ) -> Self {
        let (takes, does) = (Takes::ANY, Does::Group);
        Self { name, args: "", about, takes, flags: &[], shared_flags: &[], commands, does }
    }

    /// A command that this version does not have.
    #[must_use]
    pub const fn later(name: &'static str) -> Self {
        let (about, takes, does) = ("(comes later)", Takes::ANY, Does::Later);
        let (flags, shared_flags, commands): (&[Flag], &[Flag], &[Command<R>]) = (&[], &[], &[]);
        Self { name, args: "", about, takes, flags, shared_flags, commands, does }
    }
}

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub enum Does<R> {
    /// Its sub-commands do.
    Group,
    /// Runs.
    Runs(R),
    /// It comes with a later version: whoever asks for it is told so, whatever flags are given.
    Later,
}

/// How many arguments a command takes, and what it says to another number, in etcd's words.
#[derive(Clone, Copy, Debug)]
pub struct Takes {
    least: usize,
    most: usize,
    few: &'static str,
    many: Many,
    code: u8,
}

/// What a command says to too many arguments.
#[derive(Clone, Copy, Debug)]
enum Many {
    Text(&'static str),
    Made(fn(&[String]) -> String),
}

impl Takes {
    /// Any number: what is too many means nothing, as in etcd, or the command looks by itself.
    pub const ANY: Self = Self::between(0, usize::MAX, "");

    /// No arguments.
    #[must_use]
    pub const fn none(text: &'static str) -> Self {
        Self::between(0, 0, text)
    }

    /// So many arguments.
    #[must_use]
    pub const fn exactly(count: usize, text: &'static str) -> Self {
        Self::between(count, count, text)
    }

    /// So many arguments or more.
    #[must_use]
    pub const fn at_least(least: usize, text: &'static str) -> Self {
        Self::between(least, usize::MAX, text)
    }

    /// From `least` to `most` arguments.
    #[must_use]
    pub const fn between(least: usize, most: usize, text: &'static str) -> Self {
        Self { least, most, few: text, many: Many::Text(text), code: Exit::BAD_ARGS }
    }

    /// The same with another text for too many.
    #[must_use]
    pub const fn or_too_many(mut self, text: &'static str) -> Self {
        self.many = Many::Text(text);
        self
    }

    /// The same with a text for too many that is made of them.
    #[must_use]
    pub const fn or_too_many_as(mut self, text: fn(&[String]) -> String) -> Self {
        self.many = Many::Made(text);
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub const fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The one check of how many arguments were given.
    ///
    /// # Errors
    /// etcd's text and exit code.
    pub fn check(&self, args: &[String]) -> Result<(), Exit> {
        if args.len() < self.least {
            return Err(Exit::new(self.code, self.few));
        }
        if args.len() <= self.most {
            return Ok(());
        }
        Err(match self.many {
            Many::Text(text) => Exit::new(self.code, text),
            Many::Made(text) => Exit::new(self.code, text(args)),
        })
    }
}

/// A whole tool.
#[derive(Debug)]
pub struct Program<R: 'static> {
    /// Its name.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Flags of all commands.
    pub flags: &'static [Flag],
    /// Its commands.
    pub commands: &'static [Command<R>],
}

const HELP: Flag = Flag::switch("help", "say what a command does").short('h');

/// What a command line asks for.
#[derive(Debug)]
pub enum Found<R: 'static> {
    /// A command with its flags and arguments, as many as it takes.
    Run(R, Values),
    /// A text for stdout.
    Help(String),
    /// A text for stderr, and exit code 0.
    Diagnostic(String),
    /// The command line is wrong.
    Refused(Exit),
}

/// Runs a tool and returns its exit code. `run` runs the command that was found.
pub fn run<R: Copy>(
    program: &'static Program<R>,
    args: impl Iterator<Item = OsString>,
    run: impl FnOnce(R, Values) -> Result<(), Exit>,
) -> u8 {
    let found = match crate::texts(args) {
        Ok(args) => find(program, &args),
        Err(exit) => Found::Refused(exit),
    };
    let ended = match found {
        Found::Run(command, values) => run(command, values),
        Found::Help(text) => {
            output::out(text);
            Ok(())
        }
        Found::Diagnostic(text) => {
            output::err(text);
            Ok(())
        }
        Found::Refused(exit) => Err(exit),
    };
    ended.map_or_else(Exit::tell, |()| 0)
}

/// Finds the command of a command line, reads its flags and counts its arguments.
//= github.com/spf13/cobra: command.go#Find (prefix matching on)
#[must_use]
pub fn find<R: Copy>(program: &'static Program<R>, args: &[String]) -> Found<R> {
    let mut line = Line::new(program, args);
    let wants_help = line.take_help();
    if let Err(exit) = line.walk() {
        return match wants_help {
            Wants::Help => Found::Diagnostic(line.no_topic(args)),
            Wants::Command => Found::Refused(exit),
        };
    }
    let Line { path, flags, commands, current, rest, .. } = line;
    let does = current.map_or(Does::Group, |c| c.does);
    if matches!(does, Does::Later) {
        return Found::Refused(Exit::new(Exit::ERROR, not_implemented(&format!("\"{path}\""))));
    }
    let globals = program.flags.len() + 1;
    let values = match Values::read(flags.clone(), &rest) {
        Ok(values) => values,
        Err(text) => {
            let usage = usage(&path, current, commands, &flags, globals);
            return Found::Refused(Exit::new(Exit::ERROR, format!("{text}\n{usage}")));
        }
    };
    match does {
        Does::Runs(run) if !values.is_on("help") => {
            let takes = current.map_or(Takes::ANY, |c| c.takes);
            match takes.check(&values.args) {
                Err(exit) => Found::Refused(exit),
                Ok(()) => match values.missing() {
                    None => Found::Run(run, values),
                    Some(text) => Found::Refused(Exit::new(Exit::ERROR, text)),
                },
            }
        }
        _ => {
            let about = current.map_or(program.about, |c| c.about);
            let usage = usage(&path, current, commands, &flags, globals);
            Found::Help(format!("{about}\n\n{usage}"))
        }
    }
}

/// Whether a line begins with the command `help`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Command,
    Help,
}

/// A command line on the way through the tree of commands.
struct Line<R: 'static> {
    program: &'static Program<R>,
    /// Names of the commands so far.
    path: String,
    /// Flags that may stand here.
    flags: Vec<Flag>,
    /// Where the next name is looked for.
    commands: &'static [Command<R>],
    current: Option<&'static Command<R>>,
    /// What is left of the line.
    rest: Vec<String>,
}

impl<R: Copy> Line<R> {
    fn new(program: &'static Program<R>, args: &[String]) -> Self {
        let mut flags: Vec<Flag> = program.flags.to_vec();
        flags.push(HELP);
        Self {
            program,
            path: program.name.to_owned(),
            flags,
            commands: program.commands,
            current: None,
            rest: args.to_vec(),
        }
    }

    /// Turns `help COMMAND` into `COMMAND --help`.
    fn take_help(&mut self) -> Wants {
        match first_word(&self.rest, &self.flags) {
            Some(at) if self.rest[at] == "help" => {
                self.rest.remove(at);
                self.rest.push("--help".to_owned());
                Wants::Help
            }
            _ => Wants::Command,
        }
    }

    /// Goes down the tree as far as the words lead.
    fn walk(&mut self) -> Result<(), Exit> {
        while let Some(at) = first_word(&self.rest, &self.flags) {
            let word = &self.rest[at];
            let mut matching = self.commands.iter().filter(|c| c.name.starts_with(word));
            let exact = self.commands.iter().find(|c| c.name == *word);
            let only = matching.next().filter(|_| matching.next().is_none());
            let Some(next) = exact.or(only) else {
                if self.current.is_none() {
                    return Err(unknown(self.program, word));
                }
                return Ok(());
            };
            self.rest.remove(at);
            let _ = write!(self.path, " {}", next.name);
            self.flags.extend(next.flags.iter().chain(next.shared_flags));
            self.commands = next.commands;
            self.current = Some(next);
            if self.commands.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What `help` says of a word that is no command.
    fn no_topic(&self, args: &[String]) -> String {
        let words: Vec<String> =
            args.iter().filter(|arg| *arg != "help").map(|arg| format!("`{arg}`")).collect();
        let globals = self.program.flags.len() + 1;
        let usage = usage(&self.path, None, self.commands, &self.flags, globals);
        format!("Unknown help topic [{}]\n{usage}", words.join(" "))
    }
}

/// The place of the first argument that is neither a flag nor a flag's value.
fn first_word(args: &[String], flags: &[Flag]) -> Option<usize> {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        if arg == "--" {
            return None;
        }
        let is_switch = |f: &Flag| f.kind == ValueType::Bool;
        let takes_next = if let Some(long) = arg.strip_prefix("--") {
            !long.contains('=') && !flags.iter().any(|f| f.name == long && is_switch(f))
        } else if arg.len() == 2 && arg.starts_with('-') {
            let letter = arg.chars().nth(1);
            !flags.iter().any(|f| f.short == letter && is_switch(f))
        } else if arg.starts_with('-') || arg.is_empty() {
            false
        } else {
            return Some(at);
        };
        at += 1 + usize::from(takes_next);
    }
    None
}

fn unknown<R>(program: &Program<R>, word: &str) -> Exit {
    let mut text = format!("unknown command \"{word}\" for \"{}\"\n", program.name);
    let near: Vec<&str> = program
        .commands
        .iter()
        .map(|c| c.name)
        .filter(|name| name.starts_with(&word.to_lowercase()) || distance(name, word) <= 2)
        .collect();
    if !near.is_empty() {
        text.push_str("\nDid you mean this?\n");
        near.iter().for_each(|name| text.push_str(&format!("\t{name}\n")));
        text.push('\n');
    }
    let _ = write!(text, "Run '{} --help' for usage.", program.name);
    Exit::new(Exit::ERROR, text)
}

/// Levenshtein's distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Command<u8> = Command {
        name: "list",
        args: "",
        about: "",
        takes: Takes::ANY,
        flags: &[],
        shared_flags: &[],
        commands: &[],
        does: Does::Runs(1),
    };
    static PROGRAM: Program<u8> = Program {
        name: "tool",
        about: "a tool",
        flags: &[Flag::new("endpoints", ValueType::Strings, "a", "")],
        commands: &[
            Command { name: "member", commands: &[LEAF], does: Does::Group, ..LEAF },
            Command { name: "get", does: Does::Runs(2), ..LEAF },
            Command { name: "move-leader", does: Does::Runs(3), ..LEAF },
            Command {
                name: "del",
                takes: Takes::between(1, 2, "one or two").or_too_many_as(|a| a.join("+")),
                ..LEAF
            },
            Command::later("lock"),
            Command {
                name: "copy",
                flags: &[
                    Flag::new("to", ValueType::String, "", "").required(),
                    Flag::new("from", ValueType::String, "", "").required(),
                ],
                ..LEAF
            },
        ],
    };

    fn run(line: &str) -> Found<u8> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        find(&PROGRAM, &args)
    }

    fn refused(line: &str) -> Exit {
        let Found::Refused(exit) = run(line) else { panic!("{line} is taken") };
        exit
    }

    #[test]
    fn unique_prefixes_name_commands() {
        assert!(matches!(run("--endpoints get mem li"), Found::Run(1, _)));
        let Found::Run(2, values) = run("g list --endpoints=x member") else { panic!() };
        assert_eq!(values.args, ["list", "member"]);
        assert!(refused("m list").text.starts_with("unknown command \"m\""));
        assert!(matches!(run("member nothing"), Found::Help(_)));
        assert!(matches!(run("help get"), Found::Help(_)));
        assert!(refused("get --bad").text.starts_with("unknown flag: --bad\nUsage:"));
    }

    #[test]
    fn arguments_are_counted_before_a_command_runs() {
        let bad = |text: &str| Exit::args(text);
        assert_eq!(refused("del"), bad("one or two"));
        assert_eq!(refused("del a b c"), bad("a+b+c"));
        for line in ["del a", "del a -- b", "get", "get a b c d e"] {
            assert!(matches!(run(line), Found::Run(..)), "{line}");
        }
    }

    #[test]
    fn what_comes_later_says_so_before_its_flags_are_read() {
        let exit = refused("lock --ttl 5 a");
        let expected = format!("\"tool lock\" is not implemented in {}", types::PRODUCT);
        assert!(exit.text.starts_with(&expected), "{exit:?}");
        assert_eq!(exit.code, Exit::ERROR);
    }

    #[test]
    fn flags_that_must_be_given_are_asked_for() {
        let text = "required flag(s) \"from\", \"to\" not set";
        assert_eq!(refused("copy x"), Exit::new(Exit::ERROR, text));
        assert_eq!(refused("copy --from a").text, "required flag(s) \"to\" not set");
        assert!(matches!(run("copy --from a --to="), Found::Run(1, _)));
        assert!(matches!(run("copy --help"), Found::Help(_)));
    }

    #[test]
    fn help_about_nothing_that_is_known_is_told_and_no_failure() {
        let Found::Diagnostic(text) = run("help bogus") else { panic!() };
        assert!(text.starts_with("Unknown help topic [`bogus`]\nUsage:"), "{text}");
    }
}
