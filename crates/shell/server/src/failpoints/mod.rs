//! Failpoints as Go's `gofail` runtime offers them, for tests that know etcd built with it.
//!
//! Owns which terms are set at which [`Failpoint`], carries them out, and speaks the protocol by
//! which they are set ([`http`]). Exists only in a process that was started with `GOFAIL_HTTP` or
//! `GOFAIL_FAILPOINTS`. Texts and the exit code of a panic (2, or etcd's fatal line and 1 during a
//! defragmentation) are Go's.
//= gofail 0.2.0: runtime/runtime.go, runtime/failpoint.go

pub mod http;
mod terms;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use env::failpoint::Hook;
use env::{Entropy, Failpoint, SplitMix};

use observe::{Log, log_line};
use terms::{Action, Terms, Value};

const NO_SUCH: &str = "failpoint: failpoint does not exist";
const DISABLED: &str = "failpoint: failpoint is disabled";
const BAD_TERMS: &str = "failpoint: could not parse terms";
/// What Go's runtime exits with after a panic.
const PANIC_CODE: i32 = 2;

/// The terms set at one failpoint.
struct Armed {
    text: String,
    /// Held while they are carried out, as in Go: whoever comes meanwhile waits.
    terms: Mutex<Terms>,
    /// How often a term applied.
    count: AtomicU64,
}

/// All failpoints of the process.
pub struct Registry {
    armed: Mutex<BTreeMap<Failpoint, Arc<Armed>>>,
    dice: Mutex<SplitMix>,
    /// Held while a request is answered: no panic takes its answer away.
    answering: Mutex<()>,
    log: Arc<Log>,
}

/// To standard output, where Go's runtime talks; whether anybody reads it is not our concern.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `NAME=TERMS[;NAME=TERMS]…`
fn assignments(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut all = BTreeMap::new();
    for one in text.split(';').filter(|one| !one.is_empty()) {
        match one.split_once('=').filter(|(_, terms)| !terms.contains('=')) {
            Some((name, terms)) => all.insert(name, terms),
            None => return Err(format!("bad failpoint {one:?}")),
        };
    }
    Ok(all)
}

fn find(name: &str) -> Result<Failpoint, &'static str> {
    Failpoint::ALL.iter().copied().find(|point| point.name() == name).ok_or(NO_SUCH)
}

impl Registry {
    /// Failpoints of which some are set (`GOFAIL_FAILPOINTS`). As in Go, unknown names are passed
    /// over and bad terms only reported.
    ///
    /// # Errors
    /// What is to be printed before the process ends.
    pub fn new(set: &str, log: Arc<Log>) -> Result<Arc<Self>, String> {
        let set = assignments(set).map_err(|e| format!("fail to parse failpoint: {e}"))?;
        let registry = Self {
            armed: Mutex::default(),
            dice: Mutex::new(SplitMix::new(osenv::seed())),
            answering: Mutex::default(),
            log,
        };
        for (name, terms) in set {
            // Already reported if its terms are bad.
            let _ = registry.enable(name, terms);
        }
        Ok(Arc::new(registry))
    }

    fn enable(&self, name: &str, text: &str) -> Result<(), &'static str> {
        let point = find(name)?;
        let Some(terms) = Terms::parse(text, &mut |line| say(&line)) else {
            say(&format!("failed to enable \"{name}={text}\" ({BAD_TERMS})"));
            return Err(BAD_TERMS);
        };
        let (terms, count) = (Mutex::new(terms), AtomicU64::new(0));
        let armed = Arc::new(Armed { text: text.to_owned(), terms, count });
        lock(&self.armed).insert(point, armed);
        Ok(())
    }

    fn disable(&self, name: &str) -> Result<(), &'static str> {
        let point = find(name)?;
        lock(&self.armed).remove(&point).map(|_| ()).ok_or(DISABLED)
    }

    /// The terms set, and how often one applied.
    fn status(&self, name: &str) -> Result<(String, u64), &'static str> {
        let armed = lock(&self.armed).get(&find(name)?).cloned().ok_or(DISABLED)?;
        Ok((armed.text.clone(), armed.count.load(Ordering::Relaxed)))
    }

    /// What is set at a point, carried out but for a sleep if `may_wait` is false. Returns that
    /// sleep, and the text of a failure.
    fn pass(&self, point: Failpoint, may_wait: bool) -> (Duration, Option<String>) {
        let Some(armed) = lock(&self.armed).get(&point).cloned() else {
            return (Duration::ZERO, None);
        };
        let mut terms = lock(&armed.terms);
        let mut dice = || {
            let mut dice = lock(&self.dice);
            dice.below(1 << 53) as f64 / (1_u64 << 53) as f64
        };
        let Some((action, value)) = terms.draw(&mut dice) else {
            return (Duration::ZERO, None);
        };
        armed.count.fetch_add(1, Ordering::Relaxed);
        match action {
            Action::Sleep => {
                let time = time(point, &value);
                if may_wait {
                    std::thread::sleep(time);
                    return (Duration::ZERO, None);
                }
                (time, None)
            }
            Action::Return => (Duration::ZERO, returned(point, value)),
            Action::Panic => self.panic(point, &value),
            Action::Print => {
                say(&format!("failpoint print: {}", point.name()));
                (Duration::ZERO, None)
            }
            Action::Off | Action::Break | Action::Missing => (Duration::ZERO, None),
        }
    }

    /// Ends the process as an unrecovered panic does in Go.
    fn panic(&self, point: Failpoint, value: &Value) -> ! {
        let _answered = lock(&self.answering);
        let value = match value {
            Value::Nil => point.name().to_owned(),
            value => value.to_string(),
        };
        let why = format!("failpoint panic: {value}");
        let recovers =
            [Failpoint::DefragBeforeCopy, Failpoint::DefragDbFail, Failpoint::DefragBeforeRename];
        //= etcd 3.7.1: server/storage/backend/backend.go#defrag
        if recovers.contains(&point) {
            log_line!(self.log, Fatal, "unexpected panic during defrag", "panic" = why);
            std::process::exit(1);
        }
        self.log.flush();
        let _ = writeln!(std::io::stderr(), "panic: {why}");
        std::process::exit(PANIC_CODE);
    }
}

/// How long a value says to sleep.
fn time(point: Failpoint, value: &Value) -> Duration {
    let at = point.name();
    match value {
        Value::Int(ms) => Duration::from_millis(u64::try_from(*ms).unwrap_or(0)),
        Value::Text(text) => match cli::text::parse_duration(text) {
            Ok(nanos) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
            Err(_) => {
                say(&format!("failpoint: could not parse sleep({text}) on {at}"));
                Duration::ZERO
            }
        },
        other => {
            say(&format!("failpoint: ignoring sleep({other}) on {at}"));
            Duration::ZERO
        }
    }
}

/// What a returned value means at a point.
fn returned(point: Failpoint, value: Value) -> Option<String> {
    let wanted = if point.takes_text() { "string" } else { "struct{}" };
    match value {
        Value::Nil => None,
        Value::Text(text) if point.takes_text() => Some(text),
        Value::Unit if !point.takes_text() => None,
        value => {
            let (name, kind) = (point.name(), value.kind());
            say(&format!(
                "failpoint: {name:?} got value {value} of type {kind:?} but expected type {wanted:?}"
            ));
            None
        }
    }
}

impl Hook for Registry {
    fn hit(&self, point: Failpoint) -> Option<String> {
        self.pass(point, true).1
    }

    fn delay(&self, point: Failpoint) -> Duration {
        self.pass(point, false).0
    }
}

#[cfg(test)]
mod tests;
