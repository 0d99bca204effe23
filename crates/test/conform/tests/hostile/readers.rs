//! Who asks for much and takes little: what waits for it is bounded for a connection.

use api::etcdserverpb::{PutRequest, PutResponse, RangeRequest};
use conform::frames::{INITIAL_WINDOW_SIZE, WINDOW_UPDATE, call_block, frame};
use conform::{Client, Server};
use prost::Message;

use crate::attacker::{Attacker, MAX, RANGE, Sent, call};
use crate::beside::{Beside, Cost, times, trial_on};
use crate::{MIB, NOISE};

/// Bytes of the value that is asked for.
const VALUE: usize = 1 << 20;
/// The pieces of long answers that a connection's calls hold at once (`PIECES` in
/// `rpc/src/session/waits.rs`), each of which is one value here; and as much again, which the
/// allocator may not give back at once.
const HELD: i64 = 2 * 32 * MIB;
/// Calls for it: as many MiB, where nothing bounds what is held. The long form has no more of them:
/// a call that waits for its turn has its own 2 or 3 KiB, as any open stream.
const CALLS: usize = 500;

/// The bound: in the long form the allocator still has what rounds before it were given.
fn held() -> i64 {
    let rounds = if times(1) > 1 { 2 } else { 1 };
    rounds * HELD + NOISE
}

fn put_large(server: &Server) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        let client = Client::connect(server.port).await;
        let value = vec![b'x'; VALUE].into();
        let put = PutRequest { key: "large".into(), value, ..Default::default() };
        let put: Result<PutResponse, _> = client.call("/etcdserverpb.KV/Put", &put).await;
        put.expect("a plain put");
    });
}

/// Asks for the large value again and again, in one write.
fn ask(attacker: &mut Attacker, serializable: bool) -> Sent {
    let get = RangeRequest { key: "large".into(), serializable, ..Default::default() };
    let (head, get) = (call_block(RANGE), get.encode_to_vec());
    let mut out = Vec::new();
    for id in (1..).step_by(2).take(CALLS) {
        call(&mut out, id, &head, &get);
    }
    attacker.send(&out)
}

fn unread(name: &str, window: u32, serializable: bool) {
    let cost = Cost { peak: held(), after: held() };
    trial_on(name, &cost, put_large, |server, beside| {
        let mut attacker = Attacker::connect(server, &[(INITIAL_WINDOW_SIZE, window)]);
        ask(&mut attacker, serializable);
        beside.answered();
        (attacker, CALLS)
    });
}

#[test]
fn linearizable_reads_that_nobody_takes_off_the_socket() {
    unread("unread answers, linearizable", MAX, false);
}

#[test]
fn serializable_reads_that_nobody_takes_off_the_socket() {
    unread("unread answers, serializable", MAX, true);
}

#[test]
fn linearizable_reads_into_a_shut_window() {
    unread("window of 0, linearizable", 0, false);
}

#[test]
fn serializable_reads_into_a_shut_window() {
    unread("window of 0, serializable", 0, true);
}

#[test]
fn a_window_that_grows_by_one_byte() {
    let cost = Cost { peak: held(), after: held() };
    trial_on("window of 1", &cost, put_large, |server, beside: &Beside| {
        let mut attacker = Attacker::connect(server, &[(INITIAL_WINDOW_SIZE, 1)]);
        let drain = attacker.drain();
        attacker.0.set_write_timeout(None).expect("a socket");
        assert_eq!(ask(&mut attacker, false), Sent::All);
        let mut out = Vec::new();
        for id in (1..).step_by(2).take(CALLS) {
            frame(&mut out, WINDOW_UPDATE, 0, id, &1_u32.to_be_bytes());
        }
        let rounds = 20;
        assert_eq!(attacker.flood(&out, rounds), Sent::All, "nothing is wrong with it");
        beside.answered();
        attacker.hang_up();
        let kinds = drain.join().expect("it only reads");
        assert!(kinds[0] > 0, "bytes came");
        (attacker, rounds * CALLS)
    });
}
