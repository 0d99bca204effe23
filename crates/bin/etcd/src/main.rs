//! The etcd server on the real disk.

mod memory;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::keep_pages_small();
    server::program(std::env::args_os().skip(1), &server::os_disk(), &memory::give_back)
}
