//! The tools beside etcd's own: the same command lines, against one server or one file.
//!
//! What is masked, and why: durations and raft indexes change from call to call; revisions and
//! lease ids where both tools must write; log lines of Go's client (`{"level":…`) and usage texts
//! on stderr are not compared, so only those lines are that [`tool`] keeps.

#[path = "common/tool.rs"]
mod tool;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conform::process::oracle;
use conform::{Kind, Server};
use tool::{PATIENCE, Ran, ours, run, words};

/// Both etcdctls on a server.
struct Both {
    server: Server,
    ours: PathBuf,
    theirs: PathBuf,
}

impl Both {
    fn start(kind: Kind) -> Option<Self> {
        let theirs = oracle("etcdctl/etcdctl")?;
        let server = Server::start(kind, &[])?;
        Some(Self { server, ours: ours("etcdctl"), theirs })
    }

    fn args(&self, line: &str) -> Vec<String> {
        let mut args = vec!["--endpoints".to_owned(), self.server.endpoint()];
        args.extend(words(line));
        args
    }

    /// Prepares the store with the reference tool.
    fn set(&self, line: &str) -> Ran {
        let ran = run(&self.theirs, &self.args(line), "", PATIENCE);
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        ran
    }

    fn same(&self, line: &str) {
        self.same_masked(line, "", |text| text);
    }

    fn same_masked(&self, line: &str, stdin: &str, mask: impl Fn(String) -> String) {
        let mut left = run(&self.ours, &self.args(line), stdin, PATIENCE);
        let mut right = run(&self.theirs, &self.args(line), stdin, PATIENCE);
        left.stdout = mask(left.stdout);
        right.stdout = mask(right.stdout);
        assert_eq!(left, right, "etcdctl {line} (left ours, right etcd's)");
    }
}

/// Every run of digits and every id as `N`: for answers in which revisions, ids or times differ.
fn without_numbers(text: String) -> String {
    let mut out = String::new();
    let is_id = |w: &str| w.len() == 16 && w.bytes().all(|b| b.is_ascii_hexdigit());
    let masked = |w| if is_id(w) { "1" } else { w };
    let text = text.split(' ').map(masked).collect::<Vec<_>>().join(" ");
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('N') {
            out.push('N');
        }
    }
    out
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn reads_and_refusals_are_printed_as_etcdctl_prints_them() {
    let Some(both) = Both::start(Kind::Quorate) else { return };
    for (key, value) in [("a", "1"), ("foo", "bar"), ("foo2", "<&>"), ("z", "é\t\"")] {
        let mut args = both.args("put");
        args.extend([key.to_owned(), value.to_owned()]);
        assert_eq!(run(&both.theirs, &args, "", PATIENCE).code, Some(0));
    }
    both.set("put foo baz");
    for format in ["simple", "json", "fields", "protobuf", "table", "nope"] {
        for line in [
            "get foo",
            "get '' --prefix",
            "get foo --prefix --hex",
            "get missing",
            "get foo zz --order descend --sort-by modify --limit 2",
            "get a --from-key --keys-only",
            "get foo --stream",
            "get foo --count-only",
            "get foo --print-value-only",
            "member list",
            "member list --hex",
            "endpoint hashkv",
            "endpoint status",
            "alarm list",
            "lease list",
            "lease timetolive 77 --keys",
            "lease revoke 77",
            "version",
        ] {
            both.same(&format!("{line} -w {format}"));
        }
    }
    for line in [
        "get",
        "get a b --prefix",
        "get a --prefix --from-key",
        "get a --keys-only --count-only",
        "get a --order x",
        "get a --sort-by x",
        "get a --consistency x",
        "get a --rev 99",
        "get foo --rev 3",
        "get a --min-mod-rev 3 --max-mod-rev 1",
        "get a --limit abc",
        "get a --prefix=maybe",
        "get a -xyz",
        "get --limit",
        "get -w",
        "get a --nope",
        "get a --command-timeout 1x",
        "--endpoints= get a",
        "--cert= get a",
        "put",
        "put a",
        "put foo b --lease=zz",
        "put foo b --lease 99",
        "put foo b --ignore-value",
        "put nothing --ignore-value",
        "del",
        "del a --prefix --from-key",
        "del a b --prefix",
        "del x y --range",
        "compaction",
        "compaction x",
        "compaction 9999",
        "compaction -1",
        "compaction -- -1",
        "lease grant",
        "lease grant x",
        "lease grant 99999999999",
        "lease revoke",
        "lease revoke zz",
        "lease timetolive",
        "lease keep-alive",
        "lease keep-alive 77",
        "lease keep-alive 77 --once",
        "member list --consistency=q",
        "mem li",
        "endpoint hashkv --rev 9999",
        "endpoint hashkv --rev 3",
        "endpoint status --cluster",
        "alarm list x",
        "alarm disarm -w json",
        "snapshot save",
        "snapshot save /nonexistent/x.db",
        "--endpoints a:1 snapshot save x",
        "txn extra",
        "watch",
        "watch a --prefix x",
        "bogus",
        "e",
    ] {
        both.same(line);
    }
    both.same_masked("endpoint health", "", without_numbers_and_units);
    both.same_masked("endpoint health -w json", "", without_numbers_and_units);
    both.same_masked("endpoint health -w fields", "", without_numbers_and_units);
    both.same_masked("defrag", "", without_numbers_and_units);
}

fn without_numbers_and_units(text: String) -> String {
    without_numbers(text).replace("N.N", "N").replace("µs", "ms")
}

#[test]
fn writes_are_printed_as_etcdctl_prints_them() {
    let Some(both) = Both::start(Kind::Quorate) else { return };
    // What the transactions and puts below find must not depend on which tool comes first.
    both.set("put foo baz");
    both.set("put q 1");
    run(&both.ours, &both.args("put q"), "y z", PATIENCE);
    let same = |line: &str, stdin: &str| both.same_masked(line, stdin, without_numbers);
    for format in ["simple", "json", "fields", "table"] {
        same(&format!("put foo baz --prev-kv -w {format}"), "");
        same(&format!("put from-stdin -w {format}"), "a\nb\n");
        same(&format!("lease grant 100 -w {format}"), "");
        same(&format!("del nothing --prev-kv -w {format}"), "");
        let txn = "value(\"a\") = \"b\"\nver(\"z\") > \"0\"\n\nput x 1\n\n\
                   put q \"y z\" --prev-kv\nget foo\nget nothing\ndel nothing --prev-kv\n\n";
        same(&format!("txn -w {format}"), txn);
    }
    same("txn -i", "\n\n\n");
    same("txn", "create(\"foo\") > \"0\"\n\nget 'foo'\nput \"n\\x41\" ''\n\n\n");
    for bad in [
        "bad\n",
        "foo(\"a\") = \"b\"\n",
        "mod(\"a\") = \"b\"\n",
        "\nwat x\n",
        "\nput x\n",
        "\nput x 1\n",
        "\nput x 1\nput x 2\n\n\n",
    ] {
        both.same_masked("txn", bad, without_numbers);
    }
    let ids = both.set("lease grant 100").stdout;
    let id = ids.split(' ').nth(1).expect("lease ID granted");
    both.set(&format!("put attached v --lease={id}"));
    for format in ["simple", "json", "fields"] {
        same(&format!("lease timetolive {id} --keys -w {format}"), "");
        same(&format!("lease keep-alive {id} --once -w {format}"), "");
    }
    both.same("get attached -w json --command-timeout 3s");
    let revoked = run(&both.ours, &both.args(&format!("lease revoke {id}")), "", PATIENCE);
    assert_eq!(revoked.stdout, format!("lease {id} revoked\n"));
    both.same("get attached");
    let compacted = run(&both.ours, &both.args("compaction 3 --physical"), "", PATIENCE);
    assert_eq!(compacted.stdout, "compacted revision 3\n");
    both.same("compaction 3");
    both.same("get foo --rev 2");
    for format in ["simple", "json"] {
        both.same(&format!("watch foo --rev 2 -w {format}"));
    }
}

#[test]
fn watches_print_what_etcdctl_prints() {
    let Some(both) = Both::start(Kind::Reference) else { return };
    for line in ["put w 1", "put w 2", "del w", "put v 3"] {
        both.set(line);
    }
    for line in [
        "watch w --rev 2",
        "watch w --rev 2 --prev-kv -w json",
        "watch w --rev 2 --prev-kv -w fields",
        "watch v z --rev 2 --hex",
        "watch v --prefix --rev 2 -- echo hi",
    ] {
        let patience = Duration::from_secs(2);
        let left = run(&both.ours, &both.args(line), "", patience);
        let right = run(&both.theirs, &both.args(line), "", patience);
        assert!(!right.stdout.is_empty(), "{line}: {right:?}");
        assert_eq!(left, right, "{line} (left ours, right etcd's)");
    }
    both.set("compaction 3");
    for format in ["simple", "json", "fields"] {
        both.same(&format!("watch w --rev 2 -w {format}"));
    }
}

#[test]
fn a_dead_endpoint_is_passed_over_or_reported() {
    let Some(both) = Both::start(Kind::Reference) else { return };
    both.set("put a 1");
    let with_dead = |line: &str| {
        let mut args =
            vec!["--endpoints".to_owned(), format!("127.0.0.1:1,{}", both.server.endpoint())];
        args.extend(words(line));
        args
    };
    for line in ["get a", "--command-timeout 500ms endpoint status"] {
        let left = run(&both.ours, &with_dead(line), "", PATIENCE);
        let right = run(&both.theirs, &with_dead(line), "", PATIENCE);
        assert_eq!(left, right, "{line} (left ours, right etcd's)");
    }
    let dead = words("--endpoints 127.0.0.1:1 --command-timeout 500ms get a");
    let (left, right) =
        (run(&both.ours, &dead, "", PATIENCE), run(&both.theirs, &dead, "", PATIENCE));
    assert_eq!(left, right, "left ours, right etcd's");
}

#[test]
fn the_environment_sets_flags_but_not_those_that_are_given() {
    let Some(both) = Both::start(Kind::Reference) else { return };
    both.set("put a 1");
    let ask = |tool: &Path, args: &[&str]| {
        let output = Command::new(tool)
            .args(args)
            .env("ETCDCTL_ENDPOINTS", both.server.endpoint())
            .env("ETCDCTL_WRITE_OUT", "json")
            .output()
            .expect("the tool runs");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    for args in [&["get", "a"][..], &["get", "a", "-w", "fields"], &["version", "-w", "json"]] {
        assert_eq!(ask(&both.ours, args), ask(&both.theirs, args), "{args:?}");
    }
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn snapshots_are_saved_told_and_restored_by_either_tool() {
    let Some(theirs) = oracle("etcdutl/etcdutl") else { return };
    let Some(both) = Both::start(Kind::Reference) else { return };
    let utl = ours("etcdutl");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for n in 0..300 {
        both.set(&format!("put key{} value{n}", n % 40));
        if n % 50 == 49 {
            both.set(&format!("del key{}", n % 40));
        }
    }
    both.set("compaction 100 --physical");
    let hash = |server: &Server| {
        let args = ["--endpoints", &server.endpoint(), "endpoint", "hashkv"];
        let args: Vec<_> = args.iter().map(|&a| a.to_owned()).collect();
        let ran = run(&both.theirs, &args, "", PATIENCE);
        ran.stdout.split_once(", ").expect("endpoint, hash, revision").1.to_owned()
    };
    let expected = hash(&both.server);
    let file = dir.path().join("s.db").display().to_string();
    let saved = run(&both.ours, &both.args(&format!("snapshot save {file}")), "", PATIENCE);
    assert_eq!(saved.stdout, format!("Snapshot saved at {file}\nServer version 3.7.0\n"));

    // etcdutl may write to the file it reads, so each gets its own copy.
    for line in ["snapshot status", "hashkv", "hashkv --rev 150"] {
        for format in ["simple", "json", "fields", "table", "protobuf"] {
            let copy = dir.path().join("copy.db");
            let line = format!("{line} -w {format} {}", copy.display());
            std::fs::copy(&file, &copy).expect("the file was saved");
            let left = run(&utl, &words(&line), "", PATIENCE);
            std::fs::copy(&file, &copy).expect("the file was saved");
            let right = run(&theirs, &words(&line), "", PATIENCE);
            assert_eq!(left, right, "{line} (left ours, right etcd's)");
        }
    }
    for (n, line) in ["", "--bump-revision 1000 --mark-compacted"].iter().enumerate() {
        let mut hashes = Vec::new();
        for (tool, name) in [(&utl, "ours"), (&theirs, "theirs")] {
            for kind in [Kind::Quorate, Kind::Reference] {
                let data = dir.path().join(format!("{name}-{kind:?}-{n}"));
                let line = format!("snapshot restore {file} --data-dir {} {line}", data.display());
                let ran = run(tool, &words(&line), "", PATIENCE);
                assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
                let server = Server::start_on(kind, &data, &[]).expect("both were built");
                hashes.push((name, kind, hash(&server)));
            }
        }
        for (name, kind, found) in &hashes {
            assert_eq!(*found, hashes[3].2, "restored by {name}, run by {kind:?}: {hashes:?}");
        }
        if line.is_empty() {
            assert_eq!(hashes[3].2, expected);
        }
    }
    for line in [
        "snapshot restore",
        "snapshot restore a b",
        "snapshot restore x --bump-revision 5",
        "snapshot restore x --mark-compacted",
        "snapshot restore x --data-dir /proc",
        "snapshot restore x --data-dir /nonexistent-y --initial-cluster a=http://1.2.3.4:5",
        "snapshot status",
        "snapshot status /nonexistent",
        "hashkv",
        "version",
    ] {
        let (left, right) =
            (run(&utl, &words(line), "", PATIENCE), run(&theirs, &words(line), "", PATIENCE));
        assert_eq!(left, right, "etcdutl {line} (left ours, right etcd's)");
    }
    let mut bytes = std::fs::read(&file).expect("the file was saved");
    bytes[9_000] ^= 1;
    std::fs::write(&file, &bytes).expect("it can be written");
    for tool in [&utl, &theirs] {
        let data = dir.path().join("bad");
        let _ = std::fs::remove_dir_all(&data);
        let line = format!("snapshot restore {file} --data-dir {}", data.display());
        let ran = run(tool, &words(&line), "", PATIENCE);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr[0].starts_with("Error: expected sha256 ["), "{ran:?}");
    }
}
