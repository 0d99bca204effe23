//! What the process asks of the operating system's memory.
//!
//! The allocator keeps what was freed until someone allocates pages again, which after a start may
//! be never: rebuilding the index of a million keys frees 150 MB. This is the only unsafe code of
//! the workspace.

/// Asks for pages of 4 KiB. With the allocator's transparent huge pages a server with a thousand
/// puts in flight held 96 MB instead of 45, and each first touch of 2 MiB stalled its thread for
/// milliseconds; a restart on a million keys takes a tenth longer without them.
pub(crate) fn small_pages() {
    // A kernel that refuses costs memory, nothing else.
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
