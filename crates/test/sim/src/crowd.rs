//! Users: who calls in whose name, with which token, and what is written down for the checker.
//!
//! One seed in three has them. A client belongs to a user for good. It calls without a token until it
//! is told that it needs one, logs in then, and again whenever its token is good no more. Everything
//! is drawn from numbers of its own, so that seeds without users run as they always did.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::error::{ApiError, Status};
use api::etcdserverpb::WatchResponse;
use env::{Entropy, Hook, SplitMix};
use model::trail::{Asked, Told, Trail, Walked, Wish};
use model::users::Refusal;
use model::{Request, Violation};

use crate::clients::{Lane, Watcher};
use crate::keeper::Keeper;
use crate::options::UserOptions;
use crate::probes;
use crate::wire::{Ask, CallResult};
use crate::world::{MS, World};

/// The user that may do everything.
pub(crate) const ROOT: &str = "root";
/// Passwords that users have: one of these.
pub(crate) const PASSWORDS: [&str; 2] = ["first", "second"];
/// Where the clients begin that call once everything is healed, one of each user.
pub(crate) const LATER: u32 = 800;
/// Milliseconds after which a login is taken for lost.
const LOGIN_MS: u64 = 4_000;
/// Milliseconds between two looks of somebody who waits for a token.
const LOOK_MS: u64 = 20;

/// A token, and the last entry that was committed when it came.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: Arc<str>,
    since: u64,
}

/// Somebody who calls.
#[derive(Debug, Default)]
struct Actor {
    user: String,
    token: Option<Token>,
    /// It was told that it must say who it is.
    wants_token: bool,
    /// The login that it waits for, and until when.
    login: Option<(u64, u64)>,
    /// Logins that were refused in a row.
    refused: usize,
}

/// Everybody, and the trail that they leave.
pub(crate) struct Crowd {
    pub(crate) options: UserOptions,
    pub(crate) entropy: SplitMix,
    actors: BTreeMap<u32, Actor>,
    pub(crate) keeper: Keeper,
    pub(crate) trail: Trail,
    /// What calls asked for, by their numbers, as places in the trail; and who made them.
    asked: BTreeMap<u64, usize>,
    callers: BTreeMap<u64, u32>,
    /// What requests in the log were made of, likewise.
    requests: BTreeMap<u64, usize>,
}

impl Crowd {
    pub(crate) fn new((options, mut entropy): (UserOptions, SplitMix)) -> Self {
        let keeper = Keeper::new(&options, &mut entropy);
        Self {
            options,
            entropy,
            actors: BTreeMap::new(),
            keeper,
            trail: Trail::default(),
            asked: BTreeMap::new(),
            callers: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
    }

    /// The user that a client belongs to.
    fn user_of(&self, client: u32) -> String {
        let users = self.options.users;
        if (LATER..LATER + 100).contains(&client) {
            return format!("u{}", client - LATER);
        }
        // Of those who only call and watch: the first of each kind is root.
        let is_roots = client >= 900 || client.is_multiple_of(3) || client == 100;
        match client % (users + 1) {
            _ if client == crate::keeper::IMPOSTOR => "u1".to_owned(),
            _ if is_roots => ROOT.to_owned(),
            n => format!("u{}", n.max(1)),
        }
    }

    fn actor(&mut self, client: u32) -> &mut Actor {
        let user = self.user_of(client);
        self.actors.entry(client).or_insert_with(|| Actor { user, ..Actor::default() })
    }

    /// The token that a client calls with.
    pub(crate) fn token(&self, client: u32) -> Option<Arc<str>> {
        let actor = self.actors.get(&client)?;
        actor.token.as_ref().map(|token| Arc::clone(&token.text))
    }

    /// Writes down that a client asks for something; its place in the trail.
    fn note(&mut self, client: u32, wish: Wish, from: u64) -> usize {
        let actor = self.actor(client);
        let token = actor.token.as_ref();
        let asked = Asked {
            user: token.map(|_| actor.user.clone()),
            token_since: token.map_or(0, |token| token.since),
            wish,
            from,
            upto: u64::MAX,
            told: Told::Other,
        };
        self.trail.asked.push(asked);
        self.trail.asked.len() - 1
    }

    /// A request goes into the log for a call.
    pub(crate) fn proposed(&mut self, call: Option<u64>, id: u64) {
        if let Some(place) = call.and_then(|call| self.asked.get(&call)) {
            self.requests.insert(id, *place);
        }
    }

    /// What a request of the log was made of.
    pub(crate) fn made_of(&self, id: u64) -> Option<usize> {
        self.requests.get(&id).copied()
    }

    /// A client has heard of what it asked for.
    fn heard(&mut self, client: u32, place: usize, told: Told, upto: u64) {
        let asked = &mut self.trail.asked[place];
        (asked.told, asked.upto) = (told, upto);
        let (user, since) = (asked.user.clone(), asked.token_since);
        if asked.user.is_none() && told == Told::Refused(Refusal::Nobody) {
            let actor = self.actor(client);
            actor.wants_token = true;
        }
        if told == Told::Refused(Refusal::Denied) && user.is_some() {
            // Perhaps it is another user by now.
            let keeps = self.entropy.below(20) > 0;
            let actor = self.actor(client);
            actor.token.take_if(|token| token.since == since && !keeps);
        }
    }

    /// A call was answered, whoever it was of. Whether it was a login.
    pub(crate) fn answered(
        &mut self,
        call: u64,
        got: &Result<CallResult, Status>,
        upto: u64,
    ) -> bool {
        let Some(place) = self.asked.remove(&call) else { return false };
        let Some(client) = self.callers.remove(&call) else { return false };
        let told = match got {
            Ok(CallResult::Kv(response)) => Told::Done(response.revision()),
            Ok(_) => Told::Done(0),
            Err(status) => told_of(status),
        };
        self.heard(client, place, told, upto);
        if let Ok(CallResult::Keys(keys)) = got {
            let asked = self.trail.asked[place].clone();
            let shown = keys.iter().map(|key| Wish::SeeKey(key.clone()));
            self.trail.asked.extend(shown.map(|wish| Asked { wish, ..asked.clone() }));
        }
        let actor = self.actor(client);
        if actor.login.is_some_and(|(login, _)| login == call) {
            actor.login = None;
            match got {
                Ok(CallResult::Token(text)) => {
                    actor.token = Some(Token { text: text.as_str().into(), since: upto });
                    (actor.wants_token, actor.refused) = (false, 0);
                }
                // There is no such user, or authentication is off: it calls as it is.
                Err(status) if status.message == ApiError::AuthNotEnabled.text() => {
                    (actor.token, actor.wants_token, actor.refused) = (None, false, 0);
                }
                _ if actor.refused >= PASSWORDS.len() => {
                    (actor.token, actor.wants_token, actor.refused) = (None, false, 0);
                }
                _ => actor.refused += 1,
            }
        } else if got.as_ref().is_err_and(is_unknown_token) {
            (actor.token, actor.wants_token) = (None, true);
        }
        matches!(self.trail.asked[place].wish, Wish::LogIn { .. })
    }

    /// A watch was created or refused.
    pub(crate) fn watched(
        &mut self,
        client: u32,
        place: usize,
        response: &WatchResponse,
        upto: u64,
    ) {
        if !response.created {
            return;
        }
        let reason = &response.cancel_reason;
        let is = |error: ApiError| reason.contains(error.text());
        let told = match () {
            () if !response.canceled => Told::Done(0),
            () if is(ApiError::UserEmpty) => Told::Refused(Refusal::Nobody),
            () if is(ApiError::PermissionDenied) => Told::Refused(Refusal::Denied),
            () => Told::Other,
        };
        self.heard(client, place, told, upto);
        if is(ApiError::InvalidAuthToken) {
            let actor = self.actor(client);
            (actor.token, actor.wants_token) = (None, true);
        }
    }

    /// From now on a client is root.
    pub(crate) fn crown(&mut self, client: u32) {
        let actor = self.actor(client);
        *actor = Actor { user: ROOT.to_owned(), ..Actor::default() };
    }
}

/// Whether a call failed for a token that is known no more.
pub(crate) fn is_unknown_token(status: &Status) -> bool {
    status.message == ApiError::InvalidAuthToken.text()
}

/// Whether a call failed only because its caller must say who it is, perhaps anew.
pub(crate) fn wants_login(status: &Status) -> bool {
    is_unknown_token(status)
        || status.message == ApiError::UserEmpty.text()
        || status.message == ApiError::AuthOldRevision.text()
}

fn told_of(status: &Status) -> Told {
    let is = |error: ApiError| status.code == error.code() && status.message == error.text();
    match () {
        () if is(ApiError::UserEmpty) => Told::Refused(Refusal::Nobody),
        () if is(ApiError::AuthOldRevision) => Told::Refused(Refusal::Old),
        () if is(ApiError::PermissionDenied) => Told::Refused(Refusal::Denied),
        () if is(ApiError::InvalidAuthToken) => Told::BadToken,
        () => Told::Other,
    }
}

/// What a request of the wire asks for, as the checker names it.
fn wish(ask: &Ask) -> Option<Wish> {
    Some(match ask {
        Ask::Kv(request) => Wish::Call(request.clone()),
        Ask::Leases => Wish::Leases,
        Ask::TimeToLive { lease, keys } => Wish::TimeToLive { lease: *lease, keys: *keys },
        Ask::LogIn { user, password } => {
            Wish::LogIn { user: user.clone(), password: (*password).to_owned() }
        }
        Ask::Users(change) => change.wish(),
        Ask::Defragment | Ask::Disarm(_) | Ask::Change(_) | Ask::Transfer(_) => Wish::Root,
        Ask::AwaitCompaction => return None,
    })
}

/// Whether whoever decides knows of everything that was committed when it was asked; otherwise it
/// goes by what one member had applied.
fn is_linear(wish: &Wish) -> bool {
    match wish {
        Wish::Call(request) => match request {
            Request::Range(r) => !r.serializable,
            Request::Txn(r) => {
                let ops = r.success.iter().chain(&r.failure);
                use api::etcdserverpb::request_op::Request as Op;
                !ops.into_iter()
                    .all(|op| matches!(&op.request, Some(Op::RequestRange(r)) if r.serializable))
            }
            Request::Put(_) | Request::DeleteRange(_) => true,
            _ => false,
        },
        Wish::LogIn { .. } | Wish::Change(_) | Wish::Enable => true,
        Wish::SeeUser(_) | Wish::SeeRole(_) => true,
        Wish::Watch(_) | Wish::TimeToLive { .. } | Wish::Leases => false,
        Wish::SeeKey(_) | Wish::Root => false,
    }
}

impl World {
    /// Writes down what a client asks a member for.
    pub(crate) fn note_asked(&mut self, m: usize, client: u32, call: u64, ask: &Ask) {
        let Some(wish) = self.crowd.as_ref().and_then(|_| wish(ask)) else { return };
        let from = self.known_to(m, is_linear(&wish));
        let Some(crowd) = &mut self.crowd else { return };
        let place = crowd.note(client, wish, from);
        crowd.asked.insert(call, place);
        crowd.callers.insert(call, client);
    }

    /// Writes down that a client wants to watch; its place in the trail.
    pub(crate) fn note_watch(&mut self, w: usize) {
        if self.crowd.is_none() {
            return;
        }
        let watcher = &self.watchers[w];
        let (m, client) = (watcher.member, watcher.client);
        let requests: Vec<_> = watcher.lanes.iter().map(|lane| lane.request.clone()).collect();
        let from = self.known_to(m, false);
        let Some(crowd) = &mut self.crowd else { return };
        let places: Vec<_> =
            requests.into_iter().map(|r| crowd.note(client, Wish::Watch(r), from)).collect();
        for (lane, place) in self.watchers[w].lanes.iter_mut().zip(places) {
            lane.asked = Some(place);
        }
    }

    /// A watcher has been told something.
    pub(crate) fn note_watched(&mut self, w: usize, response: &WatchResponse) {
        let upto = self.checks.last_committed().0;
        let (Some(crowd), watcher) = (&mut self.crowd, &mut self.watchers[w]) else { return };
        // Responses to what is refused name no watch, and come in the order of the requests.
        let client = watcher.client;
        let lane = watcher.lane_of(response);
        if let Some(place) = lane.and_then(|lane| lane.asked.take()) {
            crowd.watched(client, place, response, upto);
        }
    }

    /// The last entry that whoever decides must know of.
    fn known_to(&self, m: usize, is_linear: bool) -> u64 {
        let running = self.members[m].running.as_ref().expect("asked while it runs");
        let applied = running.process.view.store.applied_index().0;
        if is_linear { applied.max(self.checks.last_committed().0) } else { applied }
    }

    /// Whether a client may call as it is. If it must log in first it is about to, and comes back
    /// later.
    pub(crate) fn is_known(&mut self, m: usize, client: u32) -> bool {
        let now = self.now;
        let Some(crowd) = &mut self.crowd else { return true };
        let actor = crowd.actor(client);
        if !actor.wants_token {
            return true;
        }
        if actor.login.is_some_and(|(_, until)| now < until) {
            return false;
        }
        let (user, refused) = (actor.user.clone(), actor.refused);
        actor.token = None;
        // Root's password stays.
        let password = PASSWORDS[if user == ROOT { 0 } else { refused % PASSWORDS.len() }];
        let (call, _) = self.call(m, client, Ask::LogIn { user, password });
        if let Some(crowd) = &mut self.crowd {
            crowd.actor(client).login = Some((call, now + LOGIN_MS * MS));
        }
        self.collect(m);
        false
    }

    /// When somebody looks again who waits for a token.
    pub(crate) fn look_again(&self) -> u64 {
        self.now + LOOK_MS * MS
    }

    /// All watchers are root from now on, and begin anew: what they may not see is not waited for.
    pub(crate) fn crown_watchers(&mut self) {
        let Some(crowd) = &mut self.crowd else { return };
        for watcher in &mut self.watchers {
            crowd.crown(watcher.client);
            let Some((task, _)) = watcher.stream.take() else { continue };
            if let Some(running) = &mut self.members[watcher.member].running {
                running.close(self.now, task);
            }
            watcher.disconnected();
        }
    }

    /// Follows the trail of users through the log.
    ///
    /// # Errors
    /// Something was done that is not permitted, or refused that is.
    pub(crate) fn walk(&mut self) -> Result<Walked, Violation> {
        let Some(crowd) = &mut self.crowd else { return Ok(Walked::default()) };
        let mut trail = std::mem::take(&mut crowd.trail);
        self.checks.trail(&mut trail, |id| crowd.made_of(id));
        let walked = model::trail::check(&trail)?;
        let asked = |index: &u64| trail.log[*index as usize].asked.is_some();
        for (index, refusal) in walked.refused.iter().filter(|(index, _)| asked(index)) {
            self.took(match refusal {
                Refusal::Denied | Refusal::Nobody => probes::DENIED_AT_APPLY,
                Refusal::Old => probes::OLD_AT_APPLY,
            });
            self.trace.event(self.now, format_args!("entry {index} was refused: {refusal:?}"));
        }
        if walked.of_the_gone > 0 {
            self.took(probes::GONE);
        }
        Ok(walked)
    }

    /// A rare path was taken.
    fn took(&self, probe: &'static str) {
        Hook::reached(&*self.probes, probe);
    }

    /// A role was taken from users: notes whether one of them has a watch open.
    pub(crate) fn note_revoked(&mut self, user: &str) {
        let Some(crowd) = &self.crowd else { return };
        let watches = |w: &Watcher| {
            let is_open = |lane: &Lane| lane.id.is_some() && lane.asked.is_none();
            crowd.user_of(w.client) == user && w.lanes.iter().any(is_open)
        };
        if self.watchers.iter().any(watches) {
            self.took(probes::REVOKED_AMID_WATCH);
        }
    }
}
