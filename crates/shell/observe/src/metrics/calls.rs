//! Counts per method. Shared by all runtimes; each addition is one relaxed atomic.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use api::error::Code;
use api::method::{METHODS, Method, Row};

use prometheus::{Histogram, HistogramVec};

use super::text::Page;
use super::{Family, Maker};

const CODES: usize = Code::ALL.len();

#[derive(Debug)]
struct Counts {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    ended: [AtomicU64; CODES],
}

/// How much is measured of calls (`--metrics`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// They are counted.
    #[default]
    Basic,
    /// They are timed, too, which costs two looks at the clock per call.
    Extensive,
}

/// How long calls take, by method; each histogram is looked up once.
#[derive(Debug)]
struct Durations {
    family: HistogramVec,
    methods: Vec<OnceLock<Histogram>>,
}

impl Durations {
    fn of(&self, method: Method) -> &Histogram {
        let row = method.row();
        let labels = [row.kind.label(), row.service, row.name];
        self.methods[method as usize].get_or_init(|| self.family.with_label_values(&labels))
    }
}

/// Counts of calls and messages by method, and of bytes over all.
#[derive(Debug)]
pub struct Calls {
    methods: Vec<Counts>,
    durations: Option<Durations>,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Calls {
    pub(super) fn new(detail: Detail, m: &Maker) -> Self {
        let zero = || AtomicU64::new(0);
        let counts = |_| Counts {
            started: zero(),
            received: zero(),
            sent: zero(),
            ended: std::array::from_fn(|_| zero()),
        };
        let methods = METHODS.iter().map(counts).collect();
        let durations = (detail == Detail::Extensive).then(|| Durations {
            family: m.histograms(Family::CallsTook),
            methods: METHODS.iter().map(|_| OnceLock::new()).collect(),
        });
        if let Some(durations) = &durations {
            METHODS.iter().filter(|row| !is_late(row)).for_each(|row| {
                durations.of(row.method);
            });
        }
        Self { methods, durations, received_bytes: zero(), sent_bytes: zero() }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Calls {
    /// Counts a call that begins.
    pub fn started(&self, method: Method) {
        add(&self.methods[method as usize].started, 1);
    }

    /// When a call begins, if calls are timed.
    #[must_use]
    pub fn clock(&self) -> Option<Instant> {
        self.durations.as_ref().map(|_| Instant::now())
    }

    /// Counts a call that ended with `code`, and times it if it has a beginning.
    pub fn ended(&self, method: Method, code: Code, began: Option<Instant>) {
        add(&self.methods[method as usize].ended[code as usize], 1);
        if let Some(durations) = &self.durations
            && let Some(began) = began
        {
            durations.of(method).observe(began.elapsed().as_secs_f64());
        }
    }

    /// Counts a message from a client, by its length when decompressed.
    pub fn received(&self, method: Method, bytes: usize) {
        add(&self.methods[method as usize].received, 1);
        add(&self.received_bytes, bytes as u64);
    }

    /// Counts a message to a client, by its length before compression.
    pub fn sent(&self, method: Method, bytes: usize) {
        add(&self.methods[method as usize].sent, 1);
        add(&self.sent_bytes, bytes as u64);
    }

    /// Bytes of messages received and sent so far.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.received_bytes), load(&self.sent_bytes))
    }

    /// Shows the series of every method, those without a call too, as etcd does.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/grpc.go (InitializeMetrics)
    pub(super) fn show(&self, page: &mut Page) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = |row: &Row| &self.methods[row.method as usize];
        let shown = METHODS.iter().filter(|row| !is_late(row) || load(&counts(row).started) > 0);
        let series = |of: fn(&Counts) -> &AtomicU64| {
            shown.clone().map(move |row| {
                let labels = vec![row.kind.label(), row.service, row.name];
                (labels, load(of(counts(row))) as f64)
            })
        };
        page.labelled(Family::CallsStarted, series(|counts| &counts.started));
        page.labelled(Family::CallsReceived, series(|counts| &counts.received));
        page.labelled(Family::CallsSent, series(|counts| &counts.sent));
        let ended = shown.clone().flat_map(|row| {
            Code::ALL.iter().map(move |code| {
                let labels = vec![row.kind.label(), row.service, row.name, code.name()];
                (labels, load(&counts(row).ended[*code as usize]) as f64)
            })
        });
        page.labelled(Family::CallsHandled, ended);
    }
}

/// Services that etcd registers after it has made the series: theirs appear with the first call.
fn is_late(row: &Row) -> bool {
    matches!(row.service, "v3lockpb.Lock" | "v3electionpb.Election")
}
