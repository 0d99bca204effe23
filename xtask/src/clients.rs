//! Clients of other languages, as their registries ship them, with the program of each that tests
//! run. Go's are modules like the other oracles.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::oracle;
use crate::shell::{has, root, run};

/// A folder of `oracle/` that is copied and made ready by other tools than Go's.
struct Client {
    name: &'static str,
    /// What it needs, and an argument with which that answers.
    needs: (&'static str, &'static str),
    /// Commands, run in the copy one after another.
    steps: &'static [&'static [&'static str]],
}

const CLIENTS: [Client; 3] = [
    Client {
        name: "client-java",
        needs: ("mvn", "--version"),
        steps: &[&["mvn", "-q", "-B", "package", "dependency:copy-dependencies"]],
    },
    Client {
        name: "client-node",
        needs: ("npm", "--version"),
        // Nothing of theirs runs while it is installed.
        steps: &[&["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit"]],
    },
    Client {
        name: "client-python",
        needs: ("python3", "--version"),
        steps: &[
            &["python3", "-m", "venv", "venv"],
            &["venv/bin/python", "-m", "pip", "-q", "install", "-r", "requirements.txt"],
        ],
    },
];

/// Debian's package of etcdctl, which is unpacked and not installed.
const PACKAGE: &str = "etcd-client";
/// What marks a folder that is ready.
const READY: &str = "ready";

/// Makes those ready whose tools are here; what is ready and has not changed stays.
pub fn build() -> Result<(), String> {
    for client in &CLIENTS {
        let (tool, probe) = client.needs;
        if has(tool, probe) {
            client.build()?;
        } else {
            eprintln!("xtask: SKIPPED: {} wants {tool}, which is not here", client.name);
        }
    }
    debian()
}

impl Client {
    fn build(&self) -> Result<(), String> {
        let (from, to) = (root().join("oracle").join(self.name), oracle::dir().join(self.name));
        let sources = files(&from)?;
        let same = |file: &PathBuf| {
            let both = (std::fs::read(from.join(file)), std::fs::read(to.join(file)));
            matches!(both, (Ok(a), Ok(b)) if a == b)
        };
        if to.join(READY).exists() && sources.iter().all(same) {
            return Ok(());
        }
        if to.exists() {
            std::fs::remove_dir_all(&to).map_err(|e| failed(&to, &e))?;
        }
        for file in &sources {
            let copy = to.join(file);
            let dir = copy.parent().unwrap_or(&to);
            std::fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
            std::fs::copy(from.join(file), &copy).map_err(|e| failed(&copy, &e))?;
        }
        for step in self.steps {
            run(Command::new(step[0]).args(&step[1..]).current_dir(&to))?;
        }
        std::fs::write(to.join(READY), "").map_err(|e| failed(&to, &e))
    }
}

/// etcdctl as Debian ships it.
fn debian() -> Result<(), String> {
    let to = oracle::dir().join("client-debian");
    if to.join(READY).exists() {
        return Ok(());
    }
    if !has("apt-get", "--version") {
        eprintln!("xtask: SKIPPED: client-debian wants apt-get, which is not here");
        return Ok(());
    }
    std::fs::create_dir_all(&to).map_err(|e| failed(&to, &e))?;
    let mut download = Command::new("apt-get");
    download.current_dir(&to).args(["-q", "download", PACKAGE]);
    if run(&mut download).is_err() {
        // The lists are not there, or old.
        run(Command::new("apt-get").args(["-q", "update"]))?;
        run(&mut download)?;
    }
    let packages = files(&to)?.into_iter();
    let packages = packages.filter(|file| file.extension().is_some_and(|ext| ext == "deb"));
    for package in packages {
        run(Command::new("dpkg-deb").current_dir(&to).arg("-x").arg(package).arg("."))?;
    }
    std::fs::write(to.join(READY), "").map_err(|e| failed(&to, &e))
}

/// The files below a folder, by their paths within it.
fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(dir.join(&folder)).map_err(|e| failed(dir, &e))?;
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir { folders.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
