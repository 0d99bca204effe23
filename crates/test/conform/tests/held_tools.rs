//! Commands that run until a signal comes: locks, elections, watches that stdin asks for, mirrors;
//! ours and etcd's beside each other, and against each other.

#[path = "common/tool.rs"]
mod tool;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use conform::{Kind, Server, oracle};
use tool::{PATIENCE, ours, run, words};

/// A tool that runs.
struct Held {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Held {
    fn start(tool: &Path, endpoint: &str, line: &str) -> Self {
        let mut command = Command::new(tool);
        command.args(["--endpoints", endpoint]).args(words(line));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the tool runs");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the tool says more")
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is open");
        writeln!(stdin, "{line}").expect("the tool reads");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is kill").success());
    }

    /// Exit code, what it said since, and its errors.
    fn end(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        drop(self.stdin.take());
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            assert!(Instant::now() < until, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut err = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut err).expect("it is text");
        let errors = err.lines().filter(|l| !l.starts_with('{')).map(str::to_owned).collect();
        (status.code(), self.lines.iter().collect(), errors)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ours and etcd's, in both orders.
fn orders() -> Vec<(PathBuf, PathBuf)> {
    let Some(theirs) = oracle("etcdctl/etcdctl") else { return Vec::new() };
    vec![(ours("etcdctl"), theirs.clone()), (theirs, ours("etcdctl"))]
}

/// Waits until so many keys have a prefix.
fn await_keys(endpoint: &str, prefix: &str, count: usize) {
    let line = format!("--endpoints {endpoint} get {prefix} --prefix --keys-only");
    let until = Instant::now() + PATIENCE;
    loop {
        let ran = run(&ours("etcdctl"), &words(&line), "", PATIENCE);
        // A key and an empty line each.
        if ran.stdout.lines().filter(|line| !line.is_empty()).count() == count {
            return;
        }
        assert!(Instant::now() < until, "{ran:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lock_is_held_until_a_signal_whoever_waits_for_it() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let endpoint = server.endpoint();
    for (one, other) in orders() {
        let holder = Held::start(&one, &endpoint, "lock mine");
        let key = holder.line();
        assert!(key.starts_with("mine/") && holder.line().is_empty(), "{key}");
        let gives_up = Held::start(&other, &endpoint, "lock mine");
        await_keys(&endpoint, "mine/", 2);
        let waiter = Held::start(&other, &endpoint, "lock mine --ttl 5");
        await_keys(&endpoint, "mine/", 3);
        gives_up.signal("-TERM");
        let canceled = vec!["Error: context canceled".to_owned()];
        assert_eq!(gives_up.end(), (Some(1), vec![], canceled), "{}", other.display());
        await_keys(&endpoint, "mine/", 2);
        assert!(waiter.lines.try_recv().is_err(), "two hold one lock");
        holder.signal("-INT");
        assert_eq!(holder.end(), (Some(0), vec![], vec![]), "{}", one.display());
        assert_ne!(waiter.line(), key);
        waiter.signal("-INT");
        assert_eq!(waiter.end(), (Some(0), vec![String::new()], vec![]), "{}", other.display());
        await_keys(&endpoint, "mine/", 0);
    }
}

#[test]
fn a_lock_lasts_as_long_as_its_program_and_gives_its_exit_code() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let Some(theirs) = oracle("etcdctl/etcdctl") else { return };
    let has_variables = "test -n \"$ETCD_LOCK_KEY\" && test \"$ETCD_LOCK_REV\" -gt 0 && echo yes";
    for program in [
        &["true"][..],
        &["sh", "-c", "exit 7"],
        &["sh", "-c", "kill -9 $$"],
        &["sh", "-c", has_variables],
        &["no-such-program"],
        &["./no-such-program"],
        &["cat"],
    ] {
        let mut args = words(&format!("--endpoints {} lock mine --ttl 3 --", server.endpoint()));
        args.extend(program.iter().map(|&word| word.to_owned()));
        let left = run(&ours("etcdctl"), &args, "not for the program", PATIENCE);
        assert_eq!(left, run(&theirs, &args, "not for the program", PATIENCE), "{program:?}");
        await_keys(&server.endpoint(), "mine/", 0);
    }
}

#[test]
fn a_lock_is_lost_with_its_lease() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    for (tool, _) in orders() {
        let holder = Held::start(&tool, &server.endpoint(), "lock mine --ttl 3");
        let key = holder.line();
        let lease = key.strip_prefix("mine/").expect("its key says its lease");
        let revoke = format!("--endpoints {} lease revoke {lease}", server.endpoint());
        assert_eq!(run(&tool, &words(&revoke), "", PATIENCE).code, Some(0));
        let (code, _, errors) = holder.end();
        let expired = vec!["Error: session expired".to_owned()];
        assert_eq!((code, errors), (Some(1), expired), "{}", tool.display());
    }
}

#[test]
fn who_leads_is_told_to_those_who_listen() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let endpoint = server.endpoint();
    for (one, other) in orders() {
        let listener = Held::start(&other, &endpoint, "elect of -l");
        let first = Held::start(&one, &endpoint, "elect of first");
        let (key, value) = (first.line(), first.line());
        assert_eq!(value, "first");
        assert_eq!((listener.line(), listener.line()), (key, value));
        let second = Held::start(&other, &endpoint, "elect of second");
        await_keys(&endpoint, "of/", 2);
        first.signal("-INT");
        assert_eq!(first.end(), (Some(0), vec![], vec![]), "{}", one.display());
        let (key, value) = (second.line(), second.line());
        assert_eq!(value, "second");
        assert_eq!((listener.line(), listener.line()), (key, value));
        listener.signal("-TERM");
        assert_eq!(listener.end(), (Some(0), vec![], vec![]), "{}", other.display());
        second.signal("-TERM");
        assert_eq!(second.end(), (Some(0), vec![], vec![]), "{}", other.display());
        await_keys(&endpoint, "of/", 0);
    }
}

#[test]
fn watches_that_stdin_asks_for_are_those_of_etcdctl() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let endpoint = server.endpoint();
    let mut all = Vec::new();
    for (tool, _) in orders() {
        let put = |line: &str| {
            let line = format!("--endpoints {endpoint} {line}");
            assert_eq!(run(&ours("etcdctl"), &words(&line), "", PATIENCE).code, Some(0));
        };
        put("del w --prefix");
        let mut watch = Held::start(&tool, &endpoint, "watch -i");
        watch.type_line("nothing of this");
        watch.type_line("watch wa wb --prefix");
        // Each says that it watches by what was there before it.
        put("put wa 1");
        watch.type_line("watch 'wa' --rev 1 --prefix=false -- echo ran");
        let mut said = Vec::new();
        while said.last().is_none_or(|last| last != "ran") {
            said.push(watch.line());
        }
        put("put wb 1");
        watch.type_line("watch wb --prev-kv --rev 1");
        while said.last().is_none_or(|last| last != "wb") {
            said.push(watch.line());
        }
        let (code, rest, errors) = watch.end();
        // What stood there in the first round is history in the second.
        said.retain(|line| !["PUT", "DELETE", "1", "", "wa", "wb"].contains(&line.as_str()));
        said.dedup();
        all.push((code, said, rest.is_empty(), errors));
    }
    if let [left, right] = all.as_slice() {
        assert_eq!((left.0, &left.1, &left.3), (right.0, &right.1, &right.3));
        assert_eq!(left.0, Some(3), "{left:?}");
    }
}

#[test]
fn lines_that_ask_for_no_watch_are_refused_alike() {
    let Some(server) = Server::start(Kind::Quorate, &[]) else { return };
    let Some(theirs) = oracle("etcdctl/etcdctl") else { return };
    for input in [
        "",
        "watch",
        "nothing\n\nwatch\n",
        "watch a b --prefix\nprogress\n",
        "watch --nope x\n",
        "watch a --\n",
        "watch --prefix\n",
    ] {
        let run = |tool: &Path| {
            let mut held = Held::start(tool, &server.endpoint(), "watch -i");
            let mut stdin = held.stdin.take().expect("it is open");
            // It may have ended at an earlier line.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            held.end()
        };
        assert_eq!(run(&ours("etcdctl")), run(&theirs), "{input:?}");
    }
}

#[test]
fn a_mirror_holds_what_etcds_holds() {
    let Some(source) = Server::start(Kind::Quorate, &[]) else { return };
    let Some(target) = Server::start(Kind::Quorate, &[]) else { return };
    let at = |server: &Server, line: &str| {
        let line = format!("--endpoints {} {line}", server.endpoint());
        run(&ours("etcdctl"), &words(&line), "", PATIENCE).stdout
    };
    for flags in [
        "",
        "--prefix m/",
        "--prefix m/ --dest-prefix n/",
        "--prefix m/ --no-dest-prefix",
        "--dest-prefix q/ --max-txn-ops 1",
        "--prefix m/ --rev REVISION",
    ] {
        let mut held = Vec::new();
        for (tool, _) in orders() {
            at(&source, "del '' --prefix");
            at(&target, "del '' --prefix");
            at(&source, "put m/a 1");
            at(&source, "put other 3");
            let fields = at(&source, "get m/a -w fields");
            let revision = fields.lines().find_map(|l| l.strip_prefix("\"ModRevision\" : "));
            let flags = flags.replace("REVISION", revision.expect("it was put"));
            let line = format!("make-mirror {flags} {}", target.endpoint());
            let mirror = Held::start(&tool, &source.endpoint(), &line);
            let until = Instant::now() + PATIENCE;
            while at(&target, "get '' --prefix").is_empty() {
                assert!(Instant::now() < until, "{flags}: nothing came");
                std::thread::sleep(Duration::from_millis(20));
            }
            at(&source, "put m/b 2");
            at(&source, "del m/a");
            at(&source, "put m/last 9");
            while !at(&target, "get '' --prefix").contains("last\n9") {
                assert!(Instant::now() < until, "{flags}: not all came");
                std::thread::sleep(Duration::from_millis(20));
            }
            held.push(at(&target, "get '' --prefix"));
            drop(mirror);
        }
        if let [left, right] = held.as_slice() {
            assert_eq!(left, right, "make-mirror {flags}");
            assert!(left.contains("b\n2") && !left.contains("/a\n1"), "{left}");
        }
    }
    at(&source, "compaction 9");
    for (tool, _) in orders() {
        let line = format!("make-mirror --rev 2 {}", target.endpoint());
        let (code, _, errors) = Held::start(&tool, &source.endpoint(), &line).end();
        let compacted = "Error: etcdserver: mvcc: required revision has been compacted";
        assert_eq!((code, errors), (Some(1), vec![compacted.to_owned()]), "{}", tool.display());
    }
}
