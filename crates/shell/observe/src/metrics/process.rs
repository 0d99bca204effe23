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

/// The largest number of file descriptors that this process may have.
#[must_use]
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Memory and threads of a process, as `/proc/self/status` gives them; 0 is what cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Memory that is no file's.
    pub anonymous_bytes: u64,
    /// All that is in memory.
    pub resident_bytes: u64,
    /// The number of threads.
    pub threads: u64,
}

impl Memory {
    /// Of this process, now.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        let field = |name| {
            let mut rests = status.lines().filter_map(|line| line.strip_prefix(name));
            rests.find_map(|rest| rest.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
        };
        let bytes = |name| field(name).unwrap_or(0u64).saturating_mul(1024);
        Self {
            anonymous_bytes: bytes("RssAnon"),
            resident_bytes: bytes("VmRSS"),
            threads: field("Threads").unwrap_or(0),
        }
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
    fn memory_stands_behind_its_names() {
        let status = "Name:\tVmRSS:\nVmRSS:\t   2048 kB\nRssAnon:\t     512 kB\nThreads:\t9\n";
        let memory = Memory { anonymous_bytes: 512 << 10, resident_bytes: 2048 << 10, threads: 9 };
        assert_eq!(Memory::parse(status), memory);
        assert_eq!(Memory::parse("VmRSSX: 1 kB\nThreads: many"), Memory::default());
    }

    #[test]
    fn octets_stand_below_their_names() {
        let text = "TcpExt: A\nTcpExt: 1\nIpExt: X InOctets OutOctets\nIpExt: 9 100 200\n";
        assert_eq!(octets(text), Some((100.0, 200.0)));
        assert_eq!(octets("IpExt: X\nIpExt: 1\n"), None);
    }
}
