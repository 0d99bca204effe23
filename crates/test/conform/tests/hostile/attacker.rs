//! A client that writes any frames, as many as it likes, and reads only if it wants to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use conform::Server;
use conform::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame,
    settings,
};
use conform::grpc::envelope;

/// The largest window and stream.
pub const MAX: u32 = (1 << 31) - 1;

pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How long a server takes nothing, or says nothing, until it is believed that it will not.
const PATIENCE: Duration = Duration::from_millis(500);

/// A unary call, all of it.
pub fn call(out: &mut Vec<u8>, stream: u32, head: &[u8], message: &[u8]) {
    frame(out, HEADERS, END_HEADERS, stream, head);
    frame(out, DATA, END_STREAM, stream, &envelope(message));
}

/// What became of bytes that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The server's kernel has all of them.
    All,
    /// The server reads nothing more.
    Stalled,
    /// The server has closed.
    Closed,
}

/// A connection of somebody hostile.
pub struct Attacker(pub TcpStream);

impl Attacker {
    /// One that has sent nothing.
    pub fn silent(server: &Server) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
        socket.set_nodelay(true).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self(socket)
    }

    /// One that has introduced itself with these settings.
    pub fn connect(server: &Server, first: &[(u16, u32)]) -> Self {
        let mut attacker = Self::silent(server);
        let mut out = PREFACE.to_vec();
        frame(&mut out, SETTINGS, 0, 0, &settings(first));
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(MAX - 65_535).to_be_bytes());
        assert_eq!(attacker.send(&out), Sent::All);
        attacker
    }

    /// Sends bytes until the server takes no more.
    pub fn send(&mut self, mut bytes: &[u8]) -> Sent {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Sent::Stalled;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Sent::Closed,
            }
        }
        Sent::All
    }

    /// Sends the bytes again and again, `times` at most.
    pub fn flood(&mut self, bytes: &[u8], times: usize) -> Sent {
        for _ in 0..times {
            match self.send(bytes) {
                Sent::All => {}
                other => return other,
            }
        }
        Sent::All
    }

    /// Reads all that the server says in the background, so that it never waits; gives the frames
    /// of each kind that came until the connection was closed.
    pub fn drain(&self) -> std::thread::JoinHandle<[usize; 10]> {
        let socket = self.0.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            socket.set_read_timeout(None).expect("a socket");
            let mut socket = std::io::BufReader::with_capacity(1 << 16, socket);
            let mut kinds = [0; 10];
            while let Ok(frame) = Frame::read(&mut socket) {
                if let Some(count) = kinds.get_mut(usize::from(frame.head.kind)) {
                    *count += 1;
                }
            }
            kinds
        })
    }

    /// Whether the server closes, or has, within `patience`; what it says is thrown away.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        self.0.set_read_timeout(Some(patience)).expect("a socket");
        let mut room = [0; 1 << 16];
        loop {
            match self.0.read(&mut room) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }

    /// Ends the conversation; whoever drains sees it too.
    pub fn hang_up(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
