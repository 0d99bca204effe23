//! What the compiler does not check: crate edges, the determinism rules of core, and what must not
//! be in the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{cargo, root};

/// The crates, lowest first. A crate may use those of lower groups and those above it in its own.
const GROUPS: [(&str, &[&str]); 4] = [
    ("base", &["types", "api", "env"]),
    ("core", &["handover", "raft", "wal", "bolt", "store", "watch", "machine", "member", "calls"]),
    (
        "shell",
        &["osenv", "peer", "cli", "observe", "rpc", "server", "client", "ctl", "utl", "bench"],
    ),
    ("bin", &["etcd", "etcdctl", "etcdutl", "etcd-bench"]),
];

/// Test crates may use everything.
const TESTS: &[&str] = &["conform", "decoders", "lossy", "model", "sim"];

/// What core must not name outside its tests, with what to use instead (invariant 1).
const FORBIDDEN_IN_CORE: [(&str, &str); 10] = [
    ("std::time::Instant", "env::Instant, as an argument"),
    ("std::time::SystemTime", "env::WallTime, as an argument"),
    ("std::fs", "env::Disk"),
    ("std::net", "a message"),
    ("std::thread", "a message; the server owns the threads"),
    ("std::env", "a configuration value"),
    ("tokio", "a message"),
    ("rand::", "env::Entropy"),
    ("unsafe ", "safe code"),
    ("println!", "an output"),
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
    let listed = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "*.rs"])
        .output()
        .map_err(|e| format!("git ls-files: {e}"))?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let path = PathBuf::from(line);
        if path.starts_with("xtask") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        check_file(&path, &text, findings);
    }
    Ok(())
}

fn check_file(path: &Path, text: &str, findings: &mut Vec<String>) {
    let shown = path.display();
    let in_core = path.starts_with("crates/core")
        && path.components().nth(3).is_some_and(|c| c.as_os_str() == "src")
        && path.file_name().is_some_and(|f| f != "tests.rs");
    let mut in_tests = false;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        in_tests |= line.starts_with("#[cfg(test)]");
        let code = line.split("//").next().unwrap_or_default();
        for word in FORBIDDEN_EVERYWHERE {
            if code.contains(word) {
                findings.push(format!("{shown}:{number}: {word}"));
            }
        }
        if in_core && !in_tests {
            for (word, instead) in FORBIDDEN_IN_CORE {
                if code.contains(word) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        let mut found = Vec::new();
        check_file(Path::new(path), text, &mut found);
        found.len()
    }

    #[test]
    fn core_may_not_read_a_clock_but_its_tests_may() {
        let core = "crates/core/raft/src/raft.rs";
        assert_eq!(findings(core, "use std::time::Instant;\n"), 1);
        assert_eq!(findings(core, "// std::time::Instant is not for us\n"), 0);
        assert_eq!(findings(core, "#[cfg(test)]\nuse std::time::Instant;\n"), 0);
        assert_eq!(findings("crates/core/raft/tests/a.rs", "use std::fs;\n"), 0);
        assert_eq!(findings("crates/shell/osenv/src/disk.rs", "use std::fs;\n"), 0);
    }

    #[test]
    fn a_lower_crate_has_a_lower_rank() {
        assert!(rank("types") < rank("raft") && rank("raft") < rank("member"));
        assert!(rank("member") < rank("rpc"));
        assert_eq!(rank("conform"), None);
    }
}
