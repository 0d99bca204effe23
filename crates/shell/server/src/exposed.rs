//! Directories that others on this machine may look into.
//!
//! Members make theirs for their user alone. One that was made otherwise, as by a package or an
//! orchestrator, is used all the same, with a warning.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use observe::{Log, log_line};

/// For the owner alone.
const PRIVATE: u32 = 0o700;

/// Warns of each directory that is there with another mode than a member would have given it.
//= etcd 3.7.3: client/pkg/fileutil/fileutil.go#TouchDirAll, #CheckDirPermission
pub(crate) fn warn_of(log: &Log, data_dir: &Path) {
    for dir in [data_dir, &data_dir.join("member"), &data_dir.join("member/snap")] {
        let Ok(found) = std::fs::metadata(dir) else { continue };
        let mode = found.permissions().mode() & 0o777;
        if found.is_dir() && mode != PRIVATE {
            let error = format!(
                "directory {:?} exist, but the permission is \"d{}\". The recommended permission \
                 is \"-{}\" to prevent possible unprivileged access to the data",
                dir.display().to_string(),
                shown(mode),
                shown(PRIVATE),
            );
            log_line!(log, Warn, "check file permission", "error" = error);
        }
    }
}

/// A mode as `ls` shows it: `rwxr-x---`.
fn shown(mode: u32) -> String {
    (0..9).map(|at| if mode & (0o400 >> at) == 0 { '-' } else { b"rwx"[at % 3].into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_ls_shows_them() {
        assert_eq!(shown(0o700), "rwx------");
        assert_eq!(shown(0o755), "rwxr-xr-x");
        assert_eq!(shown(0o641), "rw-r----x");
    }
}
