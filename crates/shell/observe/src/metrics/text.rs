//! The text exposition as Go's client library writes it, byte for byte: order, escapes, numbers.
//!
//! //= client_model expfmt 0.67: expfmt/text_create.go#MetricFamilyToText

use std::collections::BTreeMap;
use std::fmt::Write;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Family;

/// A page that is being written. Families stand in the order of their names.
#[derive(Debug, Default)]
pub(super) struct Page(BTreeMap<&'static str, String>);

impl Page {
    /// Shows a family without labels.
    pub(super) fn plain(&mut self, family: Family, value: f64) {
        self.labelled(family, std::iter::once((Vec::new(), value)));
    }

    /// Shows a family's samples, each with the values of its labels in the row's order. A family
    /// without samples does not appear.
    pub(super) fn labelled<'a>(
        &mut self,
        family: Family,
        samples: impl Iterator<Item = (Vec<&'a str>, f64)>,
    ) {
        let row = family.row();
        let mut samples: Vec<(Vec<(&str, &str)>, f64)> = samples
            .map(|(values, value)| {
                let mut pairs: Vec<_> = row.labels.iter().copied().zip(values).collect();
                pairs.sort_unstable();
                (pairs, value)
            })
            .collect();
        samples.sort_by(|a, b| a.0.cmp(&b.0));
        if samples.is_empty() {
            return;
        }
        let block = self.0.entry(row.name).or_insert_with(|| head(family));
        for (pairs, value) in samples {
            line(block, row.name, "", &pairs, None, &number(value));
        }
    }

    /// Shows a summary of nothing: no value stays below any of these shares.
    pub(super) fn summary(&mut self, family: Family, shares: &[&str]) {
        let row = family.row();
        let block = self.0.entry(row.name).or_insert_with(|| head(family));
        for share in shares {
            line(block, row.name, "", &[("quantile", share)], None, &number(0.0));
        }
        line(block, row.name, "_sum", &[], None, &number(0.0));
        line(block, row.name, "_count", &[], None, "0");
    }

    /// Shows what a registry has collected of a family.
    ///
    /// # Panics
    /// If the family was not made from its row.
    pub(super) fn collected(&mut self, family: Family, collected: &MetricFamily) {
        let row = family.row();
        assert_eq!(collected.name(), row.name, "families are made from their rows");
        let block = self.0.entry(row.name).or_insert_with(|| head(family));
        for metric in collected.get_metric() {
            let pairs: Vec<_> = metric.get_label().iter().map(|l| (l.name(), l.value())).collect();
            match collected.get_field_type() {
                MetricType::HISTOGRAM => histogram(block, row.name, &pairs, metric),
                MetricType::COUNTER => {
                    let value = number(metric.get_counter().get_value());
                    line(block, row.name, "", &pairs, None, &value);
                }
                _ => {
                    line(block, row.name, "", &pairs, None, &number(metric.get_gauge().get_value()))
                }
            }
        }
    }

    /// The whole page.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.values().map(String::len).sum());
        for block in self.0.values() {
            out.extend_from_slice(block.as_bytes());
        }
        out
    }
}

fn head(family: Family) -> String {
    let row = family.row();
    let help = row.help.replace('\\', "\\\\").replace('\n', "\\n");
    format!("# HELP {name} {help}\n# TYPE {name} {}\n", row.kind.name(), name = row.name)
}

fn histogram(out: &mut String, name: &str, pairs: &[(&str, &str)], metric: &Metric) {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count().to_string();
    for bucket in histogram.get_bucket() {
        let (bound, below) = (number(bucket.upper_bound()), bucket.cumulative_count().to_string());
        line(out, name, "_bucket", pairs, Some(&bound), &below);
    }
    line(out, name, "_bucket", pairs, Some("+Inf"), &count);
    line(out, name, "_sum", pairs, None, &number(histogram.get_sample_sum()));
    line(out, name, "_count", pairs, None, &count);
}

fn line(
    out: &mut String,
    name: &str,
    suffix: &str,
    pairs: &[(&str, &str)],
    bound: Option<&str>,
    value: &str,
) {
    let _ = write!(out, "{name}{suffix}");
    let pairs = pairs.iter().copied().chain(bound.map(|bound| ("le", bound)));
    let mut before = '{';
    for (label, value) in pairs {
        let value = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        let _ = write!(out, "{before}{label}=\"{value}\"");
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

/// A number in Go's shortest form: with an exponent of at least two digits from a million on, and
/// below a ten-thousandth.
//= go 1.26: src/strconv/ftoa.go (format 'g', precision -1)
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_go() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (163.84, "163.84"),
            (524_288.0, "524288"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (1_795_862_113.99, "1.79586211399e+09"),
            (18_446_744_073_709_551_615.0, "1.8446744073709552e+19"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn labels_are_sorted_and_escaped() {
        let mut page = Page::default();
        let samples = [(vec!["x", "a\"b\\c\n"], 2.0), (vec!["a", "v"], 1.0)];
        page.labelled(Family::ClientRequests, samples.into_iter());
        let text = String::from_utf8(page.finish()).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let name = "etcd_server_client_requests_total";
        assert_eq!(
            lines,
            [
                format!(r#"{name}{{client_api_version="a\"b\\c\n",type="x"}} 2"#),
                format!(r#"{name}{{client_api_version="v",type="a"}} 1"#),
            ]
        );
    }
}
