//! etcdutl: hands the command line over and ends with the code that comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    ExitCode::from(utl::run(args))
}
