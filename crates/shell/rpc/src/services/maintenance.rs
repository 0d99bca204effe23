//! The Maintenance service.

use std::rc::Rc;
use std::time::Instant;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DowngradeInfo, HashKvRequest, HashKvResponse,
    HashResponse, SnapshotResponse, StatusResponse,
};
use bytes::Bytes;
use machine::CommandKind;
use machine::Reply as Applied;
use machine::kv::range_error;
use member::{ApplierInput, MemberView, Reply};
use prost::Message;
use store::compact::Step;
use store::hash::{DatabaseHasher, KvHash};
use types::Revision;
use types::limits::SNAPSHOT_CHUNK_BYTES;

use crate::runtime::{Runtime, pool_refused};
use crate::services::{decode, unchanged};
use crate::{Body, Draft, Requests, Sender};

/// Bytes that a hash reads per step.
const HASH_BUDGET_BYTES: usize = 4 << 20;

fn whole(message: &impl Message) -> Body {
    Body::Whole(Draft::of(message))
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

pub(super) fn status(rt: &Rc<Runtime>) -> Body {
    let view = rt.view();
    let raft = *rt.handle.status.load();
    let backend = view.store.backend();
    let mut errors: Vec<String> = Vec::new();
    if raft.leader.is_none() {
        errors.push(ApiError::NoLeader.text().to_owned());
    }
    for alarm in view.alarms.list(AlarmType::None as i32) {
        errors.push(alarm_text(alarm.member_id, alarm.alarm));
    }
    whole(&StatusResponse {
        header: Some(rt.header(view.store.revision())),
        version: types::SERVER_VERSION.to_owned(),
        db_size: backend.map_or(0, |b| b.size_bytes() as i64),
        db_size_in_use: backend.map_or(0, |b| b.size_in_use_bytes() as i64),
        leader: raft.leader.map_or(0, |id| id.0),
        raft_index: raft.commit.0,
        raft_term: raft.term.0,
        raft_applied_index: view.store.applied_index().0,
        errors,
        is_learner: view.members.get(rt.handle.member).is_some_and(|m| m.is_learner),
        storage_version: storage_version(&view),
        db_size_quota: rt.handle.limits.quota_bytes,
        downgrade_info: Some(DowngradeInfo {
            enabled: view.members.downgrade.is_some(),
            target_version: view.members.downgrade.clone().unwrap_or_default(),
        }),
    })
}

fn storage_version(view: &MemberView) -> String {
    view.storage_version.as_ref().map_or_else(String::new, |v| String::from_utf8_lossy(v).into())
}

/// An alarm as Go's protobuf text shows it: without what is zero.
fn alarm_text(member: u64, alarm: i32) -> String {
    let name = AlarmType::try_from(alarm).map_or("UNKNOWN", |a| a.as_str_name());
    match member {
        0 => format!("alarm:{name}"),
        _ => format!("memberID:{member} alarm:{name}"),
    }
}

pub(super) async fn alarm(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: AlarmRequest = decode(message.clone())?;
    let outcome = rt.propose(CommandKind::Alarm, &unchanged(message, &request)).await?;
    let alarms = match outcome.reply? {
        Applied::Alarms(alarms) => alarms,
        _ => Vec::new(),
    };
    Ok(whole(&AlarmResponse { header: Some(rt.header(outcome.revision)), alarms }))
}

/// Raises this member's NOSPACE alarm through the log, unless one is set. What is refused for it is
/// refused after that, so that the client finds the alarm.
pub(super) async fn raise_no_space(rt: &Rc<Runtime>) {
    if rt.view().alarms.is_set(AlarmType::Nospace) {
        return;
    }
    let request = AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: rt.handle.member.0,
        alarm: AlarmType::Nospace as i32,
    };
    // A refusal is met again by the next write, which asks anew.
    let _ = rt.propose(CommandKind::Alarm, &request.encode_to_vec()).await;
}

pub(super) async fn hash(rt: &Rc<Runtime>) -> Result<Body, Status> {
    let began = Instant::now();
    rt.ask_applier(ApplierInput::AwaitBackend).await?;
    let view = rt.view();
    let revision = view.store.revision();
    let backend = view.store.backend().cloned().ok_or_else(|| internal("no backend"))?;
    let job = move |may: &env::MayBlock| {
        let mut hasher = DatabaseHasher::new(backend);
        while hasher.step(may, HASH_BUDGET_BYTES)? == Step::More {}
        Ok::<_, store::ValueError>(hasher.finish())
    };
    let hash = rt.handle.pool.run(job).await.map_err(pool_refused)?.map_err(internal)?;
    rt.handle.metrics.hash.observe(began.elapsed().as_secs_f64());
    Ok(whole(&HashResponse { header: Some(rt.header(revision)), hash }))
}

pub(super) async fn hash_kv(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    Ok(whole(&hash_at(rt, decode(message)?).await?))
}

/// The hash of this member's keys at a revision (0: the newest), to compare it with others.
///
/// # Errors
/// The revision is compacted or to come, or the backend cannot be read.
pub async fn hash_own(rt: &Rc<Runtime>, revision: Revision) -> Result<HashKvResponse, Status> {
    hash_at(rt, HashKvRequest { revision: revision.0 }).await
}

/// The hash of the keys at a revision, also for other members.
pub(super) async fn hash_at(
    rt: &Rc<Runtime>,
    request: HashKvRequest,
) -> Result<HashKvResponse, Status> {
    let began = Instant::now();
    let view = rt.view();
    let revision = view.store.revision();
    //= etcd 3.7.1: server/storage/mvcc/hash.go#HashByRev (the stored hash comes first)
    if let Some(stored) = view.hashes.get(Revision(request.revision)) {
        return Ok(hash_response(rt, revision, stored));
    }
    let mut hasher = view.store.hash_kv(request.revision).map_err(range_error)?;
    let job = move |may: &env::MayBlock| {
        while hasher.step(may, &view.store, HASH_BUDGET_BYTES)? == Step::More {}
        Ok::<_, store::ValueError>(hasher.finish())
    };
    let hash = rt.handle.pool.run(job).await.map_err(pool_refused)?.map_err(|e| match e {
        store::ValueError::Compacted => ApiError::Compacted.into(),
        other => internal(other),
    })?;
    rt.handle.metrics.hash_rev.observe(began.elapsed().as_secs_f64());
    Ok(hash_response(rt, revision, hash))
}

fn hash_response(rt: &Rc<Runtime>, revision: Revision, hash: KvHash) -> HashKvResponse {
    HashKvResponse {
        header: Some(rt.header(revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision.0,
        hash_revision: hash.revision.0,
    }
}

/// Copies the backend into a fresh file while reads and writes go on.
pub(super) async fn defragment(rt: &Rc<Runtime>) -> Result<Body, Status> {
    let metrics = &rt.handle.metrics;
    let began = Instant::now();
    metrics.defrag_inflight.set(1);
    let reply = rt.ask_applier(ApplierInput::Defragment).await;
    metrics.defrag_inflight.set(0);
    metrics.defrag.observe(began.elapsed().as_secs_f64());
    match reply? {
        Reply::Failed(why) => Err(internal(why)),
        Reply::Refused(error) => Err(error.into()),
        _ => Ok(Body::Whole(Draft::with_capacity(0))),
    }
}

/// Streams the backend as of one transaction, and its SHA-256 last.
//= etcd 3.7.1: server/etcdserver/api/v3rpc/maintenance.go#Snapshot
pub(super) async fn snapshot(
    rt: &Rc<Runtime>,
    mut requests: Requests,
    sender: Sender,
) -> Result<(), Status> {
    requests.only().await?;
    let began = Instant::now();
    rt.ask_applier(ApplierInput::AwaitBackend).await?;
    let view = rt.view();
    let version = storage_version(&view);
    let backend = view.store.backend().cloned().ok_or_else(|| internal("no backend"))?;
    drop(view);
    let total = backend.file_len_of_snapshot();
    let (mut at, mut hasher) = (0, ring::digest::Context::new(&ring::digest::SHA256));
    while at < total {
        let len = (total - at).min(SNAPSHOT_CHUNK_BYTES as u64);
        let reader = backend.clone();
        let job = move |may: &env::MayBlock| {
            let mut blob = vec![0; len as usize];
            reader.read_snapshot(may, at, &mut blob).map(|_| blob)
        };
        let blob = rt.handle.pool.run(job).await.map_err(pool_refused)?.map_err(internal)?;
        hasher.update(&blob);
        at += len;
        let response = SnapshotResponse {
            header: None,
            remaining_bytes: total - at,
            blob: blob.into(),
            version: version.clone(),
        };
        // Whoever stops reading pins the database no longer than this waits.
        sender.message_to_reader(&response.encode_to_vec()).await?;
    }
    let blob = Bytes::copy_from_slice(hasher.finish().as_ref());
    let trailer = SnapshotResponse { header: None, remaining_bytes: 0, blob, version };
    rt.handle.metrics.snapshot.observe(began.elapsed().as_secs_f64());
    // A client that has gone has all it wants.
    let _ = sender.send(&trailer.encode_to_vec()).await;
    Ok(())
}
