//! Texts about commands and flags.

use std::fmt::Write as _;

use crate::command::Command;
use crate::flags::{Flag, ValueType};
use crate::text;

/// The usage text of a command; the first `globals` flags are shown for the tool itself only.
pub(crate) fn usage<R>(
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

/// All flags with their types, texts and defaults, as pflag lays them out.
//= github.com/spf13/pflag: flag.go#FlagUsages
#[must_use]
pub fn flag_table(flags: &[Flag]) -> String {
    let mut flags: Vec<&Flag> = flags.iter().collect();
    flags.sort_unstable_by_key(|flag| flag.name);
    let named = |flag: &Flag| {
        let short = flag.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
        let kind = match flag.kind {
            ValueType::Bool => "",
            ValueType::String => " string",
            ValueType::Strings => " strings",
            ValueType::Int => " int",
            ValueType::Uint => " uint",
            ValueType::Duration => " duration",
        };
        format!("  {short}--{}{kind}", flag.name)
    };
    let width = flags.iter().map(|flag| named(flag).len()).max().unwrap_or_default();
    let mut out = String::new();
    for flag in flags {
        let _ = writeln!(out, "{:<width$}   {}{}", named(flag), flag.help, default_of(flag));
    }
    out
}

/// The default, if it is not what a flag of its type has anyway.
fn default_of(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (_, "") | (ValueType::Bool, "false") => String::new(),
        (ValueType::Int | ValueType::Uint | ValueType::Duration, "0") => String::new(),
        (ValueType::String, default) => format!(" (default {})", text::quote(default.as_bytes())),
        (ValueType::Strings, default) => format!(" (default [{default}])"),
        (_, default) => format!(" (default {default})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_in_columns_with_their_defaults() {
        let flags = [
            Flag::new("write-out", ValueType::String, "simple", "how").short('w'),
            Flag::switch("debug", "more"),
            Flag::new("endpoints", ValueType::Strings, "a:1", "where"),
        ];
        let expected = "      --debug               more\n      \
                        --endpoints strings   where (default [a:1])\n  \
                        -w, --write-out string    how (default \"simple\")\n";
        assert_eq!(flag_table(&flags), expected);
    }
}
