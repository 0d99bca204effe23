//! Tasks of the plane's thread. A panic in one of them is told to the member: a peer whose reader
//! had silently ended would never be heard again.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use tokio::task::{AbortHandle, spawn_local};

use crate::core::Core;

/// Starts a task.
pub(crate) fn spawn(core: &Rc<Core>, task: impl Future<Output = ()> + 'static) -> AbortHandle {
    let core = Rc::clone(core);
    let guarded = async move {
        let mut task = Box::pin(task);
        let panicked =
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(None),
                Err(payload) => Poll::Ready(Some(said(&*payload))),
            });
        if let Some(what) = panicked.await {
            core.member.fatal(&what);
        }
    };
    spawn_local(guarded).abort_handle()
}

/// The text of a panic.
pub(crate) fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    format!("thread peer panicked: {text}")
}
