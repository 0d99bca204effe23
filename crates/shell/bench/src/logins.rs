//! Logins with a password, and what others feel of them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use api::etcdserverpb::PutRequest;
use bytes::Bytes;

use crate::access::Access;
use crate::client::{Connection, envelope, uri};
use crate::figures::{Figures, name};
use crate::load::{Shared, measure};

/// Between two puts of the client beside: several times what one takes on a disk that others use.
const PUT_EVERY: Duration = Duration::from_millis(25);

/// One user logs in, `at_once` times, again and again; one operation is one login. Beside them a
/// client puts at a fixed rate: `beside_p99_us` is how long its puts take.
///
/// # Errors
/// The user cannot log in.
pub async fn run(
    port: u16,
    access: &Access,
    pid: u32,
    time: Duration,
    at_once: usize,
) -> std::io::Result<Figures> {
    let token = access.token(port).await?;
    let (shared, beside) = (Shared::new(), Shared::new());
    for _ in 0..at_once {
        let (access, shared) = (access.clone(), Rc::clone(&shared));
        tokio::task::spawn_local(async move {
            while !shared.borrow().done {
                let began = Instant::now();
                let logged_in = access.token(port).await.is_ok();
                shared.borrow_mut().ended(began, logged_in);
            }
        });
    }
    let mut open = Connection::open_as(port, access, token.as_deref()).await?;
    let puts = Rc::clone(&beside);
    tokio::task::spawn_local(async move {
        let path = uri("/etcdserverpb.KV/Put");
        let key = Bytes::from_static(b"beside");
        let put = envelope(&PutRequest { key: key.clone(), value: key, ..PutRequest::default() });
        let mut due = Instant::now();
        while !puts.borrow().done {
            due += PUT_EVERY;
            tokio::time::sleep_until(due.into()).await;
            let answer = open.call(&path, put.clone(), None).await;
            puts.borrow_mut().ended(due, answer.is_ok_and(|answer| answer.ok));
        }
    });
    let others = tokio::task::spawn_local(async move { measure(&beside, &[], time).await });
    let mut figures = measure(&shared, &[pid], time).await;
    let others = others.await.map_err(std::io::Error::other)?;
    if let Some(p99) = others.get(name::P99) {
        figures.set(name::BESIDE_P99, p99);
    }
    Ok(figures)
}
