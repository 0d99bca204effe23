//! What surrounds the calls of a process: its clocks, its limits, who is connected, and who reads
//! a response that comes in pieces.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::error::Status;
use api::method::Method;
use bytes::Bytes;
use calls::{Body, Call, Caller, Event, Host, Limits, Local, Pieces};
use env::{Entropy, Instant, SplitMix, WallTime};
use types::MemberId;

use crate::options::Options;

/// Since when each other member is connected, by the world's time.
pub(crate) type Connected = Arc<Mutex<BTreeMap<MemberId, u64>>>;

/// How old a list's View may become: no list of a simulated client is read so slowly.
pub(crate) const PIN_AGE: Duration = Duration::from_secs(3_600);

/// The surroundings of the calls: what time it is, and who listens.
pub(crate) struct Surroundings {
    pub(crate) now: Rc<Cell<Instant>>,
    pub(crate) wall: Rc<Cell<u64>>,
    pub(crate) lines: Rc<RefCell<Vec<String>>>,
}

impl Host for Surroundings {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.wall.get())
    }

    /// Nothing is secret from the seed.
    fn secret(&self, out: &mut [u8]) {
        let mut drawn = SplitMix::new(self.now.get().0);
        out.fill_with(|| drawn.next_u64() as u8);
    }

    fn log(&self, event: Event<'_>) {
        self.lines.borrow_mut().push(format!("{event:?}"));
    }
}

pub(crate) fn connected_for(
    connected: &Connected,
    now: &AtomicU64,
    id: MemberId,
) -> Option<Duration> {
    let since = connected.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()?;
    let now = now.load(std::sync::atomic::Ordering::Relaxed);
    Some(Duration::from_nanos(now.saturating_sub(since)))
}

pub(crate) fn limits(options: &Options, quota: Option<u64>) -> Limits {
    let election = options.election();
    Limits {
        max_request_bytes: 3 << 19,
        max_txn_ops: 128,
        quota_bytes: quota.map_or(-1, |bytes| i64::try_from(bytes).expect("a small quota")),
        request_timeout: Duration::from_secs(5) + election * 2,
        reader_progress: Duration::from_secs(60),
        progress_interval: Duration::from_millis(options.progress_ms),
        fragment_bytes: options.fragment_bytes,
        election,
    }
}

/// A call of nobody in particular.
pub(crate) fn made(method: Method) -> Call<'static> {
    Call {
        row: method.row(),
        caller: Caller::default(),
        requires_leader: false,
        client_version: None,
    }
}

/// All of a response, whichever way it comes.
pub(crate) async fn whole(waiting: Local<'static, Result<Body, Status>>) -> Result<Bytes, Status> {
    let mut pieces: Box<dyn Pieces> = match waiting.await? {
        Body::Whole(message) => return Ok(message.into_message().into()),
        Body::Pieces(pieces) => pieces,
    };
    let (total, mut bytes) = (pieces.remaining(), Vec::new());
    while let Some(piece) = pieces.next().await? {
        bytes.extend_from_slice(&piece);
    }
    assert!(bytes.len() as u64 == total, "a list is as long as it says");
    Ok(bytes.into())
}
