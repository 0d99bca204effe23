//! A server's process: signals to it, and its end.
//!
//! Never outlives its owner: it is killed when dropped.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A process, if one was started and has not been seen to end.
#[derive(Debug, Default)]
pub(crate) struct Process(Option<Child>);

impl Process {
    /// Starts the program.
    pub(crate) fn spawn(&mut self, command: &mut Command) {
        assert!(!self.runs(), "it runs");
        self.0 = Some(command.spawn().expect("the server program runs"));
    }

    pub(crate) fn runs(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().expect("the server runs").id()
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let told =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(told.is_ok_and(|s| s.success()), "the child is ours");
    }

    /// Waits until it has ended by itself; `None` if it has not after `patience`. The code is
    /// `None` within if a signal ended it.
    pub(crate) fn wait_exit(&mut self, patience: Duration) -> Option<Option<i32>> {
        let until = Instant::now() + patience;
        let child = self.0.as_mut().expect("the server was started");
        loop {
            if let Some(status) = child.try_wait().expect("the child is ours") {
                self.0 = None;
                return Some(status.code());
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has ended by itself; it is not forgotten then.
    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.0.as_mut().expect("the server was started");
        child.try_wait().expect("the child is ours").is_some()
    }

    /// Ends it at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
