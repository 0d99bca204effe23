//! Chores of the workspace: `cargo xtask WORD`.

mod bench;
mod bypass;
mod clients;
mod cluster;
mod dist;
mod e2e;
mod fuzz;
mod image;
mod oracle;
mod programs;
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
  fuzz [--seconds N] [TARGET]…
                libFuzzer on every decoder, 300 s each unless told otherwise
  bench [--quick] [--runs N] [--shape NAME] [--generator light|full]
                this server beside etcd 3.7.3, a core each for server and generator: medians of five
                runs (one short run with --quick), kept in target/bench.json; the full generator
                spends more of its own per call than the server, which then sees small batches
  cluster [--members KIND,KIND,…] [--port P] [--dir DIR]
                local members, three of ours unless told otherwise, until ctrl-c: KIND is `ours` or
                `reference`; on free ports or P, P+1, …; data in DIR or a directory that goes again
  sim           clusters under seeded schedules and faults, every history checked:
                --seeds N (200), --from S (1); --seed S replays one and prints its event log;
                --one takes one member that crashes all the time; --plant NAME runs with a
                planted bug, --planted checks that each is found; --users has users call;
                --threads N
  bypass [NAME]…
                takes checks of permissions out of the sources, one after another, and fails
                unless the simulator and the matrix of users each find it; puts the files back
  e2e [--later] [--own-tools] [NAME]…
                etcd's own end-to-end tests with this server, those whose names contain NAME, one
                after another: the list of what passes, or with --later of what does not yet;
                with etcd's etcdctl and etcdutl, or ours
  image         builds the container image of static programs and does with it what the guide
                does, by a Docker daemon of its own; as root it installs what is missing
  dist [--check]
                a release in target/dist/: static programs, what is linked into them (CycloneDX),
                checksums; with --check built twice in two places, which must give the same bytes
  soak          the long forms of the suites: raft beside Go's, 1,000,000 compared operations
                and as many sequences of frames, kills, failing disks, snapshots, slow readers";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let asks_for_help = |word: &&str| ["help", "--help", "-h"].contains(word);
    if words.is_empty() || words.iter().any(asks_for_help) {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let result = match words[..] {
        ["test"] => test::run(false),
        ["test", "--ci"] => test::run(true),
        ["tidy"] => tidy::run(),
        ["oracle"] => oracle::build(),
        ["soak"] => test::soak(),
        ["sim", ref args @ ..] => sim::sim(args),
        ["bypass", ref names @ ..] => bypass::run_all(names),
        ["bench", ref args @ ..] => bench::compare(args),
        ["fuzz", ref rest @ ..] => fuzz::run(rest),
        ["cluster", ref args @ ..] => cluster::cluster(args),
        ["e2e", ref args @ ..] => e2e::run_list(args),
        ["image", ref args @ ..] => image::run_image(args),
        ["dist", ref args @ ..] => dist::dist(args),
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
