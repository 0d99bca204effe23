//! The etcd server on the lossy disk. The arguments are the server's; the disk is told by
//! `QUORATE_LOSSY_ROOT` (the data directory), `QUORATE_LOSSY_FAULTS`, `QUORATE_LOSSY_ARMED_BY`
//! and `QUORATE_LOSSY_WRITEBACK` (a seed, for early writeback).

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use env::Disk;
use lossy::{Faults, LossyDisk};

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(format!("QUORATE_LOSSY_{name}")).ok();
    let armed_by = variable("ARMED_BY").map(Into::into);
    let faults = match Faults::parse(&variable("FAULTS").unwrap_or_default(), armed_by) {
        Ok(faults) => faults,
        Err(why) => {
            eprintln!("etcd-lossy: {why}");
            return ExitCode::from(2);
        }
    };
    let root = variable("ROOT").unwrap_or_default();
    let disk = match LossyDisk::new(Path::new(&root), faults) {
        Ok(disk) => disk,
        Err(e) => {
            eprintln!("etcd-lossy: {root}: {e}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = variable("WRITEBACK").and_then(|seed| seed.parse().ok()) {
        disk.write_back_at_random(seed);
    }
    let disk: Arc<dyn Disk> = Arc::new(disk);
    server::program(std::env::args_os().skip(1), &disk, &|| {})
}
