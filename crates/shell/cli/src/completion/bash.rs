//! The script of bash, of 3.2 or later, without bash-completion.

use std::fmt::Write as _;

use super::{Tree, spellings};

pub(super) fn script(tree: &Tree) -> String {
    let name = tree.name;
    let mut out = format!("# bash completion for {name}\n\n_{name}() {{\n");
    out.push_str("    local cur=${COMP_WORDS[COMP_CWORD]} at=\"\" words=\"\" flags=\"\" word i\n");
    let valued: Vec<String> = tree.valued().iter().flat_map(spellings).collect();
    let _ = writeln!(out, "    local valued=\" {} \"", valued.join(" "));
    out.push_str("    COMPREPLY=()\n");
    out.push_str(&values(tree));
    out.push_str(
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n        \
         word=${COMP_WORDS[i]}\n        \
         if [[ $valued == *\" $word \"* ]]; then\n            \
         i=$((i + 1))\n            \
         [[ ${COMP_WORDS[i]:-} == = ]] && i=$((i + 1))\n            \
         continue\n        \
         fi\n        \
         case \"$at $word\" in\n",
    );
    let named: Vec<_> =
        tree.places[1..].iter().map(|place| format!("\"{}\"", place.path)).collect();
    let _ = writeln!(out, "            {})", named.join(" | "));
    out.push_str("                at=\"$at $word\"\n                ;;\n");
    out.push_str("        esac\n    done\n    case $at in\n");
    for place in &tree.places {
        let words: Vec<_> = place.words.iter().map(|(word, _)| *word).collect();
        let flags: Vec<_> = tree.flags(place).flat_map(spellings).collect();
        let _ = writeln!(out, "        \"{}\")", place.path);
        let _ = writeln!(out, "            words=\"{}\"", words.join(" "));
        let _ = writeln!(out, "            flags=\"{}\"", flags.join(" "));
        out.push_str("            ;;\n");
    }
    out.push_str(
        "    esac\n    \
         [[ $cur == -* ]] && words=$flags\n    \
         COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n\n",
    );
    let _ = writeln!(out, "complete -o default -F _{name} {name}");
    out
}

/// Offers the values of a flag that stands before what is typed, if it names any.
fn values(tree: &Tree) -> String {
    let mut arms = String::new();
    for flag in tree.valued() {
        let spelled = spellings(&flag).join(" | ");
        let _ = writeln!(arms, "        {spelled})");
        if flag.choices.is_empty() {
            // Readline's own completion of file names follows.
            arms.push_str("            return 0\n");
        } else {
            let choices = flag.choices.join(" ");
            let _ = writeln!(
                arms,
                "            COMPREPLY=($(compgen -W \"{choices}\" -- \"${{cur#=}}\"))"
            );
            arms.push_str("            return 0\n");
        }
        arms.push_str("            ;;\n");
    }
    format!(
        "    local before=${{COMP_WORDS[COMP_CWORD - 1]}}\n    \
         # Readline takes the sign of --flag=value for a word.\n    \
         [[ $before == = && $COMP_CWORD -gt 1 ]] && before=${{COMP_WORDS[COMP_CWORD - 2]}}\n    \
         case $before in\n{arms}    esac\n"
    )
}
