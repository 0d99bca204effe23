//! A member that records, a plane around it, and the Go program on the other side.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use peer::{Answer, Config, Event, Member, Plane, ReceiveError};
use raft::Message;
use types::{ClusterId, MemberId};

/// The cluster of all tests.
pub const CLUSTER: u64 = 0xc1;
/// Time for anything to happen.
pub const LONG: Duration = Duration::from_secs(20);

/// What a member was told.
#[derive(Default)]
pub struct Recorded {
    pub received: Vec<Message>,
    pub unreachable: Vec<u64>,
    pub snapshots: Vec<(u64, bool)>,
    pub removed: usize,
    pub ended: Vec<u64>,
    pub events: Vec<String>,
    pub fatal: Vec<String>,
    /// The next message is too much.
    pub panic: bool,
    /// Ids that count as removed.
    pub gone: Vec<u64>,
    /// Messages are counted only.
    pub quiet: bool,
    pub count: usize,
    /// The inbox is full.
    pub full: bool,
}

/// A member that only records.
#[derive(Default)]
pub struct Recorder {
    recorded: Mutex<Recorded>,
    changed: Condvar,
}

impl Recorder {
    pub fn with<R>(&self, work: impl FnOnce(&mut Recorded) -> R) -> R {
        let result = work(&mut self.recorded.lock().unwrap());
        self.changed.notify_all();
        result
    }

    /// Waits until `condition` holds; `what` is for the message if it does not.
    pub fn wait(&self, what: &str, condition: impl Fn(&Recorded) -> bool) {
        let until = Instant::now() + LONG;
        let mut recorded = self.recorded.lock().unwrap();
        while !condition(&recorded) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited for {what}; {} received, removed {}, snapshots {:?}, events {:#?}",
                recorded.received.len(),
                recorded.removed,
                recorded.snapshots,
                recorded.events
            );
            recorded = self.changed.wait_timeout(recorded, left).unwrap().0;
        }
    }

    pub fn wait_event(&self, part: &str, times: usize) {
        self.wait(&format!("{times}× {part}"), |recorded| {
            recorded.events.iter().filter(|event| event.contains(part)).count() >= times
        });
    }
}

impl Member for Recorder {
    fn ended(&self, peer: MemberId) {
        self.with(|recorded| recorded.ended.push(peer.0));
    }

    fn receive(&self, message: Message) -> Result<(), ReceiveError> {
        self.with(|recorded| {
            if std::mem::take(&mut recorded.panic) {
                return Err(());
            }
            if recorded.full {
                return Ok(Err(ReceiveError::Full));
            }
            recorded.count += 1;
            if !recorded.quiet {
                recorded.received.push(message);
            }
            Ok(Ok(()))
        })
        .expect("a message too much")
    }

    fn unreachable(&self, peer: MemberId) {
        self.with(|recorded| recorded.unreachable.push(peer.0));
    }

    fn snapshot_sent(&self, peer: MemberId, arrived: bool) {
        self.with(|recorded| recorded.snapshots.push((peer.0, arrived)));
    }

    fn removed(&self) {
        self.with(|recorded| recorded.removed += 1);
    }

    fn check_snapshot(&self, _: &std::path::Path, _: types::Index) -> Result<(), String> {
        Ok(())
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.recorded.lock().unwrap().gone.contains(&id.0)
    }

    fn other(&self, request: http::Request<Bytes>) -> Answer {
        let text = format!("{} {} {:?}", request.method(), request.uri(), request.body());
        Box::pin(async move { http::Response::new(text.into()) })
    }

    fn fatal(&self, why: &str) {
        self.with(|recorded| recorded.fatal.push(why.to_owned()));
    }

    fn event(&self, event: Event<'_>) {
        if !matches!(event, Event::Sent(..) | Event::Received(..)) {
            self.with(|recorded| recorded.events.push(format!("{event:?}")));
        }
    }
}

/// How a member of the tests' cluster is set up.
pub fn config(id: u64, url: &str, snap_dir: &Path) -> Config {
    Config {
        id: MemberId(id),
        cluster: ClusterId(CLUSTER),
        own_urls: vec![url.to_owned()],
        snap_dir: snap_dir.to_owned(),
        disk: Arc::new(osenv::OsDisk),
        dial_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(5),
        local_address: None,
        tls: None,
        connections: 64,
        server_version: "3.7.3".to_owned(),
    }
}

/// A plane with its recorder.
pub struct Ours {
    pub plane: Plane,
    pub member: Arc<Recorder>,
    pub url: String,
    pub dir: tempfile::TempDir,
}

impl Ours {
    pub fn start(id: u64) -> Self {
        Self::start_on(id, TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn start_on(id: u64, listener: TcpListener) -> Self {
        Self::start_with(id, listener, |_| {})
    }

    pub fn start_with(id: u64, listener: TcpListener, change: impl FnOnce(&mut Config)) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(id, &url, dir.path());
        change(&mut config);
        let member = Arc::new(Recorder::default());
        let plane = Plane::start(
            config,
            Arc::clone(&member) as _,
            vec![(net::Bound::Tcp(listener), net::Security::Plain)],
        )
        .unwrap();
        Self { plane, member, url, dir }
    }

    pub fn add(&self, id: u64, url: &str) {
        self.plane.add_peer(MemberId(id), &[url]).unwrap();
    }

    /// Waits for both streams in both directions, for the `times`th time.
    pub fn wait_streams(&self, times: usize) {
        for side in ["Reader", "Writer"] {
            for channel in ["Appends", "Messages"] {
                let pattern = format!("{channel}, {side})");
                self.member.wait(&pattern, |recorded| {
                    let open =
                        |e: &&String| e.starts_with("StreamEstablished") && e.ends_with(&pattern);
                    recorded.events.iter().filter(open).count() >= times
                });
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.plane.stop();
    }
}

/// Ours is 1, Go's is 2, both know each other and all streams are open.
pub fn pair(program: &Path) -> (Ours, Go) {
    let ours = Ours::start(1);
    let mut go = Go::start(program, 2);
    go.tell(&format!("addpeer 1 {}", ours.url));
    ours.add(2, &go.url);
    ours.wait_streams(1);
    go.wait_active(1);
    (ours, go)
}

/// Go sends back to ours what ours sent to it, one by one; it arrives whole. Each is waited for:
/// appends that come at once are put in the order of their entries (`raft::order_appends`).
pub fn send_back(ours: &Ours, go: &mut Go, sent: Vec<Message>) {
    for message in sent {
        let message = Message { from: MemberId(2), to: MemberId(1), ..message };
        go.send(std::slice::from_ref(&message));
        ours.member.wait("the message", |recorded| !recorded.received.is_empty());
        let received = ours.member.with(|recorded| std::mem::take(&mut recorded.received));
        assert!(received == [message], "a message from Go came differently");
    }
}

/// The Go transport, or `None` with a line that says so.
pub fn oracle() -> Option<PathBuf> {
    program("rafthttp/rafthttp")
}

/// A Go program, or `None` with a line that says so.
pub fn program(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let program = folder.join(name);
    if program.exists() {
        return Some(program);
    }
    assert!(std::env::var_os("QUORATE_CI").is_none(), "{} is missing", program.display());
    eprintln!("SKIPPED: no Go oracle at {}", program.display());
    None
}

/// A running Go transport.
pub struct Go {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    /// Lines that were read but not asked for yet.
    pub seen: Vec<String>,
    pub url: String,
    pub dir: tempfile::TempDir,
}

impl Go {
    pub fn start(program: &Path, id: u64) -> Self {
        Self::start_with(program, id, CLUSTER, "127.0.0.1:0")
    }

    pub fn start_with(program: &Path, id: u64, cluster: u64, listen: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args(["-id", &format!("{id:x}"), "-cluster", &format!("{cluster:x}")])
            .args(["-listen", listen, "-dir", dir.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the oracle starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut go = Self { child, stdin, lines, seen: Vec::new(), url: String::new(), dir };
        go.url = go.wait("listening ");
        go
    }

    /// Gives it a line and waits until it was executed.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.wait("done");
    }

    /// Lets it send these at once.
    pub fn send(&mut self, messages: &[Message]) {
        let words: Vec<_> = messages.iter().map(|message| hex(&message.encode())).collect();
        self.tell(&format!("send {}", words.join(" ")));
    }

    /// The rest of the next line that begins so.
    pub fn wait(&mut self, prefix: &str) -> String {
        if let Some(at) = self.seen.iter().position(|line| line.starts_with(prefix)) {
            return self.seen.remove(at)[prefix.len()..].to_owned();
        }
        let until = Instant::now() + LONG;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("waited for {prefix:?}; seen {:#?}", self.seen);
            };
            match line.strip_prefix(prefix) {
                Some(rest) => return rest.to_owned(),
                None => self.seen.push(line),
            }
        }
    }

    /// The next messages that arrived, whatever fields of zero their bytes have.
    pub fn decoded(&mut self, count: usize) -> Vec<Message> {
        let unhex = |text: String| -> Bytes {
            (0..text.len() / 2)
                .map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap())
                .collect()
        };
        self.processed(count).into_iter().map(|m| Message::decode(unhex(m)).unwrap()).collect()
    }

    /// The next messages that arrived.
    pub fn processed(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.wait("process ")).collect()
    }

    /// Waits until the streams of a peer carry messages.
    pub fn wait_active(&mut self, id: u64) {
        let until = Instant::now() + LONG;
        loop {
            self.tell(&format!("active {id:x}"));
            if self.wait("active ") == "true" {
                return;
            }
            assert!(Instant::now() < until, "peer {id:x} does not become active");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(mut self) {
        drop(self.stdin.take());
        self.child.wait().expect("it ends when its input does");
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
