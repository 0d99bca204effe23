//! The connections of a run with their sockets, and waiting for any of them.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use tls::ClientTls;

use super::call::Event;
use super::connection::Connection;
use crate::access::HOST;

/// Bytes that are read at once. One buffer serves all connections.
const READ_BYTES: usize = 256 * 1_024;
/// Events that are taken at once.
const EVENTS: usize = 256;
/// What the timer is called among the connections.
const TIMER: u64 = u64::MAX;

/// A connection and its socket.
#[derive(Debug)]
pub struct Peer {
    /// What is said on it.
    pub connection: Connection,
    /// Slots whose calls wait for room.
    pub waiting: VecDeque<u32>,
    /// Whether nothing can be read or written any more.
    pub is_lost: bool,
    socket: Socket,
    /// Bytes of `connection.out` that the socket took.
    written: usize,
    /// Whether the poller tells when the socket takes more.
    polls_writes: bool,
}

impl Peer {
    /// Whether a call may still be given to it.
    #[must_use]
    pub fn is_of_use(&self) -> bool {
        !self.is_lost && !self.connection.is_closing()
    }
}

/// A socket, and TLS within it.
#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Secure(Box<(TcpStream, rustls::ClientConnection)>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(both) => &both.0,
        }
    }

    /// Whether TLS itself has something to say: of its handshake, or what the socket did not take.
    fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(both) => both.1.wants_write(),
        }
    }
}

impl Read for Socket {
    /// As a socket that does not wait: within TLS `WouldBlock` until a record is whole.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (socket, tls) = match self {
            Self::Plain(socket) => return socket.read(buffer),
            Self::Secure(both) => &mut **both,
        };
        // What was decrypted before is taken first: TLS takes no more until it is.
        match tls.reader().read(buffer) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        if tls.read_tls(socket)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(std::io::Error::other)?;
        tls.reader().read(buffer)
    }
}

impl Write for Socket {
    /// Takes all of it, and gives the socket what it takes of that.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(both) => both.1.writer().write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let (socket, tls) = match self {
            Self::Plain(socket) => return socket.flush(),
            Self::Secure(both) => &mut **both,
        };
        while tls.wants_write() {
            tls.write_tls(socket)?;
        }
        Ok(())
    }
}

/// The connections of a run with their sockets.
pub struct Pool {
    /// The connections.
    pub peers: Vec<Peer>,
    poller: OwnedFd,
    timer: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

/// What a connection is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The connection's place.
    pub peer: usize,
    readable: bool,
    writable: bool,
}

impl Pool {
    /// One without connections.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> std::io::Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&poller, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        let (events, buffer) = (Vec::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Self { peers: Vec::new(), poller, timer, events, buffer })
    }

    /// Connects to a port of 127.0.0.1. The handshake of TLS goes on while the pool is waited for.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(
        &mut self,
        port: u16,
        tls: Option<&ClientTls>,
        connection: Connection,
    ) -> std::io::Result<()> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let place = EventData::new_u64(self.peers.len() as u64);
        epoll::add(&self.poller, &socket, place, EventFlags::IN)?;
        let socket = match tls {
            None => Socket::Plain(socket),
            Some(tls) => {
                let mut session = tls.session(HOST)?;
                // What is to be sent has its limit in the calls that are in flight.
                session.set_buffer_limit(None);
                Socket::Secure(Box::new((socket, session)))
            }
        };
        self.peers.push(Peer {
            connection,
            waiting: VecDeque::new(),
            is_lost: false,
            socket,
            written: 0,
            polls_writes: false,
        });
        Ok(())
    }

    /// Waits until a connection is ready or the time is over, and appends those that are.
    ///
    /// The time is kept to the microsecond: the poller's own knows milliseconds only.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self, time: Duration, ready: &mut Vec<Ready>) -> std::io::Result<()> {
        // A time of zero would switch the timer off.
        let time = time.max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let timer = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        self.take_events(None, ready)
    }

    /// Waits for so many milliseconds at most: a system call less than [`Pool::wait`].
    ///
    /// # Errors
    /// The system's.
    pub fn wait_ms(&mut self, ms: u32, ready: &mut Vec<Ready>) -> std::io::Result<()> {
        let time = Duration::from_millis(u64::from(ms));
        let time =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        self.take_events(Some(&time), ready)
    }

    fn take_events(
        &mut self,
        time: Option<&Timespec>,
        ready: &mut Vec<Ready>,
    ) -> std::io::Result<()> {
        match epoll::wait(&self.poller, spare_capacity(&mut self.events), time) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        for event in self.events.drain(..) {
            let (place, flags) = (event.data.u64(), event.flags);
            if place != TIMER {
                let gone = EventFlags::ERR | EventFlags::HUP;
                let readable = flags.intersects(EventFlags::IN | gone);
                let writable = flags.contains(EventFlags::OUT);
                ready.push(Ready { peer: place as usize, readable, writable });
            } else {
                // Else it is ready until it is set again.
                let mut expirations = [0; 8];
                let _ = rustix::io::read(&self.timer, &mut expirations);
            }
        }
        Ok(())
    }

    /// Reads once what a connection has, if it is ready for that, and walks it; a connection that
    /// broke ends all of its calls.
    pub fn read(&mut self, ready: Ready, on: &mut impl FnMut(u32, Event<'_>)) {
        let peer = &mut self.peers[ready.peer];
        if peer.is_lost || !ready.readable {
            return;
        }
        loop {
            let rest = peer.connection.take_rest(&mut self.buffer);
            let read = match peer.socket.read(&mut self.buffer[rest..]) {
                Ok(0) => None,
                Ok(count) => Some(count),
                Err(why) if is_passing(&why) => Some(0),
                Err(_) => None,
            };
            let received = |count| peer.connection.received(&self.buffer[..rest + count], on);
            if !matches!(read.map(received), Some(Ok(()))) {
                return self.lose(ready.peer, on);
            }
            // The poller does not know of what TLS has decrypted and not given yet.
            if read == Some(0) || matches!(peer.socket, Socket::Plain(_)) {
                return;
            }
        }
    }

    /// Whether a connection is ready to take more bytes.
    #[must_use]
    pub fn wants_flush(&self, ready: Ready) -> bool {
        let peer = &self.peers[ready.peer];
        let has_more = !peer.connection.out.is_empty() || peer.socket.wants_write();
        ready.writable || (!peer.polls_writes && has_more)
    }

    /// Writes what a connection has to send, as far as its socket takes it. One that broke ends all
    /// of its calls.
    pub fn flush(&mut self, place: usize, on: &mut impl FnMut(u32, Event<'_>)) {
        let peer = &mut self.peers[place];
        while !peer.is_lost && peer.written < peer.connection.out.len() {
            match peer.socket.write(&peer.connection.out[peer.written..]) {
                Ok(count) if count > 0 => peer.written += count,
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                _ => return self.lose(place, on),
            }
        }
        match peer.socket.flush() {
            Err(why) if !is_passing(&why) => return self.lose(place, on),
            _ => {}
        }
        let is_all_out = peer.written == peer.connection.out.len();
        let is_done = peer.is_lost || is_all_out && !peer.socket.wants_write();
        if is_all_out || peer.is_lost {
            peer.connection.out.clear();
            peer.written = 0;
        }
        if peer.polls_writes == is_done && !peer.is_lost {
            peer.polls_writes = !is_done;
            let writes = if is_done { EventFlags::empty() } else { EventFlags::OUT };
            let place_of = EventData::new_u64(place as u64);
            if epoll::modify(&self.poller, peer.socket.tcp(), place_of, EventFlags::IN | writes)
                .is_err()
            {
                self.lose(place, on);
            }
        }
    }

    fn lose(&mut self, place: usize, on: &mut impl FnMut(u32, Event<'_>)) {
        let peer = &mut self.peers[place];
        if !peer.is_lost {
            peer.is_lost = true;
            let _ = epoll::delete(&self.poller, peer.socket.tcp());
            peer.connection.lose(on);
        }
    }
}

fn is_passing(why: &std::io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
