//! Runs a plan: connects, asks as the plan's pace says, and measures.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::call::Failure;
use super::connection::{Connection, Ends, Reading};
use super::encoder::{Caller, Deadlines, Encoder};
use super::message::Requests;
use super::pool::{Pool, Ready};
use super::schedule::Schedule;
use super::tally::{Counted, Meaning, Slot, Tally};
use super::{Pace, Plan, Report, Work, grants, revisions};
use crate::access::HOST;
use crate::figures::name;
use crate::histogram::Histogram;
use crate::load;
use crate::meter::{Meter, Used};
use crate::process;
use crate::shape::Shape;

/// Operations of an open loop that may be outstanding at once; what is beyond is counted as failed.
pub const MAX_OUTSTANDING: usize = 100_000;
/// Keys whose revisions are read before an open loop of compare-and-puts begins; slots beyond those
/// learn them from a conflict, which counts as failed.
const KNOWN_REVISIONS: u64 = 1_000;
/// How long the server may take for its first frame.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long answers are waited for when nothing more is sent.
const DRAIN: Duration = Duration::from_secs(20);
/// How often the servers' memory is looked at, and how long a wait is at most.
const SAMPLE: Duration = Duration::from_millis(10);

/// What is asked.
#[derive(Debug)]
enum Asked {
    Calls(Requests),
    /// Messages of each stream, one per lease, and which of them is next.
    KeepAlives(Vec<(Vec<Bytes>, usize)>),
}

/// A run on its way.
pub(super) struct Drive<'a> {
    plan: &'a Plan,
    pool: Pool,
    tally: Tally,
    asked: Asked,
    /// Revisions that slots begin with, by their numbers; 0 beyond.
    revisions: Vec<i64>,
    /// When it began; all times count from here.
    began: Instant,
    ready: Vec<Ready>,
    meter: Option<Meter>,
    used: Option<Used>,
    /// The servers' most anonymous memory, and when it is looked at again.
    peak: u64,
    sample_at: u64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a> Drive<'a> {
    /// Connects everything and waits until the servers said what they allow.
    pub(super) fn connect(plan: &'a Plan) -> std::io::Result<Self> {
        let (path, meaning) = match plan.work {
            Work::Calls(Shape::CompareAndPut) => {
                (Shape::CompareAndPut.path(), Meaning::CompareAndPut)
            }
            Work::Calls(shape) => (shape.path(), Meaning::Ended),
            Work::KeepAlive { .. } => ("/etcdserverpb.Lease/LeaseKeepAlive", Meaning::KeepAlive),
        };
        let asked = match plan.work {
            Work::Calls(shape) => {
                let requests = Requests::new(shape, plan.keys, plan.value_bytes, plan.seed);
                Asked::Calls(requests.map_err(std::io::Error::other)?)
            }
            Work::KeepAlive { streams } => Asked::KeepAlives(grants(plan, streams)?),
        };
        let revisions = match (meaning, plan.pace) {
            (Meaning::CompareAndPut, Pace::Closed { in_flight }) => {
                revisions(plan, in_flight as u64)?
            }
            (Meaning::CompareAndPut, Pace::Open { .. }) => revisions(plan, KNOWN_REVISIONS)?,
            _ => Vec::new(),
        };
        let reading = if meaning == Meaning::Ended { Reading::Count } else { Reading::Show };
        let token = load::block_on(plan.access.token(plan.ports[0]))?;
        let caller = Caller { is_secure: plan.access.tls().is_some(), token };
        let mut pool = Pool::new()?;
        for number in 0..plan.connections {
            let port = plan.ports[number % plan.ports.len()];
            let deadlines = match plan.work {
                Work::Calls(_) => Deadlines::Each(plan.seed.wrapping_add(number as u64 * 97)),
                Work::KeepAlive { .. } => Deadlines::None,
            };
            let encoder = Encoder::new(&format!("{HOST}:{port}"), path, deadlines, &caller);
            pool.connect(port, plan.access.tls(), Connection::new(encoder, reading))?;
        }
        let counted = match plan.pace {
            Pace::Closed { .. } => Counted::Ended,
            Pace::Open { .. } => Counted::Intended,
        };
        let mut drive = Self {
            plan,
            pool,
            tally: Tally::new(meaning, counted, 0..0),
            asked,
            revisions,
            began: Instant::now(),
            ready: Vec::new(),
            meter: None,
            used: None,
            peak: 0,
            sample_at: 0,
        };
        drive.shake_hands()?;
        drive.began = Instant::now();
        drive.tally.measured = nanos(plan.time / 5)..nanos(plan.time / 5 + plan.time);
        Ok(drive)
    }

    fn shake_hands(&mut self) -> std::io::Result<()> {
        for peer in 0..self.pool.peers.len() {
            self.flush(peer);
        }
        while !self.pool.peers.iter().all(|peer| peer.connection.is_ready()) {
            if self.pool.peers.iter().any(|peer| !peer.is_of_use())
                || self.began.elapsed() > HANDSHAKE
            {
                return Err(std::io::Error::other("no HTTP/2 server answers there"));
            }
            self.turn(SAMPLE)?;
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// Keeps so many operations in flight.
    pub(super) fn closed(mut self, in_flight: usize) -> std::io::Result<Report> {
        let now = self.now();
        match &self.asked {
            Asked::Calls(_) => {
                for number in 0..in_flight {
                    // Those of a connection are neighbours in memory, and used together.
                    let peer = number * self.plan.connections / in_flight;
                    let slot = self.add_slot(peer);
                    self.offer(slot, now);
                }
            }
            Asked::KeepAlives(streams) => {
                let leases: Vec<usize> = streams.iter().map(|(leases, _)| leases.len()).collect();
                self.add_streams();
                for (stream, count) in leases.into_iter().enumerate() {
                    (0..count).for_each(|_| self.offer(stream as u32, now));
                }
            }
        }
        for peer in 0..self.pool.peers.len() {
            self.pump(peer);
        }
        let end = self.tally.measured.end;
        while self.now() < end {
            self.turn(SAMPLE)?;
            self.check_use()?;
        }
        self.drain()?;
        Ok(self.report(None))
    }

    /// Begins operations at their times, whatever became of those before.
    pub(super) fn open(mut self, rate: u64) -> std::io::Result<Report> {
        let mut schedule = Schedule::new(self.now(), rate).map_err(std::io::Error::other)?;
        if matches!(self.asked, Asked::KeepAlives(_)) {
            self.add_streams();
        }
        let (mut free, mut late, mut next_peer) = (Vec::new(), Histogram::default(), 0);
        let end = self.tally.measured.end;
        loop {
            match self.asked {
                Asked::Calls(_) => free.append(&mut self.tally.ended),
                Asked::KeepAlives(_) => self.tally.ended.clear(),
            }
            let now = self.now();
            let first = next_peer;
            let mut due = 0;
            // Also when that is over: what was intended before is sent, however late.
            while let Some(intended) = schedule.take_due(now.min(end)) {
                due += 1;
                if self.tally.measured.contains(&intended) {
                    late.add(now - intended);
                }
                next_peer = self.place(intended, next_peer, now, &mut free);
            }
            // Those that got something, or all of them.
            for offset in 0..due.min(self.pool.peers.len()) {
                self.pump((first + offset) % self.pool.peers.len());
            }
            if now >= end {
                break;
            }
            let wait = schedule.next().min(end).saturating_sub(self.now());
            self.turn(Duration::from_nanos(wait).min(SAMPLE))?;
            self.check_use()?;
        }
        self.drain()?;
        Ok(self.report(Some(&late)))
    }

    /// Finds a slot for an operation of an open loop, and tells whose turn is next.
    fn place(&mut self, intended: u64, turn: usize, now: u64, free: &mut Vec<u32>) -> usize {
        if self.tally.outstanding >= MAX_OUTSTANDING as u64 {
            self.tally.fail(&Failure::Overrun, intended, now);
            return turn;
        }
        let slot = match &self.asked {
            Asked::KeepAlives(_) => (turn % self.tally.slots.len()) as u32,
            Asked::Calls(_) => {
                let peer = turn % self.pool.peers.len();
                let slot = free.pop().unwrap_or_else(|| self.add_slot(peer));
                self.tally.slots[slot as usize].peer = peer;
                slot
            }
        };
        self.offer(slot, intended);
        turn + 1
    }

    fn add_streams(&mut self) {
        let Work::KeepAlive { streams } = self.plan.work else { return };
        for number in 0..self.plan.connections * streams {
            // Neighbours on different connections, so that turns go around among them.
            let peer = number % self.plan.connections;
            self.add_slot(peer);
        }
    }

    /// Makes another slot and gives its number.
    fn add_slot(&mut self, peer: usize) -> u32 {
        let number = self.tally.slots.len();
        let revision = self.revisions.get(number).copied().unwrap_or(0);
        self.tally.slots.push(Slot::new(peer, revision));
        number as u32
    }

    fn offer(&mut self, slot: u32, intended: u64) {
        self.tally.intended(slot, intended);
        let peer = self.tally.slots[slot as usize].peer;
        self.pool.peers[peer].waiting.push_back(slot);
    }

    /// Sends what waits on a connection as far as there is room.
    fn pump(&mut self, place: usize) {
        let peer = &mut self.pool.peers[place];
        while let Some(slot) = peer.waiting.front().copied() {
            let connection = &mut peer.connection;
            let known = &mut self.tally.slots[slot as usize];
            let is_sent = match &mut self.asked {
                Asked::Calls(requests) => {
                    let has_room = connection.has_room(requests.len(known.revision));
                    if has_room {
                        let revision = known.revision;
                        connection
                            .begin(slot, Ends::Now, |out| requests.write(slot, revision, out));
                    }
                    has_room
                }
                Asked::KeepAlives(streams) => {
                    let (messages, next) = &mut streams[slot as usize];
                    let message = &messages[*next];
                    let write = |out: &mut Vec<u8>| out.extend_from_slice(message);
                    let is_sent = if known.is_open {
                        connection.send(slot, message.len(), write)
                    } else if connection.has_room(message.len()) {
                        connection.begin(slot, Ends::Later, write);
                        known.is_open = true;
                        true
                    } else {
                        false
                    };
                    if is_sent {
                        *next = (*next + 1) % messages.len();
                    }
                    is_sent
                }
            };
            if !is_sent {
                break;
            }
            peer.waiting.pop_front();
        }
        if !peer.is_of_use() && !peer.waiting.is_empty() {
            let waiting = std::mem::take(&mut peer.waiting);
            let now = nanos(self.began.elapsed());
            waiting.into_iter().for_each(|slot| self.tally.fail_all(slot, &Failure::Lost, now));
        }
        self.flush(place);
    }

    fn flush(&mut self, place: usize) {
        let (tally, began) = (&mut self.tally, self.began);
        self.pool.flush(place, &mut |slot, event| tally.on(slot, event, nanos(began.elapsed())));
    }

    /// Waits for answers and takes them. In a closed loop each begins the next operation, and those
    /// of one read leave in one write.
    fn turn(&mut self, wait: Duration) -> std::io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        match self.plan.pace {
            Pace::Closed { .. } => self.pool.wait_ms(wait.as_millis() as u32, &mut ready)?,
            Pace::Open { .. } => self.pool.wait(wait, &mut ready)?,
        }
        for event in ready.drain(..) {
            let now = self.now();
            let tally = &mut self.tally;
            self.pool.read(event, &mut |slot, what| tally.on(slot, what, now));
            if matches!(self.plan.pace, Pace::Closed { .. }) {
                self.go_on(now);
            }
            let peer = &self.pool.peers[event.peer];
            if !peer.waiting.is_empty() {
                self.pump(event.peer);
            } else if self.pool.wants_flush(event) {
                self.flush(event.peer);
            }
        }
        self.ready = ready;
        self.watch_time();
        Ok(())
    }

    /// Begins the next operation of every slot of a closed loop that ended one.
    fn go_on(&mut self, now: u64) {
        if now >= self.tally.measured.end {
            self.tally.ended.clear();
        }
        let mut ended = std::mem::take(&mut self.tally.ended);
        for slot in ended.drain(..) {
            if self.pool.peers[self.tally.slots[slot as usize].peer].is_of_use() {
                self.offer(slot, now);
            }
        }
        self.tally.ended = ended;
    }

    /// Begins and ends to measure, and looks at the servers' memory.
    fn watch_time(&mut self) {
        let now = self.now();
        if self.meter.is_none() && now >= self.tally.measured.start && self.tally.measured.end > 0 {
            self.meter = Some(Meter::start(&self.plan.pids));
        }
        if now >= self.tally.measured.end && self.used.is_none() {
            self.used = self.meter.as_ref().map(Meter::stop);
        }
        if now >= self.sample_at {
            self.sample_at = now + nanos(SAMPLE);
            self.peak = self.peak.max(process::anonymous_of(&self.plan.pids));
        }
    }

    fn check_use(&self) -> std::io::Result<()> {
        if self.pool.peers.iter().any(super::pool::Peer::is_of_use) {
            return Ok(());
        }
        let why = self.tally.last_failure.as_ref().unwrap_or(&Failure::Lost);
        Err(std::io::Error::other(format!("every connection broke: {why}")))
    }

    /// Waits for what is outstanding; what does not come has failed.
    fn drain(&mut self) -> std::io::Result<()> {
        let until = self.now() + nanos(DRAIN);
        while self.tally.outstanding > 0 && self.now() < until {
            self.turn(SAMPLE)?;
        }
        self.watch_time();
        // What was intended in the measured time or, in a closed loop, never ended at all.
        let now = self.tally.measured.end.saturating_sub(1);
        for slot in 0..self.tally.slots.len() {
            self.tally.fail_all(slot as u32, &Failure::Unanswered, now);
        }
        Ok(())
    }

    fn report(self, late: Option<&Histogram>) -> Report {
        let used = self.used.expect("the measured time is over");
        let mut figures = used.figures(&self.tally.latency, self.tally.failed);
        if let Some(late) = late {
            let time = self.plan.time.as_secs_f64();
            figures.set(name::PER_SECOND, self.tally.latency.len() as f64 / time);
            figures.set(name::LATE_P99, late.quantile_us(0.99));
        }
        if !self.plan.pids.is_empty() {
            figures.set_memory(&self.plan.pids);
            figures.set(name::PEAK_ANON, self.peak as f64 / 1e6);
        }
        Report { figures, first_failure: self.tally.first_failure }
    }
}
