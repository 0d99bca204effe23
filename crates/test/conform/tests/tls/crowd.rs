//! Connections that do not get on with their handshake.

use std::time::Duration;

use tls::Spoken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::member::ask;
use crate::{BOTH, OK, World, serve};
use authority::Wish;

/// Connections that say nothing, or half of what they should.
const CROWD: usize = 300;
/// When at the latest all of them are gone, as each has 10 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// The head of a record that never comes.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

#[tokio::test]
async fn who_does_not_get_on_is_closed_and_keeps_nobody_out() {
    let worlds = BOTH.map(|kind| async move {
        let world = World::new();
        let pair = world.pair("server", Wish::new("", &["localhost"]));
        let Some(member) = serve(kind, &world, &pair, &[]) else { return };
        let mut crowd = Vec::new();
        for n in 0..CROWD {
            let mut stream = TcpStream::connect(("127.0.0.1", member.client)).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(HALF_A_HELLO).await.unwrap();
            }
            crowd.push(stream);
        }
        let client = world.client(None, Spoken::Unsaid);
        for _ in 0..20 {
            assert_eq!(ask(member.client, &client, "localhost").await.as_deref(), Ok(OK));
        }
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
