//! A process's end of a connection: the product's half of HTTP/2, whose events are calls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use api::method::CallType;
use http2::{Connection, Event, Fatal, Limits, StreamKey};

use super::channel::{Channel, Grpc, Head, Shared};
use crate::gateway::Gateway;
use crate::plant::Plant;
use crate::process::Process;

/// Where calls lead to, and when.
pub(crate) struct Way<'a> {
    pub(crate) now: u64,
    pub(crate) gateway: &'a mut Gateway,
    pub(crate) process: &'a mut Process,
}

/// A process's end of one connection.
pub(crate) struct Server {
    shared: Rc<Shared>,
    /// Input that was read and not taken.
    rest: Vec<u8>,
    /// Something was written, so that more may be taken and continued.
    goes_on: bool,
    /// Planted: calls whose clients have gone.
    left: Vec<Rc<Channel>>,
}

impl Server {
    pub(crate) fn new(limits: Limits, plant: Option<Plant>) -> Self {
        let wire = RefCell::new(Connection::new(limits));
        let shared = Rc::new(Shared { wire, newest: Cell::new(None), plant });
        Self { shared, rest: Vec::new(), goes_on: false, left: Vec::new() }
    }

    /// Whether it has something to do without any more input; `may_write` says that there is room
    /// for what it says.
    pub(crate) fn is_busy(&self, may_write: bool) -> bool {
        self.goes_on || may_write && !self.shared.wire.borrow_mut().out().is_empty()
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.shared.wire.borrow().wants_input()
    }

    /// Takes what was read, and gives what is to be written.
    ///
    /// # Errors
    /// The client's, which no client of ours makes.
    pub(crate) fn turn(
        &mut self,
        read: &[u8],
        may_write: bool,
        way: &mut Way<'_>,
    ) -> Result<Vec<u8>, Fatal> {
        self.goes_on = false;
        let mut input = std::mem::take(&mut self.rest);
        input.extend_from_slice(read);
        let mut rest = &input[..];
        loop {
            let event = self.shared.wire.borrow_mut().next(&mut rest)?;
            let Some(event) = event else { break };
            self.handle(event, way);
        }
        self.rest = rest.to_vec();
        if !may_write {
            return Ok(Vec::new());
        }
        let said = std::mem::take(self.shared.wire.borrow_mut().out());
        self.goes_on = !said.is_empty();
        Ok(said)
    }

    fn handle(&mut self, event: Event<'_, Grpc>, way: &mut Way<'_>) {
        match event {
            Event::Whole { stream, head, body } => {
                let channel = self.channel(stream, &head);
                channel.push(body, true);
                let is_unary = channel.method.row().kind == CallType::Unary;
                if !is_unary {
                    self.open(stream, &channel);
                }
                self.begin(&channel, way);
                if is_unary && !channel.is_over() {
                    self.open(stream, &channel);
                }
            }
            Event::Head { stream, head, end } => {
                let channel = self.channel(stream, &head);
                self.shared.wire.borrow_mut().set_slot(stream, Rc::clone(&channel));
                self.opened(stream);
                if end || channel.method.row().kind != CallType::Unary {
                    channel.push(b"", end);
                    self.begin(&channel, way);
                }
            }
            Event::Data { stream, body, end } => {
                let mut wire = self.shared.wire.borrow_mut();
                wire.release(stream, body.len());
                let Some(channel) = wire.slot(stream).cloned() else { return };
                drop(wire);
                channel.push(body, end);
                if end && channel.method.row().kind == CallType::Unary {
                    self.begin(&channel, way);
                }
            }
            Event::Reset { slot: Some(channel), .. } => {
                if self.shared.plant == Some(Plant::StreamReused) {
                    return self.left.push(channel);
                }
                channel.set_over();
                way.gateway.lose(way.now, way.process, |lost| lost.call == channel.call);
            }
            Event::Writable { stream } => {
                if let Some(channel) = self.shared.wire.borrow_mut().slot(stream) {
                    channel.wake();
                }
            }
            Event::Reset { slot: None, .. } | Event::Ping { .. } | Event::Pong(_) => {}
        }
    }

    fn channel(&self, stream: StreamKey, head: &Head) -> Rc<Channel> {
        let (row, call) = head.row.zip(head.call).expect("clients name method and call");
        Rc::new(Channel::new(&self.shared, stream, (call, row.method), head.token.clone()))
    }

    /// Gives a request that came whole a place among the streams.
    fn open(&mut self, stream: StreamKey, channel: &Rc<Channel>) {
        let stream = self.shared.wire.borrow_mut().open(stream, Rc::clone(channel));
        channel.place(stream);
        self.opened(stream);
    }

    fn opened(&mut self, stream: StreamKey) {
        self.shared.newest.set(Some(stream));
        // Planted: whoever has gone is answered on the stream that took the place.
        self.left.drain(..).for_each(|left| left.place(stream));
    }

    fn begin(&self, channel: &Rc<Channel>, way: &mut Way<'_>) {
        let is_unary = channel.method.row().kind == CallType::Unary;
        let message = is_unary.then(|| {
            let message = channel.message().expect("clients send sound messages");
            message.expect("a request that has ended has its message")
        });
        way.gateway.begin(way.now, way.process, channel, message);
    }

    /// The connection is gone, with whatever it was busy with.
    pub(crate) fn close(&self, way: &mut Way<'_>) {
        way.gateway.lose(way.now, way.process, |channel| channel.is_on(&self.shared));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What the streams hold leads back here.
        *self.shared.wire.borrow_mut() = Connection::new(Limits::default());
    }
}
