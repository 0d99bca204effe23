//! The simulator on all cores, optimised.

use std::process::Command;

use crate::shell::{cargo, run, target};

/// Builds the simulator and hands `args` over to it.
pub fn sim(args: &[&str]) -> Result<(), String> {
    run(&mut cargo(&["build", "--profile", "sim", "--quiet", "--package", "quorate-sim"]))?;
    run(Command::new(target().join("sim/quorate-sim")).args(args))
}
