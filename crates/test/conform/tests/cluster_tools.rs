//! The tools beside etcd's own on clusters of three: members, leadership, and questions to all.
//!
//! What is masked, and why: the id of a member that a command adds comes from its URLs and the
//! second, so that no two runs may use the same URLs; durations; terms where leadership moves; the
//! order in which health checks end.

#[path = "common/tool.rs"]
mod tool;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use conform::process::oracle;
use conform::{Cluster, Kind};
use prost::Message;
use tool::{PATIENCE, Ran, ours, run, words};

/// Every format, with hex digits where that makes a difference.
const FORMATS: [&str; 8] =
    ["simple", "json", "json --hex", "fields", "fields --hex", "table", "protobuf", "nope"];

/// Changes of members without waiting until all have been connected for five seconds.
const LAX: [&str; 1] = ["--strict-reconfig-check=false"];

/// Both etcdctls on a cluster.
struct Both {
    cluster: Cluster,
    runtime: tokio::runtime::Runtime,
    ours: PathBuf,
    theirs: PathBuf,
    /// Runs so far: each has its own ports for members that are never started.
    runs: Cell<u16>,
}

impl Both {
    fn start(kind: Kind) -> Option<Self> {
        let theirs = oracle("etcdctl/etcdctl")?;
        let cluster = Cluster::start(&[kind; 3], &LAX)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let both = Self { cluster, runtime, ours: ours("etcdctl"), theirs, runs: Cell::new(0) };
        both.block_on(both.cluster.leader());
        Some(both)
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A command line towards these members.
    fn args(&self, members: &[usize], line: &str) -> Vec<String> {
        let endpoints: Vec<_> =
            members.iter().map(|&n| self.cluster.nodes[n].client.to_string()).collect();
        let mut args = vec!["--endpoints".to_owned(), endpoints.join(",")];
        args.extend(words(line));
        args
    }

    /// Runs a line with one tool after the other, each after `before`, which may give an id that
    /// stands in the line as `ID`. Ids that are new are masked, and of ports on 127.0.0.1, which
    /// nobody has, all but the last digit.
    fn same(&self, members: &[usize], line: &str, before: impl Fn(&Self) -> Option<u64>) {
        let founders: Vec<u64> = self.listed().iter().map(|m| m.id).collect();
        let attempt = |tool: &PathBuf| {
            self.runs.set(self.runs.get() + 1);
            let id = before(self);
            let line = line.replace("http://127.0.0.1:", &self.unused());
            let given = line.replace("ID", &id.map_or_else(String::new, |id| format!("{id:x}")));
            let ran = run(tool, &self.args(members, &given), "", PATIENCE);
            let after = self.listed();
            let mut new: Vec<u64> = after.iter().map(|m| m.id).collect();
            new.extend(id);
            new.retain(|id| !founders.contains(id));
            for member in after.iter().filter(|m| !founders.contains(&m.id)) {
                self.block_on(self.cluster.member_remove(0, member.id)).expect("it may go");
            }
            // One digit less, one time in sixteen, and columns are narrower.
            let is_long = new.iter().all(|id| *id >= 1 << 60);
            is_long.then(|| masked(ran, &line, &new, &self.unused()))
        };
        let one = |tool: &PathBuf| {
            let mut attempts = std::iter::repeat_with(|| attempt(tool)).take(20);
            attempts.find_map(|ran| ran).expect("ids are drawn anew")
        };
        assert_eq!(one(&self.ours), one(&self.theirs), "etcdctl {line} (left ours, right etcd's)");
    }

    fn same_plain(&self, members: &[usize], line: &str) {
        self.same(members, line, |_| None);
    }

    fn same_as(&self, members: &[usize], line: &str, mask: impl Fn(&str) -> String) {
        let one = |tool: &PathBuf| {
            self.block_on(self.settle());
            let mut ran = run(tool, &self.args(members, line), "", PATIENCE);
            ran.stdout = mask(&ran.stdout);
            ran.stderr = ran.stderr.iter().map(|line| mask(line)).collect();
            // Both tell in the order in which the answers came.
            ran.stderr.sort_unstable();
            ran
        };
        assert_eq!(one(&self.ours), one(&self.theirs), "etcdctl {line} (left ours, right etcd's)");
    }

    /// Waits until every member has applied what the others have: what a tool asked before may
    /// still be on its way to some.
    async fn settle(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for n in (0..3).filter(|&n| self.cluster.nodes[n].runs()) {
                let status = self.cluster.status(n).await;
                seen.extend([status.raft_index, status.raft_applied_index]);
            }
            if seen.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < until, "some lag behind: {seen:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The start of a URL of this run, to which one digit comes.
    fn unused(&self) -> String {
        format!("http://127.0.0.1:{}", 1_000 + self.runs.get())
    }

    fn listed(&self) -> Vec<pb::Member> {
        self.block_on(self.cluster.members(0, true)).expect("somebody leads").members
    }

    /// A learner that is never started.
    fn add(&self) -> u64 {
        let (url, is_learner) = (format!("{}7", self.unused()), true);
        let added = self.block_on(self.cluster.member_add(0, &[&url], is_learner));
        added.expect("nobody has this URL").member.expect("it is told").id
    }
}

/// An answer without ids that differ from run to run, in any format.
fn masked(mut ran: Ran, line: &str, new: &[u64], url: &str) -> Ran {
    if line.contains("protobuf") && ran.code == Some(0) {
        ran.stdout = decoded(line, &ran.stdout);
    }
    for id in new {
        for shown in [format!("{id:>16x}"), format!("{id:x}"), id.to_string()] {
            ran.stdout = ran.stdout.replace(&shown, "NEW");
        }
    }
    ran.stdout = ran.stdout.replace(url, "URL");
    ran.stderr = ran.stderr.iter().map(|line| line.replace(url, "URL")).collect();
    // Members are listed by id, and the new one has its place among them by chance.
    let length = ran.stdout.len();
    let mut parts: Vec<&str> = ran.stdout.split(['\n', ',', '{', '}', ']', '"', '\\']).collect();
    parts.sort_unstable();
    ran.stdout = format!("{length} bytes: {}", parts.join("\n").trim_start());
    ran
}

/// What a protobuf answer says, as text.
fn decoded(line: &str, stdout: &str) -> String {
    // `tool::run` made a character of every byte, unless all of it was UTF-8 by chance.
    let is_text = stdout.chars().any(|c| u32::from(c) > 0xff);
    let bytes: Vec<u8> = match is_text {
        true => stdout.as_bytes().to_vec(),
        false => stdout.chars().map(|c| u8::try_from(u32::from(c)).expect("checked")).collect(),
    };
    let bytes = bytes.as_slice();
    let command = line.split(' ').nth(1).unwrap_or_default();
    match command {
        "add" => format!("{:?}", pb::MemberAddResponse::decode(bytes).expect("protobuf")),
        _ => format!("{:?}", pb::MemberListResponse::decode(bytes).expect("protobuf")),
    }
}

fn on_both_kinds(scenario: impl Fn(Both)) {
    for kind in [Kind::Reference, Kind::Quorate] {
        let Some(both) = Both::start(kind) else { return };
        eprintln!("on {kind:?}");
        scenario(both);
    }
}

#[test]
fn members_are_added_changed_listed_and_removed_as_etcdctl_does() {
    on_both_kinds(|both| {
        for format in FORMATS {
            let two = "--peer-urls=http://127.0.0.1:7,http://127.0.0.1:8";
            both.same_plain(&[0], &format!("member add new {two} -w {format}"));
            both.same_plain(&[0], &format!("member add new {two} --learner -w {format}"));
            both.same(&[0], &format!("member list -w {format}"), |b| Some(b.add()));
            let line = format!("member update ID --peer-urls http://127.0.0.1:9 -w {format}");
            both.same(&[0], &line, |b| Some(b.add()));
            both.same(&[0], &format!("member remove ID -w {format}"), |b| Some(b.add()));
            both.same(&[0], &format!("member promote ID -w {format}"), |b| Some(b.add()));
        }
        both.same_plain(&[1], "member list --consistency=s extra -w json");
        both.same_plain(&[1], "member list --consistency=x");
        both.same_plain(&[0], "member add \"n\\\" --peer-urls=http://127.0.0.1:7");
    });
}

#[test]
fn learners_that_follow_are_promoted_as_etcdctl_does() {
    on_both_kinds(|mut both| {
        let kind = both.cluster.nodes[0].kind;
        for format in ["simple", "json --hex"] {
            let mut ran = Vec::new();
            for tool in [both.ours.clone(), both.theirs.clone()] {
                let (runtime, cluster) = (&both.runtime, &mut both.cluster);
                let n = runtime.block_on(cluster.add(0, kind, true)).expect("there is room");
                cluster.wait_ready_one(n);
                let id = runtime.block_on(cluster.id(n));
                let line = format!("member promote {id:x} -w {format}");
                let args = both.args(&[0], &line);
                // It follows at most a moment later.
                let until = Instant::now() + PATIENCE;
                let promoted = loop {
                    let promoted = run(&tool, &args, "", PATIENCE);
                    if promoted.code == Some(0) || Instant::now() > until {
                        break promoted;
                    }
                };
                assert_eq!(promoted.code, Some(0), "{promoted:?}");
                let port = both.cluster.nodes[n].client.port().to_string();
                let peer = both.cluster.nodes[n].peer.port().to_string();
                let name = both.cluster.nodes[n].name.clone();
                let mut promoted = masked(promoted, &line, &[id], &both.unused());
                for own in [port, peer, name] {
                    promoted.stdout = promoted.stdout.replace(&own, "NEW");
                }
                ran.push(promoted);
                both.block_on(both.cluster.member_remove(0, id)).expect("it may go");
                let ended = both.cluster.nodes[n].wait_exit(PATIENCE);
                assert_eq!(ended, Some(Some(0)));
            }
            assert_eq!(ran[0], ran[1], "{format} (left ours, right etcd's)");
        }
    });
}

#[test]
fn changes_that_cannot_be_are_refused_as_etcdctl_refuses_them() {
    on_both_kinds(|both| {
        let taken = both.cluster.nodes[1].peer_url();
        let voter = both.listed()[1].id;
        for line in [
            "member add",
            "member add a",
            "member add a --peer-urls=",
            "member add a b",
            "member add a http://x:1 HTTPS://y:2 --peer-urls=http://127.0.0.1:7",
            "member add a --peer-urls=localhost",
            "member add a --peer-urls=127.0.0.1:7",
            "member add a --peer-urls=:7",
            "member add a --peer-urls=http://127.0.0.1:7,",
            "member add a --peer-urls=http://127.0.0.1",
            "member add a --peer-urls=http://127.0.0.1:7/",
            "member add a --peer-urls=http://localhost:x",
            "member add a --peer-urls=http://[::1:7",
            "member add a --peer-urls=http://::1:7",
            "member add a --peer-urls=http://a%zz:7",
            "member add a --peer-urls=http://a^b:7",
            "member add a --peer-urls=ftp://127.0.0.1:7",
            "member add a --peer-urls=http:127.0.0.1:7",
            "member add a --peer-urls=http://127.0.0.1:7#x",
            "member add a --learner=x",
            "member remove",
            "member remove 1 2",
            "member remove xyz",
            "member remove -- -1",
            "member remove ''",
            "member remove 11112222333344445",
            "member remove 77",
            "member update",
            "member update 77",
            "member update zz --peer-urls=http://127.0.0.1:7",
            "member update 77 --peer-urls=http://127.0.0.1:7",
            "member update 77 --peer-urls=nonsense",
            "member promote",
            "member promote zz",
            "member promote 77",
            "member list --consistency=",
            "move-leader",
            "move-leader 1 2",
            "move-leader zz",
            "move-leader 0x1",
            "move-leader 11112222333344445",
            "endpoint status extra --cluster=maybe",
        ] {
            both.same_plain(&[0], line);
        }
        both.same_plain(&[0], &format!("member add a --peer-urls={taken}"));
        both.same_plain(
            &[0],
            &format!("member update {:x} --peer-urls={taken}", both.listed()[0].id),
        );
        both.same_plain(&[0], &format!("member promote {voter:x}"));
        assert_eq!(both.listed().len(), 3);
    });
}

/// Numbers after `raft_term` and the like, which grow with every election.
fn without_terms(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\"raft_term\":") {
        let (before, after) = rest.split_at(at + "\"raft_term\":".len());
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

#[test]
fn leadership_is_handed_over_as_etcdctl_does() {
    on_both_kinds(|both| {
        let (from, to) = (0, 2);
        let target = both.block_on(both.cluster.id(to));
        let all = [1, 0, 2];
        for format in FORMATS.iter().filter(|f| **f != "protobuf") {
            let line = format!("move-leader {target:x} -w {format}");
            let mut ran = Vec::new();
            for tool in [&both.ours, &both.theirs] {
                both.block_on(both.cluster.lead(from));
                let mut one = run(tool, &both.args(&all, &line), "", PATIENCE);
                one.stdout = without_terms(&one.stdout);
                // Printed or not, it was done, unless the format does not exist.
                let leader = both.block_on(both.cluster.leader());
                assert_eq!(leader, if *format == "nope" { from } else { to }, "{line}: {one:?}");
                ran.push(one);
            }
            assert_eq!(ran[0], ran[1], "{line} (left ours, right etcd's)");
        }
        both.block_on(both.cluster.lead(to));
        // Protobuf, and nothing changes: the leader itself.
        both.same_as(&all, &format!("move-leader {target:x} -w protobuf"), str::to_owned);
        both.same_as(&all, "move-leader 77", str::to_owned);
        // Nobody asked leads.
        both.same_as(&[0, 1], &format!("move-leader {target:x}"), str::to_owned);
    });
}

#[test]
fn downgrades_are_asked_for_as_etcdctl_does() {
    on_both_kinds(|both| {
        for line in [
            "downgrade validate",
            "downgrade validate ''",
            "downgrade validate 3.6 3.6",
            "downgrade validate 3.6",
            "downgrade validate 3.6.0 -w fields",
            "downgrade validate 3.6 -w json",
            "downgrade validate 3.6 -w table",
            "downgrade validate 3.5",
            "downgrade validate 3.7",
            "downgrade validate x",
            "downgrade enable",
            "downgrade enable ''",
            "downgrade enable 3.6 3.6",
            "downgrade enable 3.5",
            "downgrade cancel",
            "downgrade cancel more",
        ] {
            both.same_plain(&[0], line);
        }
        let mut ran = Vec::new();
        for tool in [&both.ours, &both.theirs] {
            for line in ["downgrade enable 3.6", "downgrade enable 3.6", "downgrade cancel"] {
                ran.push(run(tool, &both.args(&[1], line), "", PATIENCE));
            }
        }
        assert_eq!(ran[..3], ran[3..], "left ours, right etcd's");
        assert_eq!(
            ran.iter().map(|ran| ran.code).collect::<Vec<_>>(),
            [0, 1, 0, 0, 1, 0].map(Some)
        );
    });
}

/// Durations, and the order of what health checks print.
fn without_times(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for piece in text.split_inclusive(['\n', '{']) {
        let words = piece.split_inclusive([' ', ',', '"', '}', ']', '\n']);
        let is_time = |word: &str| {
            let word = word.trim_matches(|c: char| " .,\"}]\n()".contains(c));
            word.ends_with('s')
                && word.starts_with(|c: char| c.is_ascii_digit())
                && word.contains(|c: char| c.is_ascii_digit())
        };
        lines.push(words.map(|w| if is_time(w) { "TIME" } else { w.trim() }).collect());
    }
    lines.sort_unstable();
    lines.concat().replace(['─', ' ', '[', ']', '{', '}', ','], "")
}

#[test]
fn all_members_are_asked_as_etcdctl_asks_them() {
    on_both_kinds(|mut both| {
        both.block_on(async {
            for n in 0..20 {
                both.cluster.put(n % 3, &format!("k{n}"), "v").await.expect("somebody leads");
            }
            both.cluster.assert_equal().await;
        });
        // Storage versions rise one by one, some seconds after the start.
        let until = Instant::now() + 2 * PATIENCE;
        for n in 0..3 {
            while both.block_on(both.cluster.status(n)).storage_version != "3.7.0" {
                assert!(Instant::now() < until, "the storage version does not rise");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // The next commit to disk changes sizes: it comes within a tenth of a second.
        std::thread::sleep(Duration::from_millis(300));
        for members in [&[0][..], &[1, 2], &[2, 0, 1]] {
            for format in FORMATS {
                for line in ["endpoint status", "endpoint hashkv", "endpoint hashkv --rev 5"] {
                    both.same_as(members, &format!("{line} -w {format}"), str::to_owned);
                    let line = format!("{line} --cluster -w {format}");
                    both.same_as(members, &line, str::to_owned);
                }
            }
            both.same_as(members, "endpoint hashkv --rev 999 --cluster", str::to_owned);
        }
        for members in [&[0][..], &[2, 0, 1]] {
            for format in FORMATS {
                both.same_as(members, &format!("endpoint health -w {format}"), without_times);
                let line = format!("endpoint health --cluster -w {format}");
                both.same_as(members, &line, without_times);
            }
            both.same_as(members, "defrag --cluster", without_times);
        }
        // One that does not answer is told, and the others are asked all the same.
        both.block_on(both.cluster.lead(0));
        both.cluster.nodes[2].kill();
        for line in
            ["status", "status -w json", "hashkv", "hashkv -w json", "health", "health -w json"]
        {
            let line = format!("endpoint {line} --cluster --command-timeout 1s");
            both.same_as(&[0], &line, without_times);
        }
        both.same_as(&[0], "defrag --cluster --command-timeout 1s", without_times);
        both.same_as(&[2], "endpoint status --cluster --command-timeout 1s", without_times);
    });
}
