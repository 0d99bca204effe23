//! A new member from a snapshot: a new cluster that begins with its data.
//!
//! Invariants: the directory must be empty before; the log begins at the snapshot record, so that
//! the server replays nothing; ids come from the new token and URLs.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{raftpb, walpb};
use bytes::Bytes;
use cli::{Exit, Values, output};
use env::{Access, Disk, MayBlock, Open};
use machine::membership::{conf_state_json, v2_store_json};
use machine::{Member, Members};
use osenv::OsDisk;
use raft::ConfState;
use ring::digest::{Context, SHA256};
use server::identity;
use store::{Bucket, meta};
use types::{ClusterId, MemberId, Url};
use wal::writer::Beginning;

use crate::commands::file;
use crate::snapshot::{self, failed};

/// Bytes of the checksum behind a snapshot.
const TRAILER_BYTES: u64 = 32;
/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;

struct Plan {
    data_dir: PathBuf,
    wal_dir: PathBuf,
    members: Members,
    own: MemberId,
    cluster: ClusterId,
}

/// snapshot restore.
///
/// # Errors
/// As etcdutl.
//= etcd 3.7.1: etcdutl/snapshot/v3_snapshot.go#Restore
pub fn restore(values: &Values) -> Result<(), Exit> {
    let path = file(values);
    let (bump, mark) = (values.uint("bump-revision"), values.is_on("mark-compacted"));
    if (bump > 0) != mark {
        return Err(Exit::args("--mark-compacted required if --revision-bump > 0"));
    }
    let plan = plan(values)?;
    let snap_dir = plan.data_dir.join("member/snap");
    output::err(format!("restoring snapshot {path} to {}", plan.data_dir.display()));
    let may = MayBlock::on_this_thread();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let db_path = snap_dir.join("db");
    copy(&*disk, path.as_ref(), &snap_dir, &may, values.is_on("skip-hash-check"))?;
    let count = edit(&db_path, &may, &plan, bump)?;
    write_log(disk, &snap_dir, &may, &plan, count)?;
    output::err(format!("restored snapshot {path} to {}", plan.data_dir.display()));
    Ok(())
}

fn read_url(text: &str) -> Result<String, Exit> {
    let url = Url::parse(text).map_err(|bad| failed(bad.to_string()))?;
    Ok(url.text().to_owned())
}

fn plan(values: &Values) -> Result<Plan, Exit> {
    let (name, token) = (values.text("name"), values.text("initial-cluster-token"));
    let mut cluster: Vec<(String, Vec<String>)> = Vec::new();
    for part in values.text("initial-cluster").split(',') {
        let malformed = || failed(format!("failed to parse initial cluster: {part}"));
        let (member, url) = part.trim().split_once('=').ok_or_else(malformed)?;
        let url = read_url(url)?;
        match cluster.iter_mut().find(|(known, _)| known == member) {
            Some((_, urls)) => urls.push(url),
            None => cluster.push((member.to_owned(), vec![url])),
        }
    }
    let own = cluster.iter().find(|(member, _)| member == name);
    let Some((_, urls)) = own else {
        let text =
            format!("couldn't find local name \"{name}\" in the initial cluster configuration");
        return Err(failed(text));
    };
    let mut advertised = Vec::new();
    for url in values.text("initial-advertise-peer-urls").split(',') {
        advertised.push(read_url(url)?);
    }
    let mut configured = urls.clone();
    configured.sort();
    advertised.sort();
    if configured != advertised {
        let (of, urls) = (configured.join(","), advertised.join(","));
        return Err(failed(format!(
            "--initial-cluster has {of} for this member but --initial-advertise-peer-urls={urls}"
        )));
    }
    server::refuse_shared_urls(&cluster).map_err(failed)?;
    let mut members = Members::default();
    let mut own = MemberId(0);
    for (member, mut urls) in cluster {
        urls.sort();
        let id = identity::member_id(&urls, token);
        if member == name {
            own = id;
        }
        if members.get(id).is_some() {
            return Err(failed(format!("member exists with identical ID {id}")));
        }
        members.insert_stored(Member {
            id: id.0,
            peer_urls: Some(urls),
            name: member,
            ..Member::default()
        });
    }
    let data_dir = match values.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        dir => PathBuf::from(dir),
    };
    let wal_dir = match values.text("wal-dir") {
        "" => data_dir.join("member/wal"),
        dir => PathBuf::from(dir),
    };
    let is_empty = match std::fs::read_dir(&data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_empty {
        let text = format!("data-dir \"{}\" not empty or could not be read", data_dir.display());
        return Err(failed(text));
    }
    if wal_dir.exists() {
        return Err(failed(format!("wal-dir \"{}\" exists", wal_dir.display())));
    }
    let ids: Vec<_> = members.iter().map(|m| MemberId(m.id)).collect();
    Ok(Plan { data_dir, wal_dir, cluster: identity::cluster_id(&ids), members, own })
}

/// Copies the database without its checksum, which is compared.
fn copy(
    disk: &dyn Disk,
    from: &Path,
    snap_dir: &Path,
    may: &MayBlock,
    skip_check: bool,
) -> Result<(), Exit> {
    let source = disk.open(may, from, Open::Read).map_err(failed)?;
    let len = source.len().map_err(failed)?;
    if len < TRAILER_BYTES {
        // etcd's words for what is too short to have a checksum.
        return Err(failed(format!("seek {}: invalid argument", from.display())));
    }
    let has_hash = len % 512 == TRAILER_BYTES;
    if !has_hash && !skip_check {
        return Err(failed("snapshot missing hash but --skip-hash-check=false"));
    }
    let end = if has_hash { len - TRAILER_BYTES } else { len };
    disk.create_dir_all(may, snap_dir).map_err(failed)?;
    let target = disk.open(may, &snap_dir.join("db"), Open::CreateTruncate).map_err(failed)?;
    let mut context = Context::new(&SHA256);
    let mut at = 0;
    while at < end {
        let mut piece = vec![0; usize::try_from(COPY_BYTES.min(end - at)).unwrap_or(1)];
        source.read_at(may, &mut piece, at, Access::Scan).map_err(failed)?;
        context.update(&piece);
        target.write_at(may, &piece, at).map_err(failed)?;
        at += piece.len() as u64;
    }
    target.sync_all(may).map_err(failed)?;
    disk.sync_dir(may, snap_dir).map_err(failed)?;
    if has_hash && !skip_check {
        let mut expected = [0; TRAILER_BYTES as usize];
        source.read_at(may, &mut expected, end, Access::Scan).map_err(failed)?;
        let got = context.finish();
        if got.as_ref() != expected {
            let list =
                |bytes: &[u8]| bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let (expected, got) = (list(&expected), list(got.as_ref()));
            return Err(failed(format!("expected sha256 [{expected}], got [{got}]")));
        }
    }
    Ok(())
}

fn keys_of(read: &bolt::ReadTx, may: &MayBlock, bucket: Bucket) -> Result<Vec<Vec<u8>>, Exit> {
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let mut scan = read.scan(may, bucket.name(), everything, Access::Scan);
    let mut keys = Vec::new();
    while let Some((key, _)) = scan.next_ref().map_err(failed)? {
        keys.push(key.to_vec());
    }
    Ok(keys)
}

/// The last main revision in the database.
fn last_revision(read: &bolt::ReadTx, may: &MayBlock) -> Result<u64, Exit> {
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let mut scan = read.scan(may, Bucket::Key.name(), everything, Access::Scan);
    let mut last = 1;
    while let Some((key, _)) = scan.next_ref().map_err(failed)? {
        last = snapshot::main_revision(key);
    }
    Ok(last)
}

/// Puts the new members into the database, sets its position, and raises the revision if asked.
/// Returns how many entries the log begins with.
fn edit(path: &Path, may: &MayBlock, plan: &Plan, bump: u64) -> Result<u64, Exit> {
    let mut db = snapshot::open_to_write(path, may, Duration::from_secs(1))?;
    let read = db.begin_read();
    let old = keys_of(&read, may, Bucket::Members)?;
    let removed = keys_of(&read, may, Bucket::MembersRemoved)?;
    let last = last_revision(&read, may)?;
    drop(read);
    let count = plan.members.iter().count() as u64;
    let mut tx = db.begin_write();
    store::create_buckets(&mut tx, may).map_err(failed)?;
    for key in &old {
        tx.delete(may, Bucket::Members.name(), key).map_err(failed)?;
    }
    for key in &removed {
        tx.delete(may, Bucket::MembersRemoved.name(), key).map_err(failed)?;
    }
    for member in plan.members.iter() {
        let key = MemberId(member.id).to_string();
        let members = Bucket::Members.name();
        tx.put(may, members, key.as_bytes(), &member.to_json()).map_err(failed)?;
    }
    let conf_state = conf_state_json(&plan.members.conf_state());
    let position = [
        (meta::CONSISTENT_INDEX, Bytes::copy_from_slice(&count.to_be_bytes())),
        (meta::TERM, Bytes::copy_from_slice(&1_u64.to_be_bytes())),
        (meta::CONF_STATE, conf_state),
    ];
    for (key, value) in &position {
        tx.put(may, Bucket::Meta.name(), key, value).map_err(failed)?;
    }
    if bump > 0 {
        let raised = last.checked_add(bump).filter(|r| i64::try_from(*r).is_ok());
        let raised = raised.ok_or_else(|| failed("the raised revision is out of range"))?;
        let mut key = raised.to_be_bytes().to_vec();
        key.push(b'_');
        key.extend_from_slice(&[0; 8]);
        tx.put(may, Bucket::Key.name(), &key, b"").map_err(failed)?;
        tx.put(may, Bucket::Meta.name(), meta::SCHEDULED_COMPACT, &key).map_err(failed)?;
    }
    tx.commit(may).map_err(failed)?;
    Ok(count)
}

/// Writes the `.snap` file and then the log, which names it.
fn write_log(
    disk: Arc<dyn Disk>,
    snap_dir: &Path,
    may: &MayBlock,
    plan: &Plan,
    count: u64,
) -> Result<(), Exit> {
    let members: Vec<_> = plan.members.iter().map(|m| (MemberId(m.id), m.to_json())).collect();
    let (mut hard_state, entries) = raft::bootstrap(&members);
    hard_state.vote = members.first().map(|(id, _)| *id);
    let state: ConfState = plan.members.conf_state();
    let conf_state = Some(state.to_wire());
    let snapshot = raftpb::Snapshot {
        data: Some(v2_store_json(&plan.members)),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: conf_state.clone(),
            index: Some(count),
            term: Some(1),
        }),
    };
    wal::snap::write(&*disk, snap_dir, may, &snapshot).map_err(failed)?;
    let beginning = Beginning {
        entries: entries.iter().map(raft::Entry::to_wire).collect(),
        hard_state: Some(hard_state.to_wire()),
        snapshot: Some(walpb::Snapshot { index: Some(count), term: Some(1), conf_state }),
    };
    let metadata = wal::writer::metadata(plan.own, plan.cluster);
    wal::Wal::create(disk, &plan.wal_dir, may, metadata, &beginning).map_err(failed)?;
    Ok(())
}
