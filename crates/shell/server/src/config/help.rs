//! What `etcd --help` prints: every row of the table, by its part.

use std::fmt::Write;

use super::features::GATES;
use super::flag::{Flag, Group, State};
use super::table::flags;

/// Columns of a line.
const WIDTH: usize = 100;

const USAGE: &str = "\
Usage:

  etcd [flags]
    Run a member.

  etcd --version
    Print the version.

  etcd --help
    Print this.

Every flag may also be a variable of the environment, ETCD_ with the flag's name in capitals and _
for -, or, but for some, a key of the file that --config-file names.
";

/// The text.
#[must_use]
pub fn help() -> String {
    let mut text = USAGE.to_owned();
    let mut group: Option<Group> = None;
    for flag in flags() {
        if group != Some(flag.group) {
            let _ = write!(text, "\n{}:\n", flag.group.title());
            group = Some(flag.group);
        }
        text.push_str(&row(flag));
    }
    text
}

fn row(flag: &Flag) -> String {
    let (name, placeholder) = (flag.name, flag.place.flag_type().placeholder());
    let head = format!("  --{name} '{}'  ({placeholder})", flag.default);
    let mut text = if head.len() <= WIDTH {
        head + "\n"
    } else {
        format!("  --{name}  ({placeholder})\n    '{}'\n", flag.default)
    };
    for line in wrap(flag.help, WIDTH - 4) {
        let _ = writeln!(text, "    {line}");
    }
    if flag.state == State::Later {
        let _ =
            writeln!(text, "    Not implemented in {}: only the default is taken.", types::PRODUCT);
    }
    if flag.name == "feature-gates" {
        for gate in GATES {
            let default = gate.is_open_by_default();
            let _ = writeln!(text, "      {}=true|false  ({}, '{default}')", gate.name, gate.stage);
        }
    }
    text
}

/// Lines of at most this many columns; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
