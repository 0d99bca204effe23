//! The etcd server on the real disk.

mod memory;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    server::program(&args, &server::os_disk(), &memory::give_back)
}
