//! Random frames, to which both servers must react alike. `QUORATE_WIRE_SEQUENCES` sets how many
//! sequences (3,000 by default), `QUORATE_FUZZ_SEED` where they begin. A difference is told as
//! `seed/number`: `QUORATE_WIRE_FIRST=number QUORATE_WIRE_SEQUENCES=1` plays it again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use api::etcdserverpb::{PutRequest, PutResponse};
use conform::fuzz_wire::{READ_KEY, Reactions, Sequence, draw, fixed};
use conform::{Client, Kind, Server};

/// Connections to each server at the same time.
const CONNECTIONS: usize = 16;
/// How often both are asked again before they are said to differ: grpc-go's handlers run beside
/// its reading, so that it may differ from itself.
const AGAIN: usize = 6;
/// Differences after which a run ends.
const MOST_DIFFERENCES: usize = 10;
/// Sequences of more than one outcome that are shown.
const TOLD_UNSTEADY: u64 = 5;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

struct Pair {
    ours: Server,
    etcd: Server,
}

/// What came of a sequence.
enum Verdict {
    /// The same at once.
    Equal(Reactions),
    /// The same as one of etcd's several reactions; here are the first.
    Unsteady(Box<(Reactions, Reactions)>),
    /// Ours, and etcd's.
    Different(Box<(Reactions, Reactions)>),
}

impl Pair {
    /// Both servers, with a key to read; `None` where the reference was not built.
    fn start() -> Option<Self> {
        let etcd = Server::start(Kind::Reference, &[])?;
        let ours = Server::start(Kind::Quorate, &[]).expect("ours is always there");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for server in [&ours, &etcd] {
            runtime.block_on(async {
                let client = Client::connect(server.port).await;
                let put =
                    PutRequest { key: READ_KEY.into(), value: "v".into(), ..Default::default() };
                client.call::<PutResponse>("/etcdserverpb.KV/Put", &put).await.unwrap();
            });
        }
        Some(Self { ours, etcd })
    }

    fn compare(&self, sequence: &Sequence) -> Verdict {
        self.compare_often(sequence, AGAIN)
    }

    fn compare_often(&self, sequence: &Sequence, times: usize) -> Verdict {
        let (mut ours, mut etcd) = (Vec::new(), Vec::new());
        for _ in 0..times {
            ours.push(sequence.play(self.ours.port));
            etcd.push(sequence.play(self.etcd.port));
            if ours.iter().any(|reaction| etcd.contains(reaction)) {
                return match ours.len() {
                    1 => Verdict::Equal(ours.remove(0)),
                    _ => Verdict::Unsteady(Box::new((ours.remove(0), etcd.remove(0)))),
                };
            }
        }
        Verdict::Different(Box::new((ours.remove(0), etcd.remove(0))))
    }

    /// The text of a difference, of the shortest sequence that shows it.
    fn tell(&self, name: &str, sequence: Sequence, first: &(Reactions, Reactions)) -> String {
        let differs = |of: &Sequence| matches!(self.compare_often(of, 2), Verdict::Different(_));
        let shortest = sequence.minimised(differs);
        match self.compare(&shortest) {
            Verdict::Different(both) => {
                format!("{name}\n{shortest}ours {:?}\netcd {:?}", both.0, both.1)
            }
            _ => {
                format!("{name}: not every time\n{shortest}ours {:?}\netcd {:?}", first.0, first.1)
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.ours.log();
            let from = log.len().saturating_sub(4_000);
            eprintln!("the end of our log: {}", &log.get(from..).unwrap_or(&log));
        }
    }
}

#[test]
fn frames_made_by_hand_cost_what_they_cost_at_etcd() {
    let Some(pair) = Pair::start() else { return };
    let cases = fixed::sequences();
    let differ = cases.into_iter().filter_map(|(name, sequence)| match pair.compare(&sequence) {
        Verdict::Different(both) => Some(pair.tell(name, sequence, &both)),
        _ => None,
    });
    let differ: Vec<String> = differ.collect();
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}

#[derive(Default)]
struct Counts {
    unsteady: AtomicU64,
    closed: AtomicU64,
    answers: AtomicU64,
    unanswered: AtomicU64,
}

#[test]
fn random_frames_cost_what_they_cost_at_etcd() {
    let sequences = number("QUORATE_WIRE_SEQUENCES", 3_000);
    let seed = number("QUORATE_FUZZ_SEED", 1);
    let first = number("QUORATE_WIRE_FIRST", 0);
    let Some(pair) = Pair::start() else { return };
    let (next, counts) = (AtomicU64::new(first), Counts::default());
    let differences = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                while differences.lock().unwrap().len() < MOST_DIFFERENCES {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + sequences {
                        return;
                    }
                    // Runs that begin with neighbouring seeds share no sequence.
                    let sequence = draw((seed << 32) + number);
                    match pair.compare(&sequence) {
                        Verdict::Equal(reactions) => counts.add(&reactions),
                        Verdict::Unsteady(both) => {
                            if counts.unsteady.fetch_add(1, Ordering::Relaxed) < TOLD_UNSTEADY {
                                let (ours, etcd) = *both;
                                eprintln!(
                                    "unsteady: {seed}/{number}\nours {ours:?}\netcd {etcd:?}"
                                );
                            }
                        }
                        Verdict::Different(both) => {
                            differences.lock().unwrap().push((number, sequence, both));
                        }
                    }
                }
            });
        }
    });
    let Counts { unsteady, closed, answers, unanswered } = counts;
    let unsteady = unsteady.into_inner();
    let (answers, unanswered) = (answers.into_inner(), unanswered.into_inner());
    eprintln!(
        "seed {seed}: {sequences} sequences, {answers} streams answered, {} connections closed, \
         {unsteady} unsteady, {unanswered} steps unanswered",
        closed.into_inner()
    );
    let differences = differences.into_inner().unwrap();
    let told = differences.into_iter().map(|(number, of, both)| {
        let told = pair.tell(&format!("{seed}/{number}"), of, &both);
        eprintln!("{told}");
        told
    });
    let told: Vec<String> = told.collect();
    assert!(told.is_empty(), "{}", told.join("\n\n"));
    assert!(sequences < 100 || answers > sequences, "too few streams were answered");
    // What differs from itself proves nothing.
    assert!(unsteady <= 5 + sequences / 500, "{unsteady} sequences have more than one outcome");
}

impl Counts {
    fn add(&self, reactions: &Reactions) {
        self.answers.fetch_add(reactions.streams.len() as u64, Ordering::Relaxed);
        self.closed.fetch_add(u64::from(reactions.closed_at.is_some()), Ordering::Relaxed);
        self.unanswered.fetch_add(reactions.unanswered.len() as u64, Ordering::Relaxed);
    }
}
