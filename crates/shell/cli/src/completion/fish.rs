//! The script of fish.

use std::fmt::Write as _;

use super::{Tree, spellings};
use crate::flags::{Flag, ValueType};

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

pub(super) fn script(tree: &Tree) -> String {
    let name = tree.name;
    let valued: Vec<String> = tree.valued().iter().flat_map(spellings).collect();
    let paths: Vec<String> = tree.places[1..].iter().map(|place| quoted(&place.path)).collect();
    let mut out = format!("# fish completion for {name}\n\n");
    let _ = writeln!(
        out,
        "function __{name}_at\n    \
         set -l at ''\n    \
         set -l skips 0\n    \
         for word in (commandline -opc)[2..-1]\n        \
         if test $skips -eq 1\n            \
         set skips 0\n        \
         else if contains -- $word {}\n            \
         set skips 1\n        \
         else if contains -- \"$at $word\" {}\n            \
         set at \"$at $word\"\n        \
         end\n    \
         end\n    \
         test \"$at\" = \"$argv[1]\"\nend\n",
        valued.join(" "),
        paths.join(" ")
    );
    let _ = writeln!(out, "complete -c {name} -e");
    for flag in &tree.globals {
        let _ = writeln!(out, "complete -c {name}{}", flag_options(flag));
    }
    for place in &tree.places {
        let condition = quoted(&format!("__{name}_at {}", quoted(&place.path)));
        for (word, about) in &place.words {
            let about =
                if about.is_empty() { String::new() } else { format!(" -d {}", quoted(about)) };
            let _ = writeln!(out, "complete -c {name} -f -n {condition} -a {word}{about}");
        }
        for flag in &place.flags {
            let _ = writeln!(out, "complete -c {name} -n {condition}{}", flag_options(flag));
        }
    }
    out
}

fn flag_options(flag: &Flag) -> String {
    let mut out = format!(" -l {}", flag.name);
    if let Some(letter) = flag.short {
        let _ = write!(out, " -s {letter}");
    }
    if flag.kind != ValueType::Bool {
        out.push_str(" -r");
    }
    if !flag.choices.is_empty() {
        let _ = write!(out, " -f -a {}", quoted(&flag.choices.join(" ")));
    }
    let _ = write!(out, " -d {}", quoted(flag.help));
    out
}
