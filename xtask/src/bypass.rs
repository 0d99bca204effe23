//! Ways around permissions, built into the sources one after another: the simulator and the matrix of
//! `conform` must each find every one.
//!
//! Nothing of the product can be told to leave a check out, so the check is taken out of the text. The
//! files are put back whatever happens; those that git does not know as they are are left alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{cargo, output, root, run, target};

/// Seeds within which the simulator must find a bypass.
const SEEDS: &str = "10";

const PERMIT: &str = "crates/core/machine/src/auth/permit.rs";
const COMMAND: &str = "crates/core/machine/src/command.rs";
const CALLER: &str = "crates/core/calls/src/caller.rs";

/// A way around permissions: texts that stand once in a file, and what takes their places.
struct Bypass {
    name: &'static str,
    edits: &'static [(&'static str, &'static str, &'static str)],
}

const BYPASSES: [Bypass; 4] = [
    Bypass {
        name: "apply-unchecked",
        edits: &[(
            COMMAND,
            "    auth.permit(who, want, Attached::Known(leases))\n",
            "    let _ = (who, want, Attached::Known(leases));\n    Ok(())\n",
        )],
    },
    Bypass {
        name: "nested-unwalked",
        edits: &[(
            PERMIT,
            "Some(Request::RequestTxn(txn)) => self.txn(who, txn, on),",
            "Some(Request::RequestTxn(_)) => Ok(()),",
        )],
    },
    Bypass {
        name: "open-watch",
        edits: &[(
            CALLER,
            "            ask(Want::Read { key, range_end: &watch.range_end })\n        }\n        \
             (Rule::Key(_), Wish::Put",
            "            let is_open = watch.range_end[..] == [0];\n            if is_open { Ok(()) } \
             else { ask(Want::Read { key, range_end: &watch.range_end }) }\n        }\n        \
             (Rule::Key(_), Wish::Put",
        )],
    },
    Bypass {
        name: "prev-kv",
        edits: &[
            (PERMIT, "if put.prev_kv {", "if false {"),
            (PERMIT, "if delete.prev_kv {", "if false {"),
        ],
    },
];

/// Files as they were, which are put back when this goes.
#[derive(Default)]
struct Changed(BTreeMap<&'static str, String>);

impl Changed {
    fn edit(&mut self, file: &'static str, from: &str, to: &str) -> Result<(), String> {
        let path = root().join(file);
        let fail = |e: std::io::Error| format!("{file}: {e}");
        let before = std::fs::read_to_string(&path).map_err(fail)?;
        if before.matches(from).count() != 1 {
            return Err(format!("{file} does not hold once: {from}"));
        }
        let after = before.replace(from, to);
        self.0.entry(file).or_insert(before);
        std::fs::write(path, after).map_err(fail)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        for (file, before) in &self.0 {
            if let Err(e) = std::fs::write(root().join(file), before) {
                eprintln!("xtask: {file} is still changed: {e}");
            }
        }
    }
}

/// Builds each bypass (or the one that is named) and has it found.
///
/// # Errors
/// One is not found, or cannot be built.
pub fn run_all(names: &[&str]) -> Result<(), String> {
    let known = |name: &&&str| BYPASSES.iter().any(|bypass| bypass.name == **name);
    if let Some(other) = names.iter().find(|name| !known(name)) {
        return Err(format!("no bypass is called {other}"));
    }
    let chosen = |bypass: &&Bypass| names.is_empty() || names.contains(&bypass.name);
    let matrix = matrix()?;
    let mut missed = Vec::new();
    for bypass in BYPASSES.iter().filter(chosen) {
        for (file, ..) in bypass.edits {
            output(Command::new("git").current_dir(root()).args(["diff", "--quiet", "--", file]))
                .map_err(|_| format!("{file} has changes of its own"))?;
        }
        let mut changed = Changed::default();
        for (file, from, to) in bypass.edits {
            changed.edit(file, from, to)?;
        }
        missed.extend(missed_by(bypass.name, &matrix)?);
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not found: {}", missed.join(", "))) }
}

/// The matrix as a program, built once: it asks the server over its port.
fn matrix() -> Result<PathBuf, String> {
    let mut build = cargo(&["test", "--package", "quorate-conform", "--test", "auth_matrix"]);
    let said = output(build.args(["--no-run", "--quiet", "--message-format", "json"]))?;
    let of_matrix = |line: &&str| line.contains("\"name\":\"auth_matrix\"");
    let program = said.lines().filter(of_matrix).find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    program.ok_or_else(|| "cargo names no program of the matrix".to_owned())
}

/// Who does not find what is built in.
fn missed_by(name: &str, matrix: &Path) -> Result<Vec<String>, String> {
    let mut missed = Vec::new();
    run(&mut cargo(&["build", "--profile", "sim", "--quiet", "--package", "quorate-sim"]))?;
    let mut sim = Command::new(target().join("sim/quorate-sim"));
    sim.args(["--users", "--seeds", SEEDS]);
    let found = first_line(&mut sim, "Permitted")?;
    println!("{name}: simulator: {}", found.as_deref().unwrap_or("NOT FOUND"));
    if found.is_none() {
        missed.push(format!("{name} by the simulator"));
    }
    run(&mut cargo(&["build", "--quiet", "--bin", "etcd"]))?;
    let mut matrix = Command::new(matrix);
    matrix.current_dir(root().join("crates/test/conform"));
    // An oracle that is missing would skip what is to find it.
    matrix.env("QUORATE_CI", "1").env("QUORATE_BIN", target().join("debug/etcd"));
    let found = first_line(&mut matrix, "FAILED")?;
    println!("{name}: matrix: {}", found.as_deref().unwrap_or("NOT FOUND"));
    if found.is_none() {
        missed.push(format!("{name} by the matrix"));
    }
    Ok(missed)
}

/// The first line with a text that a program which fails says; none if it succeeds.
fn first_line(command: &mut Command, text: &str) -> Result<Option<String>, String> {
    let shown = format!("{command:?}");
    let said = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown}: {e}"))?;
    if said.status.success() {
        return Ok(None);
    }
    let all = [&said.stdout[..], &said.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    Ok(all.lines().find(|line| line.contains(text)).map(|line| line.chars().take(200).collect()))
}
