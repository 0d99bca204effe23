//! Connections that do not get on with their handshake. The long form (`QUORATE_HOSTILE`, how many
//! times as many there are: 34 makes 10,000) is ours alone, and tells what a client beside them waits.

use std::time::{Duration, Instant};

use conform::Kind;
use tls::{ClientTls, Spoken};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::member::ask;
use crate::{BOTH, OK, World, serve};
use authority::Wish;

/// Connections that say nothing, or half of what they should.
const CROWD: usize = 300;
/// When at the latest all of them are gone, as each has 10 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Anonymous memory that all of them may take, in bytes.
const MEMORY: u64 = 200 << 20;
/// Requests of the client beside.
const REQUESTS: usize = 20;
/// The head of a record that never comes.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

/// How many there are, and who is asked.
fn crowd() -> (usize, &'static [Kind]) {
    match std::env::var("QUORATE_HOSTILE").map(|factor| factor.parse::<usize>().unwrap()) {
        Ok(factor) if factor > 1 => (CROWD * factor, &[Kind::Quorate]),
        _ => (CROWD, &BOTH),
    }
}

/// The longest that a normal client waits for an answer over a new connection.
async fn longest(port: u16, client: &ClientTls) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..REQUESTS {
        let began = Instant::now();
        assert_eq!(ask(port, client, "localhost").await.as_deref(), Ok(OK));
        longest = longest.max(began.elapsed());
    }
    longest
}

#[tokio::test]
async fn who_does_not_get_on_is_closed_and_keeps_nobody_out() {
    let (count, kinds) = crowd();
    let worlds = kinds.iter().map(|&kind| async move {
        let world = World::new();
        let pair = world.pair("server", Wish::new("", &["localhost"]));
        let Some(member) = serve(kind, &world, &pair, &[]) else { return };
        let client = world.client(None, Spoken::Unsaid);
        let alone = longest(member.client, &client).await;
        let before = member.anonymous();
        let mut crowd = Vec::new();
        for n in 0..count {
            let mut stream = TcpStream::connect(("127.0.0.1", member.client)).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(HALF_A_HELLO).await.unwrap();
            }
            crowd.push(stream);
        }
        let beside = longest(member.client, &client).await;
        let taken = member.anonymous().saturating_sub(before);
        eprintln!("{kind:?}: {alone:?} alone, {beside:?} beside {count}, which take {taken} bytes");
        assert!(taken < MEMORY, "{taken} bytes");
        let gone = async {
            for mut stream in crowd {
                // What it is told before its end does not matter, nor how it ends.
                let mut text = Vec::new();
                let _ = stream.read_to_end(&mut text).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("they are still there");
        assert_eq!(ask(member.client, &client, "localhost").await.as_deref(), Ok(OK));
    });
    conform::join_all(worlds).await;
}
