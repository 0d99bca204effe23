//! Closed loops: each slot sends, waits for the answer, sends again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use env::SplitMix;
use h2::client::SendRequest;

use crate::histogram::Histogram;
use crate::process;
use crate::shape::Shape;

/// What to run.
#[derive(Clone, Debug)]
pub struct Load {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The server's process, for its CPU time.
    pub pid: Option<u32>,
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

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Answered requests per second.
    pub per_second: f64,
    /// Latencies.
    pub latency: Histogram,
    /// The server's CPU per request, in microseconds; 0 if its process was not named.
    pub cpu_us: f64,
    /// Requests that failed.
    pub failed: u64,
}

struct Shared {
    measuring: bool,
    done: bool,
    measured: Measured,
}

/// Runs a load to its end.
///
/// # Errors
/// The server does not answer on that port.
pub fn run(load: &Load) -> std::io::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, drive(load.clone()))
}

async fn drive(load: Load) -> std::io::Result<Measured> {
    let shared = Rc::new(RefCell::new(Shared {
        measuring: false,
        done: false,
        measured: Measured::default(),
    }));
    let value: Bytes = vec![b'v'; load.value_bytes].into();
    let mut slots = Vec::new();
    for connection in 0..load.connections {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", load.port)).await?;
        socket.set_nodelay(true)?;
        let handshake = h2::client::Builder::new().handshake::<_, Bytes>(socket).await;
        let (send, driver) = handshake.map_err(std::io::Error::other)?;
        tokio::task::spawn_local(driver);
        let here = load.in_flight / load.connections
            + usize::from(connection < load.in_flight % load.connections);
        for _ in 0..here {
            let (send, shared) = (send.clone(), Rc::clone(&shared));
            let entropy = SplitMix::new(load.seed * 1_000_003 + slots.len() as u64);
            let work = slot(send, shared, load.clone(), entropy, value.clone());
            slots.push(tokio::task::spawn_local(work));
        }
    }
    tokio::time::sleep(load.time / 5).await;
    let cpu = || load.pid.and_then(process::cpu);
    let (before, began) = (cpu(), Instant::now());
    shared.borrow_mut().measuring = true;
    tokio::time::sleep(load.time).await;
    shared.borrow_mut().measuring = false;
    let (after, took) = (cpu(), began.elapsed());
    shared.borrow_mut().done = true;
    for slot in slots {
        let _ = tokio::time::timeout(Duration::from_secs(5), slot).await;
    }
    let mut measured = std::mem::take(&mut shared.borrow_mut().measured);
    let answered = measured.latency.len() as f64;
    measured.per_second = answered / took.as_secs_f64();
    if let (Some(before), Some(after)) = (before, after) {
        measured.cpu_us = (after - before).as_secs_f64() * 1e6 / answered.max(1.0);
    }
    Ok(measured)
}

async fn slot(
    mut send: SendRequest<Bytes>,
    shared: Rc<RefCell<Shared>>,
    load: Load,
    mut entropy: SplitMix,
    value: Bytes,
) {
    let uri: http::Uri =
        format!("http://localhost{}", load.shape.path()).parse().expect("a well-formed path");
    while !shared.borrow().done {
        let body = load.shape.request(&mut entropy, load.keys, &value);
        let began = Instant::now();
        let answered = one(&mut send, &uri, body).await;
        let mut shared = shared.borrow_mut();
        if !shared.measuring {
            continue;
        }
        match answered {
            Ok(true) => shared.measured.latency.add(began.elapsed().as_nanos() as u64),
            Ok(false) => shared.measured.failed += 1,
            Err(_) => {
                shared.measured.failed += 1;
                return;
            }
        }
    }
}

/// Sends one request and reads its answer; says whether the status was OK.
async fn one(
    send: &mut SendRequest<Bytes>,
    uri: &http::Uri,
    body: Bytes,
) -> Result<bool, h2::Error> {
    std::future::poll_fn(|cx| send.poll_ready(cx)).await?;
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    let (response, mut stream) = send.send_request(request, false)?;
    stream.send_data(body, true)?;
    let response = response.await?;
    let is_ok = |headers: &http::HeaderMap| headers.get("grpc-status").map(|v| v == "0");
    if let Some(ok) = is_ok(response.headers()) {
        return Ok(ok);
    }
    let mut body = response.into_body();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(is_ok(&trailers).unwrap_or(false))
}
