//! defrag: a data directory's database is copied into a fresh file, which takes its name.

use std::path::Path;
use std::sync::Arc;

use cli::output::{self, Level};
use cli::{Exit, Values, text};
use env::{Disk, MayBlock};
use osenv::OsDisk;
use store::Step;
use store::defrag::Defrag;

use crate::snapshot::{failed, open_to_write};

/// The copy until it has the database's name. A server removes what is left of one.
const COPY_NAME: &str = "db.tmp.defrag";

/// Bytes that are copied at once.
const ROUND_BYTES: usize = 4 << 20;

/// The database of a data directory.
///
/// # Errors
/// There is none, in etcd's words.
pub(crate) fn database_of(data_dir: &str) -> Result<std::path::PathBuf, Exit> {
    let path = Path::new(data_dir).join("member/snap/db");
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(e) => Err(failed(format!("stat {}: {}", path.display(), osenv::error_text(&e)))),
    }
}

/// defrag.
///
/// # Errors
/// As etcdutl. The database is as it was then, unless the last step failed: giving the copy its
/// name.
//= etcd 3.7.3: etcdutl/etcdutl/defrag_command.go#DefragData
pub(crate) fn defrag(values: &Values) -> Result<(), Exit> {
    let data_dir = values.text("data-dir");
    defragment(data_dir, values).map_err(|exit| {
        failed(format!("Failed to defragment etcd data[{data_dir}] ({})", exit.text))
    })
}

fn defragment(data_dir: &str, values: &Values) -> Result<(), Exit> {
    let path = database_of(data_dir)?;
    let may = MayBlock::on_this_thread();
    // Held to the end, so that no server opens the old file meanwhile.
    let db = open_to_write(&path, &may, values.duration("timeout"))?;
    let began = std::time::Instant::now();
    let (size, used) = (db.size_bytes(), db.size_in_use_bytes());
    tell("defragmenting", &path, (size, used), &[]);
    let copy_path = path.with_file_name(COPY_NAME);
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let copied = copy(&disk, &db, &copy_path, &may);
    let copy = match copied {
        Ok(copy) => copy,
        Err(exit) => {
            // It may not even be there.
            let _ = disk.remove_file(&may, &copy_path);
            return Err(exit);
        }
    };
    disk.rename(&may, &copy_path, &path).map_err(failed)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(&may, dir).map_err(failed)?;
    let took = text::show_duration(began.elapsed());
    let sizes = (copy.size_bytes(), copy.size_in_use_bytes());
    tell("finished defragmenting directory", &path, sizes, &[("took", took.into())]);
    Ok(())
}

fn copy(
    disk: &Arc<dyn Disk>,
    db: &bolt::Db,
    path: &Path,
    may: &MayBlock,
) -> Result<bolt::Db, Exit> {
    if disk.exists(may, path).map_err(failed)? {
        disk.remove_file(may, path).map_err(failed)?;
    }
    let options = store::database_options();
    let target = bolt::Db::open(Arc::clone(disk), path, may, options).map_err(failed)?;
    let source = db.begin_read();
    let mut copy = Defrag::new(target);
    while copy.step(may, &source, ROUND_BYTES).map_err(failed)? == Step::More {}
    copy.finish(may, &source).map_err(failed)
}

fn tell(msg: &str, path: &Path, (size, used): (u64, u64), more: &[(&str, output::Value)]) {
    let mut fields = vec![
        ("path", path.display().to_string().into()),
        ("current-db-size-bytes", size.into()),
        ("current-db-size", text::size(size).into()),
        ("current-db-size-in-use-bytes", used.into()),
        ("current-db-size-in-use", text::size(used).into()),
    ];
    fields.extend_from_slice(more);
    output::console(Level::Info, file!(), msg, &fields);
}
