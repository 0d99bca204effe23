//! Each rule of `crates/core/clippy.toml` is broken once, and clippy must say so.

use std::path::PathBuf;

use crate::shell::{cargo, root, target};

/// One violation per rule: the path of the rule, and an item that breaks it.
const VIOLATIONS: &[(&str, &str)] = &[
    ("std::time::Instant", "use std::time::{Duration, Instant}; pub type A = (Duration, Instant);"),
    ("std::time::SystemTime", "pub type A = std::time::SystemTime;"),
    ("std::collections::HashMap", "use std::collections::*; pub type A = HashMap<u8, u8>;"),
    ("std::collections::HashSet", "use std::collections as c; pub type A = c::HashSet<u8>;"),
    ("std::hash::RandomState", "pub type A = std::collections::hash_map::RandomState;"),
    ("std::fs::File", "pub type A = std::fs::File;"),
    ("std::fs::OpenOptions", "pub type A = std::fs::OpenOptions;"),
    ("std::net::TcpListener", "pub type A = std::net::TcpListener;"),
    ("std::net::TcpStream", "pub type A = std::net::TcpStream;"),
    ("std::net::UdpSocket", "pub type A = std::net::UdpSocket;"),
    ("std::os::unix::net::UnixListener", "pub type A = std::os::unix::net::UnixListener;"),
    ("std::os::unix::net::UnixStream", "pub type A = std::os::unix::net::UnixStream;"),
    ("std::process::Command", "pub type A = std::process::Command;"),
    ("std::thread::JoinHandle", "pub type A = std::thread::JoinHandle<()>;"),
    ("std::time::Instant::now", "pub fn a() { let _ = std::time::Instant::now(); }"),
    ("std::time::SystemTime::now", "pub fn a() { let _ = std::time::SystemTime::now(); }"),
    ("std::thread::spawn", "pub fn a() { let _ = std::thread::spawn(|| ()); }"),
    ("std::thread::scope", "pub fn a() { std::thread::scope(|_| ()); }"),
    ("std::thread::sleep", "pub fn a() { std::thread::sleep(std::time::Duration::ZERO); }"),
    ("std::thread::current", "pub fn a() { let _ = std::thread::current(); }"),
    ("std::env::var", "pub fn a() { let _ = std::env::var(\"A\"); }"),
    ("std::env::var_os", "pub fn a() { let _ = std::env::var_os(\"A\"); }"),
    ("std::env::vars", "pub fn a() { let _ = std::env::vars(); }"),
    ("std::env::args", "pub fn a() { let _ = std::env::args(); }"),
    ("std::env::current_dir", "pub fn a() { let _ = std::env::current_dir(); }"),
    ("std::fs::read", "pub fn a() { let _ = std::fs::read(\"a\"); }"),
    ("std::fs::read_to_string", "pub fn a() { let _ = std::fs::read_to_string(\"a\"); }"),
    ("std::fs::read_dir", "pub fn a() { let _ = std::fs::read_dir(\"a\"); }"),
    ("std::fs::write", "pub fn a() { let _ = std::fs::write(\"a\", \"\"); }"),
    ("std::fs::remove_file", "pub fn a() { let _ = std::fs::remove_file(\"a\"); }"),
    ("std::fs::remove_dir_all", "pub fn a() { let _ = std::fs::remove_dir_all(\"a\"); }"),
    ("std::fs::create_dir_all", "pub fn a() { let _ = std::fs::create_dir_all(\"a\"); }"),
    ("std::fs::rename", "pub fn a() { let _ = std::fs::rename(\"a\", \"b\"); }"),
    ("std::fs::metadata", "pub fn a() { let _ = std::fs::metadata(\"a\"); }"),
    ("std::process::exit", "pub fn a() { std::process::exit(1); }"),
    ("std::process::id", "pub fn a() { let _ = std::process::id(); }"),
    ("std::io::stdin", "pub fn a() { let _ = std::io::stdin(); }"),
    ("std::io::stdout", "pub fn a() { let _ = std::io::stdout(); }"),
    ("std::io::stderr", "pub fn a() { let _ = std::io::stderr(); }"),
    ("std::println", "pub fn a() { println!(); }"),
    ("std::print", "pub fn a() { print!(\"a\"); }"),
    ("std::eprintln", "pub fn a() { eprintln!(); }"),
    ("std::eprint", "pub fn a() { eprint!(\"a\"); }"),
];

/// The paths that the rules forbid.
fn rules(config: &str) -> Vec<&str> {
    config
        .lines()
        .filter_map(|l| l.split_once("path = \"")?.1.split_once('"'))
        .map(|r| r.0)
        .collect()
}

/// A crate of its own with a module per violation; returns where it lies.
fn plant(config: &str) -> PathBuf {
    let dir = target().join("planted");
    std::fs::create_dir_all(dir.join("src")).expect("target is ours");
    let manifest = "[package]\nname = \"planted\"\nedition = \"2024\"\n[workspace]\n";
    let mut source = String::new();
    for (number, (_, item)) in VIOLATIONS.iter().enumerate() {
        source += &format!("pub mod m{number} {{ {item} }}\n");
    }
    for (name, text) in [("Cargo.toml", manifest), ("clippy.toml", config), ("src/lib.rs", &source)]
    {
        std::fs::write(dir.join(name), text).expect("target is ours");
    }
    dir
}

#[test]
fn every_rule_of_core_finds_its_violation() {
    let config = std::fs::read_to_string(root().join("crates/core/clippy.toml")).unwrap();
    let mut planted: Vec<_> = VIOLATIONS.iter().map(|(path, _)| *path).collect();
    let mut rules = rules(&config);
    planted.sort_unstable();
    rules.sort_unstable();
    assert_eq!(rules, planted, "one violation per rule");

    let dir = plant(&config);
    let mut clippy = cargo(&["clippy", "--quiet", "--offline", "--manifest-path"]);
    clippy.arg(dir.join("Cargo.toml")).env("CARGO_TARGET_DIR", dir.join("target"));
    clippy.args(["--", "-W", "clippy::all"]);
    let said = clippy.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&said.stderr);
    for (number, (path, _)) in VIOLATIONS.iter().enumerate() {
        let (name, line) = (format!("`{path}`"), format!("src/lib.rs:{}:", number + 1));
        let is_found = said.split("\n\n").any(|w| w.contains("disallowed") && w.contains(&line));
        assert!(is_found && said.contains(&name), "{path} is not found:\n{said}");
    }
}
