//! A method without a rule of authorization, or without a handler, does not compile (invariant 14).
//!
//! The table of methods and the patterns of the dispatch are taken from their sources, a method is
//! added to either, and the compiler is asked. Without the addition it must be content.

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
