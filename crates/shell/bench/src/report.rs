//! Results as a table to read and as JSON to keep.

use std::fmt::Write;

use crate::cases::{Bound, CASES, Case};
use crate::compare::{Results, Runs};
use crate::server::Side;

/// What a goal asks of a figure, and whether it is reached; `None` without the figure.
fn verdict(
    results: &Results,
    runs: &Runs,
    (figure, bound): (&str, Bound),
) -> Option<(String, bool)> {
    Some(match bound {
        Bound::AtMost(most) => (format!("<= {most}x"), runs.ratio(figure)? <= most),
        Bound::AtLeast(least) => (format!(">= {least}x"), runs.ratio(figure)? >= least),
        Bound::OfCase(case, most) => {
            let base = results.get(case)?.median(Side::Ours, figure)?;
            let ratio = runs.median(Side::Ours, figure)? / base;
            (format!("<= {most}x of {case}: {ratio:.3}"), ratio <= most)
        }
        Bound::Own(most) => (format!("<= {most}"), runs.median(Side::Ours, figure)? <= most),
    })
}

/// What the goals of a case ask of one figure, as far as it was measured.
fn verdicts(
    results: &Results,
    case: &Case,
    runs: &Runs,
    figure: &str,
) -> impl Iterator<Item = (String, bool)> {
    let asked = case.goals.iter().filter(move |(name, _)| *name == figure);
    asked.filter_map(move |goal| verdict(results, runs, *goal))
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(v) if v.abs() >= 1_000.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.3}"),
    }
}

/// The table, one line per figure; goals that are not reached are marked.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut out =
        format!("{:<20}{:<16}{:>12}{:>12}{:>9}  goal\n", "case", "figure", "ours", "etcd", "ratio");
    for case in CASES {
        let Some(runs) = results.get(case.name) else { continue };
        for figure in runs.names() {
            let goals = verdicts(results, case, runs, figure).map(|(text, reached)| {
                format!("{text} {}", if reached { "reached" } else { "MISSED" })
            });
            let goal = goals.collect::<Vec<_>>().join(", ");
            let (ours, other) =
                (runs.median(Side::Ours, figure), runs.median(Side::Reference, figure));
            let _ = writeln!(
                out,
                "{:<20}{:<16}{:>12}{:>12}{:>9}  {goal}",
                case.name,
                figure,
                number(ours),
                number(other),
                number(runs.ratio(figure))
            );
        }
    }
    out
}

/// Every run's figures, medians and ratios. Names are plain ASCII; a figure that is not finite is
/// `null`.
#[must_use]
pub fn json(results: &Results) -> String {
    let value = |v: Option<f64>| match v {
        Some(v) if v.is_finite() => format!("{v}"),
        _ => "null".to_owned(),
    };
    let mut cases = Vec::new();
    for case in CASES {
        let Some(runs) = results.get(case.name) else { continue };
        let figures: Vec<String> = runs
            .names()
            .into_iter()
            .map(|figure| {
                let all = |side: &[crate::figures::Figures]| {
                    let all: Vec<_> = side.iter().map(|f| value(f.get(figure))).collect();
                    all.join(", ")
                };
                let goals = verdicts(results, case, runs, figure).map(|(text, reached)| {
                    format!("{{\"asks\": \"{text}\", \"reached\": {reached}}}")
                });
                let goals = goals.collect::<Vec<_>>().join(", ");
                format!(
                    "\"{figure}\": {{\"ours\": [{}], \"etcd\": [{}], \"ours_median\": {}, \
                     \"etcd_median\": {}, \"ratio_median\": {}, \"goals\": [{goals}]}}",
                    all(&runs.ours),
                    all(&runs.reference),
                    value(runs.median(Side::Ours, figure)),
                    value(runs.median(Side::Reference, figure)),
                    value(runs.ratio(figure)),
                )
            })
            .collect();
        cases.push(format!("  \"{}\": {{\n    {}\n  }}", case.name, figures.join(",\n    ")));
    }
    format!("{{\n{}\n}}\n", cases.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Figures, name};

    fn results(ours: f64, other: f64) -> Results {
        let figures = |value| {
            let mut figures = Figures::default();
            figures.set(name::CPU, value);
            vec![figures]
        };
        let runs = Runs { ours: figures(ours), reference: figures(other) };
        Results::from([("put", runs)])
    }

    #[test]
    fn a_goal_is_reached_or_missed() {
        assert!(table(&results(10.0, 80.0)).contains("<= 0.125x reached"));
        assert!(table(&results(11.0, 80.0)).contains("<= 0.125x MISSED"));
    }

    #[test]
    fn json_has_runs_and_medians() {
        let json = json(&results(10.0, 40.0));
        assert!(json.contains("\"cpu_us\": {\"ours\": [10], \"etcd\": [40]"), "{json}");
        assert!(json.contains("\"ratio_median\": 0.25"), "{json}");
        assert_eq!(json.matches('{').count(), json.matches('}').count());
    }
}
