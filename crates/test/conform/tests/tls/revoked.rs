//! Open connections whose client's certificate is taken back. etcd looks at its list when a
//! connection begins, and never again.

use std::io;
use std::time::Duration;

use authority::Wish;
use conform::Kind;
use tls::{REVOKED_WITHIN, Spoken, TlsStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{OK, World, serve};

/// Beyond the time that is promised: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks something on an open connection: the first line of the answer, empty once it is closed.
async fn ask(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = [0; 4096];
    let n = stream.read(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer[..n]).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_open_connection_ends_when_its_certificate_is_taken_back() {
    let world = World::new();
    let server = world.pair("server", Wish::new("", &["localhost"]));
    let crl = world.path().join("crl");
    std::fs::write(&crl, world.root.revokes(&[1])).unwrap();
    let asking = [
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", world.ca),
        format!("--client-crl-file={}", crl.display()),
    ];
    let member = serve(Kind::Quorate, &world, &server, &asking).expect("our own binary");
    let mut open = Vec::new();
    for serial in [7, 8] {
        let pair = world.pair(&serial.to_string(), Wish::new("ann", &[]).serial(serial));
        let client = world.client(Some(&pair), Spoken::Unsaid);
        let socket = TcpStream::connect(("127.0.0.1", member.client)).await.unwrap();
        let mut stream = TlsStream::from(client.connect(socket, "localhost").await.unwrap());
        assert_eq!(ask(&mut stream).await.unwrap(), OK);
        open.push(stream);
    }
    std::fs::write(&crl, world.root.revokes(&[1, 7])).unwrap();
    let [revoked, good] = &mut open[..] else { unreachable!("two were opened") };
    // How it ends is the server's affair, as long as nothing more is answered.
    let mut byte = [0];
    let end = tokio::time::timeout(REVOKED_WITHIN + PATIENCE, revoked.read(&mut byte));
    assert!(matches!(end.await.expect("it is still open"), Ok(0) | Err(_)));
    assert_eq!(ask(good).await.unwrap(), OK);
}
