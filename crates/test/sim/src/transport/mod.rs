//! The calls of a process over HTTP/2, for the seeds that draw it: clients that write frames, pipes
//! that cut, delay and lose what they carry, and the product's half of HTTP/2 on the other side.
//!
//! Everything is drawn from numbers of its own, so that seeds without it run as they always did.

mod channel;
mod client;
mod pipe;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::method::Method;
use bytes::Bytes;
use env::{Entropy, SplitMix};
use http2::Limits;

pub(crate) use channel::{Channel, Ends, send, serve};
use client::{Client, Ended};
use pipe::Pipe;
use server::{Server, Way};

use crate::options::Http2Options;
use crate::plant::Plant;
use crate::streams::Stream;
use crate::wire::{self, Ask};
use crate::world::Running;

/// Pieces on their way to a client from which on its server writes no more.
const MOST_PIECES: usize = 64;
/// Nanoseconds that a piece travels at most when nothing is wrong.
const CALM_NS: u64 = 100_000;

/// One connection.
struct Link {
    /// None once the connection is broken; the server finds out when it has read what came.
    client: Option<Client>,
    server: Server,
    up: Pipe,
    down: Pipe,
}

impl Link {
    /// When something can happen on it.
    fn due(&self, now: u64) -> Option<u64> {
        let Some(client) = &self.client else { return Some(self.up.due().unwrap_or(now).max(now)) };
        let may_write = self.down.len() < MOST_PIECES;
        if client.is_busy() || self.server.is_busy(may_write) {
            return Some(now);
        }
        let up = self.up.due().filter(|_| self.server.wants_input());
        up.into_iter().chain(self.down.due()).min()
    }
}

/// The connections of a process.
pub(crate) struct Transport {
    options: Http2Options,
    plant: Option<Plant>,
    entropy: SplitMix,
    links: Vec<Link>,
    /// What clients wait for.
    asks: BTreeMap<u64, Ask>,
}

impl Transport {
    pub(crate) fn new(options: Http2Options, plant: Option<Plant>, entropy: SplitMix) -> Self {
        Self { options, plant, entropy, links: Vec::new(), asks: BTreeMap::new() }
    }

    fn open(&mut self) {
        let limits =
            Limits { unsent_bytes: self.options.unsent_bytes as usize, ..Limits::default() };
        self.links.push(Link {
            client: Some(Client::new(self.options.window, self.options.give_back as i64)),
            server: Server::new(limits, self.plant),
            up: Pipe::default(),
            down: Pipe::default(),
        });
    }

    /// Begins a call on some connection.
    fn begin(&mut self, number: u64, method: Method, stream: Stream, token: Option<&str>) {
        let sound = self.links.iter().filter(|link| link.client.is_some()).count() as u64;
        if sound < self.options.connections {
            self.open();
        }
        let mut clients: Vec<&mut Client> =
            self.links.iter_mut().filter_map(|link| link.client.as_mut()).collect();
        let at = self.entropy.below(clients.len() as u64) as usize;
        clients[at].begin((number, method), stream, token);
    }

    /// A client gives a call up.
    fn cancel(&mut self, number: u64) {
        self.asks.remove(&number);
        let mut clients = self.links.iter_mut().filter_map(|link| link.client.as_mut());
        clients.any(|client| client.cancel(number));
    }

    /// When something can happen.
    pub(crate) fn due(&self, now: u64) -> Option<u64> {
        self.links.iter().filter_map(|link| link.due(now)).min()
    }

    /// Lets one connection go on.
    ///
    /// # Errors
    /// One side does what it must not.
    fn turn(&mut self, way: &mut Way<'_>, chaos: bool) -> Result<Vec<Ended>, String> {
        let now = way.now;
        let due = |link: &Link| link.due(now).is_some_and(|at| at <= now);
        let ready: Vec<usize> = (0..self.links.len()).filter(|at| due(&self.links[*at])).collect();
        // What was due may have been cancelled since.
        let Some(_) = ready.first() else { return Ok(Vec::new()) };
        let entropy = &mut self.entropy;
        let at = ready[entropy.below(ready.len() as u64) as usize];
        let link = &mut self.links[at];
        let most = if chaos { self.options.travel_us * 1_000 } else { CALM_NS };
        let mut ended = Vec::new();
        if chaos && entropy.below(100_000) < self.options.breaks_per_100k {
            way.gateway.lines.borrow_mut().push("a connection breaks".to_owned());
            link.up.cut(entropy.below(link.up.len() as u64 + 1) as usize);
            ended.extend(link.client.take().map(|mut client| client.lose()).unwrap_or_default());
        }
        if let Some(client) = &mut link.client {
            link.up.write(now, client.pump(entropy), most, entropy);
        }
        let may_write = link.down.len() < MOST_PIECES;
        let mut read = Vec::new();
        if link.server.wants_input() || link.client.is_none() {
            read = link.up.read(now, entropy);
        }
        let said = link.server.turn(&read, may_write, way).map_err(|fatal| fatal.to_string())?;
        link.down.write(now, said, most, entropy);
        match &mut link.client {
            Some(client) => ended.extend(client.receive(&link.down.read(now, entropy))?),
            None if link.up.due().is_none() => {
                self.links.swap_remove(at).server.close(way);
            }
            None => {}
        }
        Ok(ended)
    }
}

/// What clients do to a process, over whatever carries their calls.
impl Running {
    /// The number of the next call.
    pub(crate) fn number(&mut self) -> u64 {
        self.gateway.number()
    }

    /// Begins the call of a number, which comes back in the gateway's `done`.
    pub(crate) fn call(&mut self, now: u64, number: u64, ask: Ask, token: Option<Arc<str>>) {
        let transport = self.transport.as_mut();
        let request = transport.and_then(|transport| Some((transport, wire::encode(&ask)?)));
        let Some((transport, (method, message))) = request else {
            return self.gateway.call(now, &mut self.process, (number, ask), token.as_deref());
        };
        transport.asks.insert(number, ask);
        let stream = Stream::new(0);
        stream.send(message);
        stream.half_close();
        transport.begin(number, method, stream, token.as_deref());
    }

    /// A client does not wait for a call any longer.
    pub(crate) fn abandon(&mut self, call: u64) {
        match &mut self.transport {
            Some(transport) => transport.cancel(call),
            None => self.gateway.abandon(call),
        }
    }

    /// Opens a stream of watches, whose client takes `window` bytes before it reads, or what its
    /// connection says. The number is for [`Running::close`].
    pub(crate) fn watch(&mut self, window: usize, token: Option<Arc<str>>) -> (u64, Stream) {
        let token = token.as_deref();
        let Some(transport) = &mut self.transport else {
            return self.gateway.watch(window, token);
        };
        let (number, stream) = (self.gateway.number(), Stream::new(0));
        transport.begin(number, Method::Watch, stream.clone(), token);
        (number, stream)
    }

    /// The client has gone from a stream.
    pub(crate) fn close(&mut self, now: u64, stream: u64) {
        match &mut self.transport {
            Some(transport) => transport.cancel(stream),
            None => self.gateway.close(now, &mut self.process, stream),
        }
    }

    /// When one of the connections can go on.
    pub(crate) fn connection_due(&self, now: u64) -> Option<u64> {
        self.transport.as_ref()?.due(now)
    }

    /// Lets one of the connections go on; how many calls that has answered.
    pub(crate) fn exchange(&mut self, now: u64, chaos: bool) -> u64 {
        let Some(transport) = &mut self.transport else { return 0 };
        let (gateway, process) = (&mut self.gateway, &mut self.process);
        match transport.turn(&mut Way { now, gateway, process }, chaos) {
            Err(what) => {
                gateway.violation.get_or_insert(format!("on a connection: {what}"));
                0
            }
            Ok(ended) => {
                let answered = ended.len() as u64;
                for (call, answer) in ended {
                    let Some(ask) = transport.asks.remove(&call) else { continue };
                    let decode = |bytes: Bytes| wire::decode(&ask, &bytes);
                    gateway.done.push((call, answer.map(decode)));
                }
                answered
            }
        }
    }
}
