//! The second phase: nothing goes wrong any more, and all that is waited for must happen.

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{AlarmType, PutRequest};
use model::{Outcome, Request, Response};

use machine::membership::v2_store_json;

use crate::checks;
use crate::clients::{Busy, Client, Watcher};
use crate::crowd;
use crate::keeper::UserCall;
use crate::plant;
use crate::process::Process;
use crate::wire::{Ask, CallResult};
use crate::workload;
use crate::world::{MS, Running, World};
use types::MemberId;

/// Simulated time within which everything that was waited for must have happened: longer than the
/// longest timeout of a request and the longest lease.
const PATIENCE: u64 = 30_000 * MS;
/// Steps within which each stage must end.
const MAX_STEPS: u64 = 2_000_000;
/// The client of this phase.
const LAST: u32 = 999;
/// Calls of each user once nothing changes any more.
const CALLS_OF_EACH: usize = 12;
/// Times that it logs in for one call.
const MAX_LOGINS: usize = 8;

/// Heals everything, and demands progress.
///
/// # Errors
/// What did not happen in time.
pub(crate) fn run(world: &mut World) -> Result<(), String> {
    world.trace.event(world.now, format_args!("healed"));
    world.heal_all();
    until(world, "every call is answered", |w| {
        // A leader that hands over drops what other members send on, as in etcd.
        let keeper = w.crowd.as_ref().and_then(|crowd| crowd.keeper.busy);
        w.clients.iter().all(|c| c.busy.is_none())
            && w.admin.busy.is_none()
            && keeper.is_none_or(|(.., until)| w.now > until)
    })?;
    until(world, "every member serves", all_serve)?;
    world.crown_watchers();
    // What a member asked for before a snapshot that covers it is installed times out, as in etcd.
    caught_up(world)?;
    // Twice: the first may be overtaken by an alarm that was on its way.
    for _ in 0..2 {
        let Some(member) = world.some_server() else { return Err("nobody serves".to_owned()) };
        let member = world.members[member].id;
        ask(world, Ask::Disarm(member))?.map_err(|e| format!("disarming: {e}"))?;
    }
    write(world)?;
    until_no_lease(world)?;
    ask(world, Ask::AwaitCompaction)?.map_err(|e| format!("compacting: {e}"))?;
    settle_watches(world)?;
    read(world)?;
    equal(world)?;
    for m in 0..world.members.len() {
        if world.members[m].running.is_some() {
            world.crash(m);
        }
    }
    until(world, "every member serves again", all_serve)?;
    caught_up(world)?;
    read(world)?;
    ask(world, Ask::Defragment)?.map_err(|e| format!("defragmenting: {e}"))?;
    write(world)?;
    read(world)?;
    equal(world)?;
    users_are_served(world)?;
    equal(world)?;
    version_is_decided(world)?;
    divergence_is_found(world)
}

/// Authentication is on in the end, every user can log in, and is let in or refused at once by what
/// its roles permit, which the trail shows: nothing changes any more.
fn users_are_served(world: &mut World) -> Result<(), String> {
    let Some(options) = world.crowd.as_ref().map(|crowd| crowd.options.clone()) else {
        return Ok(());
    };
    let root = || crowd::ROOT.to_owned();
    let [password, _] = crowd::PASSWORDS;
    let mut changes = vec![
        UserCall::Add { user: root(), password },
        UserCall::GrantRole { user: root(), role: root() },
        UserCall::Enable,
    ];
    for n in 1..=options.users {
        let user = format!("u{n}");
        changes.push(UserCall::Add { user: user.clone(), password });
        changes.push(UserCall::ChangePassword { user, password });
    }
    let mut enabled = false;
    for change in changes {
        let is_last_word = matches!(change, UserCall::Enable | UserCall::ChangePassword { .. });
        let result = ask(world, Ask::Users(change.clone()))?;
        enabled |= result.is_ok() && matches!(change, UserCall::Enable);
        // What is there already is refused.
        if let Err(status) = result
            && is_last_word
        {
            return Err(format!("{change:?} after healing: {status}"));
        }
    }
    if !enabled {
        return Err("authentication is not on after healing".to_owned());
    }
    caught_up(world)?;
    for n in 1..=options.users {
        for _ in 0..CALLS_OF_EACH {
            let request = workload::call(&mut world.entropy, &world.options, &world.known);
            let result = ask_as(world, crowd::LATER + n, &Ask::Kv(request.clone()))?;
            if result.is_err_and(|status| status.code == Code::Unavailable) {
                return Err(format!("{request:?} of u{n} is not answered after healing"));
            }
        }
    }
    Ok(())
}

/// The cluster comes to speak what all its members do.
fn version_is_decided(world: &mut World) -> Result<(), String> {
    until(world, "the cluster's version is that of its members", |w| {
        let decided = newest(w).and_then(|p| p.view.members.cluster_version.as_deref());
        decided == Some(types::CLUSTER_VERSION)
    })
}

/// Last of all one member's data is made different: comparing hashes must find it. Nobody reads
/// any more.
fn divergence_is_found(world: &mut World) -> Result<(), String> {
    let follower = (0..world.members.len()).find(|m| {
        // A learner refuses what is asked of it below.
        let running = world.members[*m].running.as_ref().filter(|r| r.serving);
        running.is_some_and(|r| {
            let voter = |member: &machine::membership::Member| !member.is_learner;
            !r.process.status.is_leader
                && r.process.view.members.get(r.process.id).is_some_and(voter)
        })
    });
    let Some(follower) = follower.filter(|_| world.options.corrupt_check_ms.is_some()) else {
        return Ok(());
    };
    world.watchers.clear();
    // A token is at hand.
    ask(world, Ask::Leases)?.map_err(|e| format!("listing leases: {e}"))?;
    // What its backend holds is not written anew by the log, nor compacted.
    let (call, _) = world.call(follower, LAST, Ask::Defragment);
    world.collect(follower);
    until(world, "the backend is complete", |w| w.results.iter().any(|(done, _)| *done == call))?;
    let refused =
        world.results.iter().find_map(|(done, r)| r.as_ref().err().filter(|_| *done == call));
    if let Some(status) = refused {
        return Err(format!("defragmenting a follower: {status:?}"));
    }
    world.checks.diverged = true;
    world.end(follower, false);
    if !plant::change_a_value(&world.members[follower].disk) {
        return Ok(());
    }
    until(world, "the changed member serves", all_serve)?;
    until(world, "the alarm for corrupt data is raised", |w| {
        newest(w).is_some_and(|p| p.view.alarms.is_set(AlarmType::Corrupt))
    })
}

/// Who runs and knows most.
fn newest(world: &World) -> Option<&Process> {
    let running = world.members.iter().filter_map(|m| m.running.as_ref());
    running.map(|r| &r.process).max_by_key(|p| p.view.store.applied_index())
}

/// Processes that know of a cluster.
fn in_cluster(world: &World) -> impl Iterator<Item = &Process> {
    let running = world.members.iter().filter_map(|m| m.running.as_ref());
    running.map(|r| &r.process).filter(|p| !p.view.members.is_empty())
}

/// Whether all who belong to the cluster are up, voters serve, and nobody else is left.
fn all_serve(world: &World) -> bool {
    let Some(newest) = newest(world) else { return false };
    let members = &newest.view.members;
    // What is asked of a member whose leader has gone is lost, in etcd too.
    let leader = newest.status.leader;
    let led = leader.is_some() && in_cluster(world).all(|p| p.status.leader == leader);
    let leads = in_cluster(world).any(|p| Some(p.id) == leader && p.status.is_leader);
    led && leads
        && !members.is_empty()
        && members.iter().all(|known| world.place(MemberId(known.id)).is_some())
        && world.members.iter().all(|member| match (members.get(member.id), &member.running) {
            // One that was removed before it heard anything waits for ever, in etcd too.
            (None, running) => running.as_ref().is_none_or(|r| r.process.view.members.is_empty()),
            (Some(_), None) => false,
            (Some(known), Some(running)) => {
                known.is_learner && running.process.view.members.get(member.id).is_some()
                    || running.serving
            }
        })
}

/// All members come to have applied the same.
fn caught_up(world: &mut World) -> Result<(), String> {
    until(world, "every member has applied everything", |w| {
        let index = newest(w).map(|p| p.view.store.applied_index());
        in_cluster(w).all(|p| Some(p.view.store.applied_index()) == index)
    })
}

/// All members hold the same.
fn equal(world: &mut World) -> Result<(), String> {
    caught_up(world)?;
    let mut first = None;
    for process in in_cluster(world) {
        let view = &process.view;
        let state = (checks::hash_keys(view), v2_store_json(&view.members));
        let (id, known) = first.get_or_insert_with(|| (process.id, state.clone()));
        if *known != state {
            return Err(format!("{id} holds {known:?} in the end, {} {state:?}", process.id));
        }
    }
    Ok(())
}

/// Steps until something holds.
fn until(world: &mut World, what: &str, holds: impl FnMut(&World) -> bool) -> Result<(), String> {
    until_reached(world, what, |_| 0, holds)
}

/// Steps until something holds. Patience begins anew whenever `reached` is another number: what has
/// a long way to go may go it.
fn until_reached(
    world: &mut World,
    what: &str,
    reached: impl Fn(&World) -> i64,
    mut holds: impl FnMut(&World) -> bool,
) -> Result<(), String> {
    let limits = |world: &World| (world.now + PATIENCE, world.counts.steps + MAX_STEPS);
    let (mut at, (mut deadline, mut last)) = (reached(world), limits(world));
    while !holds(world) {
        if world.now > deadline || world.counts.steps > last {
            return Err(format!("no progress after healing: waited in vain until {what}"));
        }
        world.step()?;
        let now_at = reached(world);
        if now_at != at {
            (at, (deadline, last)) = (now_at, limits(world));
        }
    }
    Ok(())
}

/// Asks and waits for the answer. Who is to say who it is logs in, and again if its token is known no
/// more where it asks.
fn ask(world: &mut World, ask: Ask) -> Result<Result<CallResult, Status>, String> {
    ask_as(world, LAST, &ask)
}

/// As [`ask`], in the name of a client.
fn ask_as(world: &mut World, client: u32, ask: &Ask) -> Result<Result<CallResult, Status>, String> {
    for _ in 0..MAX_LOGINS {
        match ask_once(world, client, ask.clone())? {
            Err(status) if world.crowd.is_some() && crowd::wants_login(&status) => {}
            result => return Ok(result),
        }
    }
    Err(format!("whoever logs in is not let in: {ask:?} of {client}"))
}

fn ask_once(
    world: &mut World,
    client: u32,
    ask: Ask,
) -> Result<Result<CallResult, Status>, String> {
    let what = format!("{ask:?} is answered");
    let member = match (&ask, world.some_server()) {
        // Only the leader counts their time.
        (Ask::Leases, _) => {
            let leads = |r: &Running| r.process.status.is_leader;
            let mut places = 0..world.members.len();
            places.find(|m| world.members[*m].running.as_ref().is_some_and(leads))
        }
        (_, server) => server,
    };
    let member = member.ok_or("nobody serves")?;
    let (deadline, last) = (world.now + PATIENCE, world.counts.steps + MAX_STEPS);
    while !world.is_known(member, client) {
        if world.now > deadline || world.counts.steps > last {
            return Err(format!("no progress after healing: {client} never gets a token"));
        }
        world.step()?;
    }
    let (call, place) = world.call(member, client, ask);
    if let Some(place) = place {
        let busy = Busy { call, place: Some(place), member, until: u64::MAX };
        let client = Client { id: client, next_at: 0, busy: Some(busy), member };
        world.clients.push(client);
        world.collect(member);
        until(world, &what, |w| w.clients.last().is_some_and(|c| c.busy.is_none()))?;
        world.clients.pop();
        let result = match &world.history.operations[place].outcome {
            Outcome::Answered(response) => Ok(CallResult::Kv(response.clone())),
            Outcome::Refused(status) => Err(status.clone()),
            Outcome::Unknown => Err(world.last_error.take().unwrap_or(ApiError::Stopped.into())),
        };
        return Ok(result);
    }
    until(world, &what, |w| w.results.iter().any(|(number, _)| *number == call))?;
    let at = world.results.iter().position(|(number, _)| *number == call);
    Ok(world.results.swap_remove(at.expect("waited for")).1)
}

/// A write must succeed, unless there is no space for it.
fn write(world: &mut World) -> Result<(), String> {
    let put = PutRequest { key: "last".into(), value: "word".into(), ..PutRequest::default() };
    match ask(world, Ask::Kv(Request::Put(put)))? {
        Ok(_) => Ok(()),
        Err(e) if e.message == ApiError::NoSpace.text() && world.options.quota_bytes.is_some() => {
            Ok(())
        }
        Err(e) => Err(format!("a write after healing: {e}")),
    }
}

/// Every lease must end: nobody renews them any more.
fn until_no_lease(world: &mut World) -> Result<(), String> {
    let deadline = world.now + PATIENCE;
    loop {
        let Ok(CallResult::Leases(leases)) = ask(world, Ask::Leases)? else {
            return Err("leases are not listed".to_owned());
        };
        if leases.is_empty() {
            return Ok(());
        }
        if world.now > deadline {
            return Err(format!("no progress after healing: leases never ended: {leases:?}"));
        }
        let pause = world.now + 200 * MS;
        until(world, "time passes", |w| w.now >= pause)?;
    }
}

/// Every watch must come to the end of what there is.
fn settle_watches(world: &mut World) -> Result<(), String> {
    until(world, "every watch is connected", |w| w.watchers.iter().all(|w| w.stream.is_some()))?;
    let upto = |world: &World| newest(world).map_or(0, |p| p.view.store.revision().0);
    let revision = upto(world);
    // Progress is not told to a stream with a watch that begins in the future (semantics F16),
    // as one does that had everything and was made anew: one more write ends that future.
    write(world)?;
    let newest = upto(world);
    let begins_later =
        |w: &Watcher| w.lanes.iter().any(|lane| lane.started().is_some_and(|at| at > newest));
    // A client that takes a hundred bytes at a time needs minutes for what it has missed.
    let reached = |w: &World| w.watchers.iter().flat_map(|w| &w.lanes).map(|lane| lane.next).sum();
    // By an event or by progress, which clients ask for all the time now.
    until_reached(world, "every watch has been given everything", reached, |w| {
        w.watchers.iter().all(|w| {
            let all = w.lanes.iter().all(|lane| lane.id.is_some() && lane.next > revision);
            w.stream.is_some() && (all || begins_later(w))
        })
    })?;
    for lane in world.watchers.iter_mut().flat_map(|w| &mut w.lanes) {
        let told = lane.next > revision;
        if let Some(leg) = lane.watch.legs.last_mut().filter(|_| told && lane.id.is_some()) {
            leg.must_reach = Some(revision);
        }
    }
    Ok(())
}

/// Reads everything, and its hash.
fn read(world: &mut World) -> Result<(), String> {
    let result = ask(world, Ask::Kv(Request::Range(workload::everything())))?;
    let result = result.map_err(|e| format!("a read after healing: {e}"))?;
    let CallResult::Kv(response @ Response::Range(_)) = result else {
        return Err("a read is not answered by one".to_owned());
    };
    // Another member may be asked for it.
    caught_up(world)?;
    let hash = Ask::Kv(Request::HashKv(response.revision()));
    ask(world, hash)?.map_err(|e| format!("a hash after healing: {e}"))?;
    Ok(())
}
