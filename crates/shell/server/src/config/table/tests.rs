//! What holds for every row, and how the rows compare with etcd's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::super::configuration::Configuration;
use super::super::file;
use super::super::help::help;
use super::super::source::{Given, Origin, command_line, environment, variable};
use super::super::value::FlagType;
use super::*;

/// A value that is not the flag's default: as the command line has it, and as a file has it.
fn sample(flag: &Flag) -> (String, String) {
    let both = |text: &str| (text.to_owned(), text.to_owned());
    match (flag.name, flag.place.flag_type()) {
        ("feature-gates", _) => both("CompactHashCheck=true"),
        ("cors", _) => both("http://a.example:80"),
        (_, FlagType::Bool) => match flag.default {
            "true" => both("false"),
            _ => both("true"),
        },
        (_, FlagType::Number(_)) => both("77"),
        (_, FlagType::Duration) => ("77s".to_owned(), "77000000000".to_owned()),
        (_, FlagType::Urls) => both("http://127.0.0.1:77,http://127.0.0.1:78"),
        (_, FlagType::List) => ("one,two".to_owned(), "[one, two]".to_owned()),
        (_, FlagType::OneOf(words)) => both(words.last().expect("there are words")),
        (_, FlagType::Text | FlagType::Set) => both("one"),
    }
}

/// A file in which a flag has a value.
fn file_with(path: &str, value: &str) -> String {
    let keys: Vec<&str> = path.split('.').collect();
    let mut text = String::new();
    for (depth, key) in keys.iter().enumerate() {
        let end = if depth + 1 == keys.len() { format!(" {value}") } else { String::new() };
        text.push_str(&format!("{}{key}:{end}\n", "  ".repeat(depth)));
    }
    text
}

#[test]
fn three_sources_give_the_same_value_to_one_flag_alone() {
    let defaults = Configuration::defaults().unwrap();
    for row in flags() {
        let (text, in_file) = sample(row);
        let changed = |given: &Given| -> Vec<&'static str> {
            let rows = flags().filter(|r| !r.place.is_same(&given.configuration, &defaults));
            rows.map(|r| r.name).collect()
        };
        // What is ignored has no value that differs.
        let expected: Vec<&str> = match row.name {
            "v2-deprecation" => Vec::new(),
            name => vec![name],
        };
        let flag = command_line(&[format!("--{}={text}", row.name)]).expect(row.name);
        assert_eq!(changed(&flag), expected, "--{}={text}", row.name);
        assert!(flag.is_set(row.name));
        if row.name != "version" {
            let mut given = Given::nothing(Origin::Flags).unwrap();
            let variables = [(variable(row.name), text.clone())];
            environment(&mut given, variables.into_iter()).expect(row.name);
            assert!(row.place.is_same(&given.configuration, &flag.configuration), "{}", row.name);
            assert_eq!(given.configuration, flag.configuration, "{}", row.name);
        }
        if let Some(path) = row.path() {
            let given = file::read(&file_with(path, &in_file)).expect(row.name);
            assert_eq!(given.configuration, flag.configuration, "{}", row.name);
        }
    }
}

#[test]
fn every_row_is_complete() {
    let mut names: Vec<_> = flags().map(|flag| flag.name).collect();
    let groups: Vec<_> = flags().map(|flag| flag.group).collect();
    assert!(groups.is_sorted());
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    for flag in flags() {
        let help = flag.help;
        assert!(help.len() > 10 && (help.ends_with('.') || help.ends_with(':')), "{}", flag.name);
        assert!(!IGNORED.contains(&flag.name), "{}", flag.name);
        let default = command_line(&[format!("--{}={}", flag.name, flag.default)]);
        assert!(default.is_ok(), "--{}={}", flag.name, flag.default);
    }
}

/// Headings, and flags with the default that stands behind them.
fn shape(help: &str) -> (Vec<&str>, BTreeMap<String, (String, String)>) {
    let mut headings = Vec::new();
    let mut rows = BTreeMap::new();
    let mut name = String::new();
    for line in help.lines() {
        if !line.starts_with(' ') && line.ends_with(':') {
            headings.push(line);
        } else if let Some(rest) = line.strip_prefix("  --") {
            let (flag, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            name = flag.to_owned();
            let default = rest
                .trim()
                .strip_prefix('\'')
                .and_then(|rest| rest.split_once('\'').map(|(default, _)| default.to_owned()));
            let default = default.unwrap_or_else(|| rest.trim().to_owned());
            let heading = headings.last().copied().unwrap_or_default().to_owned();
            rows.insert(name.clone(), (heading, default));
        } else if let Some(quoted) = line.trim().strip_prefix('\'') {
            // A long default has a line of its own.
            if let (Some(row), Some(default)) = (rows.get_mut(&name), quoted.strip_suffix('\'')) {
                row.1 = default.to_owned();
            }
        }
    }
    (headings, rows)
}

#[test]
fn help_names_and_describes_every_flag_in_its_part() {
    let help = help();
    let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "{long:#?}");
    let (headings, rows) = shape(&help);
    let expected = [
        "Usage:",
        "Program:",
        "Member:",
        "Clustering:",
        "Security:",
        "Auth:",
        "Profiling and Monitoring:",
        "Logging:",
        "Distributed tracing:",
        "Features:",
        "Unsafe feature:",
    ];
    assert_eq!(headings, expected);
    let lines: Vec<_> = help.lines().collect();
    for flag in flags() {
        let (heading, default) = &rows[flag.name];
        assert_eq!(
            (heading.as_str(), default.as_str()),
            (&*format!("{}:", flag.group.title()), flag.default)
        );
        let start = format!("  --{} ", flag.name);
        let place = lines.iter().position(|line| line.starts_with(&start)).expect(flag.name);
        let rest: Vec<_> = lines[place + 1..]
            .iter()
            .take_while(|line| line.starts_with("    "))
            .map(|line| line.trim())
            .collect();
        let text = rest.join(" ");
        assert!(text.contains(flag.help), "--{}: {text}", flag.name);
        let is_marked = text.contains("Not implemented in Quorate");
        assert_eq!(is_marked, flag.state == State::Later, "--{}", flag.name);
    }
    assert!(help.contains("      LeaseCheckpoint=true|false  (ALPHA, 'false')\n"));
}

/// Flags that etcd does not have.
const OURS: [&str; 1] = ["audit-log"];

/// Flags in whose place etcd's help has something else than the default.
const TOLD_OTHERWISE: [(&str, &str); 12] = [
    ("data-dir", "${name}.etcd"),
    ("backend-batch-interval", ""),
    ("backend-bbolt-freelist-type", "map"),
    ("bootstrap-defrag-threshold-megabytes", ""),
    ("compaction-batch-limit", "1000"),
    ("compaction-sleep-interval", ""),
    ("downgrade-check-time", ""),
    ("enable-grpc-gateway", ""),
    ("max-concurrent-streams", "math.MaxUint32"),
    ("memory-mlock", ""),
    ("snapshot-catchup-entries", ""),
    ("watch-progress-notify-interval", "10m"),
];

#[test]
fn names_parts_and_defaults_are_etcds() {
    let folder = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let program = folder.join("etcd/etcd");
    if !program.exists() {
        assert!(std::env::var_os("QUORATE_CI").is_none(), "{} is missing", program.display());
        eprintln!("SKIPPED: no etcd at {}", program.display());
        return;
    }
    let output = Command::new(program).arg("--help").output().expect("etcd starts");
    let theirs = String::from_utf8_lossy(&output.stdout);
    let (_, mut theirs) = shape(&theirs);
    // Two that its help has and its command line does not.
    for gone in ["discovery", "discovery-proxy"] {
        assert!(theirs.remove(gone).is_some() && flag(gone).is_none(), "--{gone}");
    }
    let is_theirs = |row: &&Flag| row.group != Group::Program && !OURS.contains(&row.name);
    for row in flags().filter(is_theirs) {
        let (heading, default) = theirs.remove(row.name).expect(row.name);
        assert_eq!(heading, format!("{}:", row.group.title()), "--{}", row.name);
        let told = TOLD_OTHERWISE.iter().find(|(name, _)| *name == row.name);
        let expected = told.map_or(row.default, |(_, told)| told);
        assert_eq!(default, expected, "--{}", row.name);
    }
    theirs.retain(|name, _| flag(name).is_none_or(|row| row.group != Group::Program));
    assert!(theirs.is_empty(), "{theirs:?}");
}
