//! The KV service.
//!
//! Writes go into the log as the client encoded them. Reads are answered from a View: at once if the
//! values are in memory, else by way of the pool, and long lists piece by piece ([`crate::list`]).

use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};
use api::method::Method;
use bytes::Bytes;
use machine::kv::{query, range_error};
use machine::{CommandKind, CommandReply};
use member::{MemberView, NodeInput, Reply};
use store::{Ranged, ValueError};
use types::Revision;

use crate::answer::{Answer, Body, Encoded, Finish, Local, ResponseKind, Stage, Then};
use crate::caller::{Allowed, Caller, Wish, authorize, authorize_write};
use crate::decode::{decode, unchanged};
use crate::host::{Measure, Read};
use crate::member::{Member, read_index};
use crate::{Call, auth, list, maintenance, read_txn, render, validate, warm};

/// Bytes of an answer that is rendered at once, on the thread of its connection.
const INLINE_BYTES: usize = 64 * 1024;
/// Bytes that `more` and `count` take at most.
const END_BYTES: usize = 16;

pub(crate) fn range(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let request: RangeRequest = decode(message)?;
    if !request.serializable && member.shared.is_learner() {
        return Err(ApiError::NotSupportedForLearner.into());
    }
    validate::range(&request)?;
    let (began, caller) = (member.now(), call.caller.clone());
    if request.serializable {
        let finish = Finish::new(began, caller, Then::Range(request, Stage::Apply));
        return read_range(member, finish, out);
    }
    let token = member.begin(NodeInput::ReadIndex);
    Ok(Answer::Later(token, Finish::new(began, caller, Then::Range(request, Stage::Index))))
}

/// Goes on with a linearizable read whose read index, or whose turn to be applied, has come.
/// `Ok(None)` means that the newest View will do.
pub(crate) fn go_on(
    member: &Member,
    stage: &mut Stage,
    reply: Reply,
) -> Result<Option<types::ReplyToken>, ApiError> {
    match (*stage, reply) {
        (Stage::Index, reply) => {
            let index = read_index(reply)?;
            if member.view().applied_index() >= index {
                return Ok(None);
            }
            *stage = Stage::Apply;
            let question = |token| member::ApplierInput::AwaitApplied { token, index };
            Ok(Some(member.begin_question(question)))
        }
        (Stage::Apply, Reply::Refused(error)) => Err(error),
        (Stage::Apply, _) => Ok(None),
    }
}

/// Goes on with a linearizable range.
pub(crate) fn finish_range(
    member: &Rc<Member>,
    mut finish: Finish,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let Then::Range(_, stage) = &mut finish.then else { unreachable!("asked for a range only") };
    match go_on(member, stage, reply) {
        Ok(None) => read_range(member, finish, out),
        Ok(Some(token)) => Ok(Answer::Later(token, finish)),
        Err(error) => {
            read(member, Read::Range, &finish, false);
            Err(error.into())
        }
    }
}

fn read(member: &Member, read: Read, finish: &Finish, success: bool) {
    let took = member.now().since(finish.began);
    member.measure(Measure::Read { read, success, took });
}

/// Answers a range from the newest View.
fn read_range(member: &Rc<Member>, finish: Finish, out: &mut Encoded) -> Result<Answer, Status> {
    match answer_range(member, &finish, out) {
        Ok(None) => {
            read(member, Read::Range, &finish, true);
            Ok(Answer::Now)
        }
        Ok(Some(long)) => {
            let member = Rc::clone(member);
            Ok(Answer::Waits(Box::pin(async move {
                let answer = long.await;
                read(&member, Read::Range, &finish, answer.is_ok());
                answer
            })))
        }
        Err(status) => {
            read(member, Read::Range, &finish, false);
            Err(status)
        }
    }
}

/// Writes the answer, or gives what will when it must be waited for or comes in pieces.
fn answer_range(
    member: &Rc<Member>,
    finish: &Finish,
    out: &mut Encoded,
) -> Result<Option<Local<'static, Result<Body, Status>>>, Status> {
    let Then::Range(request, _) = &finish.then else { unreachable!("asked for a range only") };
    let view = member.view();
    let row = Method::Range.row();
    let allowed = authorize(member, row, &finish.caller, &view, Wish::Range(request))?;
    let view = view.open(allowed);
    let began = member.now();
    let ranged = view.store.range(&query(request)).map_err(range_error);
    let took = member.now().since(began);
    member.measure(Measure::Ranged { success: ranged.is_ok(), took });
    let ranged = ranged?;
    let room = usize::try_from(ranged.body_bytes()).unwrap_or(usize::MAX).min(INLINE_BYTES);
    let body = render::response(out, &member.header(ranged.revision), room + END_BYTES);
    if view.store.try_render(&ranged, INLINE_BYTES, body).map_err(value_error)? {
        render::range_end(body, ranged.more, count(&ranged));
        return Ok(None);
    }
    let head = std::mem::take(out).into_message();
    Ok(Some(Box::pin(list::answer(Rc::clone(member), (view, allowed), ranged, head))))
}

pub(crate) fn count(ranged: &Ranged) -> i64 {
    i64::try_from(ranged.count).expect("keys are counted in memory")
}

/// Finishes a plan that depends on values, on the pool.
pub(crate) async fn resolve(
    member: &Member,
    view: &Arc<MemberView>,
    ranged: Ranged,
) -> Result<Ranged, Status> {
    if !ranged.needs_values() {
        return Ok(ranged);
    }
    let view = Arc::clone(view);
    let job = move |may: &env::MayBlock| view.store.resolve(may, ranged);
    member.run(job).await?.map_err(value_error)
}

/// A value that a plan named is gone, or the database failed.
pub(crate) fn value_error(error: ValueError) -> Status {
    match error {
        ValueError::Compacted => ApiError::Compacted.into(),
        other => Status::new(Code::DataLoss, format!("etcdserver: {other}")),
    }
}

pub(crate) fn put(member: &Rc<Member>, call: &Call<'_>, message: Bytes) -> Result<Answer, Status> {
    let request: PutRequest = decode(message.clone())?;
    validate::put(&request)?;
    let cost = machine::command::put_cost(&request);
    if let Some(refused) = check_quota(member, cost) {
        return Ok(refused);
    }
    let wish = (Wish::Put(&request), cost);
    let allowed = authorize_write(member, call.row, &call.caller, wish)?;
    let reading = warm::put(member, &request, allowed);
    let body = unchanged(message, &request);
    write(member, Write::new(call, CommandKind::Put, ResponseKind::Put, body, allowed), reading)
}

pub(crate) fn delete(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: DeleteRangeRequest = decode(message.clone())?;
    validate::delete(&request)?;
    let wish = (Wish::Delete(&request), 0);
    let allowed = authorize_write(member, call.row, &call.caller, wish)?;
    let reading = warm::delete(member, &request, allowed);
    let body = unchanged(message, &request);
    write(
        member,
        Write::new(call, CommandKind::DeleteRange, ResponseKind::Delete, body, allowed),
        reading,
    )
}

pub(crate) fn txn(member: &Rc<Member>, call: &Call<'_>, message: Bytes) -> Result<Answer, Status> {
    let max_ops = member.shared.limits.max_txn_ops;
    validate::txn_depth(&message, max_ops)?;
    let request: TxnRequest = decode(message.clone())?;
    validate::txn(&request, max_ops)?;
    if validate::is_read_only(&request) {
        let then = Then::Applied(CommandKind::Txn, ResponseKind::Txn);
        let finish = Finish::new(member.now(), call.caller.clone(), then);
        let member = Rc::clone(member);
        return Ok(Answer::Waits(Box::pin(async move {
            let answer = read_txn::answer(&member, &finish.caller, request).await;
            read(&member, Read::Txn, &finish, answer.is_ok());
            answer
        })));
    }
    let cost = machine::command::txn_cost(&request);
    if cost > 0
        && let Some(refused) = check_quota(member, cost)
    {
        return Ok(refused);
    }
    let wish = (Wish::Txn(&request), cost);
    let allowed = authorize_write(member, call.row, &call.caller, wish)?;
    let reading = warm::txn(member, &request, allowed);
    let body = unchanged(message, &request);
    write(member, Write::new(call, CommandKind::Txn, ResponseKind::Txn, body, allowed), reading)
}

pub(crate) fn compact(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: CompactionRequest = decode(message.clone())?;
    let allowed = call.permit(member)?;
    let response =
        if request.physical { ResponseKind::CompactPhysical } else { ResponseKind::Compact };
    let body = unchanged(message, &request);
    write(member, Write::new(call, CommandKind::Compaction, response, body, allowed), None)
}

/// A request that is to go through the log.
pub(crate) struct Write {
    pub(crate) kind: CommandKind,
    pub(crate) response: ResponseKind,
    pub(crate) body: Bytes,
    pub(crate) caller: Caller,
    pub(crate) allowed: Allowed,
}

impl Write {
    pub(crate) fn new(
        call: &Call<'_>,
        kind: CommandKind,
        response: ResponseKind,
        body: Bytes,
        allowed: Allowed,
    ) -> Self {
        Self { kind, response, body, caller: call.caller.clone(), allowed }
    }

    fn propose(self, member: &Member) -> Result<(types::ReplyToken, Finish), Status> {
        let Self { kind, response, body, caller, allowed } = self;
        let began = member.now();
        let token = member.begin_proposal(kind, &body, &caller, allowed)?;
        Ok((token, Finish::new(began, caller, Then::Applied(kind, response))))
    }
}

/// Puts a request through the log, behind what must be read before.
pub(crate) fn write(
    member: &Rc<Member>,
    write: Write,
    reading: Option<Local<'static, ()>>,
) -> Result<Answer, Status> {
    let Some(reading) = reading else {
        let (token, finish) = write.propose(member)?;
        return Ok(Answer::Later(token, finish));
    };
    let member = Rc::clone(member);
    Ok(Answer::Waits(Box::pin(async move {
        reading.await;
        let (token, finish) = write.propose(&member)?;
        let reply = member.wait(token).await;
        let Then::Applied(kind, response) = finish.then else {
            unreachable!("made of a write above")
        };
        let mut out = Encoded::default();
        match finish_write(&member, (kind, response), finish, reply, &mut out)? {
            Answer::Now => Ok(Body::Whole(out)),
            Answer::Later(..) | Answer::Waits(_) => {
                unreachable!("what is read ahead of is answered at once")
            }
        }
    })))
}

/// The answer to a request that was applied, or refused.
pub(crate) fn finish_write(
    member: &Rc<Member>,
    (kind, response): (CommandKind, ResponseKind),
    finish: Finish,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let outcome = member.outcome(kind, finish.began, reply)?;
    let (revision, reply) = (outcome.revision, outcome.reply?);
    let header = member.header(revision);
    match (response, reply) {
        (ResponseKind::Put, CommandReply::Put(reply)) => {
            render::put(render::response(out, &header, 0), &reply);
        }
        (ResponseKind::Delete, CommandReply::Delete(reply)) => {
            render::delete(render::response(out, &header, 0), &reply);
        }
        (ResponseKind::Txn, CommandReply::Txn(reply)) => {
            render::txn(render::response(out, &header, 0), &reply);
        }
        (ResponseKind::CompactPhysical, _) => {
            let token = member.begin_question(member::ApplierInput::AwaitCompaction);
            let then = Then::Compacted(revision);
            return Ok(Answer::Later(token, Finish { then, ..finish }));
        }
        (ResponseKind::Grant, CommandReply::LeaseGrant { id, ttl }) => {
            out.put(&api::etcdserverpb::LeaseGrantResponse {
                header: Some(header),
                id: id.0,
                ttl,
                error: String::new(),
            });
        }
        (ResponseKind::Alarm, reply) => {
            let alarms = if let CommandReply::Alarms(alarms) = reply { alarms } else { Vec::new() };
            out.put(&api::etcdserverpb::AlarmResponse { header: Some(header), alarms });
        }
        (ResponseKind::Auth, CommandReply::Auth(reply)) => auth::render(header, reply, out),
        (ResponseKind::Compact | ResponseKind::Revoke, _) => {
            render::response(out, &header, 0);
        }
        (response, reply) => unreachable!("{response:?} is not answered by {reply:?}"),
    }
    Ok(Answer::Now)
}

/// The work of a compaction is done.
pub(crate) fn finish_compaction(
    member: &Member,
    revision: Revision,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    if let Reply::Refused(error) = reply {
        return Err(error.into());
    }
    render::response(out, &member.header(revision), 0);
    Ok(Answer::Now)
}

/// Refuses a write that would cross the quota, before it reaches the log, and raises the alarm
/// before the client hears of that. `None` if there is room.
//= etcd 3.7.3: server/etcdserver/api/v3rpc/quota.go#check
pub(crate) fn check_quota(member: &Rc<Member>, cost: u64) -> Option<Answer> {
    let quota = member.shared.limits.quota()?;
    let size = member.view().size_bytes();
    if size.saturating_add(cost) < quota {
        return None;
    }
    let member = Rc::clone(member);
    Some(Answer::Waits(Box::pin(async move {
        maintenance::raise_no_space(&member).await;
        Err(ApiError::NoSpace.into())
    })))
}
