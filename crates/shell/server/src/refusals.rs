//! Calls that were refused for who called, in the ordinary log.
//!
//! Texts and levels are etcd's where it has a line; for a permission that is missing it has none.
//! Whoever tries again and again does not fill the log: each runtime tells [`LINES`] in a second,
//! and how many it did not.

use std::cell::Cell;

use api::error::{ApiError, Status};
use api::method::Row;
use env::Instant;
use observe::audit::cut;
use observe::{Log, log_line};
use osenv::Clock;

/// Lines that one runtime tells within a second.
const LINES: u32 = 10;
/// Bytes of a user's name that are told.
const NAME_BYTES: usize = 256;

/// What was told within the second that began then.
#[derive(Default)]
pub(crate) struct Refusals {
    since: Cell<Option<Instant>>,
    told: Cell<u32>,
    untold: Cell<u64>,
}

impl Refusals {
    /// Whether there is room for a line; what had none before is told first.
    fn has_room(&self, log: &Log, now: Instant) -> bool {
        if self.since.get().is_none_or(|since| now.since(since).as_secs() >= 1) {
            self.since.set(Some(now));
            self.told.set(0);
            let count = self.untold.take();
            if count > 0 {
                let text = "more calls were refused than this log tells of";
                log_line!(log, Warn, text, "untold" = count);
            }
        }
        if self.told.get() >= LINES {
            self.untold.update(|count| count + 1);
            return false;
        }
        self.told.update(|count| count + 1);
        true
    }

    /// A call was refused.
    //= etcd 3.7.3: server/auth/store.go#AuthInfoFromCtx, #isOpPermitted
    pub(crate) fn refused(&self, log: &Log, row: &Row, (user, remote): (&str, &str), why: &Status) {
        if !self.has_room(log, Clock.now()) {
            return;
        }
        let is = |error: ApiError| *why == error.into();
        let (method, user, error) = (row.path, name(user), &*why.message);
        if is(ApiError::UserNotFound) {
            let text = "cannot find a user for permission check";
            log_line!(log, Error, text, "user-name" = user, "method" = method, "remote" = remote);
            return;
        }
        let text = if is(ApiError::InvalidAuthToken) {
            "invalid auth token"
        } else if is(ApiError::AuthOldRevision) {
            "request auth revision is less than current node auth revision"
        } else {
            "permission denied"
        };
        log_line!(
            log,
            Warn,
            text,
            "method" = method,
            "user" = user,
            "remote" = remote,
            "error" = error
        );
    }

    /// A login was refused.
    //= etcd 3.7.3: server/etcdserver/v3_server.go#Authenticate
    pub(crate) fn login(&self, log: &Log, (user, remote): (&str, &str), why: &Status) {
        if self.has_room(log, Clock.now()) {
            let (text, user) = ("invalid authentication was requested", name(user));
            let error = &*why.message;
            log_line!(log, Warn, text, "user" = user, "remote" = remote, "error" = error);
        }
    }
}

/// As much of a name as is told.
fn name(user: &str) -> &str {
    cut(user, NAME_BYTES)
}
