//! Records what clients send: `record LISTEN SERVER DIR` passes connections on to a server and
//! writes the bytes of the n-th into `DIR/n.client`, those of the server into `DIR/n.server`, as
//! they come, until it is killed. Nothing is encrypted, nothing is changed.
//!
//! `corpus/http2-frames` was made with it, `recordings/README.md` says of which clients.

use std::fs::File;
use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server, dir] = &args[..] else {
        eprintln!("usage: record LISTEN SERVER DIR");
        std::process::exit(2);
    };
    let listener = TcpListener::bind(listen)?;
    for (number, client) in listener.incoming().enumerate() {
        let (client, server) = (client?, TcpStream::connect(server)?);
        let file = |side: &str| File::create(Path::new(dir).join(format!("{number}.{side}")));
        let sent = (client.try_clone()?, server.try_clone()?, file("client")?);
        let answered = (server, client, file("server")?);
        for (from, to, file) in [sent, answered] {
            thread::spawn(move || {
                if let Err(error) = pass(from, to, file) {
                    eprintln!("connection {number}: {error}");
                }
            });
        }
    }
    Ok(())
}

/// Passes one direction on until its end, and keeps it.
fn pass(mut from: TcpStream, mut to: TcpStream, mut file: File) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return to.shutdown(Shutdown::Write);
        }
        file.write_all(&piece[..read])?;
        to.write_all(&piece[..read])?;
    }
}
