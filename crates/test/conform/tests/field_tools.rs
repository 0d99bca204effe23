//! Small inputs with which people use the tools, and on which ours once failed; beside etcd's own.

#[path = "common/tool.rs"]
mod tool;

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cli::Does;
use conform::{Kind, Server, oracle};
use tool::{PATIENCE, Ran, ours, run, words};

/// Ours and, where it was built, etcd's.
fn both(tool: &str) -> Vec<std::path::PathBuf> {
    [Some(ours(tool)), oracle(&format!("{tool}/{tool}"))].into_iter().flatten().collect()
}

/// All of a run: exit code, stdout, stderr.
fn told(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the tool runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The lines of every command of the tree, with its names.
fn leaves<R>(commands: &'static [cli::Command<R>], above: &str) -> Vec<String> {
    let mut found = Vec::new();
    for command in commands {
        let line = format!("{above}{}", command.name);
        match command.does {
            Does::Group => found.extend(leaves(command.commands, &format!("{line} "))),
            Does::Runs(_) => found.push(line),
            Does::Later => panic!("no command of the tools comes later: {line}"),
        }
    }
    found
}

/// Runs every command with 0 to 5 arguments. Nobody listens where they turn to, so that what is
/// taken ends with its time, or is ended here where it has none.
fn count_arguments(ours: &Path, theirs: &Path, globals: &str, all: &[String]) {
    let patience = Duration::from_secs(3);
    let walk = |line: &String| {
        for count in 0..=5 {
            let arguments = ["x", "y", "z", "v", "w"][..count].join(" ");
            let line = format!("{globals} {line} {arguments}");
            let left = run(ours, &words(&line), "", patience);
            let right = run(theirs, &words(&line), "", patience);
            assert_eq!(left.code, right.code, "{line}: {left:?} {right:?}");
            let errors = |ran: Ran| {
                let is_error = |line: &String| line.starts_with("Error:");
                ran.stderr.into_iter().filter(is_error).collect::<Vec<_>>()
            };
            if left.code.is_some() {
                assert_eq!(errors(left), errors(right), "{line} (left ours, right etcd's)");
            }
        }
    };
    std::thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(8)) {
            scope.spawn(move || part.iter().for_each(walk));
        }
    });
}

#[test]
fn every_command_takes_as_many_arguments_as_etcds() {
    if let Some(theirs) = oracle("etcdctl/etcdctl") {
        let all = leaves(ctl::commands::ETCDCTL.commands, "");
        assert!(all.len() > 40);
        let globals = "--endpoints 127.0.0.1:1 --command-timeout 300ms --dial-timeout 300ms";
        count_arguments(&ours("etcdctl"), &theirs, globals, &all);
    }
    if let Some(theirs) = oracle("etcdutl/etcdutl") {
        let all = leaves(utl::commands::ETCDUTL.commands, "");
        count_arguments(&ours("etcdutl"), &theirs, "", &all);
    }
}

#[test]
fn what_asks_for_protection_never_goes_out_without_it() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let plain = ["--endpoints".to_owned(), server.endpoint()];
    let short = words("--command-timeout 500ms --dial-timeout 500ms");
    let asked = |more: &str, variable: Option<(&str, &str)>| {
        let mut command = Command::new(ours("etcdctl"));
        command.args(&short).args(words(more)).args(["put", "a", "b"]).envs(variable);
        if !more.contains("https") && variable.is_none_or(|(name, _)| name != "ETCDCTL_ENDPOINTS") {
            command.args(&plain);
        }
        told(&mut command)
    };
    let secure = format!("--endpoints https://{}", server.endpoint());
    let https = format!("https://{}", server.endpoint());
    for (more, variable) in [
        ("--insecure-transport=false", None),
        ("--insecure-skip-tls-verify", None),
        ("--cacert ca.pem", None),
        ("--cert c.pem", None),
        ("--key k.pem", None),
        (secure.as_str(), None),
        ("--discovery-srv example.invalid", None),
        ("", Some(("ETCDCTL_INSECURE_TRANSPORT", "false"))),
        ("", Some(("ETCDCTL_CACERT", "ca.pem"))),
        ("", Some(("ETCDCTL_CERT", "c.pem"))),
        ("", Some(("ETCDCTL_KEY", "k.pem"))),
        ("", Some(("ETCDCTL_ENDPOINTS", https.as_str()))),
        ("", Some(("ETCDCTL_DISCOVERY_SRV", "example.invalid"))),
    ] {
        let (code, out, err) = asked(more, variable);
        assert!(code != Some(0) && out.is_empty(), "{more} {variable:?}: {code:?} {out}");
        if more.contains("discovery") {
            let expected =
                "Error: dns lookup errors: lookup _etcd-client-ssl._tcp.example.invalid on ";
            assert!(err.contains(expected), "{more}: {err}");
        }
    }
    let mut get = Command::new(ours("etcdctl"));
    assert_eq!(told(get.args(&plain).args(["get", "a"])).1, "", "something was written");
}

#[test]
fn tools_end_with_their_readers() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let etcdctl = ours("etcdctl");
    let args =
        |line: &str| [vec!["--endpoints".to_owned(), server.endpoint()], words(line)].concat();
    assert_eq!(run(&etcdctl, &args("put a 1"), "", PATIENCE).code, Some(0));
    let mut watch = Command::new(&etcdctl);
    watch.args(args("watch --prefix a --rev 1")).stdout(Stdio::piped());
    let mut watch = watch.spawn().expect("the tool runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("it is piped"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("it writes text");
    assert_eq!(first, "PUT\n");
    drop(lines);
    // Though nothing more happens.
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = watch.try_wait().expect("the child is ours") {
            break status;
        }
        assert!(Instant::now() < until, "it goes on without its reader");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.signal(), Some(13), "{status:?}");
    for (tool, line) in [("etcdctl", args("get a")), ("etcdutl", words("version"))] {
        let (reader, writer) = std::io::pipe().expect("the system has pipes");
        drop(reader);
        let status = Command::new(ours(tool)).args(line).stdout(writer).status();
        assert_eq!(status.expect("it runs").signal(), Some(13), "{tool}");
        let (reader, writer) = std::io::pipe().expect("the system has pipes");
        drop(reader);
        let status = Command::new(ours(tool)).arg("bogus").stderr(writer).status();
        assert_eq!(status.expect("it runs").signal(), Some(13), "{tool} bogus");
    }
}

#[test]
fn a_user_is_taken_where_nobody_asks_who_calls_and_where_somebody_does() {
    let Some(theirs) = oracle("etcdctl/etcdctl") else { return };
    let server = Server::start(Kind::Reference, &[]).expect("built like the tool");
    let args =
        |line: &str| [vec!["--endpoints".to_owned(), server.endpoint()], words(line)].concat();
    let same = |line: &str| {
        let left = run(&ours("etcdctl"), &args(line), "", PATIENCE);
        let right = run(&theirs, &args(line), "", PATIENCE);
        assert_eq!(left, right, "{line} (left ours, right etcd's)");
        left
    };
    let set =
        |line: &str| assert_eq!(run(&theirs, &args(line), "", PATIENCE).code, Some(0), "{line}");
    set("put foo bar");
    for line in
        ["--user root:pw get foo", "--user root --password pw get foo", "--user root: get foo"]
    {
        assert_eq!(same(line).stdout, "foo\nbar\n");
    }
    set("user add root:pw");
    set("user grant-role root root");
    set("auth enable");
    assert_eq!(same("--user root:pw get foo").stdout, "foo\nbar\n");
    assert_eq!(same("--user root:pw put foo baz").code, Some(0));
    for line in
        ["get foo", "--user root:wrong get foo", "--user nobody:pw get foo", "--user root: get foo"]
    {
        assert_ne!(same(line).code, Some(0));
    }
    let watched = same("--user root:pw watch foo --rev 2 --prefix=maybe");
    assert_eq!(watched.code, Some(1));
    let stream = run(&ours("etcdctl"), &args("--user root:pw get foo --stream"), "", PATIENCE);
    assert_eq!(stream.stdout, "foo\nbaz\n");
    // Whatever our server answers, both tools make the same of it.
    let own = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let line = format!("--endpoints {} --user root:pw put foo bar", own.endpoint());
    let [left, right] =
        [ours("etcdctl"), theirs.clone()].map(|tool| run(&tool, &words(&line), "", PATIENCE));
    assert_eq!(left, right, "{line} (left ours, right etcd's)");
}

#[test]
fn a_file_that_is_looked_at_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let empty = dir.path().join("empty.db");
    let name = empty.display();
    for tool in both("etcdutl") {
        std::fs::write(&empty, "").expect("it writes");
        let ran = run(&tool, &words(&format!("snapshot status {name} -w json")), "", PATIENCE);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", tool.display());
        assert_eq!(std::fs::metadata(&empty).expect("it is there").len(), 0, "{}", tool.display());
        let into = dir.path().join("restored");
        let line =
            format!("snapshot restore {name} --skip-hash-check --data-dir {}", into.display());
        let ran = run(&tool, &words(&line), "", PATIENCE);
        assert_eq!(ran.stderr, [format!("Error: seek {name}: invalid argument")]);
        let _ = std::fs::remove_dir_all(&into);
    }
    let ran = run(&ours("etcdutl"), &words(&format!("hashkv {name}")), "", PATIENCE);
    assert_eq!(ran.code, Some(1));
    assert_eq!(std::fs::metadata(&empty).expect("it is there").len(), 0);
    // Nor is what may not be written touched, or needed for writing.
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let save = format!("--endpoints {} snapshot save {name}", server.endpoint());
    assert_eq!(run(&ours("etcdctl"), &words(&save), "", PATIENCE).code, Some(0));
    let before = std::fs::read(&empty).expect("it was saved");
    for line in ["snapshot status", "hashkv"] {
        let ran = run(&ours("etcdutl"), &words(&format!("{line} {name}")), "", PATIENCE);
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        assert_eq!(std::fs::read(&empty).expect("it is there"), before, "{line}");
    }
}

/// What both say of themselves on stderr, in lines of the client's logger.
#[test]
fn warnings_tell_what_is_wrong() {
    for tool in both("etcdctl") {
        let mut dead = Command::new(&tool);
        dead.args(words("--endpoints 127.0.0.1:1 --command-timeout 300ms put k v"));
        let (code, _, err) = told(&mut dead);
        let mut lines = err.lines();
        let warning = lines.next().unwrap_or_default();
        for part in [
            r#""level":"warn""#,
            r#""msg":"retrying of unary invoker failed""#,
            r#""method":"/etcdserverpb.KV/Put","attempt":0"#,
            r#"dial tcp 127.0.0.1:1: connect: connection refused"#,
        ] {
            assert!(warning.contains(part), "{}: {warning}", tool.display());
        }
        assert_eq!((code, lines.next()), (Some(1), Some("Error: context deadline exceeded")));

        let mut odd = Command::new(&tool);
        odd.args(words("--endpoints 127.0.0.1:1 --command-timeout 300ms --debug get k"));
        odd.envs([("ETCDCTL_API", "3"), ("ETCDCTL_DIAL_TIMEOUT", "abc"), ("ETCDCTL_USER", "")]);
        let (code, _, err) = told(&mut odd);
        assert_eq!(code, Some(1), "{err}");
        for part in [
            r#""msg":"unrecognized environment variable","environment-variable":"ETCDCTL_API=3""#,
            r#""environment-variable":"ETCDCTL_USER=""#,
            "\nETCDCTL_COMMAND_TIMEOUT=300ms\nETCDCTL_DEBUG=true\nETCDCTL_DIAL_TIMEOUT=0s\n",
            "\nETCDCTL_ENDPOINTS=[127.0.0.1:1]\nETCDCTL_HEX=false\n",
        ] {
            assert!(err.contains(part), "{}: {part} in {err}", tool.display());
        }

        let mut shadowed = Command::new(&tool);
        shadowed.args(words("--endpoints 127.0.0.1:1 get k")).env("ETCDCTL_ENDPOINTS", "x:1");
        let (code, _, err) = told(&mut shadowed);
        assert_eq!(code, Some(1));
        let text =
            "conflicting environment variable is shadowed by corresponding command-line flag";
        assert!(err.contains(text), "{}: {err}", tool.display());

        let (code, out, err) = told(Command::new(&tool).args(["help", "bogus"]));
        assert_eq!((code, out.as_str()), (Some(0), ""));
        assert!(err.starts_with("Unknown help topic [`bogus`]\nUsage:\n"), "{err}");
    }
}

#[test]
fn a_snapshots_way_is_told() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for tool in both("etcdctl") {
        let file = dir.path().join("s.db").display().to_string();
        let mut save = Command::new(&tool);
        save.args(["--endpoints", &server.endpoint(), "snapshot", "save", &file]);
        let (code, _, err) = told(&mut save);
        assert_eq!(code, Some(0), "{err}");
        let mut at = 0;
        for msg in ["created temporary db file", "fetching snapshot", "fetched snapshot", "saved"] {
            let text = format!("\"msg\":\"{msg}\"");
            let place = err[at..].find(&text);
            at += place.unwrap_or_else(|| panic!("{}: {msg} in {err}", tool.display()));
        }
        assert!(err.contains(&format!("\"path\":\"{file}\"")), "{err}");
    }
}

#[test]
fn tools_run_without_their_three_descriptors() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    for (tool, line) in [
        ("etcdctl", format!("--endpoints {} put a b", server.endpoint())),
        ("etcdutl", "version".into()),
    ] {
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec \"$0\" \"$@\" {closed}")]);
            let status = command.arg(ours(tool)).args(words(&line)).status().expect("it runs");
            assert!(status.success(), "{tool} {closed}: {status:?}");
        }
    }
}
