//! Families of parts that etcd has and this program has not.
//!
//! etcd's own tests and dashboards in use ask for these names. Where something here is the nearest
//! to what the name says, that is shown; everything else is 0, for it never happens. COMPAT.md
//! lists them.

use std::sync::atomic::Ordering;

use super::process::Memory;
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
    let memory = Memory::of_process();
    HEAP.iter().for_each(|family| page.plain(*family, memory.anonymous_bytes as f64));
    page.plain(Family::GoMemstatsSysBytes, memory.resident_bytes as f64);
    let threads = memory.threads as f64;
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
