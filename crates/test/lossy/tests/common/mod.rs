//! A server on the lossy disk.

use std::path::PathBuf;

use conform::{Kind, Server};

/// The server program on the lossy disk.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_etcd-lossy").into()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// A directory and the server on it.
pub struct Lossy {
    pub server: Server,
    _dir: tempfile::TempDir,
}

impl Lossy {
    pub fn new(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let server = Server::prepare(Kind::Quorate, &dir.path().join("data"), args);
        Self { server, _dir: dir }
    }

    /// Starts it with these faults; tells whether it serves. It may have ended instead.
    pub fn start(&mut self, faults: &str, more: &[(&str, &str)]) -> bool {
        let root = self.server.data_dir.clone();
        let root = root.to_str().expect("temporary paths are text");
        let mut envs = vec![("QUORATE_LOSSY_ROOT", root), ("QUORATE_LOSSY_FAULTS", faults)];
        envs.extend(more);
        self.server.set_program(&program(), &envs);
        self.server.try_launch().expect("the program was built with this test")
    }
}
