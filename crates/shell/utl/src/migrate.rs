//! migrate: makes a data directory one that another version of etcd opens.
//!
//! What differs between the versions is one row of the database, the storage version, which etcd
//! 3.5 does not know. A lower version is only given if it can read the log's entries, too.

use std::path::Path;
use std::sync::Arc;

use api::etcdserverpb::InternalRaftRequest;
use api::raftpb::{Entry, EntryType};
use cli::output::{self, Level};
use cli::{Exit, Values, text};
use env::{Disk, MayBlock};
use osenv::OsDisk;
use prost::Message as _;
use store::{Bucket, meta};
use types::Version;

use crate::defrag::database_of;
use crate::snapshot::{failed, open_to_write};

/// The last version without a storage version, and the lowest that a directory is made for.
const OLDEST: Version = Version { major: 3, minor: 5 };
/// The first version that has one.
const FIRST: Version = Version { major: 3, minor: 6 };
/// The newest version that this tool knows.
//= etcd 3.7.3: server/storage/schema/schema.go#schemaChanges
const NEWEST: Version = Version { major: 3, minor: 7 };

/// migrate.
///
/// # Errors
/// As etcdutl. The directory is as it was then.
//= etcd 3.7.3: etcdutl/etcdutl/migrate_command.go#migrateCommandFunc
pub(crate) fn migrate(values: &Values) -> Result<(), Exit> {
    let target = target(values.text("target-version"))?;
    let data_dir = values.text("data-dir");
    let path = database_of(data_dir)?;
    let may = MayBlock::on_this_thread();
    let mut db = open_to_write(&path, &may, values.duration("timeout"))?;
    let current = detect(&db, &may)?;
    if current == target {
        let fields = [("storage-version", short(target).into())];
        output::console(Level::Info, file!(), "storage version up-to-date", &fields);
        return Ok(());
    }
    let needed = needed_by_log(&Path::new(data_dir).join("member/wal"), &may)?;
    match plan(current, target, needed) {
        Ok(steps) => {
            write(&mut db, &may, target)?;
            for step in steps {
                let fields = [("new-storage-version", step.to_string().into())];
                output::console(Level::Info, file!(), "updated storage version", &fields);
            }
        }
        Err(why) if !values.is_on("force") => return Err(failed(why)),
        Err(why) => {
            let fields = [("error", why.into())];
            let msg = "normal migrate failed, trying with force";
            output::console(Level::Info, file!(), msg, &fields);
            write(&mut db, &may, target)?;
            tell_forced(target);
        }
    }
    Ok(())
}

fn tell_forced(target: Version) {
    if target < FIRST {
        output::console(Level::Warn, file!(), "forcefully cleared storage version", &[]);
        return;
    }
    let fields = [("storage-version", short(target).into())];
    output::console(Level::Warn, file!(), "forcefully set storage version", &fields);
}

fn short(version: Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// Reads `--target-version`.
fn target(given: &str) -> Result<Version, Exit> {
    let parts: Vec<&str> = given.split('.').collect();
    let [major, minor] = parts.as_slice() else {
        let shown = text::quote(given.as_bytes());
        let text = format!("wrong target version format, expected \"X.Y\", got {shown}");
        return Err(Exit::args(text));
    };
    let number = |part: &str| {
        let out_of_range = || format!("strconv.ParseInt: parsing \"{part}\": value out of range");
        let number = text::parse_int(part, 10)?;
        u32::try_from(number).map_err(|_| out_of_range())
    };
    let unread = |why| Exit::args(format!("failed to parse target version: {why}"));
    let version =
        Version { major: number(major).map_err(unread)?, minor: number(minor).map_err(unread)? };
    if version < OLDEST {
        let shown = short(version);
        return Err(Exit::args(format!(
            "target version \"{shown}\" not supported. Minimal \"3.5\""
        )));
    }
    Ok(version)
}

/// The version of a database.
//= etcd 3.7.3: server/storage/schema/schema.go#UnsafeDetectSchemaVersion
fn detect(db: &bolt::Db, may: &MayBlock) -> Result<Version, Exit> {
    let read = db.begin_read();
    let row = |key| read.get(may, Bucket::Meta.name(), key).map_err(failed);
    let stored = row(meta::STORAGE_VERSION)?;
    let stored = stored.and_then(|text| Version::parse(std::str::from_utf8(&text).ok()?));
    if let Some(version) = stored {
        return Ok(version);
    }
    let term = row(meta::TERM)?.unwrap_or_default();
    if term.iter().all(|&byte| byte == 0) {
        let msg = "failed to detect storage version. Please make sure you are using data dir from \
                   etcd v3.5 and older";
        output::console(Level::Error, file!(), msg, &[]);
        return Err(failed("missing term information"));
    }
    Ok(OLDEST)
}

/// The versions on the way from one to another.
//= etcd 3.7.3: server/storage/schema/migration.go#newPlan
fn plan(
    current: Version,
    target: Version,
    needed: Option<Version>,
) -> Result<Vec<Version>, String> {
    if current.major != target.major {
        let why = "changing major storage version is not supported";
        return Err(format!("cannot create migration plan: {why}"));
    }
    let highest = current.max(target);
    if highest > NEWEST {
        // The first one that is not known, on the way.
        let named = if current < target {
            let minor = current.minor.max(NEWEST.minor) + 1;
            Version { minor, ..current }
        } else {
            current
        };
        return Err(format!("cannot create migration plan: version \"{named}\" is not supported"));
    }
    if let Some(needed) = needed.filter(|needed| target < current && target < *needed) {
        return Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) \
             is lower than the version ({needed}) detected from WAL logs"
        ));
    }
    let at = |minor| Version { minor, ..current };
    if current < target {
        return Ok((current.minor + 1..=target.minor).map(at).collect());
    }
    Ok((target.minor..current.minor).rev().map(at).collect())
}

/// The version that the entries behind the last snapshot need, where that is more than the oldest.
//= etcd 3.7.3: server/storage/wal/version.go#MinimalEtcdVersion
fn needed_by_log(dir: &Path, may: &MayBlock) -> Result<Option<Version>, Exit> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let snapshots = wal::snapshots(&*disk, dir, may)
        .map_err(|e| failed(format!("failed to get the lastest snapshot: {e}")))?;
    let last = snapshots.last();
    let position =
        last.map_or((0, 0), |s| (s.index.unwrap_or_default(), s.term.unwrap_or_default()));
    let unread = |e: &dyn std::fmt::Display| failed(format!("failed to read wal: {e}"));
    let log = wal::read_all(&*disk, dir, may, position).map_err(|e| unread(&e))?;
    let mut needed = None;
    for entry in &log.entries {
        needed = needed.max(needed_by(entry).map_err(|e| unread(&e))?);
    }
    Ok(needed)
}

/// Of all that an entry may hold, one request is younger than the oldest version: that of tests,
/// which names a version by itself.
fn needed_by(entry: &Entry) -> Result<Option<Version>, String> {
    if entry.r#type() != EntryType::EntryNormal {
        return Ok(None);
    }
    let data = entry.data.clone().unwrap_or_default();
    let index = entry.index.unwrap_or_default();
    let request = InternalRaftRequest::decode(data).map_err(|e| format!("entry {index}: {e}"))?;
    let Some(test) = request.downgrade_version_test else { return Ok(None) };
    let named = Version::parse(&test.ver)
        .ok_or_else(|| format!("entry {index}: {} is not in dotted-tri format", test.ver))?;
    Ok(Some(named.max(FIRST)))
}

fn write(db: &mut bolt::Db, may: &MayBlock, target: Version) -> Result<(), Exit> {
    let mut tx = db.begin_write();
    let meta = Bucket::Meta.name();
    if target < FIRST {
        tx.delete(may, meta, meta::STORAGE_VERSION).map_err(failed)?;
    } else {
        let value = target.to_string();
        tx.put(may, meta, meta::STORAGE_VERSION, value.as_bytes()).map_err(failed)?;
    }
    tx.commit(may).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn planned(from: &str, to: &str, needed: Option<&str>) -> Result<String, String> {
        let steps = plan(version(from), version(to), needed.map(version))?;
        Ok(steps.into_iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn steps_go_from_version_to_version() {
        assert_eq!(planned("3.5", "3.7", None).as_deref(), Ok("3.6.0 3.7.0"));
        assert_eq!(planned("3.7", "3.5", None).as_deref(), Ok("3.6.0 3.5.0"));
        assert_eq!(planned("3.5", "3.6", Some("3.7")).as_deref(), Ok("3.6.0"));
    }

    #[test]
    fn what_cannot_be_read_there_is_not_given() {
        let refused = |from, to, needed| planned(from, to, needed).unwrap_err();
        let unknown = "cannot create migration plan: version \"3.8.0\" is not supported";
        assert_eq!(refused("3.6", "3.9", None), unknown);
        assert_eq!(refused("3.8", "3.6", None), unknown);
        assert!(
            refused("3.7", "4.0", None)
                .ends_with("changing major storage version is not supported")
        );
        let newer = "cannot downgrade storage, WAL contains newer entries, as the target version \
                     (3.5.0) is lower than the version (3.6.0) detected from WAL logs";
        assert_eq!(refused("3.7", "3.5", Some("3.6")), newer);
    }

    #[test]
    fn targets_are_read_as_etcd_reads_them() {
        let text = |given| target(given).unwrap_err().text;
        assert_eq!(text("3"), "wrong target version format, expected \"X.Y\", got \"3\"");
        let number =
            "failed to parse target version: strconv.ParseInt: parsing \"x\": invalid syntax";
        assert_eq!(text("3.x"), number);
        assert_eq!(text("3.4"), "target version \"3.4\" not supported. Minimal \"3.5\"");
        assert_eq!(target("3.07"), Ok(version("3.7")));
    }
}
