//! Clients and watches that remember everything while servers come and go, and what they asked
//! and saw as one history for the checkers of `model`.
//!
//! Never gives up a call that may have had an effect without noting it.

mod caller;
mod watcher;

use std::time::Instant;

use api::etcdserverpb::{RangeRequest, WatchCreateRequest};
use bytes::Bytes;
use model::{History, Watch};

pub use caller::{Caller, PAUSE_US};
pub use watcher::Watcher;

use crate::grpc::Failure;

/// The clock of a history.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that shows zero now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).expect("tests last less than centuries")
    }
}

/// A read of every key.
#[must_use]
pub fn everything() -> RangeRequest {
    let zero = Bytes::from_static(b"\0");
    RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

/// Watches from the beginning: of every key, and of some keys with what they were before.
#[must_use]
pub fn watches() -> [WatchCreateRequest; 2] {
    let RangeRequest { key, range_end, .. } = everything();
    let all = WatchCreateRequest { key, range_end, start_revision: 1, ..Default::default() };
    let prefix = WatchCreateRequest {
        key: "k0".into(),
        range_end: "k1".into(),
        prev_kv: true,
        start_revision: 1,
        ..Default::default()
    };
    [all, prefix]
}

/// What all of them asked and saw, and the failures that do not say whether the call had an effect.
#[must_use]
pub fn history(
    callers: impl IntoIterator<Item = Caller>,
    watchers: impl IntoIterator<Item = Watcher>,
) -> (History, Vec<Failure>) {
    let (mut history, mut unclear) = (History::default(), Vec::new());
    for caller in callers {
        history.operations.extend(caller.operations);
        unclear.extend(caller.unclear);
    }
    for (client, watcher) in (0..).zip(watchers) {
        history.watches.push(Watch { client, legs: watcher.legs });
    }
    (history, unclear)
}
