//! Loads over streams: keep-alives and watch events.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use prost::Message;
use tokio::sync::Notify;

use crate::client::{Connection, Stream, envelope, uri};
use crate::figures::Figures;
use crate::load::{Shared, measure};

/// How many renew leases.
#[derive(Clone, Copy, Debug)]
pub struct Renewers {
    /// Connections.
    pub connections: usize,
    /// Streams of each.
    pub streams: usize,
    /// Leases of each stream, all of them in flight.
    pub leases: usize,
}

/// Keep-alives. One operation is one answer.
///
/// # Errors
/// The server does not serve leases.
pub async fn keep_alive(
    port: u16,
    pid: u32,
    time: Duration,
    renewers: Renewers,
) -> std::io::Result<Figures> {
    let shared = Shared::new();
    for _ in 0..renewers.connections {
        let mut connection = Connection::open(port).await?;
        for _ in 0..renewers.streams {
            let mut leases = Vec::new();
            for _ in 0..renewers.leases {
                let grant = LeaseGrantRequest { ttl: 3_600, id: 0 };
                let granted: LeaseGrantResponse =
                    connection.unary("/etcdserverpb.Lease/LeaseGrant", &grant).await?;
                leases.push(envelope(&LeaseKeepAliveRequest { id: granted.id }));
            }
            let path = uri("/etcdserverpb.Lease/LeaseKeepAlive");
            let stream = connection.stream(&path, leases[0].clone()).await;
            let stream = stream.map_err(std::io::Error::other)?;
            let work = renew(stream, connection.clone(), leases, Rc::clone(&shared));
            tokio::task::spawn_local(work);
        }
    }
    Ok(measure(&shared, &[pid], time).await)
}

/// Keeps all leases of a stream in flight. Answers come in the order of the requests.
async fn renew(
    mut stream: Stream,
    connection: Connection,
    leases: Vec<Bytes>,
    shared: Rc<RefCell<Shared>>,
) {
    let _open = connection;
    let mut sent: VecDeque<Instant> = VecDeque::from([Instant::now()]);
    let mut next = 1;
    loop {
        while sent.len() < leases.len() {
            if stream.send(leases[next % leases.len()].clone()).is_err() {
                return;
            }
            sent.push_back(Instant::now());
            next += 1;
        }
        let answer = stream.next().await;
        let Some(began) = sent.pop_front() else { return };
        let answer = answer.ok().flatten();
        let renewed = answer.as_ref().and_then(|m| LeaseKeepAliveResponse::decode(m.clone()).ok());
        shared.borrow_mut().ended(began, renewed.is_some_and(|r| r.ttl > 0));
        if answer.is_none() || shared.borrow().done {
            return;
        }
    }
}

/// How many watch one key.
#[derive(Clone, Copy, Debug)]
pub struct Watchers {
    /// Connections.
    pub connections: usize,
    /// Streams of each.
    pub streams: usize,
    /// Watches of each stream.
    pub watches: usize,
}

impl Watchers {
    fn total(self) -> usize {
        self.connections * self.streams * self.watches
    }
}

/// Puts a key that all watch, waits until all have heard of it, and puts it again. One operation
/// is one event at one watcher; its latency begins with the put.
///
/// # Errors
/// The server does not serve watches.
pub async fn watch(
    port: u16,
    pid: u32,
    time: Duration,
    watchers: Watchers,
) -> std::io::Result<Figures> {
    let shared = Shared::new();
    let board = Rc::new(Board::default());
    for _ in 0..watchers.connections {
        let mut connection = Connection::open(port).await?;
        for _ in 0..watchers.streams {
            let path = uri("/etcdserverpb.Watch/Watch");
            let stream = connection.stream(&path, create()).await;
            let mut stream = stream.map_err(std::io::Error::other)?;
            for _ in 1..watchers.watches {
                stream.send(create()).map_err(std::io::Error::other)?;
            }
            let (shared, board) = (Rc::clone(&shared), Rc::clone(&board));
            tokio::task::spawn_local(listen(stream, connection.clone(), shared, board));
        }
    }
    // Every watch is confirmed before the first put.
    board.wait(watchers.total()).await;
    let putter = tokio::task::spawn_local(put(port, watchers, Rc::clone(&shared), board));
    let figures = measure(&shared, &[pid], time).await;
    putter.abort();
    Ok(figures)
}

/// Where listeners count what they heard.
#[derive(Default)]
struct Board {
    heard: Cell<usize>,
    put_at: Cell<Option<Instant>>,
    changed: Notify,
}

impl Board {
    async fn wait(&self, count: usize) {
        while self.heard.get() < count {
            self.changed.notified().await;
        }
        self.heard.set(self.heard.get() - count);
    }
}

const WATCHED: &[u8] = b"/registry/pods/watched";

fn create() -> Bytes {
    let create = WatchCreateRequest { key: WATCHED.into(), ..Default::default() };
    envelope(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
}

async fn listen(
    mut stream: Stream,
    connection: Connection,
    shared: Rc<RefCell<Shared>>,
    board: Rc<Board>,
) {
    let _open = connection;
    while let Ok(Some(message)) = stream.next().await {
        let Ok(response) = WatchResponse::decode(message) else { return };
        let events = response.events.len();
        if let Some(began) = board.put_at.get() {
            (0..events).for_each(|_| shared.borrow_mut().ended(began, true));
        }
        let heard = if response.created { 1 } else { events };
        board.heard.set(board.heard.get() + heard);
        board.changed.notify_one();
    }
}

async fn put(port: u16, watchers: Watchers, shared: Rc<RefCell<Shared>>, board: Rc<Board>) {
    let Ok(mut connection) = Connection::open(port).await else { return };
    let path = uri("/etcdserverpb.KV/Put");
    let value: Bytes = vec![b'v'; 256].into();
    let body = envelope(&PutRequest { key: WATCHED.into(), value, ..Default::default() });
    loop {
        let began = Instant::now();
        board.put_at.set(Some(began));
        let answered = connection.call(&path, body.clone(), None).await;
        if !answered.is_ok_and(|a| a.ok) {
            shared.borrow_mut().ended(began, false);
            return;
        }
        board.wait(watchers.total()).await;
    }
}
