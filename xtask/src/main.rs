//! Chores of the workspace: `cargo xtask WORD`.

mod oracle;
mod shell;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "cargo xtask WORD

  test [--ci]   every check: format, lints, tidy, unit tests, suites against the Go oracles;
                --ci makes the oracles mandatory
  tidy          crate edges, the determinism rules of core, and what must not be in the tree
  oracle        builds the Go programs of oracle/ into target/oracle/
  sim           a member under seeded schedules and faults, every history checked:
                --seeds N (200), --from S (1); --seed S replays one and prints its event log;
                --plant NAME runs with a planted bug, --planted checks that each is found
  soak          the long forms of the suites: 1,000,000 compared operations";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["test"] => test::run(false),
        ["test", "--ci"] => test::run(true),
        ["tidy"] => tidy::run(),
        ["oracle"] => oracle::build(),
        ["soak"] => test::soak(),
        ["sim", ref args @ ..] => sim::sim(args),
        [word @ ("bench" | "cluster" | "dist"), ..] => {
            Err(format!("`{word}` is not implemented yet; COMPAT.md lists what is missing"))
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
