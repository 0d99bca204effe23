//! A method without a rule of authorization, or without a handler, does not compile; nor does a
//! handler that reads keys without having asked whether it may (invariant 14).
//!
//! The table of methods and the patterns of the dispatch are taken from their sources, a method is
//! added to either, and the compiler is asked. Without the addition it must be content. The closed
//! View and the permission that opens it are taken from theirs, beside handlers that read.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may do what core must not"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

const LAST_ROW: &str = "    HealthWatch = ";

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The table without its tests, with one more row in front of the last.
fn table(row: &str) -> String {
    let source = source("../../base/api/src/method.rs");
    let (table, _) = source.split_once("#[cfg(test)]").expect("the table has tests");
    let (before, after) = table.split_once(LAST_ROW).expect("the last row is known");
    format!("{before}{row}{LAST_ROW}{after}")
}

/// The patterns of `handler`, each of which gives nothing.
fn dispatch() -> String {
    let source = source("src/dispatch.rs");
    let (_, function) = source.split_once("fn handler(method: Method)").expect("it is there");
    let (_, arms) = function.split_once("match method {").expect("it is one match");
    let (mut patterns, mut pattern, mut depth) = (Vec::new(), String::new(), 0);
    let mut in_pattern = true;
    let mut letters = arms.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '}' if depth == 0 => break,
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            '=' if depth == 0 && in_pattern && letters.peek() == Some(&'>') => {
                letters.next();
                patterns.push(std::mem::take(&mut pattern));
                in_pattern = false;
                continue;
            }
            ',' if depth == 0 => {
                in_pattern = true;
                continue;
            }
            _ => {}
        }
        // An arm in braces needs no comma behind it.
        if !in_pattern && depth == 0 && letter == '}' {
            in_pattern = true;
        } else if in_pattern {
            pattern.push(letter);
        }
    }
    let methods: usize = patterns.iter().map(|p| p.matches("Method::").count()).sum();
    assert!(methods > 40, "too few arms were understood: {patterns:?}");
    let arms: String = patterns.iter().map(|p| format!("        {} => {{}}\n", p.trim())).collect();
    format!("\npub fn handler(method: Method) {{\n    match method {{\n{arms}    }}\n}}\n")
}

/// What the compiler has against a program; nothing if it takes it.
fn compile(name: &str, program: &str) -> Option<String> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("{name}.rs"));
    std::fs::write(&path, program).expect("the directory for tests is there");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(compiler)
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--out-dir"])
        .args([&dir, &path])
        .output()
        .expect("the compiler that builds this test is there");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(told)
}

fn row(rule: &str) -> String {
    format!(
        "    Brew = \"etcdserverpb.KV\", \"Brew\", Unary, \"BrewRequest\", \"BrewResponse\", \
         {rule}Never, [];\n"
    )
}

#[test]
fn a_method_without_a_rule_does_not_compile() {
    assert_eq!(compile("with_a_rule", &table(&row("Root, "))), None);
    let told = compile("without_a_rule", &table(&row(""))).expect("it must be refused");
    assert!(told.contains("no rules expected") || told.contains("unexpected end"), "{told}");
    let told = compile("unknown_rule", &table(&row("Nobody, "))).expect("it must be refused");
    assert!(told.contains("cannot find value `Nobody`"), "{told}");
}

#[test]
fn a_method_without_a_handler_does_not_compile() {
    let dispatch = dispatch();
    assert!(!dispatch.contains('_'), "an arm stands for methods that it does not name: {dispatch}");
    assert_eq!(compile("with_handlers", &(table("") + &dispatch)), None);
    let told = compile("without_a_handler", &(table(&row("Root, ")) + &dispatch));
    let told = told.expect("it must be refused");
    assert!(told.contains("`method::Method::Brew` not covered") || told.contains("Brew"), "{told}");
    assert!(told.contains("E0004"), "{told}");
}

/// What the View's source takes from other crates, as far as it takes it.
const STUBS: &str = r"
pub mod bytes { pub struct Bytes; }
pub mod types {
    #[derive(Debug)]
    pub struct Index(pub u64);
    pub struct Revision(pub i64);
}
pub mod machine { pub struct Alarms; pub struct Auth; pub struct Members; }
pub mod bolt {
    pub struct ReadTx;
    impl ReadTx {
        pub fn size_bytes(&self) -> u64 { 0 }
        pub fn size_in_use_bytes(&self) -> u64 { 0 }
    }
}
pub mod handover {
    pub struct Slot<T>(pub std::sync::Arc<T>);
    impl<T> Slot<T> {
        pub fn load(&self) -> std::sync::Arc<T> { std::sync::Arc::clone(&self.0) }
    }
}
pub mod member {
    use super::types::{Index, Revision};
    pub struct View;
    impl View {
        pub fn revision(&self) -> Revision { Revision(1) }
        pub fn applied_index(&self) -> Index { Index(1) }
        pub fn backend(&self) -> Option<&super::bolt::ReadTx> { None }
        pub fn range(&self) {}
    }
    pub struct MemberView {
        pub store: View,
        pub members: std::sync::Arc<super::machine::Members>,
        pub alarms: std::sync::Arc<super::machine::Alarms>,
        pub auth: std::sync::Arc<super::machine::Auth>,
        pub storage_version: Option<super::bytes::Bytes>,
    }
}
";

/// The closed View, the permission, and a handler beside them that reads the keys of `view`.
fn handler_that_reads(by: &str) -> String {
    let view = source("src/published.rs");
    let view = view.lines().filter(|line| !line.starts_with("//!")).map(|line| {
        let outside = ["bytes", "handover", "machine", "member", "types"];
        let is_outside = |name: &&str| line.starts_with(&format!("use {name}::"));
        let line = match outside.iter().any(is_outside) {
            true => line.replacen("use ", "use crate::stubs::", 1),
            false => line.to_owned(),
        };
        line.replace("bolt::", "crate::stubs::bolt::") + "\n"
    });
    let view: String = view.collect();
    let caller = source("src/caller.rs");
    let from = caller.find("pub struct Allowed(());").expect("the permission is there");
    let end = caller[from..].find("\n}\n").expect("its one impl ends");
    let allowed = &caller[from..from + end + 2];
    format!(
        "#![allow(dead_code)]\nmod stubs {{{STUBS}}}\n\
         mod caller {{ #[derive(Clone, Copy)] {allowed} }}\n\
         mod published {{\n{view}}}\n\
         mod handler {{\n    use crate::{{caller::Allowed, published::PublishedView}};\n    \
         pub fn keys(view: PublishedView, allowed: Allowed) {{ drop(allowed); {by} }}\n}}\n"
    )
}

#[test]
fn a_read_without_a_permission_does_not_compile() {
    let asked = handler_that_reads("view.open(allowed).store.range()");
    assert_eq!(compile("reads_as_allowed", &asked), None);
    let refused = [
        ("reads_the_field", "view.0.store.range()", "E0616"),
        ("opens_with_nothing", "view.open().store.range()", "E0061"),
        ("makes_a_permission", "view.open(Allowed(())).store.range()", "E0423"),
        ("reads_through_the_view", "view.store.range()", "E0609"),
    ];
    for (name, by, code) in refused {
        let told = compile(name, &handler_that_reads(by)).expect("it must be refused");
        assert!(told.contains(code), "{name}: {told}");
    }
}

/// Files in which a text stands, tests apart.
fn files_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["src", "src/watch"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        for entry in std::fs::read_dir(&dir).expect("the sources are there") {
            let path = entry.expect("it is listed").path();
            let is_source = path.extension().is_some_and(|end| end == "rs");
            if is_source && std::fs::read_to_string(&path).expect("a source").contains(text) {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
                let name = path.strip_prefix(root).expect("below it");
                found.push(name.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_needs_no_permission_is_named() {
    // Who asks for nobody: what a member does by itself, questions of other members, and the turns
    // of a hub that takes no watch without a permission.
    let by_itself = ["caller.rs", "corruption.rs", "member.rs", "peers.rs", "watch/mod.rs"];
    assert_eq!(files_with("BY_ITSELF"), by_itself);
    assert!(source("src/watch/mod.rs").contains("WatchHub<Allowed>"));
    // The keys of a lease come from Applier, not from a View: through one function that wants one.
    assert_eq!(files_with("ApplierInput::LeaseKeys {"), ["lease.rs", "member.rs"]);
    assert_eq!(files_with("for_metrics("), ["published.rs"]);
}
