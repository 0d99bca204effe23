//! Texts of the system's errors as Go prints them: what alerts and scripts look for in logs.
//!
//! The C library's own texts differ from Go's in their case, and between glibc and musl.

use std::io;

use rustix::io::Errno;

/// Errors that files, sockets and processes give, with Go's texts.
//= go 1.26: src/syscall/zerrors_linux_amd64.go#errors
const TEXTS: &[(Errno, &str)] = &[
    (Errno::PERM, "operation not permitted"),
    (Errno::NOENT, "no such file or directory"),
    (Errno::INTR, "interrupted system call"),
    (Errno::IO, "input/output error"),
    (Errno::NXIO, "no such device or address"),
    (Errno::TOOBIG, "argument list too long"),
    (Errno::NOEXEC, "exec format error"),
    (Errno::BADF, "bad file descriptor"),
    (Errno::AGAIN, "resource temporarily unavailable"),
    (Errno::NOMEM, "cannot allocate memory"),
    (Errno::ACCESS, "permission denied"),
    (Errno::FAULT, "bad address"),
    (Errno::BUSY, "device or resource busy"),
    (Errno::EXIST, "file exists"),
    (Errno::XDEV, "invalid cross-device link"),
    (Errno::NODEV, "no such device"),
    (Errno::NOTDIR, "not a directory"),
    (Errno::ISDIR, "is a directory"),
    (Errno::INVAL, "invalid argument"),
    (Errno::NFILE, "too many open files in system"),
    (Errno::MFILE, "too many open files"),
    (Errno::TXTBSY, "text file busy"),
    (Errno::FBIG, "file too large"),
    (Errno::NOSPC, "no space left on device"),
    (Errno::SPIPE, "illegal seek"),
    (Errno::ROFS, "read-only file system"),
    (Errno::MLINK, "too many links"),
    (Errno::PIPE, "broken pipe"),
    (Errno::NAMETOOLONG, "file name too long"),
    (Errno::NOSYS, "function not implemented"),
    (Errno::NOTEMPTY, "directory not empty"),
    (Errno::LOOP, "too many levels of symbolic links"),
    (Errno::STALE, "stale file handle"),
    (Errno::DQUOT, "disk quota exceeded"),
    (Errno::OPNOTSUPP, "operation not supported"),
    (Errno::AFNOSUPPORT, "address family not supported by protocol"),
    (Errno::ADDRINUSE, "address already in use"),
    (Errno::ADDRNOTAVAIL, "cannot assign requested address"),
    (Errno::NETDOWN, "network is down"),
    (Errno::NETUNREACH, "network is unreachable"),
    (Errno::CONNABORTED, "software caused connection abort"),
    (Errno::CONNRESET, "connection reset by peer"),
    (Errno::NOBUFS, "no buffer space available"),
    (Errno::NOTCONN, "transport endpoint is not connected"),
    (Errno::TIMEDOUT, "connection timed out"),
    (Errno::CONNREFUSED, "connection refused"),
    (Errno::HOSTDOWN, "host is down"),
    (Errno::HOSTUNREACH, "no route to host"),
];

/// The text that Go gives an error.
#[must_use]
pub fn error_text(error: &io::Error) -> String {
    let number = error.raw_os_error();
    let known = TEXTS.iter().find(|(errno, _)| Some(errno.raw_os_error()) == number);
    if let Some((_, text)) = known {
        return (*text).to_owned();
    }
    if number.is_none() {
        return error.to_string();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_gos_texts_on_every_c_library() {
        let text = |errno: Errno| error_text(&errno.into());
        assert_eq!(text(Errno::ADDRINUSE), "address already in use");
        assert_eq!(text(Errno::NOENT), "no such file or directory");
        assert_eq!(error_text(&io::Error::other("Odd text")), "Odd text");
        // One that the table does not have.
        let other = text(Errno::DEADLK);
        assert!(other.starts_with(|c: char| c.is_lowercase()) && !other.contains("os error"));
    }
}
