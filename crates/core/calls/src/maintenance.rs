//! The Maintenance service.

use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmRequest, AlarmType, DowngradeInfo, HashKvRequest, HashKvResponse, HashResponse,
    SnapshotResponse, StatusResponse,
};
use bytes::Bytes;
use env::buggify;
use machine::CommandKind;
use machine::kv::range_error;
use member::{ApplierInput, Reply};
use prost::Message;
use store::compact::Step;
use store::hash::{DatabaseHasher, KvHash};
use types::Revision;
use types::limits::SNAPSHOT_CHUNK_BYTES;

use crate::Call;
use crate::answer::{Answer, Body, Encoded, Finish, ResponseKind, Then};
use crate::caller::{Allowed, Wish, authorize};
use crate::decode::{decode, unchanged};
use crate::host::{Event, MaintenanceEvent, Measure};
use crate::kv::{Write, write};
use crate::member::Member;
use crate::published::PublishedView;
use crate::stream::{Out, send, send_to_reader};

/// Bytes that a hash reads per step.
const HASH_BUDGET_BYTES: usize = 4 << 20;
/// The same, if the simulator wants to see what happens beside a long hash.
const ODD_HASH_BUDGET_BYTES: usize = 512;

fn internal(error: impl std::fmt::Display) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

pub(crate) fn status(
    member: &Rc<Member>,
    call: &Call<'_>,
    _: Bytes,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let view = member.view();
    let _: Allowed = authorize(member, call.row, &call.caller, &view, Wish::Method)?;
    let raft = member.status();
    let mut errors: Vec<String> = Vec::new();
    if raft.leader.is_none() {
        errors.push(ApiError::NoLeader.text().to_owned());
    }
    for alarm in view.alarms().list(AlarmType::None as i32) {
        errors.push(alarm_text(alarm.member_id, alarm.alarm));
    }
    out.put(&StatusResponse {
        header: Some(member.header(view.revision())),
        version: types::SERVER_VERSION.to_owned(),
        db_size: view.size_bytes() as i64,
        db_size_in_use: view.size_in_use_bytes() as i64,
        leader: raft.leader.map_or(0, |id| id.0),
        raft_index: raft.commit.0,
        raft_term: raft.term.0,
        raft_applied_index: view.applied_index().0,
        errors,
        is_learner: view.members().get(member.shared.id).is_some_and(|m| m.is_learner),
        storage_version: storage_version(&view),
        db_size_quota: member.shared.limits.quota_bytes,
        downgrade_info: Some(DowngradeInfo {
            enabled: view.members().downgrade.is_some(),
            target_version: view.members().downgrade.clone().unwrap_or_default(),
        }),
    });
    Ok(Answer::Now)
}

fn storage_version(view: &PublishedView) -> String {
    view.storage_version().map_or_else(String::new, |v| String::from_utf8_lossy(v).into())
}

/// An alarm as Go's protobuf text shows it: without what is zero.
fn alarm_text(member: u64, alarm: i32) -> String {
    let name = AlarmType::try_from(alarm).map_or("UNKNOWN", |a| a.as_str_name());
    match member {
        0 => format!("alarm:{name}"),
        _ => format!("memberID:{member} alarm:{name}"),
    }
}

pub(crate) fn alarm(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: AlarmRequest = decode(message.clone())?;
    // What is no action that is known does something, for all that is known.
    let action = AlarmAction::try_from(request.action).unwrap_or(AlarmAction::Activate);
    let wish = Wish::Alarm(action);
    let allowed = authorize(member, call.row, &call.caller, &member.view(), wish)?;
    let body = unchanged(message, &request);
    write(member, Write::new(call, CommandKind::Alarm, ResponseKind::Alarm, body, allowed), None)
}

/// Raises this member's NOSPACE alarm through the log, unless one is set. What is refused for it is
/// refused after that, so that the client finds the alarm.
pub(crate) async fn raise_no_space(member: &Rc<Member>) {
    if member.view().alarms().is_set(AlarmType::Nospace) {
        return;
    }
    let request = AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: member.shared.id.0,
        alarm: AlarmType::Nospace as i32,
    };
    // A refusal is met again by the next write, which asks anew.
    let _ = member.propose_own(CommandKind::Alarm, &request.encode_to_vec()).await;
}

/// A question to Applier that must be answered before the call goes on.
async fn await_backend(member: &Member) -> Result<(), Status> {
    match member.ask_applier(ApplierInput::AwaitBackend).await {
        Reply::Refused(error) => Err(error.into()),
        _ => Ok(()),
    }
}

pub(crate) fn hash(member: &Rc<Member>, call: &Call<'_>, _: Bytes) -> Result<Answer, Status> {
    let allowed = call.permit(member)?;
    let member = Rc::clone(member);
    Ok(Answer::Waits(Box::pin(async move {
        let began = member.now();
        await_backend(&member).await?;
        let view = member.view().open(allowed);
        let revision = view.store.revision();
        let backend = view.store.backend().cloned().ok_or_else(|| internal("no backend"))?;
        let job = move |may: &env::MayBlock| {
            let mut hasher = DatabaseHasher::new(backend);
            while hasher.step(may, HASH_BUDGET_BYTES)? == Step::More {}
            Ok::<_, store::ValueError>(hasher.finish())
        };
        let hash = member.run(job).await?.map_err(internal)?;
        member.measure(Measure::Hashed(member.now().since(began)));
        Ok(Body::of(&HashResponse { header: Some(member.header(revision)), hash }))
    })))
}

pub(crate) fn hash_kv(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: HashKvRequest = decode(message)?;
    let allowed = call.permit(member)?;
    let member = Rc::clone(member);
    Ok(Answer::Waits(Box::pin(async move {
        Ok(Body::of(&hash_at(&member, Revision(request.revision), allowed).await?))
    })))
}

/// The hash of this member's keys at a revision (0: the newest), as others are told it: a compaction
/// at that revision has stored one.
///
/// # Errors
/// The revision is compacted or to come, or the backend cannot be read.
pub(crate) async fn hash_at(
    member: &Rc<Member>,
    wanted: Revision,
    allowed: Allowed,
) -> Result<HashKvResponse, Status> {
    let view = member.view().open(allowed);
    //= etcd 3.7.3: server/storage/mvcc/hash.go#HashByRev (the stored hash comes first)
    match view.hashes.get(wanted) {
        Some(stored) => Ok(hash_response(member, view.store.revision(), stored)),
        None => compute_hash(member, wanted, allowed).await,
    }
}

/// As [`hash_at`], but of the keys as they are, whatever was stored.
///
/// # Errors
/// As for [`hash_at`].
pub(crate) async fn compute_hash(
    member: &Rc<Member>,
    wanted: Revision,
    allowed: Allowed,
) -> Result<HashKvResponse, Status> {
    let began = member.now();
    let view = member.view().open(allowed);
    let revision = view.store.revision();
    let mut hasher = view.store.hash_kv(wanted.0).map_err(range_error)?;
    let is_odd = buggify!(member.shared.hooks, "calls: hash in small steps");
    let budget = if is_odd { ODD_HASH_BUDGET_BYTES } else { HASH_BUDGET_BYTES };
    let hash = loop {
        let view = Arc::clone(&view);
        let job = move |may: &env::MayBlock| {
            let step = hasher.step(may, &view.store, budget);
            (step, hasher)
        };
        let (step, stepped) = member.run(job).await?;
        hasher = stepped;
        match step {
            Ok(Step::More) => {}
            Ok(Step::Done) => break hasher.finish(),
            Err(store::ValueError::Compacted) => return Err(ApiError::Compacted.into()),
            Err(other) => return Err(internal(other)),
        }
    };
    member.measure(Measure::HashedRevision(member.now().since(began)));
    Ok(hash_response(member, revision, hash))
}

fn hash_response(member: &Member, revision: Revision, hash: KvHash) -> HashKvResponse {
    HashKvResponse {
        header: Some(member.header(revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision.0,
        hash_revision: hash.revision.0,
    }
}

/// Copies the backend into a fresh file while reads and writes go on.
pub(crate) fn defragment(member: &Rc<Member>, call: &Call<'_>, _: Bytes) -> Result<Answer, Status> {
    let _: Allowed = call.permit(member)?;
    member.host.log(Event::Maintenance(MaintenanceEvent::DefragmentRequested));
    member.measure(Measure::DefragmentBegan);
    let token = member.begin_question(ApplierInput::Defragment);
    let (began, caller) = (member.now(), call.caller.clone());
    Ok(Answer::Later(token, Finish::new(began, caller, Then::Defragmented)))
}

pub(crate) fn finish_defragment(
    member: &Member,
    finish: &Finish,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    member.measure(Measure::Defragmented(member.now().since(finish.began)));
    let ended = match reply {
        Reply::Failed(why) => Err(internal(why)),
        Reply::Refused(error) => Err(error.into()),
        _ => Ok(()),
    };
    let told = ended.as_ref().copied().map_err(|status| &*status.message);
    member.host.log(Event::Maintenance(MaintenanceEvent::DefragmentEnded(told)));
    ended.map(|()| {
        out.body(0);
        Answer::Now
    })
}

/// Streams the backend as of one transaction, and its SHA-256 last.
//= etcd 3.7.3: server/etcdserver/api/v3rpc/maintenance.go#Snapshot
pub(crate) async fn snapshot(
    member: Rc<Member>,
    allowed: Allowed,
    sink: Out,
) -> Result<(), Status> {
    await_backend(&member).await?;
    let view = member.view();
    let version = storage_version(&view);
    let backend = view.open(allowed).store.backend().cloned();
    let backend = backend.ok_or_else(|| internal("no backend"))?;
    let total = backend.file_len_of_snapshot();
    let began = member.now();
    let tell = |event: MaintenanceEvent<'_>| member.host.log(Event::Maintenance(event));
    tell(MaintenanceEvent::SnapshotSending { bytes: total, version: &version });
    let (mut at, mut hasher) = (0, ring::digest::Context::new(&ring::digest::SHA256));
    while at < total {
        let len = (total - at).min(SNAPSHOT_CHUNK_BYTES as u64);
        let reader = backend.clone();
        let job = move |may: &env::MayBlock| {
            let mut blob = vec![0; len as usize];
            reader.read_snapshot(may, at, &mut blob).map(|_| blob)
        };
        let blob = member.run(job).await?.map_err(internal)?;
        hasher.update(&blob);
        at += len;
        let response = SnapshotResponse {
            header: None,
            remaining_bytes: total - at,
            blob: blob.into(),
            version: version.clone(),
        };
        // Whoever stops reading pins the database no longer than this waits.
        send_to_reader(&member, &*sink, &response).await?;
    }
    let blob = Bytes::copy_from_slice(hasher.finish().as_ref());
    tell(MaintenanceEvent::SnapshotChecksum { bytes: total, checksum_bytes: blob.len() });
    let trailer =
        SnapshotResponse { header: None, remaining_bytes: 0, blob, version: version.clone() };
    let took = member.now().since(began);
    member.measure(Measure::SnapshotSent(took));
    // A client that has gone has all it wants.
    if send(&*sink, &trailer).await.is_ok() {
        tell(MaintenanceEvent::SnapshotSent { bytes: total, took, version: &version });
    }
    Ok(())
}
