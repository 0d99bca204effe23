//! What the kernel knows of this process, under the names of Go's client library.
//!
//! //= client_golang 1.23: prometheus/process_collector_procfsenabled.go#processCollect

use rustix::process::{Resource, getrlimit};

use super::Family;
use super::text::Page;

/// Shows what can be read; a family whose file cannot be read does not appear.
pub(super) fn show(page: &mut Page) {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    if let Some(stat) = Stat::parse(&text("/proc/self/stat")) {
        page.plain(Family::ProcessCpu, stat.cpu_ticks / ticks);
        page.plain(Family::ProcessVirtualMemory, stat.virtual_bytes);
        let page_bytes = rustix::param::page_size() as f64;
        page.plain(Family::ProcessResidentMemory, stat.resident_pages * page_bytes);
        if let Some(boot) = boot_seconds(&text("/proc/stat")) {
            page.plain(Family::ProcessStartTime, boot + stat.start_ticks / ticks);
        }
    }
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX) as f64;
    page.plain(Family::ProcessVirtualMemoryMax, limit(Resource::As));
    page.plain(Family::ProcessMaxFds, limit(Resource::Nofile));
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Reading them takes one more.
        page.plain(Family::ProcessOpenFds, open.count().saturating_sub(1) as f64);
    }
    if let Some((received, sent)) = octets(&text("/proc/self/net/netstat")) {
        page.plain(Family::ProcessNetworkReceived, received);
        page.plain(Family::ProcessNetworkSent, sent);
    }
}

/// Fields of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in brackets, may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // Numbered from 1 in proc(5); the first one here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// Bytes received and sent over IP: the values stand in the line below that of their names.
fn octets(netstat: &str) -> Option<(f64, f64)> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted| {
        let place = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(place)?.parse().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat_are_found_behind_any_name() {
        let rest =
            "S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 9 0 777 4096000 321 18446744073709551615";
        let stat = Stat::parse(&format!("42 (a) b) {rest}")).unwrap();
        assert_eq!(
            stat,
            Stat {
                cpu_ticks: 175.0,
                start_ticks: 777.0,
                virtual_bytes: 4_096_000.0,
                resident_pages: 321.0
            }
        );
        assert_eq!(Stat::parse("42 (a) S 1"), None);
    }

    #[test]
    fn octets_stand_below_their_names() {
        let text = "TcpExt: A\nTcpExt: 1\nIpExt: X InOctets OutOctets\nIpExt: 9 100 200\n";
        assert_eq!(octets(text), Some((100.0, 200.0)));
        assert_eq!(octets("IpExt: X\nIpExt: 1\n"), None);
    }
}
