//! Taking no more memory of the operating system than is used, and giving it back.
//!
//! The allocator keeps what was freed until someone allocates pages again, which after a start may
//! be never: rebuilding the index of a million keys frees 150 MB. This is the only unsafe code of
//! the workspace.

/// Asks for no huge pages: of each, which is 2 MiB, a server with a few small things in it would hold
/// all. Where the kernel refuses, more memory is all that it costs.
pub(crate) fn keep_pages_small() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Returns freed memory of this thread and of all that have ended. Takes milliseconds: for the
/// end of a start, not for a thread that serves.
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: a call without arguments or result that any thread may make at any time; the
    // process's allocator is this very library (`ALLOCATOR` in main).
    unsafe { libmimalloc_sys::mi_collect(true) }
}
