//! Closed loops: each slot sends, waits for the answer, sends again.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use env::SplitMix;

use crate::access::Access;
use crate::client::{Connection, uri};
use crate::figures::{Figures, name};
use crate::histogram::Histogram;
use crate::meter::Meter;
use crate::process::PeakMemory;
use crate::shape::{Shape, Slot};

/// What to run.
#[derive(Clone, Debug)]
pub struct Load {
    /// Ports on 127.0.0.1, among which connections are dealt out.
    pub ports: Vec<u16>,
    /// How they are connected to, and in whose name.
    pub access: Access,
    /// The servers' processes, for their CPU time and memory together.
    pub pids: Vec<u32>,
    /// The kind of load.
    pub shape: Shape,
    /// Connections.
    pub connections: usize,
    /// Requests in flight, over all connections.
    pub in_flight: usize,
    /// How long to measure, after a fifth of it unmeasured.
    pub time: Duration,
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Where the random keys begin.
    pub seed: u64,
}

/// What the tasks of a load share.
pub(crate) struct Shared {
    pub(crate) measuring: bool,
    pub(crate) done: bool,
    pub(crate) latency: Histogram,
    pub(crate) failed: u64,
}

impl Shared {
    pub(crate) fn new() -> Rc<RefCell<Self>> {
        let latency = Histogram::default();
        Rc::new(RefCell::new(Self { measuring: false, done: false, latency, failed: 0 }))
    }

    /// Takes note of an operation that began at `began` and has ended now.
    pub(crate) fn ended(&mut self, began: Instant, ok: bool) {
        if !self.measuring {
            return;
        }
        if ok {
            self.latency.add(began.elapsed().as_nanos() as u64);
        } else {
            self.failed += 1;
        }
    }
}

/// Runs a future with everything that connections need.
///
/// # Errors
/// The runtime's, or the future's.
pub fn block_on<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Lets tasks run for a while unmeasured, then measured, and tells what they and the server did.
pub(crate) async fn measure(shared: &Rc<RefCell<Shared>>, pids: &[u32], time: Duration) -> Figures {
    let peak = (!pids.is_empty()).then(|| PeakMemory::watch(pids));
    tokio::time::sleep(time / 5).await;
    let meter = Meter::start(pids);
    shared.borrow_mut().measuring = true;
    tokio::time::sleep(time).await;
    shared.borrow_mut().measuring = false;
    let used = meter.stop();
    let mut shared = shared.borrow_mut();
    shared.done = true;
    let mut figures = used.figures(&shared.latency, shared.failed);
    if let Some(peak) = peak {
        figures.set_memory(pids);
        figures.set(name::PEAK_ANON, peak.peak() as f64 / 1e6);
    }
    figures
}

/// Runs a load to its end. Must run on a `LocalSet`.
///
/// # Errors
/// A server does not answer on its port.
pub async fn run(load: &Load) -> std::io::Result<Figures> {
    let shared = Shared::new();
    let value: Bytes = vec![b'v'; load.value_bytes].into();
    let token = load.access.token(load.ports[0]).await?;
    let mut slots = Vec::new();
    for connection in 0..load.connections {
        let port = load.ports[connection % load.ports.len()];
        let open = Connection::open_as(port, &load.access, token.as_deref()).await?;
        let here = load.in_flight / load.connections
            + usize::from(connection < load.in_flight % load.connections);
        for _ in 0..here {
            let number = slots.len() as u64;
            let slot = Slot {
                number,
                keys: load.keys,
                entropy: SplitMix::new(load.seed.wrapping_mul(1_000_003).wrapping_add(number)),
                revision: 0,
            };
            let work = turn(open.clone(), Rc::clone(&shared), load.shape, slot, value.clone());
            slots.push(tokio::task::spawn_local(work));
        }
    }
    let figures = measure(&shared, &load.pids, load.time).await;
    for slot in slots {
        let _ = tokio::time::timeout(Duration::from_secs(20), slot).await;
    }
    Ok(figures)
}

async fn turn(
    mut connection: Connection,
    shared: Rc<RefCell<Shared>>,
    shape: Shape,
    mut slot: Slot,
    value: Bytes,
) {
    let uri = uri(shape.path());
    let mut message = Vec::new();
    while !shared.borrow().done {
        let body = shape.request(&mut slot, &value);
        message.clear();
        let keep = shape.reads_answers().then_some(&mut message);
        let began = Instant::now();
        let answered = connection.call(&uri, body, keep).await;
        let ok = answered.as_ref().is_ok_and(|answer| answer.ok);
        if ok && shape.reads_answers() {
            slot.answered(&message);
        }
        shared.borrow_mut().ended(began, ok);
        if answered.is_err() {
            return;
        }
    }
}
