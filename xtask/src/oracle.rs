//! The Go programs that tests compare with.

use std::path::PathBuf;
use std::process::Command;

use crate::shell::{has, root, run, target};

/// Where the built programs are.
pub fn dir() -> PathBuf {
    target().join("oracle")
}

/// One of etcd's programs: where `QUORATE_ORACLES` says, or built now.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let dir = match std::env::var_os("QUORATE_ORACLES") {
        Some(dir) => PathBuf::from(dir),
        None => {
            build()?;
            dir()
        }
    };
    Ok(dir.join(name).join(name))
}

/// Whether Go is there to build them.
pub fn can_build() -> bool {
    has("go", "version")
}

/// Builds every module of `oracle/`. Go's build cache makes a second call cheap.
pub fn build() -> Result<(), String> {
    if !can_build() {
        return Err("the oracles need Go; install it or run `cargo xtask test` without".into());
    }
    let modules = std::fs::read_dir(root().join("oracle")).map_err(|e| e.to_string())?;
    let mut names: Vec<PathBuf> = modules.flatten().map(|e| e.path()).collect();
    names.sort();
    for module in names.into_iter().filter(|path| path.join("go.mod").exists()) {
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
    Ok(())
}
