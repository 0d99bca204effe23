//! Clients of others, as their registries ship them: over mutual TLS as a user who may touch only
//! its own keys, and in the clear as nobody. Each tells the same story (`oracle/client-new/story`)
//! on both servers.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use authority::{Wish, text};
use conform::{Kind, Server, oracle};

use crate::member::etcdctl;
use crate::{BOTH, World, serve};

const STORY: [&str; 4] = ["got 1", "watched 2", "expired story/leased", "locked in turn"];
/// For a whole story; a lease in it lives for two seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// Where and as whom: variables of the programs.
type Place = Vec<(&'static str, String)>;

/// The programs by the names of their folders; `None` where one was not made ready.
fn programs() -> Option<Vec<(&'static str, Command)>> {
    let built = |path: &str| oracle(path).map(Command::new);
    let java = oracle("client-java/ready")?.with_file_name("target");
    let mut jetcd = Command::new("java");
    let jars = format!("{0}/classes:{0}/dependency/*", text(&java));
    jetcd.args(["-cp", &jars, "Story"]);
    let mut node = Command::new("node");
    node.arg(oracle("client-node/ready")?.with_file_name("story.js"));
    let python = oracle("client-python/ready")?;
    let mut etcd3 = Command::new(python.with_file_name("venv").join("bin/python"));
    etcd3.arg(python.with_file_name("story.py"));
    Some(vec![
        ("Go 3.7", built("client-new/story")?),
        ("Go 3.5", built("client-35/client-35")?),
        ("jetcd", jetcd),
        ("Node's etcd3", node),
        ("Python's etcd3", etcd3),
    ])
}

/// What a program printed; it must end well within its time.
fn lines(name: &str, command: &mut Command) -> Vec<String> {
    let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            break;
        }
        std::thread::sleep(PAUSE);
    }
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {}: {said}", out.status);
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

fn all_tell_the_story(kind: Kind, place: &Place) -> Option<()> {
    for (name, mut command) in programs()? {
        command.envs(place.iter().map(|(name, value)| (name, value)));
        assert_eq!(lines(name, &mut command), STORY, "{name} on {kind:?}");
    }
    Some(())
}

/// etcdctl 3.4 as Debian ships it.
struct Debian {
    program: PathBuf,
    flags: Vec<String>,
}

impl Debian {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("ETCDCTL_API", "3").args(&self.flags).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Vec<String> {
        lines(&format!("Debian's etcdctl {words:?}"), &mut self.command(words))
    }

    fn tells_the_story(&self) {
        assert_eq!(self.run(&["put", "story/a", "1"]), ["OK"]);
        assert_eq!(self.run(&["get", "story/a", "--print-value-only"]), ["1"]);

        // From the first revision on: nobody has to know when the watch is there.
        let mut watch = self.command(&["watch", "--rev=1", "story/debian"]);
        let mut watch = watch.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        self.run(&["put", "story/debian", "2"]);
        let told = BufReader::new(watch.stdout.take().unwrap()).lines();
        let told: Vec<String> = told.take(3).map(Result::unwrap).collect();
        watch.kill().unwrap();
        watch.wait().unwrap();
        assert_eq!(told, ["PUT", "story/debian", "2"]);

        let granted = self.run(&["lease", "grant", "1"]);
        let lease = granted[0].split(' ').nth(1).unwrap();
        self.run(&["put", "--lease", lease, "story/leased", "x"]);
        let renewed = self.run(&["lease", "keep-alive", "--once", lease]);
        assert!(renewed[0].contains("keepalived"), "{renewed:?}");
        let until = Instant::now() + PATIENCE;
        while !self.run(&["get", "story/leased"]).is_empty() {
            assert!(Instant::now() < until, "the lease does not end");
            std::thread::sleep(PAUSE);
        }
        assert_eq!(self.run(&["lock", "story/lock", "echo", "held"]), ["held"]);
    }
}

/// Clients with certificates, one of which is of user ann who may touch what begins with `story/`.
fn over_mutual_tls(kind: Kind) -> Option<()> {
    let world = World::new();
    let server = world.pair("server", Wish::new("", &["127.0.0.1"]));
    let client = world.pair("client", Wish::new("client", &[]));
    let asking = ["--client-cert-auth".to_owned(), format!("--trusted-ca-file={}", world.ca)];
    let member = serve(kind, &world, &server, &asking)?;
    let endpoint = format!("127.0.0.1:{}", member.client);
    let (cert, key) = (text(&client.cert), text(&client.key));
    let flags = vec![
        format!("--endpoints=https://{endpoint}"),
        format!("--cacert={}", world.ca),
        format!("--cert={cert}"),
        format!("--key={key}"),
    ];
    for words in [
        "user add root:pw",
        "user grant-role root root",
        "user add ann:secret",
        "role add r",
        "role grant-permission --prefix r readwrite story/",
        // Where Python's client keeps its locks.
        "role grant-permission --prefix r readwrite /locks/",
        "user grant-role ann r",
        "auth enable",
    ] {
        let args: Vec<String> =
            flags.iter().cloned().chain(words.split(' ').map(str::to_owned)).collect();
        etcdctl(&args)?.unwrap_or_else(|said| panic!("{words}: {said}"));
    }
    let ann = [("NAME", "ann".to_owned()), ("PASSWORD", "secret".to_owned())];
    let tls = [("CACERT", world.ca.clone()), ("CERT", cert), ("KEY", key)];
    let place = [("ENDPOINT", endpoint)].into_iter().chain(tls).chain(ann).collect();
    all_tell_the_story(kind, &place)?;
    let program = oracle("client-debian/ready")?.with_file_name("usr").join("bin/etcdctl");
    let flags = flags.into_iter().chain(["--user=ann:secret".to_owned()]).collect();
    Debian { program, flags }.tells_the_story();
    Some(())
}

fn in_the_clear(kind: Kind) -> Option<()> {
    let server = Server::start(kind, &[])?;
    all_tell_the_story(kind, &vec![("ENDPOINT", format!("127.0.0.1:{}", server.port))])?;
    let program = oracle("client-debian/ready")?.with_file_name("usr").join("bin/etcdctl");
    Debian { program, flags: vec![format!("--endpoints={}", server.endpoint())] }.tells_the_story();
    Some(())
}

#[test]
fn clients_of_others_work_over_mutual_tls_as_a_user() {
    let _ = BOTH.map(over_mutual_tls);
}

#[test]
fn clients_of_others_work_in_the_clear() {
    let _ = BOTH.map(in_the_clear);
}
