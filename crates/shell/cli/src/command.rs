//! The tree of commands, as cobra walks it.

use std::fmt::Write as _;

use crate::flags::{Flag, Kind, Values};

/// A command; `R` is what runs it.
#[derive(Debug)]
pub struct Command<R: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, for help.
    pub args: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Flags that its sub-commands have too.
    pub shared_flags: &'static [Flag],
    /// Sub-commands.
    pub commands: &'static [Command<R>],
    /// What runs it; a group has nothing to run.
    pub run: Option<R>,
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
    /// A command with its flags and arguments.
    Run(R, Values),
    /// A text for stdout.
    Help(String),
    /// A text for stderr, and exit code 1.
    Refused(String),
}

/// Finds the command of a command line and reads its flags.
//= github.com/spf13/cobra: command.go#Find (prefix matching on)
#[must_use]
pub fn find<R: Copy>(program: &'static Program<R>, args: &[String]) -> Found<R> {
    let mut path = program.name.to_owned();
    let mut flags: Vec<Flag> = program.flags.to_vec();
    flags.push(HELP);
    let mut commands = program.commands;
    let mut current: Option<&'static Command<R>> = None;
    let mut rest: Vec<String> = args.to_vec();
    if first_word(&rest, &flags).is_some_and(|at| rest[at] == "help") {
        let at = first_word(&rest, &flags).expect("just found");
        rest.remove(at);
        rest.push("--help".to_owned());
    }
    while let Some(at) = first_word(&rest, &flags) {
        let matching: Vec<_> = commands.iter().filter(|c| c.name.starts_with(&rest[at])).collect();
        let exact = commands.iter().find(|c| c.name == rest[at]);
        let Some(next) =
            exact.or(if matching.len() == 1 { matching.first().copied() } else { None })
        else {
            if current.is_none() {
                return Found::Refused(unknown(program, &rest[at]));
            }
            break;
        };
        rest.remove(at);
        let _ = write!(path, " {}", next.name);
        flags.extend(next.flags.iter().chain(next.shared_flags));
        commands = next.commands;
        current = Some(next);
        if commands.is_empty() {
            break;
        }
    }
    let values = match Values::read(flags.clone(), &rest) {
        Ok(values) => values,
        Err(text) => {
            let usage = usage(&path, current, commands, &flags, program.flags.len() + 1);
            return Found::Refused(format!("Error: {text}\n{usage}"));
        }
    };
    match current.and_then(|c| c.run) {
        Some(run) if !values.is_on("help") => Found::Run(run, values),
        _ => {
            let about = current.map_or(program.about, |c| c.about);
            let usage = usage(&path, current, commands, &flags, program.flags.len() + 1);
            Found::Help(format!("{about}\n\n{usage}"))
        }
    }
}

/// The place of the first argument that is neither a flag nor a flag's value.
fn first_word(args: &[String], flags: &[Flag]) -> Option<usize> {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        if arg == "--" {
            return None;
        }
        let is_switch = |f: &Flag| f.kind == Kind::Bool;
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

fn unknown<R>(program: &Program<R>, word: &str) -> String {
    let mut text = format!("Error: unknown command \"{word}\" for \"{}\"\n", program.name);
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
    text
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

/// The usage text of a command; the first `globals` flags are shown for the tool itself only.
fn usage<R>(
    path: &str,
    current: Option<&Command<R>>,
    commands: &[Command<R>],
    flags: &[Flag],
    globals: usize,
) -> String {
    let args = current.map_or("", |c| c.args);
    let mut out = format!("Usage:\n  {path}");
    if !commands.is_empty() {
        out.push_str(" [command]\n\nAvailable Commands:\n");
        for command in commands {
            let _ = writeln!(out, "  {:<16} {}", command.name, command.about);
        }
    } else {
        let _ = writeln!(out, " {args} [flags]");
    }
    let shown = if current.is_some() { &flags[globals..] } else { flags };
    if !shown.is_empty() {
        out.push_str("\nFlags:\n");
    }
    for flag in shown {
        let short = flag.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
        let _ = writeln!(out, "  {short}--{:<22} {}", flag.name, flag.help);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Command<u8> = Command {
        name: "list",
        args: "",
        about: "",
        flags: &[],
        shared_flags: &[],
        commands: &[],
        run: Some(1),
    };
    static PROGRAM: Program<u8> = Program {
        name: "tool",
        about: "a tool",
        flags: &[Flag::new("endpoints", Kind::Strings, "a", "")],
        commands: &[
            Command { name: "member", commands: &[LEAF], run: None, ..LEAF },
            Command { name: "get", run: Some(2), ..LEAF },
            Command { name: "move-leader", run: Some(3), ..LEAF },
        ],
    };

    fn run(line: &str) -> Found<u8> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        find(&PROGRAM, &args)
    }

    #[test]
    fn unique_prefixes_name_commands() {
        assert!(matches!(run("--endpoints get mem li"), Found::Run(1, _)));
        let Found::Run(2, values) = run("g list --endpoints=x member") else { panic!() };
        assert_eq!(values.args, ["list", "member"]);
        assert!(matches!(run("m list"), Found::Refused(t) if t.contains("unknown command \"m\"")));
        assert!(matches!(run("member nothing"), Found::Help(_)));
        assert!(matches!(run("help get"), Found::Help(_)));
        assert!(
            matches!(run("get --bad"), Found::Refused(t) if t.starts_with("Error: unknown flag: --bad\nUsage:"))
        );
    }
}
