//! `cargo xtask dist`: what a release is made of, the same bytes wherever it is built.
//!
//! `target/dist/` gets an archive of the static programs with their licence and documents, a list of
//! everything that is linked into them (CycloneDX), and the checksums of both. Nothing in them tells
//! when, where or by whom they were built: paths are cut, times are the commit's, owners are root.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::programs::{PROGRAMS, Profile, TARGET, collect, static_build};
use crate::shell::{cargo, output, root, run, target};

/// What lies beside the programs in the archive.
const DOCUMENTS: [&str; 4] = ["LICENSE", "README.md", "COMPAT.md", "CHANGELOG.md"];
/// The list of checksums.
const SUMS: &str = "SHA256SUMS";

/// Builds a release. With `--check` it is built a second time, in a clone elsewhere, and must come out
/// the same.
pub fn dist(args: &[&str]) -> Result<(), String> {
    match args {
        [] => build().map(drop),
        ["--check"] => check(),
        _ => Err("dist takes no argument but --check".into()),
    }
}

fn build() -> Result<PathBuf, String> {
    let dist = target().join("dist");
    // Nothing of a release before this one may stay.
    if dist.exists() {
        std::fs::remove_dir_all(&dist).map_err(|e| format!("{}: {e}", dist.display()))?;
    }
    let name = format!("quorate-v{}-{TARGET}", version()?);
    let content = dist.join(&name);
    let time = output(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]))?;
    run(reproducible(&mut static_build(Profile::Release)?, &time))?;
    collect(Profile::Release, &content)?;
    for document in DOCUMENTS {
        std::fs::copy(root().join(document), content.join(document))
            .map_err(|e| format!("{document}: {e}"))?;
    }
    let parts = format!("{name}.cdx.json");
    let text = serde_json::to_string_pretty(&parts_list()?).map_err(|e| e.to_string())? + "\n";
    std::fs::write(dist.join(&parts), text).map_err(|e| format!("{parts}: {e}"))?;
    let archive = format!("{name}.tar.gz");
    pack(&dist, &name, &archive, &time)?;
    std::fs::remove_dir_all(&content).map_err(|e| format!("{name}: {e}"))?;
    let sums = output(Command::new("sha256sum").current_dir(&dist).args([&archive, &parts]))?;
    std::fs::write(dist.join(SUMS), sums + "\n").map_err(|e| format!("{SUMS}: {e}"))?;
    eprintln!("xtask: {}", dist.display());
    Ok(dist)
}

fn check() -> Result<(), String> {
    let first = build()?;
    let dir = std::env::temp_dir().join(format!("quorate-dist-{}", std::process::id()));
    let clone = dir.join("elsewhere");
    run(Command::new("git").args(["clone", "--quiet"]).arg(root()).arg(&clone))?;
    let mut again = Command::new("cargo");
    again.current_dir(&clone).args(["xtask", "dist"]).env("CARGO_TARGET_DIR", dir.join("built"));
    run(&mut again)?;
    let read = |dist: &Path| std::fs::read_to_string(dist.join(SUMS)).map_err(|e| e.to_string());
    let (here, there) = (read(&first)?, read(&dir.join("built/dist"))?);
    std::fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    if here != there {
        return Err(format!("two builds of one commit differ:\n{here}{there}"));
    }
    eprintln!("xtask: two builds in two places are the same:\n{here}");
    Ok(())
}

/// Lets what is built tell nothing of the machine.
fn reproducible<'a>(build: &'a mut Command, time: &str) -> &'a mut Command {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    // Of two prefixes that fit the last one counts.
    let places = [(home, "/cargo"), (root(), "/quorate"), (target(), "/target")];
    let map = |flag: &str| {
        let each = places.iter().map(|(from, to)| format!("{flag}={}={to}", from.display()));
        each.collect::<Vec<_>>()
    };
    build
        .env("CARGO_ENCODED_RUSTFLAGS", map("--remap-path-prefix").join("\x1f"))
        .env("CFLAGS_x86_64_unknown_linux_musl", map("-ffile-prefix-map").join(" "))
        .env("SOURCE_DATE_EPOCH", time)
        .env("CARGO_INCREMENTAL", "0")
        // Names of functions stay, for whoever looks at a panic.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
}

fn pack(dist: &Path, name: &str, archive: &str, time: &str) -> Result<(), String> {
    let mut tar = Command::new("tar");
    tar.current_dir(dist).args(["--create", "--use-compress-program=gzip -9 -n"]);
    tar.arg(format!("--mtime=@{time}")).arg(format!("--file={archive}"));
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    run(tar.args(["--mode=u+rw,go=rX", name]))
}

/// A package in Cargo's words: name and version.
type Package = (String, String);

/// Everything that is linked into the programs, as CycloneDX has it.
//= CycloneDX 1.5: JSON reference
fn parts_list() -> Result<Value, String> {
    let mut command = cargo(&["metadata", "--format-version=1", "--locked", "--filter-platform"]);
    let metadata: Value = serde_json::from_str(&output(command.arg(TARGET))?)
        .map_err(|e| format!("cargo metadata: {e}"))?;
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).map_err(|e| e.to_string())?;
    let checksums = checksums(&lock);
    let linked = linked(&metadata)?;
    let components = array(&metadata["packages"])?
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| linked.contains(id)));
    let mut components: Vec<Value> =
        components.map(|package| component(package, &checksums)).collect();
    components.sort_by_key(|component| component["purl"].to_string());
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": "quorate", "version": version()?,
        }},
        "components": components,
    }))
}

fn component(package: &Value, checksums: &BTreeMap<Package, String>) -> Value {
    let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
    let (name, version) = (text("name"), text("version"));
    let mut component = json!({
        "type": "library",
        "name": name,
        "version": version,
        "purl": format!("pkg:cargo/{name}@{version}"),
        "licenses": [{ "expression": text("license") }],
    });
    if let Some(sum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// The packages that the programs link, by id: what they depend on, but for tests and builds.
fn linked(metadata: &Value) -> Result<BTreeSet<String>, String> {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in array(&metadata["resolve"]["nodes"])? {
        let dependencies = array(&node["deps"])?.iter().filter(|dependency| {
            let kinds = dependency["dep_kinds"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        });
        let ids = dependencies.filter_map(|dependency| dependency["pkg"].as_str()).collect();
        needs.insert(node["id"].as_str().unwrap_or_default(), ids);
    }
    let packages = array(&metadata["packages"])?.iter();
    let programs = packages.filter(|package| {
        let targets = package["targets"].as_array();
        targets.is_some_and(|targets| {
            let names = |target: &&Value| {
                let is_program = target["kind"][0] == "bin";
                is_program && PROGRAMS.iter().any(|program| target["name"] == *program)
            };
            targets.iter().any(|target| names(&target))
        })
    });
    let mut open: Vec<&str> = programs.filter_map(|package| package["id"].as_str()).collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = open.pop() {
        if linked.insert(id.to_owned()) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    Ok(linked)
}

/// The checksums in a lock file.
fn checksums(lock: &str) -> BTreeMap<Package, String> {
    let sections = lock.split("[[package]]");
    let value = |section: &str, name: &str| {
        let line = section.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|text| text.trim_matches('"').to_owned())
    };
    let pair = |section: &str| {
        let package = (value(section, "name")?, value(section, "version")?);
        Some((package, value(section, "checksum")?))
    };
    sections.filter_map(pair).collect()
}

fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| "cargo metadata is not what it was".to_owned())
}

fn version() -> Result<String, String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).map_err(|e| e.to_string())?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    version.map(|text| text.trim_matches('"').to_owned()).ok_or_else(|| "no version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_list_names_what_is_linked_with_checksums_and_licences() {
        let list = parts_list().unwrap();
        let parts = list["components"].as_array().unwrap();
        let find = |name: &str| parts.iter().find(|part| part["name"] == name);
        let bytes = find("bytes").expect("everything is made of bytes");
        assert_eq!(bytes["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert_eq!(bytes["licenses"][0]["expression"], "MIT");
        assert!(find("quorate-server").is_some());
        // What tests and builds need is not in the programs.
        assert!(find("proptest").is_none() && find("xtask").is_none());
    }
}
