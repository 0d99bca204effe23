//! What is measured on a million keys: lists, compaction and defragmentation beside other calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse, PutRequest,
    RangeRequest, RangeResponse,
};
use bytes::Bytes;

use crate::access::Access;
use crate::client::{Connection, envelope, uri};
use crate::figures::{Figures, name};
use crate::histogram::Histogram;
use crate::load::Shared;
use crate::process::{self, PeakMemory};
use crate::shape::{PREFIX_END, all_keys, key};

/// Keys in the data directories of these measurements.
pub const KEYS: u64 = 1_000_000;
/// Of which so many were written twice, where a compaction is to have work.
pub const UPDATED: u64 = 500_000;
/// Keys of the database of a gigabyte.
pub const BIG_KEYS: u64 = 165_000;
/// Bytes of their values.
pub const BIG_VALUE_BYTES: usize = 4_096;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";

/// Puts keys `0..count`, each once and in no order, a thousand in flight.
///
/// # Errors
/// A put was refused or the connection is gone.
pub async fn fill(
    port: u16,
    access: &Access,
    count: u64,
    value_bytes: usize,
) -> std::io::Result<()> {
    let next = Rc::new(std::cell::Cell::new(0));
    let value: Bytes = vec![b'v'; value_bytes].into();
    let token = access.token(port).await?;
    let mut slots = Vec::new();
    for _ in 0..20 {
        let open = Connection::open_as(port, access, token.as_deref()).await?;
        for _ in 0..50 {
            let (mut open, next, value) = (open.clone(), Rc::clone(&next), value.clone());
            slots.push(tokio::task::spawn_local(async move {
                let path = uri(PUT);
                while next.get() < count {
                    let key = key(next.replace(next.get() + 1));
                    let put = PutRequest { key, value: value.clone(), ..Default::default() };
                    let answer = open.call(&path, envelope(&put), None).await;
                    if !answer.map_err(std::io::Error::other)?.ok {
                        return Err(std::io::Error::other("a put was refused"));
                    }
                }
                Ok(())
            }));
        }
    }
    for slot in slots {
        slot.await.map_err(std::io::Error::other)??;
    }
    Ok(())
}

/// The server's count of all keys.
///
/// # Errors
/// It does not serve (yet).
pub async fn count(port: u16, access: &Access) -> std::io::Result<u64> {
    let request = RangeRequest { count_only: true, ..all_keys() };
    let mut connection = Connection::nameless(port, access).await?;
    let response: RangeResponse = connection.unary(RANGE, &request).await?;
    Ok(u64::try_from(response.count).unwrap_or(0))
}

/// Lists all keys in one response: time, and the memory that it takes meanwhile.
///
/// # Errors
/// The list is refused or too short.
pub async fn list(port: u16, pid: u32) -> std::io::Result<Figures> {
    let mut connection = Connection::open(port).await?;
    let (before, peak) = (process::anonymous_of(&[pid]) as f64 / 1e6, PeakMemory::watch(&[pid]));
    let (began, cpu) = (Instant::now(), process::cpu(pid));
    let answer = connection.call(&uri(RANGE), envelope(&all_keys()), None).await;
    let answer = answer.map_err(std::io::Error::other)?;
    if !answer.ok || answer.bytes < KEYS * 300 {
        return Err(std::io::Error::other(format!("a list of {} bytes", answer.bytes)));
    }
    let mut figures = Figures::default();
    figures.set(name::SECONDS, began.elapsed().as_secs_f64());
    figures.set(name::EXTRA_ANON, (peak.peak() as f64 / 1e6 - before).max(0.1));
    if let (Some(before), Some(after)) = (cpu, process::cpu(pid)) {
        figures.set(name::CPU, (after.saturating_sub(before)).as_secs_f64() * 1e6);
    }
    Ok(figures)
}

/// Lists all keys as Kubernetes does: pages of 500, at the revision of the first.
///
/// # Errors
/// A page is refused, or keys are missing.
pub async fn paged(port: u16, pid: u32) -> std::io::Result<Figures> {
    let mut connection = Connection::open(port).await?;
    let mut request = RangeRequest { limit: 500, ..all_keys() };
    let (mut seen, mut pages) = (0, Histogram::default());
    let (began, cpu) = (Instant::now(), process::cpu(pid));
    loop {
        let page = Instant::now();
        let response: RangeResponse = connection.unary(RANGE, &request).await?;
        pages.add(page.elapsed().as_nanos() as u64);
        seen += response.kvs.len() as u64;
        let Some(last) = response.kvs.last().filter(|_| response.more) else { break };
        let mut low = last.key.to_vec();
        low.push(0);
        request.key = low.into();
        request.range_end = PREFIX_END.into();
        request.revision = response.header.map_or(0, |header| header.revision);
        // Without an index of counts a page costs time per key behind it: a fiftieth is enough.
        if pages.len() == 40 {
            break;
        }
    }
    if seen < 40 * 500 {
        return Err(std::io::Error::other(format!("{seen} keys listed")));
    }
    let mut figures = Figures::default();
    figures.set(name::PER_SECOND, pages.len() as f64 / began.elapsed().as_secs_f64());
    figures.set_latency(&pages);
    if let (Some(before), Some(after)) = (cpu, process::cpu(pid)) {
        let cpu = after.saturating_sub(before).as_secs_f64() * 1e6;
        figures.set(name::CPU, cpu / pages.len() as f64);
    }
    Ok(figures)
}

/// Puts at a steady rate, whether earlier ones are answered or not, so that a stall shows in all
/// the puts that it delays.
pub(crate) fn steady(port: u16, per_second: u64, shared: &Rc<RefCell<Shared>>) {
    const CONNECTIONS: u64 = 10;
    for connection in 0..CONNECTIONS {
        let shared = Rc::clone(shared);
        tokio::task::spawn_local(async move {
            let Ok(open) = Connection::open(port).await else { return };
            let every = Duration::from_nanos(1_000_000_000 * CONNECTIONS / per_second);
            let mut ticker = tokio::time::interval(every);
            let value: Bytes = vec![b'w'; 256].into();
            let mut number = connection;
            while !shared.borrow().done {
                let began = ticker.tick().await.into_std();
                number = (number + CONNECTIONS) % 10_000;
                let put =
                    PutRequest { key: key(number), value: value.clone(), ..Default::default() };
                let (mut open, shared) = (open.clone(), Rc::clone(&shared));
                tokio::task::spawn_local(async move {
                    let answer = open.call(&uri(PUT), envelope(&put), None).await;
                    shared.borrow_mut().ended(began, answer.is_ok_and(|a| a.ok));
                });
            }
        });
    }
}

/// A thousand puts per second, first with nothing else to do for `time`, then while a compaction
/// removes what was overwritten.
///
/// # Errors
/// The server refuses.
pub async fn compaction(port: u16, time: Duration) -> std::io::Result<Figures> {
    let mut connection = Connection::open(port).await?;
    let one = RangeRequest { key: key(0), ..Default::default() };
    let now: RangeResponse = connection.unary(RANGE, &one).await?;
    let revision = now.header.map_or(0, |header| header.revision);
    let shared = Shared::new();
    steady(port, 1_000, &shared);
    tokio::time::sleep(time / 2).await;
    shared.borrow_mut().measuring = true;
    tokio::time::sleep(time).await;
    let idle = std::mem::take(&mut shared.borrow_mut().latency);
    let began = Instant::now();
    let compact = CompactionRequest { revision, physical: true };
    let _: CompactionResponse = connection.unary("/etcdserverpb.KV/Compact", &compact).await?;
    let took = began.elapsed();
    let mut shared = shared.borrow_mut();
    shared.done = true;
    let mut figures = Figures::default();
    figures.set_latency(&shared.latency);
    figures.set(name::FAILED, shared.failed as f64);
    figures.set(name::SECONDS, took.as_secs_f64());
    figures.set(name::IDLE_P99, idle.quantile_us(0.99));
    let ratio = shared.latency.quantile_us(0.99) / idle.quantile_us(0.99);
    figures.set(name::BUSY_OVER_IDLE, ratio);
    Ok(figures)
}

/// Puts and both kinds of reads, one after another on a connection each, while the database is
/// defragmented: the longest of all.
///
/// # Errors
/// The server refuses.
pub async fn defrag(port: u16) -> std::io::Result<Figures> {
    let shared = Shared::new();
    shared.borrow_mut().measuring = true;
    let value: Bytes = vec![b'x'; 256].into();
    let read = |serializable| RangeRequest { key: key(1), serializable, ..Default::default() };
    let calls = [
        (PUT, envelope(&PutRequest { key: key(2), value, ..Default::default() })),
        (RANGE, envelope(&read(false))),
        (RANGE, envelope(&read(true))),
    ];
    for (path, body) in calls {
        let mut open = Connection::open(port).await?;
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let path = uri(path);
            while !shared.borrow().done {
                let began = Instant::now();
                let answer = open.call(&path, body.clone(), None).await;
                shared.borrow_mut().ended(began, answer.is_ok_and(|a| a.ok));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    let mut connection = Connection::open(port).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let _: DefragmentResponse =
        connection.unary("/etcdserverpb.Maintenance/Defragment", &DefragmentRequest {}).await?;
    let took = began.elapsed();
    // What was asked during the last moment is answered after it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut shared = shared.borrow_mut();
    shared.done = true;
    let mut figures = Figures::default();
    figures.set(name::SECONDS, took.as_secs_f64());
    figures.set(name::STALL, shared.latency.quantile_us(1.0) / 1e3);
    figures.set(name::FAILED, shared.failed as f64);
    Ok(figures)
}
