//! etcdutl on data directories that no server uses, ours and etcd's beside each other.

#[path = "common/tool.rs"]
mod tool;

use std::path::Path;

use conform::{Kind, Server, oracle};
use tool::{PATIENCE, Ran, ours, run, words};

fn on(tool: &Path, dir: &Path, line: &str) -> Ran {
    let mut args = words(line);
    args.extend(["--data-dir".to_owned(), dir.display().to_string()]);
    run(tool, &args, "", PATIENCE)
}

/// What etcd's tool sees in a directory's database.
fn status(theirs: &Path, dir: &Path) -> String {
    let path = dir.join("member/snap/db").display().to_string();
    let args = ["snapshot", "status", &path, "-w", "json"].map(str::to_owned);
    run(theirs, &args, "", PATIENCE).stdout
}

/// Enough, each of 100 kB, that the database grows beyond the 16 MiB that it grows by.
const PUTS: usize = 200;

fn value(number: usize) -> String {
    format!("{:02}", number % 100).repeat(50_000)
}

/// A directory of a server that was stopped, twice.
fn directories(kind: Kind) -> Option<(tempfile::TempDir, [std::path::PathBuf; 2])> {
    let place = tempfile::tempdir().expect("a temporary directory can be made");
    let made = place.path().join("made");
    let mut server = Server::start_on(kind, &made, &[])?;
    let put = |value: &str| {
        let line = format!("--endpoints {} put key {value}", server.endpoint());
        assert_eq!(run(&ours("etcdctl"), &words(&line), "", PATIENCE).code, Some(0));
    };
    (0..PUTS).for_each(|n| put(&value(n)));
    let line = format!("--endpoints {} compaction {PUTS} --physical", server.endpoint());
    assert_eq!(run(&ours("etcdctl"), &words(&line), "", PATIENCE).code, Some(0));
    server.stop();
    let copies = ["left", "right"].map(|name| place.path().join(name));
    for copy in &copies {
        let copied = std::process::Command::new("cp").arg("-r").args([&made, copy]).status();
        assert!(copied.expect("there is cp").success());
    }
    Some((place, copies))
}

#[test]
fn storage_versions_go_up_and_down_as_with_etcdutl() {
    let Some(theirs) = oracle("etcdutl/etcdutl") else { return };
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some((_place, [left, right])) = directories(kind) else { continue };
        for line in [
            "migrate --target-version 3.7",
            "migrate --target-version 3.8",
            "migrate --target-version 4.0",
            "migrate --target-version 3.5",
            "migrate --target-version 3.7",
            "migrate --target-version 3.6",
            "migrate --target-version 3.9 --force",
            "migrate --target-version 3.6",
            "migrate --target-version 3.5 --force",
            "migrate --target-version 3.4",
            "migrate --target-version 3",
            "migrate --target-version 3.x",
            "migrate",
            "migrate --target-version 3.7",
        ] {
            let (ran, reference) = (on(&ours("etcdutl"), &left, line), on(&theirs, &right, line));
            assert_eq!(ran, reference, "{kind:?}: {line} (left ours, right etcd's)");
            assert_eq!(status(&theirs, &left), status(&theirs, &right), "{kind:?}: {line}");
        }
        // Servers of either kind open what our tool left.
        for kind in [Kind::Quorate, Kind::Reference] {
            let Some(mut server) = Server::start_on(kind, &left, &[]) else { continue };
            let line = format!("--endpoints {} get key --keys-only -w json", server.endpoint());
            let got = run(&ours("etcdctl"), &words(&line), "", PATIENCE).stdout;
            assert!(got.contains(&format!("\"version\":{PUTS}")), "{kind:?}: {got}");
            server.stop();
        }
    }
}

#[test]
fn a_database_is_defragmented_and_holds_what_it_held() {
    let Some(theirs) = oracle("etcdutl/etcdutl") else { return };
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some((_place, [left, right])) = directories(kind) else { continue };
        let size = |dir: &Path| std::fs::metadata(dir.join("member/snap/db")).expect("it is").len();
        let before = size(&left);
        let (ran, reference) =
            (on(&ours("etcdutl"), &left, "defrag"), on(&theirs, &right, "defrag"));
        assert_eq!(ran, reference, "{kind:?} (left ours, right etcd's)");
        assert!(size(&left) < before, "{kind:?}: {before} bytes stay {}", size(&left));
        let hash = |dir: &Path| {
            let status = status(&theirs, dir);
            status.split("\"totalSize\"").next().expect("it is one text").to_owned()
        };
        assert_eq!(hash(&left), hash(&right), "{kind:?}");
        let files = std::fs::read_dir(left.join("member/snap")).expect("it is there");
        let names: Vec<_> = files.map(|file| file.expect("it is").file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains("tmp")), "{names:?}");
    }
    let nowhere = Path::new("/nonexistent");
    for line in ["defrag", "migrate --target-version 3.6"] {
        assert_eq!(on(&ours("etcdutl"), nowhere, line), on(&theirs, nowhere, line), "{line}");
    }
    for line in ["defrag", "migrate", "migrate --target-version 3.6"] {
        let (left, right) = (ours("etcdutl"), theirs.clone());
        let ran = run(&left, &words(line), "", PATIENCE);
        assert_eq!(ran, run(&right, &words(line), "", PATIENCE), "{line}");
    }
}
