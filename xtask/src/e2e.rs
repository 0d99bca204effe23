//! `cargo xtask e2e`: etcd's own end-to-end tests, with this server in the place of etcd's.
//!
//! The tests are compiled from their module (`oracle/e2e`) and run one after another, as all of
//! them listen on port 20000 and up; each in a process of its own, as a goroutine that one leaks
//! makes the others of its process fail. Two lists say which: `tests.txt` has what passes,
//! `later.txt` the rest with reasons; together they name every test that there is.
//!
//! Invariant: nothing outlives its test. The servers that a test starts are sessions of their own;
//! they are known by a variable of their environment, never by their names.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::oracle;
use crate::shell::{cargo, root, run, target};

/// Go's limit for one test, after which it shows all goroutines; the longest takes half a minute.
const LIMIT: &str = "150s";
/// When a test is ended that does not heed it.
const HARD_LIMIT: Duration = Duration::from_secs(160);
/// Pause between looks at a running test.
const STEP: Duration = Duration::from_millis(20);
/// Where the tests' servers listen; five for each member, of which there are five at most.
const PORTS: std::ops::Range<u16> = 20_000..20_025;
/// What marks the processes of a test: the directory of this word.
const MARK: &str = "QUORATE_E2E";
/// The packages of etcd's `tests` module that are run.
const PACKAGES: [&str; 2] = ["common", "e2e"];

/// A line of a list: a package, a test or a part of it, and why it does not pass.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    package: String,
    /// A regular expression per level, with `/` between: `TestMemberAdd/.*/NoTLS`.
    name: String,
    reason: Option<String>,
}

/// What came of a test. Only `Pass` is good: what is skipped or not there shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    Skip,
    Nothing,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "SKIP",
            Verdict::Nothing => "NONE",
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// `later.txt` instead of `tests.txt`.
    later: bool,
    /// Our etcdctl and etcdutl instead of etcd's.
    own_tools: bool,
    /// Only tests whose names contain one of these.
    names: Vec<String>,
}

fn parse(args: &[&str]) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for arg in args {
        match *arg {
            "--later" => wanted.later = true,
            "--own-tools" => wanted.own_tools = true,
            flag if flag.starts_with('-') => return Err(format!("e2e does not know {flag}")),
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

/// Runs a list, or those of it that are named, and fails if one does not pass. What is known not
/// to pass is only shown.
pub fn run_list(args: &[&str]) -> Result<(), String> {
    let wanted = parse(args)?;
    let (tests, later) = (read_list("tests.txt")?, read_list("later.txt")?);
    let place = Place::new(wanted.own_tools)?;
    place.all_are_listed(&tests, &later)?;
    if let Some(port) = PORTS.into_iter().find(|p| TcpListener::bind(("127.0.0.1", *p)).is_err()) {
        return Err(format!("port {port} is taken; the tests need {PORTS:?} for themselves"));
    }
    let is_named = |entry: &&Entry| {
        wanted.names.is_empty() || wanted.names.iter().any(|n| entry.name.contains(n.as_str()))
    };
    let list = if wanted.later { &later } else { &tests };
    let chosen: Vec<&Entry> = list.iter().filter(is_named).collect();
    if chosen.is_empty() {
        return Err(format!("the list has no test of these names: {:?}", wanted.names));
    }
    let (begun, mut counts, mut bad) = (Instant::now(), [0; 4], Vec::new());
    for entry in chosen {
        let started = Instant::now();
        let verdict = place.run(entry)?;
        counts[verdict as usize] += 1;
        let seconds = started.elapsed().as_secs_f64();
        let why = entry.reason.as_deref().map_or_else(String::new, |why| format!("  # {why}"));
        println!("{} {:6} {} {seconds:.1} s{why}", verdict.word(), entry.package, entry.name);
        if verdict != Verdict::Pass {
            bad.push(format!("{} {}", entry.package, entry.name));
        }
    }
    let [pass, fail, skip, nothing] = counts;
    println!(
        "{pass} passed, {fail} failed, {skip} skipped, {nothing} ran nothing; {:.0} s; logs in {}",
        begun.elapsed().as_secs_f64(),
        place.dir.join("logs").display()
    );
    if bad.is_empty() || wanted.later {
        return Ok(());
    }
    Err(format!("e2e:\n  {}", bad.join("\n  ")))
}

fn read_list(file: &str) -> Result<Vec<Entry>, String> {
    let path = root().join("oracle/e2e").join(file);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    entries(&text).map_err(|why| format!("{}: {why}", path.display()))
}

fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut found: Vec<Entry> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (test, reason) = match line.split_once(" # ") {
            Some((test, reason)) => (test, Some(reason.trim().to_owned())),
            None => (line, None),
        };
        let words: Vec<&str> = test.split_whitespace().collect();
        let [package, name] = words[..] else {
            return Err(format!("a line is `PACKAGE TEST` or `PACKAGE TEST # WHY`, not {line:?}"));
        };
        if !PACKAGES.contains(&package) {
            return Err(format!("{package}: the packages are {PACKAGES:?}"));
        }
        if found.iter().any(|e| e.package == package && e.name == name) {
            return Err(format!("{package} {name}: twice"));
        }
        found.push(Entry { package: package.to_owned(), name: name.to_owned(), reason });
    }
    Ok(found)
}

/// What Go is to run: each level of the name as a whole.
fn pattern(name: &str) -> String {
    name.split('/').map(|level| format!("^{level}$")).collect::<Vec<_>>().join("/")
}

/// Judges a run of `name` by how it ended and what it printed. A part of it that the test itself
/// skips at a deeper level is its own affair.
fn verdict(name: &str, ended_well: bool, log: &str) -> Verdict {
    let levels = name.split('/').count();
    let (mut passed, mut skipped) = (false, false);
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (Some("---"), Some(word), Some(test)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let deep = test.split('/').count();
        passed |= word == "PASS:" && deep >= levels;
        skipped |= word == "SKIP:" && deep <= levels;
    }
    match (ended_well, skipped, passed) {
        (false, ..) => Verdict::Fail,
        (true, true, _) => Verdict::Skip,
        (true, false, true) => Verdict::Pass,
        (true, false, false) => Verdict::Nothing,
    }
}

/// The directory in which tests run: `bin` has links to the programs, `fixtures` is the tests'
/// own, `run` is where each starts, new for every one.
struct Place {
    dir: PathBuf,
    /// Locked until this run ends, as the next one would end its servers.
    _lock: File,
}

impl Place {
    fn new(own_tools: bool) -> Result<Self, String> {
        let dir = target().join("e2e");
        std::fs::create_dir_all(dir.join("logs")).map_err(|e| format!("{}: {e}", dir.display()))?;
        let dir = dir.canonicalize().map_err(|e| e.to_string())?;
        let lock = File::create(dir.join("lock")).map_err(|e| e.to_string())?;
        lock.try_lock().map_err(|e| format!("{}: is another running? {e}", dir.display()))?;
        let place = Self { dir, _lock: lock };
        place.end_leftovers();
        place.build_tests()?;
        // The debug build: its assertions are part of what is tested.
        run(&mut cargo(&[
            "build", "--quiet", "--bin", "etcd", "--bin", "etcdctl", "--bin", "etcdutl",
        ]))?;
        let oracles = oracle::programs()?;
        let ours = |name: &str| target().join("debug").join(name);
        let reference = |name: &str| oracles.join(name).join(name);
        let tool = |name: &str| if own_tools { ours(name) } else { reference(name) };
        let bin = place.dir.join("bin");
        renew(&bin)?;
        for (name, program) in [
            ("etcd", ours("etcd")),
            ("etcdctl", tool("etcdctl")),
            ("etcdutl", tool("etcdutl")),
            ("etcd-last-release", reference("etcd36")),
        ] {
            let program = program.canonicalize().map_err(|e| format!("{program:?}: {e}"))?;
            link(&program, &bin.join(name))?;
        }
        Ok(place)
    }

    /// Compiles the tests, and links their certificates to where they look for them.
    fn build_tests(&self) -> Result<(), String> {
        if !oracle::can_build() {
            return Err("etcd's tests need Go".into());
        }
        let module = root().join("oracle/e2e");
        let mut compile = Command::new("go");
        compile.current_dir(&module).args(["test", "-c", "-trimpath", "-tags", "e2e", "-o"]);
        compile.arg(self.dir.join(""));
        compile.args(PACKAGES.map(|package| format!("go.etcd.io/etcd/tests/v3/{package}")));
        run(&mut compile)?;
        let mut list = Command::new("go");
        list.current_dir(&module).args([
            "list",
            "-m",
            "-f",
            "{{.Dir}}",
            "go.etcd.io/etcd/tests/v3",
        ]);
        let output = list.output().map_err(|e| format!("{list:?}: {e}"))?;
        let source = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
        let fixtures = self.dir.join("fixtures");
        if fixtures.symlink_metadata().is_ok() {
            std::fs::remove_file(&fixtures).map_err(|e| e.to_string())?;
        }
        link(&source.join("fixtures"), &fixtures)
    }

    fn test_program(&self, package: &str) -> Result<Command, String> {
        let run = self.dir.join("run");
        renew(&run)?;
        let mut command = Command::new(self.dir.join(format!("{package}.test")));
        command.current_dir(run).stdin(Stdio::null()).env(MARK, &self.dir);
        command.arg("-bin-dir").arg(self.dir.join("bin"));
        Ok(command)
    }

    /// Compares the lists with the tests that there are.
    fn all_are_listed(&self, tests: &[Entry], later: &[Entry]) -> Result<(), String> {
        let mut wrong = Vec::new();
        for package in PACKAGES {
            let mut list = self.test_program(package)?;
            let output = list.args(["-test.list", "."]).output().map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let there: BTreeSet<&str> = text.lines().filter(|l| l.starts_with("Test")).collect();
            let all = tests.iter().chain(later).filter(|entry| entry.package == package);
            let listed: BTreeSet<&str> = all.map(|entry| top(&entry.name)).collect();
            let unknown = listed.difference(&there).map(|n| format!("{package} {n}: no such test"));
            wrong.extend(unknown);
            let missing = there.difference(&listed).map(|n| format!("{package} {n}: in no list"));
            wrong.extend(missing);
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!("the lists of oracle/e2e:\n  {}", wrong.join("\n  "))),
        }
    }

    fn run(&self, entry: &Entry) -> Result<Verdict, String> {
        let Entry { package, name, .. } = entry;
        let file = format!("{package}.{}.log", name.replace(|c: char| !c.is_alphanumeric(), "_"));
        let path = self.dir.join("logs").join(file);
        let log = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = self.test_program(package)?;
        command.args(["-test.v", "-test.timeout", LIMIT, "-test.run", &pattern(name)]);
        let ended = self.wait(command.stdout(log).stderr(errors))?;
        self.end_leftovers();
        let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let ended_well = ended.is_some_and(|status| status.success());
        Ok(verdict(name, ended_well, &String::from_utf8_lossy(&text)))
    }

    /// Runs to the end or to the hard limit.
    fn wait(&self, command: &mut Command) -> Result<Option<ExitStatus>, String> {
        let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let end = Instant::now() + HARD_LIMIT;
        while Instant::now() < end {
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                return Ok(Some(status));
            }
            std::thread::sleep(STEP);
        }
        child.kill().and_then(|()| child.wait()).map_err(|e| e.to_string())?;
        Ok(None)
    }

    /// Kills what carries the mark of this directory: servers of a test that ended before them.
    fn end_leftovers(&self) {
        let mark = format!("{MARK}={}", self.dir.display());
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        for process in processes.flatten() {
            let pid = process.file_name().to_string_lossy().into_owned();
            let Ok(variables) = std::fs::read(process.path().join("environ")) else { continue };
            if pid.parse::<u32>().is_ok()
                && variables.split(|byte| *byte == 0).any(|v| v == mark.as_bytes())
            {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        }
    }
}

fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn renew(dir: &Path) -> Result<(), String> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))
}

fn link(to: &Path, at: &Path) -> Result<(), String> {
    std::os::unix::fs::symlink(to, at).map_err(|e| format!("{}: {e}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_packages_tests_and_reasons() {
        let text = "# what this is\n\ncommon TestWatch/NoTLS\ne2e TestLock # auth, and more\n";
        let found = entries(text).expect("a good list");
        assert_eq!((found[0].name.as_str(), found[0].reason.as_deref()), ("TestWatch/NoTLS", None));
        assert_eq!(found[1].reason.as_deref(), Some("auth, and more"));
        assert!(entries("e2e TestA\ne2e TestA # again\n").is_err());
        assert!(entries("other TestA\n").is_err());
        assert!(entries("TestA\n").is_err());
    }

    #[test]
    fn the_committed_lists_are_good_and_what_comes_later_has_reasons() {
        let tests = read_list("tests.txt").expect("tests.txt");
        let later = read_list("later.txt").expect("later.txt");
        assert!(tests.iter().all(|entry| entry.reason.is_none()));
        assert!(later.iter().all(|entry| entry.reason.is_some()));
        assert!(tests.iter().all(|entry| !later.contains(entry)));
    }

    #[test]
    fn each_level_of_a_name_is_matched_as_a_whole() {
        assert_eq!(pattern("TestAlarm"), "^TestAlarm$");
        assert_eq!(pattern("TestMemberAdd/.*/NoTLS"), "^TestMemberAdd$/^.*$/^NoTLS$");
    }

    #[test]
    fn only_what_ran_and_passed_passes() {
        let passed = "--- PASS: TestA (0.1s)\n    --- PASS: TestA/NoTLS (0.1s)\n";
        assert_eq!(verdict("TestA/NoTLS", true, passed), Verdict::Pass);
        assert_eq!(verdict("TestA/NoTLS", false, passed), Verdict::Fail);
        // No part had that name: Go calls this a pass.
        assert_eq!(verdict("TestA/NoTLS/deep", true, passed), Verdict::Nothing);
        let skipped = "--- PASS: TestA (0.1s)\n    --- SKIP: TestA/NoTLS (0.1s)\n";
        assert_eq!(verdict("TestA/NoTLS", true, skipped), Verdict::Skip);
        assert_eq!(verdict("TestA", true, skipped), Verdict::Pass);
    }
}
