//! Counts per method. Shared by all runtimes; each addition is one relaxed atomic.

use std::sync::atomic::{AtomicU64, Ordering};

use api::error::Code;
use api::method::{METHODS, Method, Row};

use super::Family;
use super::text::Page;

const CODES: usize = Code::ALL.len();

#[derive(Debug)]
struct Counts {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    ended: [AtomicU64; CODES],
}

/// Counts of calls and messages by method, and of bytes over all.
#[derive(Debug)]
pub struct Calls {
    methods: Vec<Counts>,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Default for Calls {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let counts = |_| Counts {
            started: zero(),
            received: zero(),
            sent: zero(),
            ended: std::array::from_fn(|_| zero()),
        };
        let methods = METHODS.iter().map(counts).collect();
        Self { methods, received_bytes: zero(), sent_bytes: zero() }
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

    /// Counts a call that ended with `code`.
    pub fn ended(&self, method: Method, code: Code) {
        add(&self.methods[method as usize].ended[code as usize], 1);
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
