//! A load generator that is not the bottleneck: it spends about as much per call as a server that
//! only answers, most of it in the kernel, and a fraction of what the full one ([`crate::load`])
//! needs. So the server sees the batches that fast clients send, and not those that a slow
//! generator lets through.
//!
//! One thread, plain sockets behind one poller. A request is a header block as grpc-go writes it
//! ([`encoder`]: its fields, its dynamic table, a deadline that differs from call to call) and a
//! copied message with its key and value patched in ([`message`]). Answers are counted by walking
//! frames ([`connection`]); a call succeeded only if its `grpc-status` was decoded and is 0. All
//! requests that the answers of one read give rise to leave in one write.
//!
//! Calls keep a number in flight, or come at a fixed rate ([`schedule`]) with their latency counted
//! from the time at which they were to be sent, so that a stall shows in every call that it delays.
//!
//! TLS is rustls's automaton between a connection and its socket ([`pool`]); a user's token is got
//! once and stands in every header block.
//!
//! What it does not do: compression, retries, reconnecting (a connection that
//! breaks stays away, its calls have failed), messages longer than a frame of 16 KB, watches.
//! It trusts the server as far as a measurement must: what breaks the protocol ends the connection.

pub mod call;
pub mod connection;
pub mod decoder;
mod drive;
pub mod encoder;
pub mod frame;
mod fuzz;
pub mod huffman;
pub mod message;
pub mod pool;
pub mod schedule;
pub mod tally;
#[cfg(test)]
mod tests;

use std::time::Duration;

use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, RangeRequest, RangeResponse,
};
use bytes::Bytes;

pub use drive::MAX_OUTSTANDING;
pub use fuzz::fuzz_answers;

use crate::access::Access;
use crate::client::{self, envelope};
use crate::figures::Figures;
use crate::load;
use crate::shape::{Shape, key};

/// Connections at most; the system's limit of open files is often lower.
pub const MAX_CONNECTIONS: usize = 100_000;
/// Seconds that leases of keep-alives get.
const LEASE_SECONDS: i64 = 3_600;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Unary calls.
    Calls(Shape),
    /// Keep-alive messages on so many open streams of each connection.
    KeepAlive {
        /// Streams of each connection.
        streams: usize,
    },
}

/// When it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many operations are in flight over all connections; each answer begins the next one.
    /// Keep-alives have so many leases, dealt out evenly among the streams.
    Closed {
        /// Operations in flight.
        in_flight: usize,
    },
    /// Operations begin at a fixed rate, whether others are answered or not.
    Open {
        /// Operations per second.
        per_second: u64,
    },
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Ports on 127.0.0.1, among which connections are dealt out.
    pub ports: Vec<u16>,
    /// How they are connected to, and in whose name.
    pub access: Access,
    /// The servers' processes, for their CPU time and memory together.
    pub pids: Vec<u32>,
    /// What is asked.
    pub work: Work,
    /// When.
    pub pace: Pace,
    /// Connections.
    pub connections: usize,
    /// How long to measure, after a fifth of it unmeasured.
    pub time: Duration,
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Where the random keys begin.
    pub seed: u64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// The same figures as the full generator's, and in an open loop how late calls were sent.
    pub figures: Figures,
    /// How the first measured operation that failed did so.
    pub first_failure: Option<String>,
}

impl Plan {
    fn check(&self) -> Result<(), String> {
        if self.ports.is_empty() || !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(format!("1 to {MAX_CONNECTIONS} connections to at least one port"));
        }
        if let Pace::Closed { in_flight } = self.pace
            && !(1..=MAX_OUTSTANDING).contains(&in_flight)
        {
            return Err(format!("{in_flight} in flight: it must be 1 to {MAX_OUTSTANDING}"));
        }
        if let (Pace::Closed { in_flight }, Work::Calls(Shape::CompareAndPut)) =
            (self.pace, self.work)
            && in_flight as u64 > self.keys
        {
            return Err(format!("{in_flight} in flight want as many keys, each its own"));
        }
        let Work::KeepAlive { streams } = self.work else { return Ok(()) };
        if !(1..=MAX_OUTSTANDING / self.connections).contains(&streams) {
            return Err(format!("1 to {MAX_OUTSTANDING} streams over all connections"));
        }
        let all = self.connections * streams;
        match self.pace {
            Pace::Closed { in_flight } if in_flight % all != 0 => {
                Err(format!("{in_flight} leases cannot be dealt out evenly among {all} streams"))
            }
            _ => Ok(()),
        }
    }

    /// Leases of each stream.
    fn leases(&self, streams: usize) -> usize {
        match self.pace {
            Pace::Closed { in_flight } => in_flight / (self.connections * streams),
            Pace::Open { .. } => 1,
        }
    }
}

/// Runs a plan to its end. Must not run on a runtime.
///
/// # Errors
/// The plan asks for what cannot be done, a server does not answer on its port, or all connections
/// broke.
pub fn run(plan: &Plan) -> std::io::Result<Report> {
    plan.check().map_err(std::io::Error::other)?;
    let drive = drive::Drive::connect(plan)?;
    match plan.pace {
        Pace::Closed { in_flight } => drive.closed(in_flight),
        Pace::Open { per_second } => drive.open(per_second),
    }
}

/// A connection of the full client, for what is done before the run.
async fn first_connection(plan: &Plan) -> std::io::Result<client::Connection> {
    let token = plan.access.token(plan.ports[0]).await?;
    client::Connection::open_as(plan.ports[0], &plan.access, token.as_deref()).await
}

/// The revisions of the first keys as they are now; 0 for those that are not there.
///
/// Without them the first compare-and-put of every slot would only learn its key's revision.
fn revisions(plan: &Plan, count: u64) -> std::io::Result<Vec<i64>> {
    load::block_on(async {
        let mut connection = first_connection(plan).await?;
        let mut all = Vec::new();
        for number in 0..count.min(plan.keys) {
            let request = RangeRequest { key: key(number), ..Default::default() };
            let read: RangeResponse = connection.unary(Shape::Range.path(), &request).await?;
            all.push(read.kvs.first().map_or(0, |kv| kv.mod_revision));
        }
        Ok(all)
    })
}

/// The messages of each keep-alive stream, one per lease, of which none has been sent.
fn grants(plan: &Plan, streams: usize) -> std::io::Result<Vec<(Vec<Bytes>, usize)>> {
    load::block_on(async {
        let mut connection = first_connection(plan).await?;
        let mut all = Vec::new();
        for _ in 0..plan.connections * streams {
            let mut messages = Vec::new();
            for _ in 0..plan.leases(streams) {
                let grant = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
                let granted: LeaseGrantResponse =
                    connection.unary("/etcdserverpb.Lease/LeaseGrant", &grant).await?;
                messages.push(envelope(&LeaseKeepAliveRequest { id: granted.id }));
            }
            all.push((messages, 0));
        }
        Ok(all)
    })
}
