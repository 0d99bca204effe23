//! The script of zsh.

use std::fmt::Write as _;

use super::{Tree, spellings};

/// A text between single quotes, in which `:` ends a name.
fn quoted(name: &str, about: &str) -> String {
    let text = if about.is_empty() { name.to_owned() } else { format!("{name}:{about}") };
    format!("'{}'", text.replace('\'', r"'\''"))
}

pub(super) fn script(tree: &Tree) -> String {
    let name = tree.name;
    let mut out = format!("#compdef {name}\n\n_{name}() {{\n");
    out.push_str("    local at='' word i\n    local -a offered flags valued\n");
    let valued: Vec<String> = tree.valued().iter().flat_map(spellings).collect();
    let _ = writeln!(out, "    valued=({})", valued.join(" "));
    out.push_str("    case $words[CURRENT-1] in\n");
    for flag in tree.valued() {
        let _ = writeln!(out, "        {})", spellings(&flag).join("|"));
        let offer = if flag.choices.is_empty() {
            "_files".to_owned()
        } else {
            format!("compadd -- {}", flag.choices.join(" "))
        };
        let _ = writeln!(out, "            {offer}\n            return\n            ;;");
    }
    out.push_str(
        "    esac\n    \
         for ((i = 2; i < CURRENT; i++)); do\n        \
         word=$words[i]\n        \
         if (( ${valued[(Ie)$word]} )); then\n            \
         (( i++ ))\n            \
         continue\n        \
         fi\n        \
         case \"$at $word\" in\n",
    );
    let named: Vec<_> =
        tree.places[1..].iter().map(|place| format!("\"{}\"", place.path)).collect();
    let _ = writeln!(out, "            {})", named.join("|"));
    out.push_str("                at=\"$at $word\"\n                ;;\n");
    out.push_str("        esac\n    done\n    case $at in\n");
    for place in &tree.places {
        let _ = writeln!(out, "        \"{}\")", place.path);
        let words: Vec<_> = place.words.iter().map(|(word, about)| quoted(word, about)).collect();
        let _ = writeln!(out, "            offered=({})", words.join(" "));
        let spelled = |flag| spellings(flag).into_iter().map(|spelling| (spelling, flag.help));
        let flags: Vec<_> =
            tree.flags(place).flat_map(spelled).map(|(flag, help)| quoted(&flag, help)).collect();
        let _ = writeln!(out, "            flags=({})", flags.join(" "));
        out.push_str("            ;;\n");
    }
    out.push_str(
        "    esac\n    \
         if [[ $words[CURRENT] == -* ]]; then\n        \
         _describe -o flag flags\n    \
         elif (( $#offered )); then\n        \
         _describe command offered\n    \
         else\n        \
         _files\n    \
         fi\n}\n\n",
    );
    // Run as a function of compinit's, or read by `source`.
    let _ = writeln!(out, "if [[ $funcstack[1] == _{name} ]]; then");
    let _ = writeln!(out, "    _{name} \"$@\"\nelse\n    compdef _{name} {name}\nfi");
    out
}
