//! What etcdctl says to and of a cluster: ours and etcd's print the same, whoever serves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use conform::{Cluster, Kind, oracle};

#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn our_ctl() -> PathBuf {
    let path = conform::process::quorate().with_file_name("etcdctl");
    assert!(path.exists(), "{} is missing; run `cargo build --bin etcdctl`", path.display());
    path
}

/// Both etcdctls on a cluster.
struct Both {
    cluster: Cluster,
    ours: PathBuf,
    theirs: PathBuf,
}

impl Both {
    fn start(kind: Kind) -> Option<Self> {
        let theirs = oracle("etcdctl/etcdctl")?;
        let cluster = Cluster::start(&[kind; 3], &["--strict-reconfig-check=false"])?;
        Some(Self { cluster, ours: our_ctl(), theirs })
    }

    fn endpoint(&self, n: usize) -> String {
        self.cluster.nodes[n].client.to_string()
    }

    fn run(&self, program: &Path, endpoints: &str, line: &str) -> Ran {
        let ran = Command::new(program)
            .args(["--endpoints", endpoints])
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Go's client logs what it tries again.
        let told = text(&ran.stderr);
        let stderr =
            told.lines().filter(|line| !line.starts_with("{\"level\"")).collect::<Vec<_>>();
        Ran { code: ran.status.code(), stdout: text(&ran.stdout), stderr: stderr.join("\n") }
    }

    /// Both print the same but for what `mask` hides.
    fn same_at(&self, endpoints: &str, line: &str, mask: impl Fn(&str) -> String) -> Ran {
        let masked = |ran: Ran| Ran { stdout: mask(&ran.stdout), stderr: mask(&ran.stderr), ..ran };
        let ours = masked(self.run(&self.ours, endpoints, line));
        let theirs = masked(self.run(&self.theirs, endpoints, line));
        assert_eq!(ours, theirs, "etcdctl {line} (left ours, right etcd's)");
        ours
    }

    fn same(&self, line: &str) -> Ran {
        self.same_at(&self.endpoint(0), line, str::to_owned)
    }
}

/// Runs of hex digits, and whatever else counts or takes time, as `N`.
fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let end = |word: &mut String, out: &mut String| {
        let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let is_id = word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        out.push_str(if is_number || is_id { "N" } else { word });
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            word.push(c);
        } else {
            end(&mut word, &mut out);
            out.push(c);
        }
    }
    end(&mut word, &mut out);
    // Ids that begin with zeroes are shorter, and padded.
    out.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// As [`without_ids`], and times and sizes hidden.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let word = word.trim_matches(|c: char| "\"{}[],│".contains(c));
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == 'µ');
        word != digits && digits.contains('.') && digits.parse::<f64>().is_ok()
    };
    let word = |word: &str| if is_time(word) { "T".to_owned() } else { word.to_owned() };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    without_ids(&text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

const FORMATS: [&str; 6] =
    ["-w simple", "-w json", "-w json --hex", "-w fields", "-w protobuf", "-w table"];

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

fn refusals_are_equal(both: &Both) {
    for line in [
        "member add",
        "member add a b",
        "member add a http://127.0.0.1:1",
        "member add a",
        "member add a --peer-urls=",
        "member add a --peer-urls=127.0.0.1:1",
        "member add a --peer-urls=ftp://127.0.0.1:1",
        "member add a --peer-urls=http://127.0.0.1",
        "member add a --peer-urls=http://127.0.0.1:1/path",
        "member add a --peer-urls=http://127.0.0.1:x",
        "member add a --peer-urls=localhost",
        "member add a --peer-urls=http://127.0.0.1:1,",
        "member remove",
        "member remove x",
        "member remove 12345678123456789",
        "member remove 77",
        "member remove a b",
        "member update 77",
        "member update x --peer-urls=http://127.0.0.1:1",
        "member update 77 --peer-urls=http://127.0.0.1:1",
        "member update 77 --peer-urls=nonsense",
        "member promote",
        "member promote z",
        "member promote 77",
        "member list a",
        "member list --consistency=x",
        "move-leader",
        "move-leader x",
        "move-leader a b",
    ] {
        both.same(line);
    }
}

/// Changes and takes back, with either tool, in every format.
fn changes_are_told_alike(both: &Both) {
    let id_of = |url: &str| {
        let listed = both.run(&both.theirs, &both.endpoint(1), "member list");
        let line = listed.stdout.lines().find(|line| line.contains(url));
        line.map(|line| line.split(',').next().unwrap_or_default().to_owned())
    };
    // One URL in one second is one id, and that of a removed member stays taken.
    let mut port = 100;
    for format in FORMATS {
        for learner in ["", " --learner"] {
            let mut told = Vec::new();
            for tool in [&both.ours, &both.theirs] {
                port += 2;
                let url = &format!("http://127.0.0.1:{port}");
                let other = format!("http://127.0.0.1:{}", port + 1);
                let run =
                    |line: &str| both.run(tool, &both.endpoint(1), &format!("{line} {format}"));
                let mask = |ran: Ran| {
                    // An id in protobuf is bytes of any kind.
                    let ids = if format.ends_with("protobuf") {
                        format!("empty: {}", ran.stdout.is_empty())
                    } else {
                        // Members stand in the order of their ids.
                        let ids = without_ids(&ran.stdout);
                        let mut parts: Vec<&str> = ids.split(['"', ',', '{', '}']).collect();
                        parts.sort_unstable();
                        parts.join(" ")
                    };
                    Ran { stdout: ids, ..ran }
                };
                told.push(mask(run(&format!("member add new --peer-urls={url}{learner}"))));
                let id = id_of(url).unwrap_or_else(|| panic!("it was not added: {told:?}"));
                told.push(mask(run(&format!("member update {id} --peer-urls={other}"))));
                told.push(mask(run(&format!("member remove {id}"))));
            }
            let theirs = told.split_off(3);
            assert_eq!(told, theirs, "{format}{learner} (left ours, right etcd's)");
        }
        both.same(&format!("member list {format}"));
        both.same(&format!("member list --consistency=s {format}"));
    }
    let learner = both.run(
        &both.theirs,
        &both.endpoint(1),
        "member add l --learner --peer-urls=http://127.0.0.1:9",
    );
    assert_eq!(learner.code, Some(0), "{learner:?}");
    let id = id_of("http://127.0.0.1:9").expect("it was added");
    for format in FORMATS {
        both.same(&format!("member promote {id} {format}"));
        both.same(&format!("member list {format}"));
    }
    both.run(&both.theirs, &both.endpoint(1), &format!("member remove {id}"));
}

fn leadership_moves_alike(both: &Both) {
    let all = (0..3).map(|n| both.endpoint(n)).collect::<Vec<_>>().join(",");
    for format in FORMATS {
        let mut told = Vec::new();
        for tool in [&both.ours, &both.theirs] {
            let (leader, other) = block_on(async {
                let follower = both.cluster.follower().await;
                (both.cluster.leader().await, both.cluster.id(follower).await)
            });
            let other = format!("{other:x}");
            let alone = both.run(tool, &both.endpoint((leader + 1) % 3), "move-leader 1");
            assert!(alone.stderr.contains("no leader endpoint given at ["), "{alone:?}");
            let bad = both.run(tool, &all, "move-leader 77");
            let moved = both.run(tool, &all, &format!("move-leader {other} {format}"));
            told.push((bad, moved.code, without_ids(&moved.stdout), moved.stderr));
        }
        assert_eq!(told[0], told[1], "move-leader {format}");
    }
}

fn endpoints_are_told_alike(both: &Both) {
    let gone = format!("{},127.0.0.1:1", both.endpoint(0));
    for format in FORMATS {
        let sorted = |text: &str| {
            let mut lines: Vec<String> = without_times(text).lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        if format.ends_with("json") || format.ends_with("hex") {
            // In the order in which they answer.
            let shape = |text: &str| {
                let mut items: Vec<String> = without_times(text)
                    .split("},{")
                    .map(|i| i.trim_matches(['[', ']', '\n', '{', '}']).to_owned())
                    .collect();
                items.iter_mut().for_each(|item| {
                    if let Some((start, _)) = item.split_once("\"took\"") {
                        *item = start.to_owned();
                    }
                });
                items.sort_unstable();
                items.join("\n")
            };
            both.same_at(&both.endpoint(0), &format!("endpoint health --cluster {format}"), shape);
        } else if !format.ends_with("table") {
            both.same_at(&both.endpoint(0), &format!("endpoint health --cluster {format}"), sorted);
        }
        let line = format!("endpoint status --cluster {format}");
        both.same_at(&both.endpoint(1), &line, without_times);
        both.same_at(
            &both.endpoint(1),
            &format!("endpoint hashkv --cluster {format}"),
            without_ids,
        );
        let line = format!("endpoint hashkv --command-timeout=1s {format}");
        let some = both.run(&both.ours, &gone, &line);
        assert_eq!(some.code, both.run(&both.theirs, &gone, &line).code, "{line}: {some:?}");
    }
}

fn everything(kind: Kind) {
    let Some(both) = Both::start(kind) else { return };
    block_on(both.cluster.put_in_time(0, "a", "1"));
    refusals_are_equal(&both);
    changes_are_told_alike(&both);
    leadership_moves_alike(&both);
    block_on(async {
        both.cluster.assert_equal().await;
        // Storage versions rise after the start.
        let until = std::time::Instant::now() + Duration::from_secs(20);
        for n in 0..3 {
            while both.cluster.status(n).await.storage_version != "3.7.0" {
                assert!(std::time::Instant::now() < until);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    endpoints_are_told_alike(&both);
}

#[test]
fn both_tools_say_the_same_of_etcds_cluster() {
    everything(Kind::Reference);
}

#[test]
fn both_tools_say_the_same_of_our_cluster() {
    everything(Kind::Quorate);
}
