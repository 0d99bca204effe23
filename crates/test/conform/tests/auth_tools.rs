//! `etcdctl user`, `role` and `auth` beside etcd's own: the same command lines, each tool on an etcd
//! of its own where something changes, on one where it is only looked at.
//!
//! Masked: cluster id and member id, for there are two clusters. What a changing command prints as
//! protobuf is a header alone, and is not compared.

#[path = "common/tool.rs"]
mod tool;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conform::{Kind, Server, oracle};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tool::{PATIENCE, Ran, ours, run, words};

/// The two tools, each with a server that only it changes.
struct Pair {
    ours: (PathBuf, Server),
    theirs: (PathBuf, Server),
}

impl Pair {
    fn start() -> Option<Self> {
        let theirs = oracle("etcdctl/etcdctl")?;
        // Hashing is not what is tested.
        let server = || Server::start(Kind::Reference, &["--bcrypt-cost", "4"]);
        Some(Self { ours: (ours("etcdctl"), server()?), theirs: (theirs, server()?) })
    }

    /// The same line, each on its server.
    fn same(&self, line: &str, stdin: &str) -> Ran {
        let ran = |(tool, server): &(PathBuf, Server)| {
            let mut ran = run(tool, &args(server, line), stdin, PATIENCE);
            let masked = |text: &str| without_ids(text).replace(&server.endpoint(), "SERVER");
            ran.stdout = masked(&ran.stdout);
            ran.stderr = ran.stderr.iter().map(|line| masked(line)).collect();
            ran
        };
        let (left, right) = (ran(&self.ours), ran(&self.theirs));
        assert_eq!(left, right, "etcdctl {line} < {stdin:?} (left ours, right etcd's)");
        left
    }

    /// A line that only looks, both on one server.
    fn seen(&self, line: &str) {
        let server = &self.theirs.1;
        let left = run(&self.ours.0, &args(server, line), "", PATIENCE);
        let right = run(&self.theirs.0, &args(server, line), "", PATIENCE);
        assert_eq!(left, right, "etcdctl {line} (left ours, right etcd's)");
    }
}

fn args(server: &Server, line: &str) -> Vec<String> {
    let mut args = vec!["--endpoints".to_owned(), server.endpoint()];
    args.extend(words(line));
    args
}

/// `"cluster_id":1` and `"ClusterID" : 1` with 0 for the number, likewise of members.
fn without_ids(text: &str) -> String {
    let mut out = text.to_owned();
    for name in ["\"cluster_id\":", "\"member_id\":", "\"ClusterID\" : ", "\"MemberID\" : "] {
        let Some(at) = out.find(name).map(|at| at + name.len()) else { continue };
        let is_id = |c: char| c.is_ascii_hexdigit();
        let end = out[at..].find(|c| !is_id(c)).map_or(out.len(), |end| at + end);
        out.replace_range(at..end, "0");
    }
    out
}

const FORMATS: [&str; 4] = ["simple", "json", "fields", "table"];

/// Wrong arguments and flags.
const REFUSED: &[&str] = &[
    "user",
    "user add",
    "user add a b",
    "user add :pw",
    "user add --nope x",
    "user add '' --no-password",
    "user add x --interactive=maybe",
    "user delete",
    "user get",
    "user list x",
    "user passwd",
    "user grant-role x",
    "user revoke-role x y z",
    "role add",
    "role delete a b",
    "role get",
    "role list x",
    "role grant-permission r read",
    "role grant-permission r wrong k",
    "role grant-permission r read k e --prefix",
    "role grant-permission r read k e --from-key",
    "role grant-permission r read k --prefix --from-key",
    "role grant-permission r read '' --prefix --from-key",
    "role revoke-permission r",
    "role revoke-permission r k e --prefix",
    "auth",
    "auth status x",
    "auth enable x",
    "auth disable x",
    "auth enable",
    "user get nobody",
    "user delete nobody",
    "user passwd nobody --interactive=false",
    "user grant-role nobody r",
    "role get none",
    "role delete none",
    "role grant-permission none read k",
    "role revoke-permission none k",
];

/// Changes, in an order in which most succeed, with what stdin gives.
const CHANGES: &[(&str, &str)] = &[
    ("user add root:rootpw", ""),
    ("user add root:again", ""),
    ("user add a:pw:with:colons", ""),
    ("user add b --no-password", ""),
    ("user add c:d --no-password", ""),
    ("user add e --new-user-password pw", ""),
    ("user add f:g --new-user-password pw", ""),
    ("user add h", "pw\npw\n"),
    ("user add i", "pw\nother\n"),
    ("user add j", "\n"),
    ("user add k", ""),
    ("user add l", "  pw with spaces \r\n pw with spaces\n"),
    ("user add m --interactive=false", "word and more\n"),
    ("user add n --interactive=false", "\nword\n"),
    ("user add o --interactive=false", ""),
    ("user add p:pw --interactive=false", "other\n"),
    ("user passwd a", "new\nnew\n"),
    ("user passwd a", "new\n"),
    ("user passwd a --interactive=false", "word\n"),
    ("user passwd b --interactive=false", "word\n"),
    ("user delete e", ""),
    ("user delete e", ""),
    ("role add r", ""),
    ("role add r", ""),
    ("role add s", ""),
    ("role grant-permission r read k", ""),
    ("role grant-permission r WRITE k2 k3", ""),
    ("role grant-permission r readwrite p/ --prefix", ""),
    ("role grant-permission r ReadWrite z --from-key", ""),
    ("role grant-permission r read b a", ""),
    ("role grant-permission s read ''", ""),
    ("role grant-permission s write '' --prefix", ""),
    ("role grant-permission s read x y z", ""),
    ("role revoke-permission s x y", ""),
    ("role revoke-permission s x y", ""),
    ("role revoke-permission s ''", ""),
    ("role revoke-permission s '' --from-key", ""),
    ("role grant-permission s read q/ --prefix", ""),
    ("role revoke-permission s q/ --prefix", ""),
    ("role grant-permission s read q --from-key", ""),
    ("role revoke-permission s q --from-key", ""),
    ("user grant-role a r", ""),
    ("user grant-role a s", ""),
    ("user grant-role a none", ""),
    ("user revoke-role a s", ""),
    ("user revoke-role a s", ""),
    ("role delete s", ""),
    ("auth disable", ""),
    // Adds the role that root lacks.
    ("auth enable", ""),
    ("--user root:rootpw auth enable", ""),
];

/// Calls in somebody's name, once authentication is on.
const NAMED: &[(&str, &str)] = &[
    ("--user root:rootpw user list", ""),
    ("--user root --password rootpw user list", ""),
    ("--user root user list", "rootpw\n"),
    ("--user root user list", "wrong\n"),
    ("--user root user list", ""),
    ("--user root: user list", ""),
    ("--user :rootpw user list", ""),
    ("--password rootpw user list", ""),
    ("--user root:rootpw --password other user list", ""),
    ("--user nobody:x user list", ""),
    ("--user root:rootpw --auth-jwt-token x user list", ""),
    ("--auth-jwt-token x user list", ""),
    ("--user root --auth-jwt-token x user list", "rootpw\n"),
    ("user list", ""),
    ("auth status", ""),
    ("auth enable", ""),
    ("auth disable", ""),
    ("--user a:word user list", ""),
    ("--user a:word user get a", ""),
    ("--user a:word user get a --detail", ""),
    ("--user a:word user get root", ""),
    ("--user a:word role get r", ""),
    ("--user a:word role get root", ""),
    ("--user a:word put k 1", ""),
    ("--user a:word put p/1 1", ""),
    ("--user a:word get p/ --prefix", ""),
    ("--user a:word get p/ --from-key", ""),
    ("--user a:word endpoint hashkv", ""),
    ("--user a:wrong endpoint status", ""),
    ("--user a:wrong endpoint health", ""),
    ("--user a:wrong defrag", ""),
    ("--user a:wrong endpoint status --cluster", ""),
    ("--user a member list -w nope", "word\n"),
    ("--user root:rootpw user add new", "pw\npw\n"),
    ("--user root user passwd new", "pw2\npw2\nrootpw\n"),
    ("--user new:pw2 get x", ""),
    ("--user root:rootpw user revoke-role root root", ""),
    ("--user root:rootpw role delete root", ""),
    ("--user root:rootpw user delete root", ""),
    ("--user root:rootpw auth disable", ""),
    ("auth status", ""),
];

#[test]
fn users_roles_and_authentication_are_managed_as_with_etcdctl() {
    let Some(pair) = Pair::start() else { return };
    for line in REFUSED {
        // Usage texts on stdout are each tool's own.
        if !["user", "auth"].contains(line) {
            assert_ne!(pair.same(line, "").code, Some(0), "{line}");
        }
    }
    for (line, stdin) in CHANGES {
        pair.same(line, stdin);
    }
    for (line, stdin) in NAMED {
        pair.same(line, stdin);
    }
    // Each change once more in every format; it succeeds at the first and is refused at the others.
    for format in FORMATS {
        for line in [
            "user add again:pw",
            "role add again",
            "role grant-permission again read k",
            "user grant-role again again",
            "user passwd again --interactive=false",
            "user revoke-role again again",
            "role revoke-permission again k",
            "role delete again",
            "user delete again",
            "auth enable",
            "--user root:rootpw auth disable",
        ] {
            pair.same(&format!("{line} -w {format}"), "");
        }
    }
}

#[test]
fn users_and_roles_are_shown_as_etcdctl_shows_them() {
    let Some(pair) = Pair::start() else { return };
    let server = &pair.theirs.1;
    for line in [
        "user add root:rootpw",
        "user add a:pw",
        "user add b:pw",
        "role add root",
        "role add r",
        "role add s",
        "role add empty",
        "role grant-permission r read k",
        "role grant-permission r write k2 k3",
        "role grant-permission r readwrite p/ --prefix",
        "role grant-permission r readwrite z --from-key",
        "role grant-permission s read '' --prefix",
        "role grant-permission s readwrite ''",
        "role grant-permission s write é\"\t",
        "user grant-role a r",
        "user grant-role a s",
        "user grant-role root root",
    ] {
        assert_eq!(run(&pair.theirs.0, &args(server, line), "", PATIENCE).code, Some(0), "{line}");
    }
    for format in ["simple", "json", "fields", "protobuf", "table", "nope"] {
        for line in [
            "user list",
            "user get root",
            "user get a",
            "user get b",
            "user get a --detail",
            "user get b --detail",
            "user get root --detail",
            "role list",
            "role get r",
            "role get s",
            "role get empty",
            "role get root",
            "role get r --hex",
            "auth status",
            "auth status --hex",
        ] {
            pair.seen(&format!("{line} -w {format}"));
        }
    }
}

/// Our tool with a terminal for stdin and stdout; the other end of the terminal.
fn at_terminal(line: &[String]) -> (std::process::Child, File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
    grantpt(&master).expect("it is ours");
    unlockpt(&master).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let path = name.to_str().expect("a name of a device is text");
    let open = || File::options().read(true).write(true).open(path).expect("it opens");
    let child = Command::new(ours("etcdctl"))
        .args(line)
        .stdin(open())
        .stdout(open())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tool runs");
    (child, File::from(master), open())
}

/// Reads from a terminal until a text was seen.
fn read_until(terminal: &mut File, text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        terminal.read_exact(&mut byte).expect("the tool goes on");
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_terminal_does_not_show_a_password_and_echoes_again() {
    let Some(server) = Server::start(Kind::Reference, &["--bcrypt-cost", "4"]) else { return };
    let (mut child, mut master, slave) = at_terminal(&args(&server, "user add typed"));
    let echoes = || tcgetattr(&slave).expect("it stays").local_modes.contains(LocalModes::ECHO);
    read_until(&mut master, "Password of typed: ");
    wait_for("it does not stop to echo", || !echoes());
    master.write_all(b"hush\n").expect("it takes input");
    let between = read_until(&mut master, "Type password of typed again for confirmation: ");
    assert!(!between.contains("hush"), "{between}");
    wait_for("it does not stop to echo again", || !echoes());
    master.write_all(b"hush\n").expect("it takes input");
    let rest = read_until(&mut master, "User typed created\r\n");
    assert!(!rest.contains("hush"), "{rest}");
    assert!(child.wait().expect("the child is ours").success());
    assert!(echoes());
    let login = run(&ours("etcdctl"), &args(&server, "--user typed:hush get x"), "", PATIENCE);
    assert_eq!(login.code, Some(0), "{login:?}");
}

#[test]
fn a_signal_during_a_question_leaves_a_terminal_that_echoes() {
    let Some(server) = Server::start(Kind::Reference, &[]) else { return };
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let (mut child, mut master, slave) = at_terminal(&args(&server, "--user root get x"));
        let echoes = || tcgetattr(&slave).expect("it stays").local_modes.contains(LocalModes::ECHO);
        read_until(&mut master, "Password: ");
        wait_for("it does not stop to echo", || !echoes());
        let told =
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(told.expect("it runs").success());
        assert_eq!(child.wait().expect("the child is ours").code(), Some(255), "{signal}");
        assert!(echoes(), "{signal}");
    }
}

#[test]
fn variables_say_who_calls_and_nothing_shows_a_password() {
    let Some(pair) = Pair::start() else { return };
    let server = &pair.theirs.1;
    for line in ["user add root:hush", "user grant-role root root", "auth enable"] {
        assert_eq!(run(&pair.theirs.0, &args(server, line), "", PATIENCE).code, Some(0), "{line}");
    }
    let ask = |tool: &Path, line: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(tool);
        command.args(args(server, line)).envs(variables.iter().copied()).stdin(Stdio::null());
        let output = command.output().expect("the tool runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for variables in [
        &[("ETCDCTL_USER", "root:hush")][..],
        &[("ETCDCTL_USER", "root"), ("ETCDCTL_PASSWORD", "hush")],
        &[("ETCDCTL_PASSWORD", "hush")],
        &[("ETCDCTL_AUTH_JWT_TOKEN", "hush")],
    ] {
        let (code, out, err) = ask(&pair.ours.0, "user list", variables);
        let (their_code, their_out, _) = ask(&pair.theirs.0, "user list", variables);
        assert_eq!((code, out), (their_code, their_out), "{variables:?}");
        assert!(!err.contains("hush"), "{err}");
        let (_, out, err) = ask(&pair.ours.0, "user list --debug", variables);
        assert!(err.contains("ETCDCTL_PASSWORD=") && !err.contains("hush"), "{err}");
        assert!(!out.contains("hush"));
    }
    let twice = "--user root:hush user list";
    for tool in [&pair.ours.0, &pair.theirs.0] {
        let (code, _, err) = ask(tool, twice, &[("ETCDCTL_USER", "root")]);
        assert_eq!(code, Some(1), "{err}");
    }
}
