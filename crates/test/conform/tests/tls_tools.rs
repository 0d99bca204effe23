//! `etcdctl` over TLS beside etcd's own: the same command lines against etcd with certificates.
//!
//! Compared: stdout, errors, exit codes, and why a handshake failed, as the client's log tells it.

#[path = "common/tool.rs"]
mod tool;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "common/trial.rs"]
mod trial;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use authority::{Authority, Pair, Wish};
use conform::{Kind, oracle};
use tool::{PATIENCE, Ran, ours, run, words};
use trial::{Running, Trial};

/// Authorities and certificates in files.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let files = Self { dir };
        let (ca, other) = (Authority::root("ca"), Authority::root("other"));
        files.write("ca.crt", &ca.pem);
        files.write("other-ca.crt", &other.pem);
        files.write("garbage.crt", "no certificate");
        let here = ["localhost", "127.0.0.1", "e"];
        files.pair(Wish::new("server", &here), &ca, "server");
        files.pair(Wish::new("server", &["elsewhere.example"]), &ca, "elsewhere");
        files.pair(Wish::new("server", &here).expired(), &ca, "expired");
        files.pair(Wish::new("alice", &[]), &ca, "alice");
        files.pair(Wish::new("alice", &[]), &other, "stranger");
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the directory is ours");
    }

    fn pair(&self, wish: Wish, by: &Authority, name: &str) -> Pair {
        wish.by(by, self.dir.path(), name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A line in which `@name` is a file here.
    fn line(&self, line: &str) -> Vec<String> {
        let at = |word: String| match word.split_once('@') {
            Some((before, name)) => format!("{before}{}", self.path(name).display()),
            None => word,
        };
        words(line).into_iter().map(at).collect()
    }
}

/// An etcd that serves its clients with these flags of TLS, on one port.
fn start(files: &Files, scheme: &str, flags: &str) -> Option<(Trial, Running)> {
    let trial = Trial::of(Kind::Reference)?;
    let secure = format!("{scheme}://127.0.0.1:{}", trial.client);
    let mut all = trial.flags();
    all.iter_mut().filter(|flag| **flag == trial.client_url()).for_each(|flag| {
        flag.clone_from(&secure);
    });
    all.extend(files.line(flags));
    let mut running = trial.spawn(trial.command(&all));
    assert!(running.serves(), "{}", running.log());
    Some((trial, running))
}

/// What both tools do on a line; `PORT` in it is the server's.
fn same(files: &Files, trial: &Trial, line: &str) -> Ran {
    same_masked(files, trial, line, |text| text)
}

fn same_masked(
    files: &Files,
    trial: &Trial,
    line: &str,
    mask: impl Fn(String) -> String + Sync,
) -> Ran {
    let args = files.line(&line.replace("PORT", &trial.client.to_string()));
    let theirs = oracle("etcdctl/etcdctl").expect("asked for at the start");
    let one = |tool: &Path| {
        let mut ran = run(tool, &args, "", PATIENCE);
        ran.stdout = mask(ran.stdout);
        ran
    };
    let (left, right) = beside(|| one(&ours("etcdctl")), || one(&theirs));
    assert_eq!(left, right, "etcdctl {line} (left ours, right etcd's)");
    left
}

/// Both at once: most of these lines wait for their time.
fn beside<T: Send>(left: impl FnOnce() -> T + Send, right: impl FnOnce() -> T + Send) -> (T, T) {
    std::thread::scope(|scope| {
        let right = scope.spawn(right);
        (left(), right.join().expect("it does not panic"))
    })
}

/// [`why`] of both tools, ours first.
fn whys(files: &Files, trial: &Trial, line: &str) -> [String; 2] {
    let args = files.line(&line.replace("PORT", &trial.client.to_string()));
    let theirs = oracle("etcdctl/etcdctl").expect("asked for at the start");
    let (left, right) = beside(|| why(&ours("etcdctl"), &args), || why(&theirs, &args));
    [left, right]
}

/// Why an attempt failed, as the client's first warning tells it; empty if none did.
fn why(tool: &Path, args: &[String]) -> String {
    let output = Command::new(tool).args(args).stdin(Stdio::null()).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let warning = told.lines().find(|line| line.contains("retrying of unary invoker failed"));
    let Some(warning) = warning else { return String::new() };
    let line: serde_json::Value = serde_json::from_str(warning).expect("a line of JSON");
    let error = line["error"].as_str().unwrap_or_default();
    // Go tells both addresses of a connection; ports of clients differ.
    error.split("read tcp").next().unwrap_or_default().to_owned()
}

const SHORT: &str = "--command-timeout 1s --dial-timeout 5s";

#[test]
fn servers_are_believed_or_not_as_by_etcdctl() {
    let files = Files::new();
    let flags = "--cert-file @server.crt --key-file @server.key";
    let Some((trial, _running)) = start(&files, "https", flags) else { return };
    for line in [
        "--endpoints https://127.0.0.1:PORT --cacert @ca.crt put a 1",
        "--endpoints https://localhost:PORT --cacert @ca.crt get a",
        "--endpoints https://127.0.0.1:PORT/path?q --cacert @ca.crt get a",
        "--endpoints 127.0.0.1:PORT --cacert @ca.crt get a",
        "--endpoints https://127.0.0.1:PORT --insecure-skip-tls-verify get a",
        "--endpoints 127.0.0.1:PORT --insecure-skip-tls-verify get a",
        "--endpoints 127.0.0.1:PORT --cert @alice.crt --key @alice.key --cacert @ca.crt get a",
        "--endpoints https://127.0.0.1:PORT,http://127.0.0.1:1 --cacert @ca.crt get a",
        "--endpoints https://127.0.0.1:PORT --cacert @ca.crt --insecure-transport=false get a",
    ] {
        assert_eq!(same(&files, &trial, line).code, Some(0), "{line}");
    }
    for line in [
        "--endpoints https://127.0.0.1:PORT get a",
        "--endpoints 127.0.0.1:PORT --insecure-transport=false get a",
        "--endpoints https://127.0.0.1:PORT --cacert @other-ca.crt get a",
        "--endpoints https://127.0.0.2:1 --cacert @ca.crt get a",
    ] {
        let line = format!("{SHORT} {line}");
        assert_eq!(same(&files, &trial, &line).code, Some(1), "{line}");
        let told = whys(&files, &trial, &line);
        assert!(!told[0].is_empty(), "{line}");
        assert_eq!(told[0], told[1], "{line} (left ours, right etcd's)");
    }
    for line in [
        "--endpoints http://127.0.0.1:PORT --cacert @ca.crt get a",
        "--endpoints http://127.0.0.1:PORT,https://127.0.0.1:PORT --cacert @ca.crt get a",
        "--endpoints 127.0.0.1:PORT get a",
    ] {
        assert_eq!(same(&files, &trial, &format!("{SHORT} {line}")).code, Some(1), "{line}");
    }
}

#[test]
fn files_that_cannot_be_used_are_told_as_by_etcdctl() {
    let files = Files::new();
    let Some(trial) = Trial::of(Kind::Reference) else { return };
    for line in [
        "--cert @alice.crt get a",
        "--key @alice.key get a",
        "--cert @alice.crt --key @server.key get a",
        "--cert @garbage.crt --key @alice.key get a",
        "--cert @missing.crt --key @alice.key get a",
        "--cacert @missing.crt get a",
        "--cacert @garbage.crt get a",
        "--cert= get a",
        "--cacert @missing.crt -w nope get a",
        "--endpoints http://127.0.0.1:1 --cacert @missing.crt get a",
        "--cacert @missing.crt endpoint health",
        "--cacert @missing.crt endpoint status",
    ] {
        let ran = same(&files, &trial, line);
        assert!(ran.code != Some(0), "{line}: {ran:?}");
    }
}

#[test]
fn names_and_times_of_certificates_matter() {
    let files = Files::new();
    for server in ["elsewhere", "expired"] {
        let flags = format!("--cert-file @{server}.crt --key-file @{server}.key");
        let Some((trial, _running)) = start(&files, "https", &flags) else { return };
        let line = format!("{SHORT} --endpoints https://127.0.0.1:PORT --cacert @ca.crt get a");
        assert_eq!(same(&files, &trial, &line).code, Some(1), "{server}");
        // Go tells the time to the second.
        let until_time = |text: String| text.split("current time").next().map(str::to_owned);
        let told = whys(&files, &trial, &line).map(until_time);
        assert_eq!(told[0], told[1], "{server} (left ours, right etcd's)");
        let skips = "--endpoints https://127.0.0.1:PORT --insecure-skip-tls-verify get a";
        assert_eq!(same(&files, &trial, skips).code, Some(0), "{server}");
    }
}

fn without_numbers(text: String) -> String {
    text.chars().filter(|c| !c.is_ascii_digit() && *c != '.' && *c != 'µ').collect()
}

#[test]
fn clients_show_certificates_and_are_known_by_them() {
    let files = Files::new();
    let flags = "--cert-file @server.crt --key-file @server.key --client-cert-auth \
                 --trusted-ca-file @ca.crt";
    let Some((trial, _running)) = start(&files, "https", flags) else { return };
    let known = "--endpoints https://127.0.0.1:PORT --cacert @ca.crt --cert @alice.crt \
                 --key @alice.key";
    for line in [
        "put a 1",
        "get a",
        "watch a --rev 99 --command-timeout 1x",
        "member list -w simple",
        "endpoint hashkv",
        "endpoint status",
        "endpoint status --cluster",
        "lease list",
        "auth status",
    ] {
        let _ = same(&files, &trial, &format!("{known} {line}"));
    }
    let health = format!("{known} endpoint health");
    assert_eq!(same_masked(&files, &trial, &health, without_numbers).code, Some(0));
    for tool in [ours("etcdctl"), oracle("etcdctl/etcdctl").expect("started with etcd")] {
        let file = files.path("snapshot.db");
        let line = format!("{known} snapshot save {}", file.display());
        let args = files.line(&line.replace("PORT", &trial.client.to_string()));
        let ran = run(&tool, &args, "", PATIENCE);
        // The version behind it is known some seconds after the start.
        let told = format!("Snapshot saved at {}\n", file.display());
        assert!(ran.code == Some(0) && ran.stdout.starts_with(&told), "{ran:?}");
    }
    for line in [
        "--endpoints https://127.0.0.1:PORT --cacert @ca.crt get a",
        "--endpoints https://127.0.0.1:PORT --cacert @ca.crt --cert @stranger.crt \
         --key @stranger.key get a",
    ] {
        let line = format!("{SHORT} {line}");
        assert_eq!(same(&files, &trial, &line).code, Some(1), "{line}");
        let told = whys(&files, &trial, &line);
        assert!(!told[0].is_empty() && !told[1].is_empty(), "{line}: {told:?}");
    }
    let theirs = oracle("etcdctl/etcdctl").expect("started with etcd");
    // A certificate's name is a user.
    for line in [
        "user add root:pw",
        "user grant-role root root",
        "user add alice --no-password",
        "role add r",
        "role grant-permission r readwrite a",
        "user grant-role alice r",
        "auth enable",
    ] {
        let args =
            files.line(&format!("{known} {line}").replace("PORT", &trial.client.to_string()));
        assert_eq!(run(&theirs, &args, "", PATIENCE).code, Some(0), "{line}");
    }
    for (line, code) in [
        ("get a", 0),
        ("get b", 1),
        ("put a 2", 0),
        ("user list", 1),
        ("user get alice", 0),
        ("--user root:pw user list", 0),
        ("--user alice:pw user list", 2),
    ] {
        assert_eq!(same(&files, &trial, &format!("{known} {line}")).code, Some(code), "{line}");
    }
}

#[test]
fn variables_name_the_files_and_a_socket_file_takes_tls_too() {
    let files = Files::new();
    let Some(trial) = Trial::of(Kind::Reference) else { return };
    let mut flags = trial.flags();
    let place = flags.iter().position(|flag| flag == "--listen-client-urls").expect("it is there");
    let secure = format!("https://127.0.0.1:{}", trial.client);
    flags[place + 1] = format!("{secure},unixs://localhost:{}", trial.client);
    flags[place + 3].clone_from(&secure);
    flags.extend(files.line("--cert-file @server.crt --key-file @server.key"));
    let mut running = trial.spawn(trial.command(&flags));
    assert!(running.serves(), "{}", running.log());
    let theirs = oracle("etcdctl/etcdctl").expect("built like etcd");
    let ask = |tool: &Path, endpoint: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(tool);
        command.args(words(&format!("{SHORT} --endpoints {endpoint} put a 1")));
        for (name, file) in variables {
            command.env(name, files.path(file));
        }
        let output = command.current_dir(trial.dir.path()).stdin(Stdio::null()).output();
        let output = output.expect("the tool runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let unix = format!("unixs://localhost:{}", trial.client);
    for (endpoint, variables, code) in [
        (&secure, &[("ETCDCTL_CACERT", "ca.crt")][..], 0),
        (&secure, &[("ETCDCTL_CACERT", "other-ca.crt")], 1),
        (&secure, &[("ETCDCTL_CERT", "alice.crt")], 128),
        (
            &secure,
            &[
                ("ETCDCTL_CACERT", "ca.crt"),
                ("ETCDCTL_CERT", "alice.crt"),
                ("ETCDCTL_KEY", "alice.key"),
            ],
            0,
        ),
        (&unix, &[("ETCDCTL_CACERT", "ca.crt")], 0),
        (&unix, &[], 1),
    ] {
        let (left, right) = beside(
            || ask(&ours("etcdctl"), endpoint, variables),
            || ask(&theirs, endpoint, variables),
        );
        assert_eq!(left, right, "{endpoint} {variables:?} (left ours, right etcd's)");
        assert_eq!(left.0, Some(code), "{endpoint} {variables:?}");
    }
}
