//! The script of PowerShell.

use std::fmt::Write as _;

use super::{Tree, spellings};

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A word that is offered, and what it is.
fn offer(word: &str, about: &str) -> String {
    let about = if about.is_empty() { word } else { about };
    format!("@({}, {})", quoted(word), quoted(about))
}

pub(super) fn script(tree: &Tree) -> String {
    let name = tree.name;
    let list = |words: Vec<String>| {
        let quoted: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        quoted.join(", ")
    };
    let valued = list(tree.valued().iter().flat_map(spellings).collect());
    let paths = list(tree.places[1..].iter().map(|place| place.path.clone()).collect());
    let mut out = format!("# PowerShell completion for {name}\n\n");
    let _ = writeln!(
        out,
        "Register-ArgumentCompleter -Native -CommandName {name} -ScriptBlock {{\n    \
         param($wordToComplete, $commandAst, $cursorPosition)\n    \
         $valued = @({valued})\n    \
         $paths = @({paths})\n    \
         $at = ''\n    \
         $before = ''\n    \
         $typed = @($commandAst.CommandElements | Select-Object -Skip 1 | Where-Object \
         {{ $_.Extent.EndOffset -lt $cursorPosition }} | ForEach-Object {{ $_.ToString() }})\n    \
         foreach ($word in $typed) {{\n        \
         if ($valued -ccontains $before) {{ $before = ''; continue }}\n        \
         $before = $word\n        \
         if ($paths -ccontains \"$at $word\") {{ $at = \"$at $word\" }}\n    \
         }}\n    \
         $offered = @()\n    \
         $flags = @()"
    );
    out.push_str("    switch -CaseSensitive ($at) {\n");
    for place in &tree.places {
        let words: Vec<_> = place.words.iter().map(|(word, about)| offer(word, about)).collect();
        let spelled = |flag| spellings(flag).into_iter().map(|spelling| (spelling, flag.help));
        let flags: Vec<_> =
            tree.flags(place).flat_map(spelled).map(|(flag, help)| offer(&flag, help)).collect();
        let _ = writeln!(out, "        {} {{", quoted(&place.path));
        let _ = writeln!(out, "            $offered = @({})", non_empty(&words));
        let _ = writeln!(out, "            $flags = @(,{})\n        }}", non_empty(&flags));
    }
    out.push_str("    }\n    if ($wordToComplete.StartsWith('-')) { $offered = $flags }\n");
    out.push_str("    if ($valued -ccontains $before) { $offered = @() }\n");
    out.push_str("    switch -CaseSensitive ($before) {\n");
    for flag in tree.valued().iter().filter(|flag| !flag.choices.is_empty()) {
        let choices: Vec<_> = flag.choices.iter().map(|choice| offer(choice, "")).collect();
        for spelling in spellings(flag) {
            let choices = choices.join(", ");
            let _ = writeln!(out, "        {} {{ $offered = @({choices}) }}", quoted(&spelling));
        }
    }
    out.push_str(
        "    }\n    \
         $offered | Where-Object { $_ -and $_[0].StartsWith($wordToComplete) } | ForEach-Object {\n        \
         [System.Management.Automation.CompletionResult]::new($_[0], $_[0], 'ParameterValue', $_[1])\n    \
         }\n}\n",
    );
    out
}

/// What stands in a list of pairs, so that one pair stays one.
fn non_empty(pairs: &[String]) -> String {
    match pairs {
        [] => String::new(),
        [one] => format!(",{one}"),
        more => more.join(", "),
    }
}
