//! An executor under the seed for the calls of one process.
//!
//! What calls do is `calls`; here is what carries them: futures whose turn the seed decides, pool
//! jobs run one at a time, timers on the member's clock, and the way between the outbox and the
//! automata, the network and the clients. Around the calls, never within, bugs are planted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use api::error::{ApiError, Status};
use api::method::Method;
use bytes::Bytes;
use calls::peers::{Answered, Asked, PeerAnswer, PeerError, Question};
use calls::{
    Answer, Call, Caller, Calls, Credential, Encoded, Finish, Job, LargeResults, Local, Logins,
    Member, Outbox, Pins, Provider, Shared, Sink, Source, ViewSlot,
};
use env::{Entropy, Failpoints, Hooks, Instant, MayBlock, SplitMix};
use machine::Command;
use member::{ApplierInput, NodeInput, Reply};
use types::{ClusterId, Index, MemberId, ReplyToken};

use crate::executor::Executor;
use crate::options::Options;
use crate::plant::{self, Plant};
use crate::process::{Process, request_ids};
use crate::streams::Stream;
use crate::surroundings::{Connected, PIN_AGE, Surroundings, connected_for, limits, made, whole};
use crate::transport::{self, Channel, Ends};
use crate::wire::{self, Ask, CallResult};

/// The runtime whose replies are for the world itself, not for calls.
const WORLD: u64 = 255 << 56;
/// The least that bcrypt takes.
const BCRYPT_COST: u32 = 4;
/// Tokens of which it is kept whom they stand for; beyond that all are forgotten.
const MAX_CREDENTIALS: usize = 16;
/// Bytes of the window of a stream with one response.
const WIDE: usize = 1 << 20;

/// A call, and its response or what was wrong.
type Response = (u64, Result<Bytes, Status>);

/// Where a call is.
enum Way {
    /// It waits for a reply.
    Later(ReplyToken),
    /// A task carries it out.
    Task(u64),
}

/// A request on its way into the log.
#[derive(Debug)]
pub(crate) struct Proposed {
    pub(crate) id: u64,
    /// The call that it belongs to; none for what the member does by itself.
    pub(crate) call: Option<u64>,
    pub(crate) command: Command,
}

/// A question of another member, and its answer.
pub(crate) type ForPeer = (Asker, Answered);

/// Who asks: the place and the boot of the member, and its token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) place: usize,
    pub(crate) boot: u64,
    pub(crate) token: ReplyToken,
}

/// What a process of a member is given.
pub(crate) struct Settings<'a> {
    pub(crate) options: &'a Options,
    pub(crate) boot: u64,
    /// The number of its first call.
    pub(crate) first: u64,
    pub(crate) seed: u64,
    pub(crate) hooks: Hooks,
    pub(crate) plant: Option<Plant>,
}

/// The calls of one process.
pub(crate) struct Gateway {
    pub(crate) member: Rc<Member>,
    calls: Rc<Calls>,
    now: Rc<Cell<Instant>>,
    wall: Rc<Cell<u64>>,
    /// What calls had to tell since this was last looked at.
    pub(crate) lines: Rc<RefCell<Vec<String>>>,
    executor: Executor,
    next_call: u64,
    /// Calls that are open.
    asks: BTreeMap<u64, Ask>,
    ways: BTreeMap<u64, Way>,
    /// Those that came over a connection, by which they are answered.
    channels: BTreeMap<u64, Rc<Channel>>,
    later: BTreeMap<ReplyToken, (u64, Finish)>,
    /// What the world asked the automata.
    own: BTreeMap<ReplyToken, u64>,
    /// What tasks have to tell of calls.
    answered: Rc<RefCell<Vec<Response>>>,
    jobs: Vec<Job>,
    outbox: Outbox,
    /// Questions for other members that have yet to leave.
    pub(crate) asked: Vec<Asked>,
    /// Until when an answer is waited for.
    questions: Vec<(u64, ReplyToken)>,
    /// Answers for other members.
    pub(crate) answers: Rc<RefCell<Vec<ForPeer>>>,
    pub(crate) done: Vec<(u64, Result<CallResult, Status>)>,
    /// Requests that were proposed since this was last looked at.
    pub(crate) proposed: Vec<Proposed>,
    connected: Connected,
    world_now: Arc<AtomicU64>,
    plant: Option<Plant>,
    credentials: BTreeMap<String, Rc<Credential>>,
    /// Whether this process has ever led, for a planted bug.
    pub(crate) has_led: bool,
    quota: Option<u64>,
    /// What a call did that none may do.
    pub(crate) violation: Option<String>,
}

impl Gateway {
    /// The calls of a boot of a member.
    pub(crate) fn new(p: &Process, settings: &Settings<'_>) -> Self {
        let Settings { options, boot, first, seed, hooks, plant } = settings;
        let (now, wall) = (Rc::new(Cell::new(Instant(0))), Rc::new(Cell::new(0)));
        let (connected, world_now) = (Connected::default(), Arc::new(AtomicU64::new(0)));
        let skips_quota = *plant == Some(Plant::QuotaSkipped);
        let quota = options.quota_bytes.filter(|_| !skips_quota);
        let provider = match &p.tokens {
            Some(tokens) => Provider::Simple(Arc::clone(tokens)),
            None => Provider::Nobody,
        };
        let shared = Shared {
            id: p.id,
            cluster: ClusterId(9),
            view: ViewSlot::new(Arc::clone(&p.shared.view)),
            status: Arc::clone(&p.shared.status),
            notifiers: Arc::clone(&p.shared.notifiers),
            learner: Arc::clone(&p.shared.learner),
            limits: limits(options, quota),
            ids: AtomicU64::new(request_ids(p.id, *boot)),
            features: Vec::new(),
            strict_reconfig: options.strict_reconfig,
            pins: Pins { age: PIN_AGE, ..Pins::default() },
            large: LargeResults::default(),
            logins: Logins::new(provider, false, BCRYPT_COST, b"sim"),
            connected: {
                let (connected, now) = (Arc::clone(&connected), Arc::clone(&world_now));
                Box::new(move |id| connected_for(&connected, &now, id))
            },
            failpoints: Failpoints::default(),
            hooks: hooks.clone(),
        };
        let lines = Rc::default();
        let (now_too, wall_too) = (Rc::clone(&now), Rc::clone(&wall));
        let host = Surroundings { now: now_too, wall: wall_too, lines: Rc::clone(&lines) };
        let member = Member::new(Arc::new(shared), Rc::new(host), 0, *seed);
        Self {
            calls: Calls::new(Rc::clone(&member)),
            member,
            now,
            wall,
            lines,
            executor: Executor::default(),
            next_call: *first,
            asks: BTreeMap::new(),
            ways: BTreeMap::new(),
            channels: BTreeMap::new(),
            later: BTreeMap::new(),
            own: BTreeMap::new(),
            answered: Rc::default(),
            jobs: Vec::new(),
            outbox: Outbox::default(),
            asked: Vec::new(),
            questions: Vec::new(),
            answers: Rc::default(),
            done: Vec::new(),
            proposed: Vec::new(),
            connected,
            world_now,
            plant: *plant,
            credentials: BTreeMap::new(),
            has_led: false,
            quota: options.quota_bytes,
            violation: None,
        }
    }

    /// Shows calls what time it is.
    fn set_clock(&mut self, now: u64, p: &Process) {
        self.now.set(p.clock.at(now));
        self.wall.set(now);
        self.world_now.store(now, std::sync::atomic::Ordering::Relaxed);
    }

    /// Which other members are connected now.
    pub(crate) fn set_connected(&mut self, now: u64, peers: &BTreeSet<MemberId>) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.retain(|id, _| peers.contains(id));
        for id in peers {
            connected.entry(*id).or_insert(now);
        }
    }

    /// Lets a future run beside the calls.
    pub(crate) fn spawn(&mut self, future: Local<'static, ()>) {
        self.executor.spawn(future, None);
    }

    /// The number of the next call.
    pub(crate) fn number(&mut self) -> u64 {
        let call = self.next_call;
        self.next_call += 1;
        call
    }

    /// Begins a call that came over a connection; its message is here if that is all it sends.
    pub(crate) fn begin(
        &mut self,
        now: u64,
        p: &mut Process,
        channel: &Rc<Channel>,
        message: Option<Bytes>,
    ) {
        self.set_clock(now, p);
        let (call, method) = (channel.call, channel.method);
        self.channels.retain(|_, known| !known.is_over());
        self.channels.insert(call, Rc::clone(channel));
        let before = self.proposed.len();
        if let Some(message) = message {
            let mut out = Encoded::default();
            let made = self.made(method, channel.token.as_deref());
            let answer = self.calls.unary(&made, message, &mut out);
            self.go_on(call, answer, out);
        } else {
            let token = channel.token.as_deref();
            let serving = self.serve(method, &Ends(Rc::clone(channel)), token);
            let future = transport::serve(Rc::clone(channel), serving);
            let task = self.executor.spawn(Box::pin(future), Some(call));
            self.ways.insert(call, Way::Task(task));
        }
        self.hand_out(p, Some(call));
        self.check_quota(p, before);
    }

    /// The client of a call has gone, as its connection says; or all that `is_gone`.
    pub(crate) fn lose(&mut self, now: u64, p: &mut Process, is_gone: impl Fn(&Channel) -> bool) {
        self.set_clock(now, p);
        let gone = self.channels.values().filter(|channel| is_gone(channel));
        for call in gone.map(|channel| channel.call).collect::<Vec<_>>() {
            self.abandon(call);
        }
        self.hand_out(p, None);
    }

    /// Begins a call, whose number comes back in `done`.
    pub(crate) fn call(
        &mut self,
        now: u64,
        p: &mut Process,
        (call, ask): (u64, Ask),
        token: Option<&str>,
    ) {
        self.set_clock(now, p);
        let request = wire::encode(&ask);
        self.asks.insert(call, ask);
        match request {
            None => {
                let token = ReplyToken(WORLD | call);
                self.own.insert(token, call);
                p.to_applier.push(ApplierInput::AwaitCompaction(token));
            }
            Some((Method::LeaseKeepAlive, message)) => {
                let stream = Stream::new(WIDE);
                stream.send(message);
                stream.half_close();
                let serving = self.serve(Method::LeaseKeepAlive, &stream, token);
                let answered = Rc::clone(&self.answered);
                let future = Box::pin(async move {
                    let ended = serving.await;
                    let answer = stream
                        .take()
                        .ok_or_else(|| ended.err().unwrap_or_else(|| ApiError::Stopped.into()));
                    answered.borrow_mut().push((call, answer));
                });
                let task = self.executor.spawn(future, Some(call));
                self.ways.insert(call, Way::Task(task));
            }
            Some((method, message)) => {
                let mut out = Encoded::default();
                let made = self.made(method, token);
                let answer = self.calls.unary(&made, message, &mut out);
                self.go_on(call, answer, out);
            }
        }
        let before = self.proposed.len();
        self.hand_out(p, Some(call));
        self.check_quota(p, before);
    }

    /// A call of whoever has this token. What is known of a token is kept, as by a connection.
    fn made(&mut self, method: Method, token: Option<&str>) -> Call<'static> {
        Call { caller: self.caller(token), ..made(method) }
    }

    fn caller(&mut self, token: Option<&str>) -> Caller {
        let Some(token) = token else { return Caller::default() };
        if self.credentials.len() >= MAX_CREDENTIALS {
            self.credentials.clear();
        }
        let known = self.credentials.entry(token.to_owned());
        let credential = known.or_insert_with(|| Rc::new(Credential::of(token.as_bytes())));
        Caller::default().with(Some(Rc::clone(credential)))
    }

    /// What has just been proposed at once must fit into the quota by the View of this moment.
    fn check_quota(&mut self, p: &Process, before: usize) {
        let Some(quota) = self.quota else { return };
        let size = p.view.store.backend().map_or(0, bolt::ReadTx::size_bytes);
        let costs = self.proposed[before..].iter().map(|proposed| proposed.command.cost());
        if let Some(cost) = costs.filter(|cost| *cost > 0 && size + cost >= quota).max() {
            let what = format!("a write of {cost} goes into the log at {size} of {quota} bytes");
            self.violation.get_or_insert(what);
        }
    }

    /// A stream of a client, and what serves it.
    fn serve<S>(
        &mut self,
        method: Method,
        stream: &S,
        token: Option<&str>,
    ) -> Local<'static, Result<(), Status>>
    where
        S: Clone + Source + Sink + 'static,
    {
        let call = self.made(method, token);
        if let Err(status) = self.calls.check(&call) {
            return Box::pin(std::future::ready(Err(status)));
        }
        self.calls.stream(&call, Box::new(stream.clone()), Rc::new(stream.clone()))
    }

    /// Opens a stream of watches, whose client takes `window` bytes before it reads. The number is
    /// for [`Gateway::close`].
    pub(crate) fn watch(&mut self, window: usize, token: Option<&str>) -> (u64, Stream) {
        let stream = Stream::new(window);
        let serving = self.serve(Method::Watch, &stream, token);
        let ended = Rc::clone(&stream.ended);
        let future = Box::pin(async move {
            let status = serving.await;
            *ended.borrow_mut() = Some(status);
        });
        (self.executor.spawn(future, None), stream)
    }

    /// The client has gone from a stream.
    pub(crate) fn close(&mut self, now: u64, p: &mut Process, task: u64) {
        self.set_clock(now, p);
        self.executor.drop_task(task);
        self.hand_out(p, None);
    }

    /// The client has gone: what comes for the call is dropped.
    pub(crate) fn abandon(&mut self, call: u64) {
        self.asks.remove(&call);
        self.channels.remove(&call);
        match self.ways.remove(&call) {
            Some(Way::Later(token)) => {
                self.later.remove(&token);
                self.member.release(token);
            }
            Some(Way::Task(task)) => self.executor.drop_task(task),
            None => {}
        }
    }

    /// Answers another member.
    pub(crate) fn answer(&mut self, asker: Asker, question: Question, token: Option<&str>) {
        let (member, answers) = (Rc::clone(&self.member), Rc::clone(&self.answers));
        let caller = self.caller(token);
        let future = Box::pin(async move {
            let answer = calls::peers::answer(&member, question, &caller).await;
            answers.borrow_mut().push((asker, answer));
        });
        self.spawn(future);
    }

    /// Waits for the answer to a question until `until`.
    pub(crate) fn expect_answer(&mut self, token: ReplyToken, until: u64) {
        self.questions.push((until, token));
    }

    /// Another member has answered, or will not.
    pub(crate) fn answered(&mut self, now: u64, p: &Process, token: ReplyToken, answer: Answered) {
        self.set_clock(now, p);
        let Some(place) = self.questions.iter().position(|(_, known)| *known == token) else {
            return;
        };
        self.questions.swap_remove(place);
        let answer = match (self.plant, answer) {
            // Planted: the others are taken for older than they are.
            (Some(Plant::WrongVersion), Ok(PeerAnswer::Versions(mut versions))) => {
                "3.6.0".clone_into(&mut versions.server);
                Ok(PeerAnswer::Versions(versions))
            }
            // Planted: nobody's hash is ever looked at.
            (Some(Plant::HashSkipped), Ok(PeerAnswer::Hash(_))) => {
                Err(PeerError::Other("skipped".to_owned()))
            }
            (_, answer) => answer,
        };
        self.member.answered(token, answer);
    }

    /// When timers, or the patience with other members, are due.
    pub(crate) fn due(&self, p: &Process) -> Option<u64> {
        let timer = self.member.next_deadline().map(|deadline| p.clock.when(deadline));
        let question = self.questions.iter().map(|(until, _)| *until).min();
        timer.into_iter().chain(question).min()
    }

    /// Lets everything end that is due.
    pub(crate) fn fire(&mut self, now: u64, p: &Process) {
        self.set_clock(now, p);
        self.member.fire(self.now.get());
        let late: Vec<ReplyToken> =
            self.questions.iter().filter(|(until, _)| *until <= now).map(|(_, t)| *t).collect();
        for token in late {
            let answer = Err(PeerError::Other("no answer in time".to_owned()));
            self.answered(now, p, token, answer);
        }
    }

    pub(crate) fn has_turns(&self) -> bool {
        self.executor.has_turns()
    }

    /// Lets one task go on that was woken.
    pub(crate) fn turn(&mut self, now: u64, p: &mut Process, entropy: &mut SplitMix) {
        self.set_clock(now, p);
        let call = self.executor.turn(entropy);
        self.hand_out(p, call);
        let answered = std::mem::take(&mut *self.answered.borrow_mut());
        for (call, answer) in answered {
            self.end(call, answer);
        }
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Runs one job on the pool.
    pub(crate) fn run_job(&mut self, entropy: &mut SplitMix) {
        let at = entropy.below(self.jobs.len() as u64) as usize;
        self.jobs.swap_remove(at)(&MayBlock::on_this_thread());
    }

    /// Takes a reply of the automata.
    pub(crate) fn reply(&mut self, now: u64, p: &mut Process, token: ReplyToken, reply: Reply) {
        self.set_clock(now, p);
        let reply = match reply {
            // Planted: whatever the newest View holds will do.
            Reply::ReadIndex(_) if self.plant == Some(Plant::ViewBeforeIndex) => {
                Reply::ReadIndex(Index(0))
            }
            reply => reply,
        };
        if let Some(call) = self.own.remove(&token) {
            return self.end(call, Ok(Bytes::new()));
        }
        let Some((call, finish)) = self.later.remove(&token) else {
            self.member.resolve(token, reply);
            return;
        };
        self.member.release(token);
        let mut out = Encoded::default();
        let answer = self.calls.finish(finish, reply, &mut out);
        self.go_on(call, answer, out);
        self.hand_out(p, Some(call));
    }

    /// Goes on with a call as its answer says.
    fn go_on(&mut self, call: u64, answer: Result<Answer, Status>, out: Encoded) {
        match answer {
            Err(status) => self.end(call, Err(status)),
            Ok(Answer::Now) => self.end(call, Ok(out.into_message().into())),
            Ok(Answer::Later(token, finish)) => {
                self.ways.insert(call, Way::Later(token));
                self.later.insert(token, (call, finish));
            }
            Ok(Answer::Waits(waiting)) => {
                let answered = Rc::clone(&self.answered);
                let future: Local<'static, ()> = match self.channels.get(&call) {
                    Some(channel) => Box::pin(transport::send(Rc::clone(channel), waiting)),
                    None => Box::pin(async move {
                        let answer = whole(waiting).await;
                        answered.borrow_mut().push((call, answer));
                    }),
                };
                let task = self.executor.spawn(future, Some(call));
                self.ways.insert(call, Way::Task(task));
            }
        }
    }

    fn end(&mut self, call: u64, answer: Result<Bytes, Status>) {
        self.ways.remove(&call);
        if let Some(channel) = self.channels.remove(&call) {
            return channel.answer(answer);
        }
        if let Some(ask) = self.asks.remove(&call) {
            self.done.push((call, answer.map(|bytes| wire::decode(&ask, &bytes))));
        }
    }

    /// Carries what is in the outbox to where it is wanted; `call` has put it there.
    fn hand_out(&mut self, p: &mut Process, call: Option<u64>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.member.take_all_but_node(&mut outbox);
        self.member.take_for_node(&mut outbox.node);
        for mut input in outbox.node.drain(..) {
            if let NodeInput::Propose(proposal) = &mut input {
                self.note(call, proposal.id.0, &proposal.data);
                if self.plant == Some(Plant::WrongField) {
                    proposal.data = plant::put_as_delete(&proposal.data);
                }
            }
            match self.instead_of(p, &input) {
                Some((token, reply)) => p.replies.push_back((token, reply)),
                None => p.to_node.push(input),
            }
        }
        outbox.applier.drain(..).for_each(|question| p.to_applier.push(question));
        self.jobs.append(&mut outbox.jobs);
        self.asked.append(&mut outbox.peers);
        for task in outbox.tasks.drain(..) {
            self.spawn(task);
        }
        outbox.yielded.drain(..).for_each(Waker::wake);
        self.outbox = outbox;
    }

    fn note(&mut self, call: Option<u64>, id: u64, data: &Bytes) {
        let decoded = machine::command::decode(data.clone()).expect("calls encode requests");
        let command = decoded.command.expect("calls propose commands");
        self.proposed.push(Proposed { id, call, command });
    }

    /// Planted: what a member answers by itself that it must ask Node for.
    fn instead_of(&self, p: &Process, input: &NodeInput) -> Option<(ReplyToken, Reply)> {
        match (self.plant?, input) {
            (Plant::ReadWithoutQuorum, NodeInput::ReadIndex(token)) if p.status.is_leader => {
                Some((*token, Reply::ReadIndex(Index(0))))
            }
            (Plant::DeposedKeepAlive, NodeInput::KeepAlive { token, lease, .. })
                if self.has_led =>
            {
                let ttl = p.ttl(*lease)?;
                Some((*token, Reply::KeepAlive(ttl)))
            }
            _ => None,
        }
    }
}
