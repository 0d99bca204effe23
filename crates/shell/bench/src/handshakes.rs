//! Connections that come and go, each with a whole handshake.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access::Access;
use crate::figures::Figures;
use crate::load::{Shared, measure};

/// What a client of HTTP/2 begins with: the preface and empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Connects, introduces itself, waits for the server's first byte, closes and connects again; one
/// operation is one connection. No session is taken up again.
///
/// # Errors
/// The server does not speak HTTP/2 there.
pub async fn run(
    port: u16,
    access: &Access,
    pid: u32,
    time: Duration,
    at_once: usize,
) -> std::io::Result<Figures> {
    connect(port, access).await?;
    let shared = Shared::new();
    for _ in 0..at_once {
        let (access, shared) = (access.clone(), Rc::clone(&shared));
        tokio::task::spawn_local(async move {
            while !shared.borrow().done {
                let began = Instant::now();
                let connected = connect(port, &access).await.is_ok();
                shared.borrow_mut().ended(began, connected);
            }
        });
    }
    Ok(measure(&shared, &[pid], time).await)
}

async fn connect(port: u16, access: &Access) -> std::io::Result<()> {
    let mut stream = access.dial(port).await?;
    stream.write_all(PREFACE).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0]).await.map(|_| ())
}
