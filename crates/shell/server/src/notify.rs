//! Telling a service manager that clients are served: one datagram to the socket that
//! `NOTIFY_SOCKET` names, systemd's protocol for units of `Type=notify`.
//!
//! Never fails a start: whoever set the variable sees in the log why nothing came.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What is sent.
const READY: &[u8] = b"READY=1";

/// Tells the manager behind a socket's name, as the variable holds it; nobody if that is empty. A
/// name that begins with `@` is one without a file.
///
/// # Errors
/// Nobody listens there.
//= etcd 3.7.1: server/etcdmain/main.go#notifySystemd
pub(crate) fn ready(socket: &str) -> io::Result<()> {
    if socket.is_empty() {
        return Ok(());
    }
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.connect_addr(&address)?;
    sender.send(READY).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(listener: &UnixDatagram) -> Vec<u8> {
        listener.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    #[test]
    fn a_manager_is_told_once_at_its_path() {
        let path = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        let listener = UnixDatagram::bind(&path).unwrap();
        ready(path.to_str().unwrap()).unwrap();
        assert_eq!(received(&listener), READY);
        drop(listener);
        assert!(ready(path.to_str().unwrap()).is_err(), "nobody listens any more");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_socket_without_a_file_is_told_too() {
        let name = format!("quorate-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        ready(&format!("@{name}")).unwrap();
        assert_eq!(received(&listener), READY);
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        ready("").unwrap();
    }
}
