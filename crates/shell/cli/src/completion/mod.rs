//! Scripts by which shells complete command lines, made from the tree of commands.
//!
//! A script knows the whole tree, so that completing asks no program. Each walks over the words
//! that were typed, as far as they name commands, and offers what may stand behind them.

mod bash;
mod fish;
mod powershell;
mod zsh;

use crate::command::{Command, Program, Takes};
use crate::flags::{Flag, ValueType, Values};
use crate::{Exit, output};

/// Shells for which there are scripts, in the order of the command's help.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];

/// How the argument of the command is shown.
pub const ARGS: &str = "[bash|zsh|fish|powershell]";

/// How many arguments the command takes: the name of a shell.
pub const TAKES: Takes = Takes::exactly(1, "accepts 1 arg(s), received 0")
    .or_too_many_as(received)
    .with_code(Exit::ERROR);

fn received(args: &[String]) -> String {
    format!("accepts 1 arg(s), received {}", args.len())
}

/// completion: prints the script of a shell.
///
/// # Errors
/// There is none for it.
pub fn run<R>(program: &Program<R>, values: &Values) -> Result<(), Exit> {
    let shell = values.args.first().map_or("", String::as_str);
    let tree = Tree::new(program);
    let text = match shell {
        "bash" => bash::script(&tree),
        "zsh" => zsh::script(&tree),
        "fish" => fish::script(&tree),
        "powershell" => powershell::script(&tree),
        other => {
            let (shown, name) = (crate::text::quote(other.as_bytes()), program.name);
            let text = format!("invalid argument {shown} for \"{name} completion\"");
            return Err(Exit::new(Exit::ERROR, text));
        }
    };
    output::out(text);
    Ok(())
}

/// A tree of commands as scripts see it.
struct Tree {
    /// The tool's name.
    name: &'static str,
    /// Flags of all commands.
    globals: Vec<Flag>,
    /// Every place of the tree, the tool itself first.
    places: Vec<Place>,
}

/// A place in the tree: a command, and what may stand behind its name.
struct Place {
    /// Names on the way, each with a space before it; empty for the tool itself.
    path: String,
    /// What may be typed next that is no flag: a name and what it is.
    words: Vec<(&'static str, &'static str)>,
    /// Its own flags.
    flags: Vec<Flag>,
}

impl Tree {
    fn new<R>(program: &Program<R>) -> Self {
        let help = Flag::switch("help", "say what a command does").short('h');
        let globals = program.flags.iter().copied().chain([help]).collect();
        let mut tree = Self { name: program.name, globals, places: Vec::new() };
        tree.add("", program.commands, "", Vec::new());
        tree
    }

    fn add<R>(
        &mut self,
        path: &str,
        commands: &[Command<R>],
        args: &'static str,
        flags: Vec<Flag>,
    ) {
        let named = commands.iter().map(|command| (command.name, command.about));
        let words = named.chain(choices(args).into_iter().map(|choice| (choice, ""))).collect();
        self.places.push(Place { path: path.to_owned(), words, flags: flags.clone() });
        for command in commands {
            let own = command.flags.iter().chain(command.shared_flags);
            let above = flags.iter().chain(own).copied().collect();
            let path = format!("{path} {}", command.name);
            self.add(&path, command.commands, command.args, above);
        }
    }

    /// The flags that may stand at a place.
    fn flags<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Flag> {
        place.flags.iter().chain(&self.globals)
    }

    /// Every flag of the tree that takes a value, once.
    fn valued(&self) -> Vec<Flag> {
        let all = self.globals.iter().chain(self.places.iter().flat_map(|place| &place.flags));
        let mut found: Vec<Flag> = Vec::new();
        for flag in all.filter(|flag| flag.kind != ValueType::Bool) {
            if found.iter().all(|known| known.name != flag.name) {
                found.push(*flag);
            }
        }
        found
    }
}

/// How a flag may be typed: its name, and its letter if it has one.
fn spellings(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|letter| format!("-{letter}"));
    std::iter::once(format!("--{}", flag.name)).chain(short).collect()
}

/// The words between which an argument chooses: `[a|b]`.
fn choices(args: &'static str) -> Vec<&'static str> {
    let inner = args.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains('|')).map_or_else(Vec::new, |i| i.split('|').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() {}

    static PROGRAM: Program<fn()> = Program {
        name: "tool",
        about: "a tool",
        flags: &[Flag::new("write-out", ValueType::String, "simple", "don't \"$x\"")
            .short('w')
            .choices(&["json", "simple"])],
        commands: &[
            Command::group(
                "lease",
                "Leases",
                &[
                    Command::leaf(("grant", "<ttl>", "Makes"), Takes::ANY, &[], nothing),
                    Command::leaf(
                        ("list", "", "Lists"),
                        Takes::ANY,
                        &[Flag::switch("keys", "with keys")],
                        nothing,
                    ),
                ],
            ),
            Command::leaf(("completion", ARGS, "Scripts"), TAKES, &[], nothing),
        ],
    };

    /// What bash offers behind these words, the last of which is being typed.
    fn offered(words: &[&str]) -> Vec<String> {
        let script = bash::script(&Tree::new(&PROGRAM));
        let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "{script}\nCOMP_WORDS=(tool {}); COMP_CWORD={}; _tool; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words.len()
        );
        let ran = std::process::Command::new("bash").args(["-uc", &ask]).output().unwrap();
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success() && error.is_empty(), "{words:?}: {error}");
        String::from_utf8(ran.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_flags_and_values() {
        assert_eq!(offered(&[""]), ["lease", "completion"]);
        assert_eq!(offered(&["le"]), ["lease"]);
        assert_eq!(offered(&["lease", ""]), ["grant", "list"]);
        assert_eq!(offered(&["-w", "json", "lease", "--help", "l"]), ["list"]);
        assert_eq!(offered(&["--write-out=json", "lease", "g"]), ["grant"]);
        assert_eq!(offered(&["lease", "list", "--k"]), ["--keys"]);
        assert_eq!(offered(&["lease", "grant", "--k"]), [""; 0]);
        assert_eq!(offered(&["lease", "list", "--w"]), ["--write-out"]);
        assert_eq!(offered(&["--write-out", "j"]), ["json"]);
        assert_eq!(offered(&["lease", "-w", ""]), ["json", "simple"]);
        assert_eq!(offered(&["completion", ""]), ["bash", "zsh", "fish", "powershell"]);
        assert_eq!(offered(&["lease", "grant", "x"]), [""; 0]);
    }

    #[test]
    fn every_script_names_every_command_and_flag() {
        let tree = Tree::new(&PROGRAM);
        for script in [zsh::script(&tree), fish::script(&tree), powershell::script(&tree)] {
            for word in ["lease", "grant", "list", "keys", "write-out", "json", "powershell"] {
                assert!(script.contains(word), "{word} in {script}");
            }
        }
    }

    #[test]
    fn texts_are_quoted_for_each_shell() {
        let tree = Tree::new(&PROGRAM);
        assert!(zsh::script(&tree).contains(r#"--write-out:don'\''t "$x""#));
        assert!(fish::script(&tree).contains(r#"-d 'don\'t "$x"'"#));
        assert!(powershell::script(&tree).contains(r#"'don''t "$x"'"#));
    }
}
