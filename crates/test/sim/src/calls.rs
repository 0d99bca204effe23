//! What clients, watchers and members' own helpers do: whom they ask, what they are told, and what
//! is written down of it.

use api::error::Status;
use env::Entropy;
use machine::Command;
use model::{Operation, Outcome, Request};

use crate::clients::Busy;
use crate::plant::Plant;
use crate::wire::{self, Ask, CallResult};
use crate::workload::{self, Known};
use crate::world::{MS, World};

/// Bytes of a watch's window for each step of the option.
const WINDOW_BYTES: usize = 100;
/// The client that stands for the member's own compactions.
const COMPACTOR: u32 = 1_000;

impl World {
    /// Gives replies to those who wait.
    pub(crate) fn deliver(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let count = 1 + self.entropy.below(running.process.replies.len() as u64);
        for _ in 0..count {
            let Some((token, reply)) = running.process.replies.pop_front() else { break };
            running.gateway.reply(self.now, &mut running.process, token, reply);
        }
        self.collect(m);
    }

    /// Lets a task of the calls go on.
    pub(crate) fn turn(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        running.gateway.turn(self.now, &mut running.process, &mut self.entropy);
        self.collect(m);
    }

    /// Lets a connection to a member go on.
    pub(crate) fn carry(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        self.counts.carried += running.exchange(self.now, self.chaos);
        self.collect(m);
    }

    /// Lets timers of the calls end.
    pub(crate) fn fire(&mut self, m: usize) {
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        running.gateway.fire(self.now, &running.process);
    }

    /// Writes down what calls were told.
    pub(crate) fn collect(&mut self, m: usize) {
        self.note_requests(m);
        self.exchange(m);
        let running = self.members[m].running.as_mut().expect("listed while it runs");
        let id = running.process.id;
        for line in running.gateway.lines.borrow_mut().drain(..) {
            self.trace.event(self.now, format_args!("{id} tells {line}"));
        }
        let done = std::mem::take(&mut running.gateway.done);
        let upto = self.checks.last_committed().0;
        for (call, result) in done {
            if self.crowd.as_mut().is_some_and(|crowd| crowd.answered(call, &result, upto))
                || self.keeper_done(call, &result)
            {
                continue;
            }
            let owner =
                self.clients.iter_mut().find(|c| c.busy.is_some_and(|busy| busy.call == call));
            let Some(client) = owner else {
                if self.admin.busy.is_some_and(|(own, _)| own == call) {
                    self.admin_done(&result);
                    continue;
                }
                self.results.push((call, result));
                continue;
            };
            let no_space = api::error::ApiError::NoSpace.text();
            let refused = result.as_ref().is_err_and(|status| status.message == no_space);
            self.counts.no_space += u64::from(refused);
            self.last_error = result.as_ref().err().cloned();
            let place = client.busy.take().and_then(|busy| busy.place);
            client.next_at = self.now + self.entropy.below(self.options.think_ms * MS);
            self.trace.event(self.now, format_args!("client {} told {result:?}", client.id));
            match place {
                Some(place) => {
                    let op = &mut self.history.operations[place];
                    if matches!((&op.request, &result), (Request::Compact(_), Ok(_))) {
                        self.counts.compactions += 1;
                    }
                    note(op, self.now, result, &mut self.known);
                }
                None => {
                    let is_done = matches!(result, Ok(CallResult::Done));
                    self.counts.defragmentations += u64::from(is_done);
                }
            }
        }
    }

    /// Begins a call that is written down if the model knows what it means.
    pub(crate) fn call(&mut self, m: usize, client: u32, ask: Ask) -> (u64, Option<usize>) {
        let place = match &ask {
            Ask::Kv(request) => {
                self.history.operations.push(Operation {
                    client,
                    call: self.now,
                    returned: None,
                    request: request.clone(),
                    outcome: Outcome::Unknown,
                });
                Some(self.history.operations.len() - 1)
            }
            _ => None,
        };
        self.trace.event(self.now, format_args!("client {client} asks {ask:?}"));
        let token = self.crowd.as_ref().and_then(|crowd| crowd.token(client));
        let token = token.filter(|_| !matches!(ask, Ask::LogIn { .. }));
        let running = self.members[m].running.as_mut().expect("called while it runs");
        let call = running.number();
        self.note_asked(m, client, call, &ask);
        let running = self.members[m].running.as_mut().expect("called while it runs");
        running.call(self.now, call, ask, token);
        if let Some(place) = place {
            self.places.insert(call, place);
        }
        self.note_requests(m);
        (call, place)
    }

    /// Remembers which request belongs to which operation. What a member compacts by itself is an
    /// operation of its own.
    fn note_requests(&mut self, m: usize) {
        let Some(running) = &mut self.members[m].running else { return };
        for proposed in std::mem::take(&mut running.gateway.proposed) {
            if let Some(crowd) = &mut self.crowd {
                crowd.proposed(proposed.call, proposed.id);
            }
            let place = match (proposed.call, proposed.command) {
                (Some(call), command) => {
                    let asked = self.places.get(&call).copied();
                    asked.filter(|place| {
                        let ask = Ask::Kv(self.history.operations[*place].request.clone());
                        wire::command(&ask) == Some(command.kind())
                    })
                }
                (None, Command::Compaction(request)) => {
                    self.history.operations.push(Operation {
                        client: COMPACTOR,
                        call: self.now,
                        returned: None,
                        request: Request::Compact(request),
                        outcome: Outcome::Unknown,
                    });
                    self.counts.compactions += 1;
                    Some(self.history.operations.len() - 1)
                }
                (None, _) => None,
            };
            if let Some(place) = place {
                self.requests.insert(proposed.id, place);
            }
        }
    }

    /// Some member that clients find, by place.
    pub(crate) fn some_server(&mut self) -> Option<usize> {
        let servers: Vec<usize> =
            (0..self.members.len()).filter(|m| self.members[*m].serves()).collect();
        let at = self.entropy.below(servers.len() as u64) as usize;
        servers.get(at).copied()
    }

    pub(crate) fn step_client(&mut self, c: usize) {
        let moves = self.members.len() > 1 && self.entropy.below(20) == 0;
        if moves || !self.members[self.clients[c].member].serves() {
            let Some(server) = self.some_server() else { return };
            self.clients[c].member = server;
        }
        let (id, member) = (self.clients[c].id, self.clients[c].member);
        if !self.is_known(member, id) {
            self.clients[c].next_at = self.look_again();
            return;
        }
        self.known.operations += 1;
        let ask = workload::ask(&mut self.entropy, &self.options, &self.known);
        let ask = self.of_leases().unwrap_or(ask);
        let (call, place) = self.call(member, id, ask);
        let patience = self.options.cluster.as_ref().map(|o| o.patience_ms * MS);
        let until = patience.map_or(u64::MAX, |p| self.now + p / 2 + self.entropy.below(p / 2));
        self.clients[c].busy = Some(Busy { call, place, member, until });
        self.collect(member);
    }

    /// A client does not wait any longer: what it asked for may have happened, or happen yet.
    pub(crate) fn give_up(&mut self, c: usize) {
        let Some(busy) = self.clients[c].busy.take() else { return };
        self.trace.event(self.now, format_args!("client {} gives up", self.clients[c].id));
        if let Some(running) = &mut self.members[busy.member].running {
            running.abandon(busy.call);
        }
        self.clients[c].next_at = self.now + self.entropy.below(self.options.think_ms * MS);
        self.clients[c].member = self.some_server().unwrap_or(busy.member);
        self.ask_again(c, busy);
    }

    /// Planted: a put that was not answered is asked for once more.
    pub(crate) fn ask_again(&mut self, c: usize, busy: Busy) {
        let Some(place) = busy.place.filter(|_| self.plant == Some(Plant::RetriedPut)) else {
            return;
        };
        let request = self.history.operations[place].request.clone();
        let member = self.clients[c].member;
        if !matches!(request, Request::Put(_)) || !self.members[member].serves() {
            return;
        }
        let running = self.members[member].running.as_mut().expect("it serves");
        let call = running.number();
        running.call(self.now, call, Ask::Kv(request), None);
        self.places.insert(call, place);
        self.note_requests(member);
        let until = self.now + 5_000 * MS;
        self.clients[c].busy = Some(Busy { call, place: Some(place), member, until });
        self.collect(member);
    }

    pub(crate) fn step_watcher(&mut self, w: usize) {
        let pause = if self.chaos { self.options.think_ms.min(60) } else { 5 };
        let pause = self.entropy.below(pause * MS);
        self.watchers[w].next_at = self.now + pause;
        if self.watchers[w].stream.is_none() {
            let Some(server) = self.some_server() else { return };
            self.watchers[w].member = server;
        }
        let watcher = &mut self.watchers[w];
        if self.members[watcher.member].paused_until > self.now {
            return;
        }
        if watcher.stream.is_none() {
            self.connect(w);
            return;
        }
        let roll = self.entropy.below(if self.chaos { 200 } else { 20 });
        // The first of them is asked for nothing that could disturb it in vain.
        let mut again = self.chaos && roll == 199;
        if roll < 10 {
            watcher.want_progress();
        }
        for _ in 0..1 + self.entropy.below(4) {
            let Some(response) = self.watchers[w].next() else { break };
            self.note_watched(w, &response);
            let watcher = &mut self.watchers[w];
            if self.plant == Some(Plant::SkippedTombstone) && watcher.swallow(&response) {
                continue;
            }
            let revision = response.header.as_ref().map_or(0, |h| h.revision);
            self.trace.event(
                self.now,
                format_args!("watch {w} {} events at {revision}", response.events.len()),
            );
            self.known.revision = self.known.revision.max(revision);
            again |= watcher.take(self.now, &response);
        }
        let watcher = &mut self.watchers[w];
        let Some((task, stream)) = &watcher.stream else { return };
        again |= stream.ended.borrow().is_some() && !stream.has_message();
        if again {
            let running = self.members[watcher.member].running.as_mut();
            let running = running.expect("a stream ends with its process");
            running.close(self.now, *task);
            watcher.disconnected();
        }
    }
}

impl World {
    /// A watcher opens a stream, once it may.
    fn connect(&mut self, w: usize) {
        let (m, client) = (self.watchers[w].member, self.watchers[w].client);
        if !self.is_known(m, client) {
            self.watchers[w].next_at = self.look_again();
            return;
        }
        let token = self.crowd.as_ref().and_then(|crowd| crowd.token(client));
        let running = self.members[m].running.as_mut().expect("it serves");
        let window = self.options.window * WINDOW_BYTES;
        self.watchers[w].connect(self.now, window, running, token);
        self.note_watch(w);
    }

    /// Now and then users look at leases.
    fn of_leases(&mut self) -> Option<Ask> {
        let crowd = self.crowd.as_mut()?;
        let lease = self.known.leases.last().copied();
        match crowd.entropy.below(40) {
            0 => Some(Ask::Leases),
            1 | 2 => lease.map(|lease| Ask::TimeToLive { lease, keys: crowd.entropy.below(3) > 0 }),
            _ => None,
        }
    }
}

/// Writes an outcome down, and what everyone learns from it.
fn note(op: &mut Operation, now: u64, result: Result<CallResult, Status>, known: &mut Known) {
    op.returned = Some(now);
    op.outcome = match result {
        Ok(CallResult::Kv(response)) => {
            known.revision = known.revision.max(response.revision());
            match &op.request {
                Request::LeaseGrant(r) => known.leases.push(r.id),
                Request::Compact(r) => known.compact = known.compact.max(r.revision),
                _ => {}
            }
            Outcome::Answered(response)
        }
        Ok(other) => unreachable!("no operation of the model is told {other:?}"),
        Err(status) => Outcome::of_error(status),
    };
}
