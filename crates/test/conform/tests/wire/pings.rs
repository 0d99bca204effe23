//! Who pings too often is sent away; a long answer, whose client pings to measure it, is not.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, PutResponse, RangeRequest, RequestOp, TxnRequest,
};
use conform::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, SETTINGS,
    WINDOW_UPDATE, block, call_fields, frame,
};
use conform::grpc::envelope;
use conform::{Client, Kind, Server, oracle};
use prost::Message;

use super::{PUT, RANGE, TXN};

/// Bytes of the value that is asked for.
const LARGE: usize = 1 << 20;
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";

/// A connection on which each frame is seen.
pub(super) struct Frames(TcpStream);

impl Frames {
    pub(super) fn connect(server: &Server) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(PREFACE).unwrap();
        let mut frames = Self(socket);
        frames.send(SETTINGS, 0, 0, &[]);
        frames
    }

    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut out = Vec::new();
        frame(&mut out, kind, flags, stream, payload);
        // A server that has closed is met by reading: what it said before is there.
        let _ = self.0.write_all(&out);
    }

    /// How long [`Frames::next`] waits for the server.
    pub(super) fn wait_up_to(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).unwrap();
    }

    /// The next frame; `None` once the server has closed.
    pub(super) fn next(&mut self) -> Option<Frame> {
        Frame::read(&mut self.0).ok()
    }

    /// Opens a call and sends its message, which is short.
    pub(super) fn call(&mut self, stream: u32, path: &str, message: &[u8]) {
        self.call_with(stream, path, message, &[]);
    }

    /// As [`Frames::call`], with more headers.
    pub(super) fn call_with(
        &mut self,
        stream: u32,
        path: &str,
        message: &[u8],
        more: &[(&str, &str)],
    ) {
        self.request(stream, &[&call_fields(path), more].concat(), message);
    }

    /// Sends a request with any fields.
    pub(super) fn request(&mut self, stream: u32, fields: &[(&str, &str)], message: &[u8]) {
        self.head(stream, fields);
        self.send(DATA, END_STREAM, stream, &envelope(message));
    }

    /// Sends a request's head; its message is to come.
    pub(super) fn head(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_HEADERS, stream, &block(fields));
    }

    /// Reads the answer of a stream to its end. Pings when a piece of it has come, as Go's client
    /// does to measure the connection: not again before the last one was acknowledged.
    fn answer(&mut self, stream: u32) -> Answer {
        let (mut answer, mut is_measuring) = (Answer::default(), false);
        while let Some(frame) = self.next() {
            match frame.head.kind {
                DATA if frame.head.stream == stream => {
                    answer.bytes += frame.payload.len();
                    let window = (frame.payload.len() as u32).to_be_bytes();
                    self.send(WINDOW_UPDATE, 0, 0, &window);
                    self.send(WINDOW_UPDATE, 0, stream, &window);
                    if !std::mem::replace(&mut is_measuring, true) {
                        self.send(PING, 0, 0, b"measured");
                        answer.pings += 1;
                    }
                }
                PING if frame.head.flags & ACK != 0 => is_measuring = false,
                SETTINGS if frame.head.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                GOAWAY => {
                    answer.sent_away = Some(frame.payload);
                    return answer;
                }
                _ => {}
            }
            let is_answer =
                frame.head.stream == stream && matches!(frame.head.kind, DATA | HEADERS);
            if is_answer && frame.head.flags & END_STREAM != 0 {
                answer.ended = true;
                return answer;
            }
        }
        answer
    }
}

#[derive(Debug, Default)]
struct Answer {
    bytes: usize,
    pings: usize,
    ended: bool,
    sent_away: Option<Vec<u8>>,
}

/// A value of one mebibyte, put as any client would.
pub(super) fn put_large(server: &Server) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.port).await;
        let value = vec![b'x'; LARGE].into();
        let put = PutRequest { key: "large".into(), value, ..Default::default() };
        client.call::<PutResponse>(PUT, &put).await.unwrap();
    });
}

/// Small calls with large answers: a transaction that writes, a range, a delete.
fn large_answers() -> [(&'static str, Vec<u8>); 3] {
    let large = RangeRequest { key: "large".into(), ..Default::default() };
    let put = PutRequest { key: "other".into(), value: "v".into(), ..Default::default() };
    let operation = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest {
        success: vec![
            operation(Request::RequestPut(put)),
            operation(Request::RequestRange(large.clone())),
        ],
        ..Default::default()
    };
    let delete = DeleteRangeRequest { key: "large".into(), prev_kv: true, ..Default::default() };
    [(TXN, txn.encode_to_vec()), (RANGE, large.encode_to_vec()), (DELETE, delete.encode_to_vec())]
}

#[test]
fn a_ping_behind_each_piece_of_a_long_answer_is_no_strike() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(server) = Server::start(kind, &[]) else { continue };
        put_large(&server);
        let mut frames = Frames::connect(&server);
        for (stream, (path, message)) in [1, 3, 5].into_iter().zip(large_answers()) {
            frames.call(stream, path, &message);
            let answer = frames.answer(stream);
            assert!(answer.ended && answer.sent_away.is_none(), "{kind:?} {path}: {answer:?}");
            assert!(answer.bytes > LARGE && answer.pings > 3, "{kind:?} {path}: {answer:?}");
        }
        // Without an answer in between, the same pings are too many.
        for _ in 0..5 {
            frames.send(PING, 0, 0, b"impolite");
        }
        let answer = frames.answer(7);
        let debug = answer.sent_away.unwrap_or_else(|| panic!("{kind:?} allows everything"));
        assert!(debug.ends_with(b"too_many_pings"), "{kind:?}");
    }
}

#[test]
fn a_go_client_gets_each_of_its_large_answers() {
    let Some(program) = oracle("client-new/largeanswer") else { return };
    let server = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let output = Command::new(program).env("EP", server.endpoint()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("OK\n"), "{text}");
}
