//! etcdctl: hands the command line over and ends with the code that comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(ctl::run(&args, std::env::vars()))
}
