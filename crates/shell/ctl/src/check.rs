//! check perf and check datascale: a load on the servers, and whether they bear it.

mod load;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
    DeleteRangeRequest, DeleteRangeResponse, RangeRequest, RangeResponse,
};
use api::method::Method;
use bytes::Bytes;
use cli::{Exit, output, text};
use client::{Client, Error, prefix_end};
use tokio::time::Instant;

use crate::kv::bytes;
use crate::session::{Context, Session, failed};
use load::{Pace, Stats};

/// Longest time of each step of the tidying up.
const CLEANUP: Duration = Duration::from_secs(30);

/// How long `check perf` writes.
const PERF_SECONDS: u64 = 60;

/// Bytes of a key behind its prefix, and of a value, that `check perf` writes.
const PERF_BYTES: (usize, usize) = (256, 1024);

/// The same of `check datascale`.
const DATASCALE_BYTES: (usize, usize) = (512, 512);

/// Puts in a second and clients of a load.
//= etcd 3.7.3: etcdctl/ctlv3/command/check.go#checkPerfCfgMap
fn perf_load(name: &str) -> Option<(u32, usize)> {
    Some(match name {
        "s" | "small" => (150, 50),
        "m" | "medium" => (1_000, 200),
        "l" | "large" => (8_000, 500),
        "xl" | "xLarge" => (15_000, 1_000),
        _ => return None,
    })
}

/// Puts and clients of a load.
//= etcd 3.7.3: etcdctl/ctlv3/command/check.go#checkDatascaleCfgMap
fn datascale_load(name: &str) -> Option<(u64, usize)> {
    Some(match name {
        "s" | "small" => (10_000, 50),
        "m" | "medium" => (100_000, 200),
        "l" | "large" => (1_000_000, 500),
        "xl" | "xLarge" => (3_000_000, 1_000),
        _ => return None,
    })
}

fn unknown(load: &str) -> Exit {
    Exit::new(Exit::BAD_FEATURE, format!("unknown load option {load}"))
}

/// Clients of a load, each with a connection of its own.
fn clients(context: &Context, count: usize) -> Result<Vec<Arc<Client>>, Exit> {
    (0..count).map(|_| context.open().map(|session| session.shared_client())).collect()
}

/// Refuses a prefix that has keys: they would be removed in the end.
async fn refuse_keys(
    client: &Client,
    prefix: &str,
    hint: &str,
    until: Option<Instant>,
) -> Result<(), Exit> {
    let key = bytes(prefix);
    let range_end = prefix_end(&key);
    let request = RangeRequest { key, range_end, limit: 1, ..RangeRequest::default() };
    let found: RangeResponse = client.call(Method::Range, &request, until).await.map_err(failed)?;
    if found.kvs.is_empty() {
        return Ok(());
    }
    let shown = text::quote(prefix.as_bytes());
    Err(Exit::new(Exit::INVALID_INPUT, format!("prefix {shown} has keys. {hint}")))
}

/// check perf.
///
/// # Errors
/// As etcdctl: exit code 1 if the servers do not bear the load.
//= etcd 3.7.3: etcdctl/ctlv3/command/check.go#newCheckPerfCommand
pub fn perf(context: &Context) -> Result<(), Exit> {
    let load = context.values.text("load");
    let (rate, count) = perf_load(load).ok_or_else(|| unknown(load))?;
    let session = context.open()?;
    let clients = clients(context, count)?;
    let prefix = context.values.text("prefix");
    let until = Instant::now() + Duration::from_secs(PERF_SECONDS);
    session.wait(async {
        let hint = format!("Delete with 'etcdctl del --prefix {prefix}' first");
        refuse_keys(&clients[0], prefix, &hint, Some(until)).await?;
        let pace = Pace::PerSecond { rate, until };
        let stats = load::run(&clients, prefix, PERF_BYTES, pace).await;
        clean_up(&session, &clients[0], prefix).await?;
        if context.values.is_on("auto-defrag") {
            defragment(&session).await?;
        }
        judge(&stats, rate)
    })
}

/// Removes the keys of a load, and their history if it is asked for.
async fn clean_up(session: &Session<'_>, client: &Client, prefix: &str) -> Result<(), Exit> {
    let deleted = delete(client, prefix, Some(Instant::now() + CLEANUP)).await;
    let revision = match deleted {
        Ok(revision) => revision,
        Err(error) => {
            let text = format!("FAIL: Cleanup failed during key deletion: ERROR({error})\n");
            output::out(text);
            return Ok(());
        }
    };
    if session.values.is_on("auto-compact") {
        compact(client, revision).await?;
    }
    Ok(())
}

/// Gives the revision of the deletion.
async fn delete(client: &Client, prefix: &str, until: Option<Instant>) -> Result<i64, Error> {
    let key = bytes(prefix);
    let range_end = prefix_end(&key);
    let request = DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() };
    let deleted: DeleteRangeResponse = client.call(Method::DeleteRange, &request, until).await?;
    Ok(deleted.header.unwrap_or_default().revision)
}

async fn compact(client: &Client, revision: i64) -> Result<(), Exit> {
    output::out(format!("Compacting with revision {revision}\n"));
    let request = CompactionRequest { revision, physical: true };
    let until = Some(Instant::now() + CLEANUP);
    let compacted = client.call(Method::Compact, &request, until).await;
    let _: CompactionResponse = compacted.map_err(failed)?;
    output::out(format!("Compacted with revision {revision}\n"));
    Ok(())
}

async fn defragment(session: &Session<'_>) -> Result<(), Exit> {
    for endpoint in session.values.list("endpoints") {
        let shown = text::quote(endpoint.as_bytes());
        output::out(format!("Defragmenting {shown}\n"));
        let one = session.prepare_only(&endpoint)?;
        let until = Some(Instant::now() + CLEANUP);
        one.authenticate().await.map_err(failed)?;
        let done = one.client().call(Method::Defragment, &DefragmentRequest {}, until).await;
        let _: DefragmentResponse = done.map_err(failed)?;
        output::out(format!("Defragmented {shown}\n"));
    }
    Ok(())
}

/// Part of the asked rate that is to be reached.
const LEAST_OF_RATE: f64 = 0.9;
/// Longest time that a put may take, in seconds.
const SLOWEST_SECONDS: f64 = 0.5;
/// Greatest standard deviation of these times, in seconds.
const STDDEV_SECONDS: f64 = 0.1;

fn tell_errors(stats: &Stats) {
    output::out("FAIL: too many errors\n");
    for (error, count) in &stats.errors {
        output::out(format!("FAIL: ERROR({error}) -> {count}\n"));
    }
}

/// Says how the servers bore a load.
fn judge(stats: &Stats, rate: u32) -> Result<(), Exit> {
    let mut is_good = stats.errors.is_empty();
    if !is_good {
        tell_errors(stats);
    }
    let mut say = |passes: bool, good: String, bad: String| {
        is_good &= passes;
        output::out(if passes { good } else { bad });
    };
    let reached = stats.per_second as u64 + 1;
    say(
        stats.per_second / f64::from(rate) > LEAST_OF_RATE,
        format!("PASS: Throughput is {reached} writes/s\n"),
        format!("FAIL: Throughput too low: {reached} writes/s\n"),
    );
    let (slowest, stddev) = (stats.slowest, stats.stddev);
    say(
        slowest <= SLOWEST_SECONDS,
        format!("PASS: Slowest request took {slowest:.6}s\n"),
        format!("Slowest request took too long: {slowest:.6}s\n"),
    );
    say(
        stddev <= STDDEV_SECONDS,
        format!("PASS: Stddev is {stddev:.6}s\n"),
        format!("Stddev too high: {stddev:.6}s\n"),
    );
    if !is_good {
        output::out("FAIL\n");
        return Err(Exit::silent(Exit::ERROR));
    }
    output::out("PASS\n");
    Ok(())
}

/// check datascale.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.3: etcdctl/ctlv3/command/check.go#newCheckDatascaleCommand
pub fn datascale(context: &Context) -> Result<(), Exit> {
    let load = context.values.text("load");
    let (count, clients_count) = datascale_load(load).ok_or_else(|| unknown(load))?;
    let session = context.open()?;
    let clients = clients(context, clients_count)?;
    let prefix = context.values.text("prefix");
    session.wait(async {
        let hint = format!("Delete with etcdctl del --prefix {prefix} first");
        refuse_keys(&clients[0], prefix, &hint, None).await?;
        let before = memory_of(&session, "before").await?;
        let bytes = DATASCALE_BYTES.0 + DATASCALE_BYTES.1;
        output::out(format!(
            "Start data scale check for work load [{count} key-value pairs, {bytes} bytes per \
             key-value, {clients_count} concurrent clients].\n"
        ));
        let stats = load::run(&clients, prefix, DATASCALE_BYTES, Pace::Count(count)).await;
        let after = memory_of(&session, "after").await?;
        let revision = delete(&clients[0], prefix, None).await.map_err(failed)?;
        if session.values.is_on("auto-compact") {
            compact(&clients[0], revision).await?;
        }
        if session.values.is_on("auto-defrag") {
            defragment(&session).await?;
        }
        if !stats.errors.is_empty() {
            tell_errors(&stats);
            return Err(Exit::silent(Exit::ERROR));
        }
        let used = (after - before) / f64::from(1 << 20);
        output::out(format!("PASS: Approximate system memory used : {used:.2} MB.\n"));
        Ok(())
    })
}

/// Resident memory of the first endpoint's server, in bytes.
async fn memory_of(session: &Session<'_>, when: &str) -> Result<f64, Exit> {
    let endpoints = session.values.list("endpoints");
    let endpoint = endpoints.first().map_or("", String::as_str);
    match memory::resident_bytes(endpoint, session.tls().as_ref()).await {
        Ok(bytes) if bytes > 0.0 => return Ok(bytes),
        Ok(_) => {}
        Err(why) => output::out(format!("{why}\n")),
    }
    output::out(format!(
        "FAIL: Could not read process_resident_memory_bytes {when} the put operations.\n"
    ));
    Err(Exit::silent(Exit::ERROR))
}

/// A value of zeroes.
fn zeroes(len: usize) -> Bytes {
    Bytes::from(vec![0; len])
}
