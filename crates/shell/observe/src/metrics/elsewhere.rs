//! Families of parts that etcd has and this program has not.
//!
//! etcd's own tests and dashboards in use ask for these names. Where something here is the nearest
//! to what the name says, that is shown; everything else is 0, for it never happens. COMPAT.md
//! lists them.

use std::sync::atomic::Ordering;

use super::text::Page;
use super::{Family, Metrics};

/// What `etcd --version` prints, too: no version of Go.
const NO_GO: &str = "none (Rust)";

/// Statuses of scrapes that Prometheus' handler counts apart.
//= client_golang 1.23: prometheus/promhttp/http.go#InstrumentMetricHandler
const SCRAPE_CODES: [&str; 3] = ["200", "500", "503"];

/// Shares of which Go's collector of garbage tells its pauses.
const SHARES: [&str; 5] = ["0", "0.25", "0.5", "0.75", "1"];

/// Parts that are not in this program: the store of version 2, the proxy that a member is not, and
/// a collector of garbage with its heap.
const ABSENT: [Family; 26] = [
    Family::StoreExpires,
    Family::StoreWatchRequests,
    Family::StoreWatchers,
    Family::ProxyCacheHits,
    Family::ProxyCacheKeys,
    Family::ProxyCacheMisses,
    Family::ProxyEvents,
    Family::ProxyWatchers,
    Family::GoGcGogcPercent,
    Family::GoMemstatsAllocBytesTotal,
    Family::GoMemstatsBuckHashSysBytes,
    Family::GoMemstatsFreesTotal,
    Family::GoMemstatsGcSysBytes,
    Family::GoMemstatsHeapIdleBytes,
    Family::GoMemstatsHeapObjects,
    Family::GoMemstatsHeapReleasedBytes,
    Family::GoMemstatsLastGcTimeSeconds,
    Family::GoMemstatsMallocsTotal,
    Family::GoMemstatsMcacheInuseBytes,
    Family::GoMemstatsMcacheSysBytes,
    Family::GoMemstatsMspanInuseBytes,
    Family::GoMemstatsMspanSysBytes,
    Family::GoMemstatsNextGcBytes,
    Family::GoMemstatsOtherSysBytes,
    Family::GoMemstatsStackInuseBytes,
    Family::GoMemstatsStackSysBytes,
];

/// Memory of the process that is no file's, under the names of Go's heap.
const HEAP: [Family; 4] = [
    Family::GoMemstatsAllocBytes,
    Family::GoMemstatsHeapAllocBytes,
    Family::GoMemstatsHeapInuseBytes,
    Family::GoMemstatsHeapSysBytes,
];

/// Shows them all; the scrape that asks counts as one in flight.
pub(super) fn show(page: &mut Page, metrics: &Metrics) {
    ABSENT.iter().for_each(|family| page.plain(*family, 0.0));
    let one = |text| std::iter::once((vec![text], 1.0));
    page.labelled(Family::GoVersion, one(NO_GO));
    page.labelled(Family::GoInfo, one(NO_GO));
    page.plain(Family::GoGcGomemlimitBytes, i64::MAX as f64);
    page.summary(Family::GoGcDuration, &SHARES);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name| field(&status, name).unwrap_or(0.0) * 1024.0;
    HEAP.iter().for_each(|family| page.plain(*family, kib("RssAnon")));
    page.plain(Family::GoMemstatsSysBytes, kib("VmRSS"));
    let threads = field(&status, "Threads").unwrap_or(0.0);
    page.plain(Family::GoThreads, threads);
    // Tasks are not counted: what runs at the same time is at most the threads.
    page.plain(Family::GoGoroutines, threads);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    page.plain(Family::GoSchedGomaxprocsThreads, cores as f64);
    page.plain(Family::ScrapesInFlight, 1.0);
    let before = metrics.scrapes.fetch_add(1, Ordering::Relaxed) as f64;
    let scrapes = SCRAPE_CODES.into_iter().map(|code| {
        // None fails: the page is written in memory.
        (vec![code], if code == SCRAPE_CODES[0] { before } else { 0.0 })
    });
    page.labelled(Family::Scrapes, scrapes);
}

/// The number behind a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_status_stand_behind_their_names() {
        let status = "Name:\tetcd\nVmRSS:\t   2048 kB\nRssAnon:\t     512 kB\nThreads:\t9\n";
        assert_eq!(field(status, "RssAnon"), Some(512.0));
        assert_eq!(field(status, "Threads"), Some(9.0));
        assert_eq!(field(status, "Rss"), None);
        assert_eq!(field(status, "Name"), None);
    }
}
