//! Asking peers how they are: round-trip times, clock differences.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/probing_status.go#monitorProbingStatus
//! //= github.com/xiang90/probing: status.go#record

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use types::{MemberId, Url};

use crate::core::Core;
use crate::event::{Event, Probe};
use crate::link::{Link, LinkError};
use crate::reader::describe;
use crate::rfc3339;
use crate::tasks;

/// Time between tellings of a healthy peer.
const TELL: Duration = Duration::from_secs(30);
/// Time between tellings of an unhealthy one, and before the first.
const TELL_UNHEALTHY: Duration = Duration::from_secs(5);
/// A clock difference above this is told.
const DRIFT: Duration = Duration::from_secs(1);
/// The weight of the newest round trip.
const NEWEST: f64 = 0.125;
/// Bytes of an answer.
const ANSWER_BYTES: usize = 4_096;

#[derive(Debug, Default)]
struct Status {
    smoothed: Duration,
    healthy: bool,
    /// Our clock minus the peer's, nanoseconds.
    drift_ns: i128,
    error: String,
}

impl Status {
    fn record(&mut self, took: Duration, theirs: SystemTime, now: SystemTime) {
        let last = if self.smoothed.is_zero() { took } else { self.smoothed };
        self.smoothed = last.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST);
        self.healthy = true;
        self.error.clear();
        let ns = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        };
        let half = i128::try_from(self.smoothed.as_nanos() / 2).unwrap_or(0);
        self.drift_ns = ns(now).saturating_sub(ns(theirs)).saturating_sub(half);
    }
}

/// Starts both probes of a peer.
pub(crate) fn start(core: &Rc<Core>, peer: MemberId, urls: &[Url]) -> Vec<AbortHandle> {
    let mut started = Vec::new();
    for kind in [Probe::Pipeline, Probe::Streams] {
        let status = Rc::new(RefCell::new(Status::default()));
        let ask = ask(Rc::clone(core), urls.to_vec(), kind, Rc::clone(&status));
        let tell = tell(Rc::clone(core), peer, kind, status);
        started.push(tasks::spawn(core, ask));
        started.push(tasks::spawn(core, tell));
    }
    started
}

async fn ask(core: Rc<Core>, urls: Vec<Url>, kind: Probe, status: Rc<RefCell<Status>>) {
    // Shorter than the read timeout, or a kept connection would end between two probes.
    let second = Duration::from_secs(1);
    let pace = core.config.read_timeout.saturating_sub(second).max(second);
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut pinned, mut kept) = (0, None);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let url = &urls[pinned];
        let outcome = tokio::time::timeout(core.config.read_timeout, probe(&core, url, &mut kept));
        let outcome = outcome.await.unwrap_or_else(|_| Err("i/o timeout".into()));
        if kind == Probe::Streams || outcome.is_err() {
            kept = None;
        }
        let mut status = status.borrow_mut();
        match outcome {
            Ok(theirs) => status.record(began.elapsed(), theirs, SystemTime::now()),
            Err(error) => {
                status.healthy = false;
                status.error = describe(&*error);
                pinned = (pinned + 1) % urls.len();
            }
        }
    }
}

async fn probe(
    core: &Core,
    url: &Url,
    kept: &mut Option<Link<Full<Bytes>>>,
) -> Result<SystemTime, LinkError> {
    let mut link = match kept.take().filter(Link::is_usable) {
        Some(link) => link,
        None => Link::open(&core.dialer, url, None, None).await?,
    };
    let request = Request::get("/raft/probing").body(Full::default())?;
    let answer = link.exchange(request, ANSWER_BYTES).await?;
    *kept = Some(link);
    if !answer.status().is_success() {
        return Err(
            format!("got unexpected HTTP status code {} from {url}", answer.status()).into()
        );
    }
    let health: Health = serde_json::from_slice(answer.body())?;
    if !health.ok {
        return Err("the peer says that it is not healthy".into());
    }
    rfc3339::parse(&health.now).ok_or_else(|| "no time in the answer".into())
}

#[derive(serde::Deserialize)]
struct Health {
    #[serde(rename = "OK")]
    ok: bool,
    #[serde(rename = "Now")]
    now: String,
}

/// What this member answers to a probe.
pub(crate) fn answer(now: SystemTime) -> String {
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", rfc3339::format(now))
}

async fn tell(core: Rc<Core>, peer: MemberId, kind: Probe, status: Rc<RefCell<Status>>) {
    let mut pause = TELL_UNHEALTHY;
    loop {
        sleep(pause).await;
        let status = status.borrow();
        pause = if status.healthy { TELL } else { TELL_UNHEALTHY };
        if !status.healthy {
            core.event(Event::ProbeFailed(peer, kind, status.smoothed, &status.error));
        }
        if status.drift_ns > DRIFT.as_nanos() as i128 {
            let drift = u64::try_from(status.drift_ns).unwrap_or(u64::MAX);
            core.event(Event::ClockDrift(peer, kind, Duration::from_nanos(drift)));
        }
        core.event(Event::RoundTrip(peer, kind, status.smoothed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_smoothed_and_clocks_compared() {
        let mut status = Status::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let millis = Duration::from_millis;
        status.record(millis(80), now - Duration::from_secs(3), now);
        assert_eq!(status.smoothed, millis(80));
        assert_eq!(status.drift_ns, i128::from(3_000_000_000_u64 - 40_000_000));
        status.record(millis(160), now + Duration::from_secs(3), now);
        assert_eq!(status.smoothed, millis(90));
        assert!(status.drift_ns < 0);
    }
}
