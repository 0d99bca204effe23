//! The programs that tests compare with, most of them Go's.

use std::path::PathBuf;
use std::process::Command;

use crate::clients;
use crate::shell::{has, root, run, target};

/// Where the built programs are.
pub fn dir() -> PathBuf {
    target().join("oracle")
}

/// Where etcd's programs are: where `QUORATE_ORACLES` says, or built now.
pub fn programs() -> Result<PathBuf, String> {
    match std::env::var_os("QUORATE_ORACLES") {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => build().map(|()| dir()),
    }
}

/// One of etcd's programs.
pub fn program(name: &str) -> Result<PathBuf, String> {
    Ok(programs()?.join(name).join(name))
}

/// Whether Go is there to build them.
pub fn can_build() -> bool {
    has("go", "version")
}

/// A module without programs: `cargo xtask e2e` compiles its tests, which takes a minute.
const ONLY_TESTS: &str = "e2e";

/// Builds the programs of every module of `oracle/`. Go's build cache makes a second call cheap.
pub fn build() -> Result<(), String> {
    if !can_build() {
        return Err("the oracles need Go; install it or run `cargo xtask test` without".into());
    }
    let modules = std::fs::read_dir(root().join("oracle")).map_err(|e| e.to_string())?;
    let mut names: Vec<PathBuf> = modules.flatten().map(|e| e.path()).collect();
    names.sort();
    names.retain(|path| path.join("go.mod").exists() && !path.ends_with(ONLY_TESTS));
    for module in names {
        let name = module.file_name().expect("listed by name").to_owned();
        let out = dir().join(&name);
        std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
        let mut command = Command::new("go");
        command
            .current_dir(&module)
            .args(["build", "-trimpath", "-o"])
            .arg(out.join(""))
            .arg("./...");
        run(&mut command)?;
    }
    clients::build()
}
