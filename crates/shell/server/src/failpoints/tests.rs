//! Terms beside Go's runtime (`oracle/gofail`), and the answers to requests.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use env::Failpoints;

use super::http::respond;
use super::*;

/// Terms that mean something, and some that nearly do.
const TABLE: &[&str] = &[
    "off",
    "return",
    "return()",
    "return(5)",
    "return(-5)",
    "return(+5)",
    "return(007)",
    "return(true)",
    "return(False)",
    "return(t)",
    "return(tr)",
    "return(\"abc\")",
    "return(`abc`)",
    "return( \"abc\")",
    "return(\"a\\\"bc\")",
    "return(\"äö\")",
    "return(\"abc\"x",
    "return(\"abc\"",
    "return(5",
    "return(",
    "return)",
    "return(abc)",
    "return->off",
    "return->panic",
    "panic",
    "panic()",
    "panic(\"boom\")",
    "1*panic->return(1)",
    "panic->off",
    "sleep(1)",
    "sleep(\"1ms\")",
    "sleep(\"soon\")",
    "sleep(true)",
    "sleep",
    "sleep->off",
    "print",
    "3*return(1)",
    "2*return(\"abc\")->1*return(\"def\")",
    "1*return(\"abc\")->return(\"def\")",
    "0*return(1)->2*return(2)",
    "100.0%return(1)",
    "100.%return(1)",
    "0.0%return(1)->return(2)",
    "2*100.0%return(1)",
    "100.0%2*return(1)",
    "0.0%2*return(1)->return(2)",
    "2*0.0%return(1)->return(2)",
    "2*3*return(1)",
    "50%return(1)",
    "2.0*return(1)",
    "2.0",
    "3*",
    "3",
    "99999999999999999999*off",
    "",
    " off",
    "off ",
    "off->",
    "off->>",
    "->off",
    "off->off->2*return(3)",
    "offoff",
    "offx",
    "(1)",
    "(1)return",
    "unknown",
];

/// What random terms are made of, so that no chance is in between. `break` would start a debugger in Go.
const PIECES: &[&str] = &[
    "off", "return", "panic", "print", "sleep(1)", "->", "->", "(", ")", "(1)", "(\"a\")", "()",
    "1*", "2*", "100.0%", "0.0%", "true", "\"", "-", "x7", "(true)", "(false)", "`", "x", ".", "%",
];

/// As `oracle/gofail` tells it, but that what Go crashes on when it reads it is refused here.
fn told(text: &str) -> String {
    let mut silent = |_| {};
    let Some(mut terms) = Terms::parse(text, &mut silent) else {
        return BAD_TERMS.to_owned();
    };
    let (mut line, mut count) = ("set".to_owned(), 0);
    for _ in 0..6 {
        let drawn = terms.draw(&mut || 0.5);
        count += u32::from(drawn.is_some());
        let what = match drawn {
            Some((Action::Return, value)) if value != Value::Nil => {
                format!("{} {value}", value.kind())
            }
            Some((Action::Panic, Value::Nil)) => "panic failpoint panic: point".to_owned(),
            Some((Action::Panic, value)) => format!("panic failpoint panic: {value}"),
            Some((Action::Missing, _)) => "crash".to_owned(),
            _ => "nothing".to_owned(),
        };
        write!(line, "; {what}").unwrap();
    }
    write!(line, "; {count}").unwrap();
    line
}

#[test]
fn terms_mean_what_they_mean_in_go() {
    let folder = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let program = folder.join("gofail/gofail");
    if !program.exists() {
        assert!(std::env::var_os("QUORATE_CI").is_none(), "{} is missing", program.display());
        eprintln!("SKIPPED: no Go oracle at {}", program.display());
        return;
    }
    let mut texts: Vec<String> = TABLE.iter().map(|&text| text.to_owned()).collect();
    let mut rng = SplitMix::new(1);
    for _ in 0..3_000 {
        let pieces = 1 + rng.below(6);
        let piece = |_| PIECES[rng.below(PIECES.len() as u64) as usize];
        texts.push((0..pieces).map(piece).collect());
    }
    let mut child = Command::new(program)
        .arg("terms")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle starts");
    let mut stdin = child.stdin.take().expect("piped");
    let lines: String = texts.iter().map(|text| format!("{text:?}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("the oracle runs");
    writer.join().expect("it does not panic").expect("the oracle reads all");
    let theirs = String::from_utf8(output.stdout).expect("text");
    assert_eq!(theirs.lines().count(), texts.len());
    let (mut set, mut refused) = (0, 0);
    for (text, theirs) in texts.iter().zip(theirs.lines()) {
        let theirs = if theirs == "crash" { BAD_TERMS } else { theirs };
        assert_eq!(told(text), theirs, "{text:?}");
        set += u32::from(theirs.starts_with("set"));
        refused += u32::from(theirs == BAD_TERMS);
    }
    assert!(set > 300 && refused > 300, "{set} set, {refused} refused");
}

fn registry(set: &str) -> Arc<Registry> {
    Registry::new(set, Arc::new(Log::none())).expect("well-formed")
}

#[test]
fn a_point_does_what_is_set_and_counts_it() {
    let registry = registry("defragdbFail=2*return(\"no\");unknown=off;beforeCommit=nonsense");
    let points = Failpoints::new(Arc::clone(&registry) as Arc<dyn Hook>);
    points.hit(Failpoint::BeforeCommit);
    assert_eq!(points.error(Failpoint::DefragDbFail), Err("no".to_owned()));
    assert_eq!(points.error(Failpoint::DefragDbFail), Err("no".to_owned()));
    assert_eq!(points.error(Failpoint::DefragDbFail), Ok(()));
    assert_eq!(registry.status("defragdbFail"), Ok(("2*return(\"no\")".to_owned(), 2)));
    assert_eq!(registry.status("beforeCommit"), Err(DISABLED));
    assert!(Registry::new("a=b=c", Arc::new(Log::none())).is_err());
}

#[test]
fn a_value_of_another_kind_is_no_failure() {
    let registry = registry("defragdbFail=return(1);beforeCommit=return(\"no\")");
    assert_eq!(registry.hit(Failpoint::DefragDbFail), None);
    assert_eq!(registry.hit(Failpoint::BeforeCommit), None);
    assert_eq!(registry.status("beforeCommit").unwrap().1, 1);
}

#[test]
fn who_must_not_wait_is_told_how_long() {
    let registry = registry("beforeSendWatchResponse=1*sleep(70)->sleep(\"1h\")");
    let point = Failpoint::BeforeSendWatchResponse;
    assert_eq!(registry.delay(point), Duration::from_millis(70));
    assert_eq!(registry.delay(point), Duration::from_secs(3600));
    assert_eq!(registry.delay(Failpoint::BeforeCommit), Duration::ZERO);
}

#[test]
fn a_list_has_every_name_once_in_order() {
    let registry = registry("");
    respond(&registry, "PUT", "/walAfterSync", "print");
    let list = respond(&registry, "GET", "/", "").body;
    let names: Vec<_> = list.lines().map(|line| line.split_once('=').unwrap().0).collect();
    assert!(names.is_sorted() && names.len() == Failpoint::ALL.len());
    assert!(list.contains("\nwalAfterSync=print\n") && list.contains("\nraftBeforeSave=\n"));
}
