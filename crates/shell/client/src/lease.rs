//! Keeping a lease alive.
//!
//! [`Keeper`] knows when to send and when the lease counts as lost, without I/O; [`keep_alive`]
//! drives it over a [`Client`].

use std::time::Duration;

use api::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use api::method::Method;
use tokio::time::Instant;

use crate::call::{Client, Stream};
use crate::error::Error;

/// Time until a message that was not answered is sent again, and until a broken stream is opened
/// anew.
//= etcd 3.7.3: client/v3/lease.go#retryConnWait
const AGAIN: Duration = Duration::from_millis(500);

/// Longest time to live that is counted with; longer ones are kept alive as if they were this.
const MAX_TTL: Duration = Duration::from_secs(9_000_000_000);

/// When to send the next message about a lease, and until when it lives as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    due: Instant,
    until: Instant,
}

impl Keeper {
    /// A lease that was just granted. Its first answer must come within `first`.
    #[must_use]
    pub fn new(now: Instant, first: Duration) -> Self {
        Self { due: now, until: now + first }
    }

    /// Whether a message is to be sent.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Whether the lease counts as lost.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// When to look again.
    #[must_use]
    pub fn wake(&self) -> Instant {
        self.due.min(self.until)
    }

    /// A message was sent.
    pub fn sent(&mut self, now: Instant) {
        self.due = now + AGAIN;
    }

    /// The server says how long the lease lives from now on. Gives whether it lives.
    #[must_use]
    pub fn answered(&mut self, now: Instant, ttl_seconds: i64) -> bool {
        let Some(seconds) = u64::try_from(ttl_seconds).ok().filter(|&s| s > 0) else {
            return false;
        };
        let ttl = Duration::from_secs(seconds).min(MAX_TTL);
        self.due = now + ttl / 3;
        self.until = now + ttl;
        true
    }
}

/// Keeps a lease alive until it is lost: revoked, expired, or not answered for in its time. Broken
/// streams are opened again.
pub async fn keep_alive(client: &Client, id: i64, first: Duration) {
    let mut keeper = Keeper::new(Instant::now(), first);
    let mut stream = None;
    while !keeper.is_over(Instant::now()) {
        match turn(client, id, &mut keeper, &mut stream).await {
            Ok(Some(answer)) if !keeper.answered(Instant::now(), answer.ttl) => return,
            Ok(_) | Err(Error::Deadline) => {}
            Err(_) => {
                stream = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn turn(
    client: &Client,
    id: i64,
    keeper: &mut Keeper,
    stream: &mut Option<Stream>,
) -> Result<Option<LeaseKeepAliveResponse>, Error> {
    if keeper.is_due(Instant::now()) {
        let request = LeaseKeepAliveRequest { id };
        match stream {
            Some(stream) => stream.send(&request)?,
            None => {
                let until = Some(keeper.until);
                let opened = client.stream(Method::LeaseKeepAlive, &request, true, until).await?;
                *stream = Some(opened);
            }
        }
        keeper.sent(Instant::now());
    }
    match stream {
        Some(stream) => {
            let answer = stream.next(Some(keeper.wake())).await?;
            answer.map(Some).ok_or_else(|| Error::Broken("the stream ended".to_owned()))
        }
        None => {
            tokio::time::sleep_until(keeper.wake()).await;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_kept_each_third_of_its_time_and_lost_at_its_end() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut keeper = Keeper::new(start, Duration::from_secs(3));
        assert!(keeper.is_due(start) && !keeper.is_over(after(2_999)));
        keeper.sent(start);
        assert_eq!(keeper.wake(), after(500));
        assert!(keeper.answered(after(100), 9));
        assert_eq!(keeper.wake(), after(3_100));
        assert!(!keeper.is_over(after(9_099)) && keeper.is_over(after(9_100)));
        keeper.sent(after(3_100));
        assert_eq!(keeper.wake(), after(3_600));
        assert!(keeper.answered(after(3_600), i64::MAX));
        assert!(!keeper.answered(after(3_700), 0) && !keeper.answered(after(3_700), -1));
    }
}
