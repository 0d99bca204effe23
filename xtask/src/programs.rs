//! The programs that users run, built as static ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{cargo, has, run, target};

/// What static programs are built for.
pub const TARGET: &str = "x86_64-unknown-linux-musl";
/// The programs.
pub const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly, for tests.
    Dev,
    /// For users.
    Release,
}

/// Cargo, about to build the static programs; the target is installed if it is missing.
pub fn static_build(profile: Profile) -> Result<Command, String> {
    if !has_target() {
        run(Command::new("rustup").args(["target", "add", TARGET]))?;
    }
    if !has("musl-gcc", "--version") {
        return Err("musl-gcc is missing (Debian's musl-tools)".into());
    }
    let mut build = cargo(&["build", "--quiet", "--locked", "--target", TARGET]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    // Cryptography is partly C, which must be compiled against musl's headers (Debian's musl-tools).
    build.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    Ok(build)
}

/// Copies what was built into `dir`, which is made.
pub fn collect(profile: Profile, dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for program in PROGRAMS {
        let built = built(profile).join(program);
        std::fs::copy(&built, dir.join(program))
            .map_err(|e| format!("{}: {e}", built.display()))?;
    }
    Ok(())
}

fn built(profile: Profile) -> PathBuf {
    let name = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    target().join(TARGET).join(name)
}

fn has_target() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir()
    })
}
