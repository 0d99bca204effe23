//! Runs cases against both servers in turn and keeps every run's figures.

use std::collections::BTreeMap;

use crate::cases::{CASES, Case, Data, Times};
use crate::cluster;
use crate::figures::{Figures, median};
use crate::generator::Generator;
use crate::million;
use crate::server::{Programs, Server, Side, copy, remove};

/// What to compare.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The programs and where their data goes.
    pub programs: Programs,
    /// Names of cases; none for all.
    pub cases: Vec<String>,
    /// Times that each case is run on each side.
    pub runs: usize,
    /// Times of a run.
    pub times: Times,
    /// What asks in closed loops.
    pub generator: Generator,
}

/// All runs of a case.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Figures of our server, in the order of the runs.
    pub ours: Vec<Figures>,
    /// The reference's.
    pub reference: Vec<Figures>,
}

impl Runs {
    /// Names of the figures, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let all = self.ours.iter().chain(&self.reference);
        let names: std::collections::BTreeSet<_> = all.flat_map(|f| f.0.keys().copied()).collect();
        names.into_iter().collect()
    }

    /// The median of a figure on one side.
    #[must_use]
    pub fn median(&self, side: Side, name: &str) -> Option<f64> {
        let runs = if side == Side::Ours { &self.ours } else { &self.reference };
        median(runs.iter().filter_map(|f| f.get(name)).collect())
    }

    /// The median of ours / reference, run by run.
    #[must_use]
    pub fn ratio(&self, name: &str) -> Option<f64> {
        let pairs = self.ours.iter().zip(&self.reference);
        let ratios = pairs.filter_map(|(ours, other)| Some((ours.get(name)?, other.get(name)?)));
        median(ratios.filter(|(_, other)| *other > 0.0).map(|(a, b)| a / b).collect())
    }
}

/// The result: cases by name.
pub type Results = BTreeMap<&'static str, Runs>;

/// Runs everything; `told` is called after each case with its name and run.
///
/// # Errors
/// A name is unknown, a server does not start, or a case fails on it.
pub fn compare(plan: &Plan, told: &mut dyn FnMut(&str)) -> Result<Results, String> {
    let known = |name: &String| CASES.iter().any(|case| case.name == name);
    if let Some(unknown) = plan.cases.iter().find(|name| !known(name)) {
        return Err(format!("there is no case {unknown:?}"));
    }
    let wanted: Vec<&Case> = CASES
        .iter()
        .filter(|c| plan.cases.is_empty() || plan.cases.iter().any(|name| name == c.name))
        .collect();
    std::fs::create_dir_all(&plan.programs.dir).map_err(|e| e.to_string())?;
    let mut results = Results::new();
    for run in 0..plan.runs {
        for group in wanted.chunk_by(|a, b| a.data == b.data && a.data.is_shared()) {
            // Who is first changes from run to run.
            let mut sides = [Side::Ours, Side::Reference];
            sides.rotate_left(run % 2);
            for side in sides {
                told(&format!("run {} of {}: {side:?}: {}", run + 1, plan.runs, group[0].name));
                measure(plan, side, group, run as u64, &mut results)
                    .map_err(|e| format!("{side:?}, {}: {e}", group[0].name))?;
            }
        }
    }
    Ok(results)
}

fn record(results: &mut Results, side: Side, case: &Case, figures: Figures) {
    let runs = results.entry(case.name).or_default();
    if side == Side::Ours { runs.ours.push(figures) } else { runs.reference.push(figures) }
}

/// Starts a server for a group of cases and runs them.
fn measure(
    plan: &Plan,
    side: Side,
    group: &[&Case],
    run: u64,
    results: &mut Results,
) -> std::io::Result<()> {
    let programs = &plan.programs;
    let kind = match group[0].data {
        Data::Empty => "empty",
        Data::Million => "million",
        Data::Updated => "updated",
        Data::Cluster | Data::Gigabyte => {
            let case = group[0];
            let figures = cluster::run(plan, side, case, run + 1)?;
            record(results, side, case, figures);
            return Ok(());
        }
    };
    let data = programs.data(side, kind);
    match group[0].data {
        Data::Empty => remove(&data)?,
        Data::Million => copy(&programs.million(0)?, &data)?,
        _ => copy(&programs.million(million::UPDATED)?, &data)?,
    }
    let server: Server = programs.start(side, &data, group[0].guard, group[0].server_cores())?;
    for case in group {
        let figures = case
            .run(&server, plan.times, run + 1, plan.generator)
            .map_err(|e| std::io::Error::other(format!("{}: {e}", case.name)))?;
        record(results, side, case, figures);
    }
    drop(server);
    remove(&data)
}
