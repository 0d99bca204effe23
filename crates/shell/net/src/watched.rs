//! Connections whose client may lose its standing while they are open.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Context;

use tls::{REVOKED_WITHIN, Standing};
use tokio::time::{Instant, Sleep};

/// Looks now and then whether the certificate of a connection's client was taken back.
#[derive(Debug)]
pub(crate) struct Watched {
    standing: Standing,
    /// When it is looked again. Made by the runtime that serves the connection.
    next: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Files count a moment after they have changed, so it is looked a little more often than told.
    fn due() -> Instant {
        Instant::now() + REVOKED_WITHIN - 2 * tls::LOOK_INTERVAL
    }

    pub(crate) fn new(standing: Standing) -> Self {
        Self { standing, next: None }
    }

    /// Looks if it is time, and has the task woken when it is.
    ///
    /// # Errors
    /// The certificate was taken back.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let next = self.next.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Self::due())));
        while next.as_mut().poll(cx).is_ready() {
            self.standing
                .check()
                .map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
            next.as_mut().reset(Self::due());
        }
        Ok(())
    }
}
