//! What the compiler does not check: crate edges, the determinism rules of core, and what must not
//! be in the tree.

mod citations;

use std::path::{Path, PathBuf};
use std::process::Command;

use citations::Known;

use crate::shell::{cargo, root};

/// The crates, lowest first. A crate may use those of lower groups and those above it in its own.
const GROUPS: [(&str, &[&str]); 4] = [
    ("base", &["types", "api", "env"]),
    ("core", &["handover", "raft", "wal", "bolt", "store", "watch", "machine", "member", "calls"]),
    (
        "shell",
        &[
            "osenv",
            "tls",
            "net",
            "grpc",
            "gateway",
            "peer",
            "cli",
            "observe",
            "http2",
            "rpc",
            "client",
            "discovery",
            "proxy",
            "server",
            "ctl",
            "utl",
            "bench",
        ],
    ),
    ("bin", &["etcd", "etcdctl", "etcdutl", "etcd-bench"]),
];

/// Test crates may use everything.
const TESTS: &[&str] = &["authority", "conform", "decoders", "lossy", "model", "sim"];

/// Modules and words that core must not name outside its tests, with what to use instead
/// (invariant 1). Types, functions and macros are clippy's: `crates/core/clippy.toml`.
const FORBIDDEN_IN_CORE: [(&str, &str); 7] = [
    ("std::fs", "env::Disk"),
    ("std::net", "a message"),
    ("std::thread", "a message; the server owns the threads"),
    ("std::env", "a configuration value"),
    ("tokio", "a message"),
    ("rand::", "env::Entropy"),
    ("unsafe ", "safe code"),
];

/// What must not stand in any file.
const FORBIDDEN_EVERYWHERE: [&str; 2] = ["todo!(", "unimplemented!("];

/// Runs all checks and lists every finding.
pub fn run() -> Result<(), String> {
    let mut findings = Vec::new();
    edges(&mut findings)?;
    sources(&mut findings)?;
    if findings.is_empty() {
        return Ok(());
    }
    Err(format!("tidy:\n  {}", findings.join("\n  ")))
}

fn rank(name: &str) -> Option<(usize, usize)> {
    GROUPS.iter().enumerate().find_map(|(group, (_, crates))| {
        crates.iter().position(|c| *c == name).map(|place| (group, place))
    })
}

fn edges(findings: &mut Vec<String>) -> Result<(), String> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|e| e.to_string())?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    for package in packages {
        let full = package["name"].as_str().unwrap_or_default();
        let Some(name) = full.strip_prefix("quorate-") else { continue };
        let own = rank(name);
        if own.is_none() && !TESTS.contains(&name) {
            findings.push(format!("{full}: not in the table of crates (xtask/src/tidy.rs)"));
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let Some(used) = used.strip_prefix("quorate-") else { continue };
            // Tests of a crate may look upwards.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let (Some(own), Some(other)) = (own, rank(used)) else { continue };
            if other >= own {
                findings.push(format!("{full}: must not use {used}, which is above it"));
            }
        }
    }
    Ok(())
}

fn sources(findings: &mut Vec<String>) -> Result<(), String> {
    let listed = Command::new("git").current_dir(root()).args(["ls-files"]).output();
    let listed = listed.map_err(|e| format!("git ls-files: {e}"))?;
    let files: Vec<PathBuf> =
        String::from_utf8_lossy(&listed.stdout).lines().map(PathBuf::from).collect();
    let known = Known::read(files.clone())?;
    for path in files {
        let is_rust = path.extension().is_some_and(|e| e == "rs");
        if !is_rust && path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        if path.starts_with("xtask") {
            continue;
        }
        known.check(&path, &text, findings);
        if is_rust {
            check_file(&path, &text, findings);
        }
    }
    Ok(())
}

fn check_file(path: &Path, text: &str, findings: &mut Vec<String>) {
    let shown = path.display();
    let in_core = path.starts_with("crates/core")
        && path.components().nth(3).is_some_and(|c| c.as_os_str() == "src")
        && path.file_name().is_some_and(|f| f != "tests.rs");
    let mut tests = TestItems::default();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let in_tests = tests.contain(line);
        let code = line.split("//").next().unwrap_or_default();
        for word in FORBIDDEN_EVERYWHERE {
            if code.contains(word) {
                findings.push(format!("{shown}:{number}: {word}"));
            }
        }
        if in_core && !in_tests {
            for (word, instead) in FORBIDDEN_IN_CORE {
                if code.contains(word) || is_grouped(code, word) {
                    findings.push(format!("{shown}:{number}: {word} in core; use {instead}"));
                }
            }
        }
    }
    let lines = text.lines().count();
    if lines > 1_000 {
        findings.push(format!("{shown}: {lines} lines; two things live in it"));
    }
}

/// Whether `use std::{…}` names the module.
fn is_grouped(code: &str, word: &str) -> bool {
    let (Some(module), Some((_, group))) =
        (word.strip_prefix("std::"), code.split_once("use std::{"))
    else {
        return false;
    };
    group.split(|c: char| !c.is_alphanumeric() && c != '_').any(|name| name == module)
}

/// Which lines belong to items under `#[cfg(test)]`: the item behind the attribute, not the rest of
/// the file.
#[derive(Debug, Default)]
enum TestItems {
    #[default]
    Outside,
    /// The attribute was read, the item has not begun.
    Attribute,
    /// The item ends with a brace at the margin.
    Inside,
}

impl TestItems {
    fn contain(&mut self, line: &str) -> bool {
        let is_in = !matches!(self, TestItems::Outside) || line.starts_with("#[cfg(test)]");
        *self = match self {
            TestItems::Outside if line.starts_with("#[cfg(test)]") => TestItems::Attribute,
            TestItems::Attribute if line.trim_end().ends_with('{') => TestItems::Inside,
            TestItems::Attribute if line.starts_with("#[") => TestItems::Attribute,
            TestItems::Attribute if !line.trim_end().ends_with(';') => TestItems::Attribute,
            TestItems::Inside if !line.starts_with('}') => TestItems::Inside,
            _ => TestItems::Outside,
        };
        is_in
    }
}

#[cfg(test)]
mod planted;

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        let mut found = Vec::new();
        check_file(Path::new(path), text, &mut found);
        found.len()
    }

    #[test]
    fn core_may_not_name_a_module_but_its_tests_may() {
        let core = "crates/core/raft/src/raft.rs";
        for (word, _) in FORBIDDEN_IN_CORE {
            assert_eq!(findings(core, &format!("use {word}\n")), 1, "{word}");
        }
        assert_eq!(findings(core, "use std::{fmt, fs};\n"), 1);
        assert_eq!(findings(core, "use std::{fmt, ops::Range};\n"), 0);
        assert_eq!(findings(core, "// std::fs is not for us\n"), 0);
        assert_eq!(findings("crates/core/raft/tests/a.rs", "use std::fs;\n"), 0);
        assert_eq!(findings("crates/shell/osenv/src/disk.rs", "use std::fs;\n"), 0);
    }

    #[test]
    fn what_follows_a_test_item_is_read_again() {
        let core = "crates/core/raft/src/raft.rs";
        let module = "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(findings(core, module), 0);
        assert_eq!(findings(core, &format!("{module}use std::fs;\n")), 1);
        assert_eq!(findings(core, "#[cfg(test)]\nmod kit;\n\nuse std::fs;\n"), 1);
        assert_eq!(findings(core, "#[cfg(test)]\n#[path = \"a\"]\nmod kit;\nuse std::fs;\n"), 1);
    }

    #[test]
    fn a_lower_crate_has_a_lower_rank() {
        assert!(rank("types") < rank("raft") && rank("raft") < rank("member"));
        assert!(rank("member") < rank("rpc"));
        assert_eq!(rank("conform"), None);
    }
}
