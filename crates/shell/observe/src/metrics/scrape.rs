//! What the member knows, shown when somebody asks.

use api::etcdserverpb::AlarmType;
use member::{MemberView, NodeStatus};
use store::RangeQuery;
use types::MemberId;

use super::negotiation::{self, Coding};
use super::text::Page;
use super::{FAMILIES, Family, Metrics, elsewhere, process};

/// What a scrape shows besides the metrics that are counted as they happen.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// The newest View.
    pub view: &'a MemberView,
    /// The newest state of raft.
    pub status: NodeStatus,
    /// This member.
    pub member: MemberId,
    /// The effective quota in bytes, negative for none.
    pub quota_bytes: i64,
    /// What was counted.
    pub metrics: &'a Metrics,
    /// Feature gates: name, stage, and whether it is open.
    pub features: &'a [(&'static str, &'static str, bool)],
}

/// A page for a scraper.
#[derive(Debug)]
pub struct Exposition {
    /// Its bytes, in that coding.
    pub body: Vec<u8>,
    /// `Content-Encoding`, if it has one.
    pub encoding: Option<&'static str>,
}

/// The text exposition, with gzip if `accepted` (`Accept-Encoding`) prefers it.
///
/// # Panics
/// If a family was counted that is not in the table.
#[must_use]
pub fn render(scrape: &Scrape<'_>, accepted: &str) -> Exposition {
    let text = page(scrape).finish();
    match negotiation::coding(accepted) {
        Coding::Identity => Exposition { body: text, encoding: None },
        Coding::Gzip => Exposition { body: gzip(&text), encoding: Some("gzip") },
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

fn page(scrape: &Scrape<'_>) -> Page {
    let mut page = Page::default();
    member(&mut page, scrape);
    store(&mut page, scrape);
    labelled(&mut page, scrape);
    scrape.metrics.calls.show(&mut page);
    process::show(&mut page);
    elsewhere::show(&mut page, scrape.metrics);
    for family in scrape.metrics.registry.gather() {
        let row = FAMILIES.iter().find(|row| row.name == family.name());
        page.collected(row.expect("all are made from rows").family, &family);
    }
    page
}

/// Raft's state and this member's.
fn member(page: &mut Page, scrape: &Scrape<'_>) {
    let (view, status) = (scrape.view, scrape.status);
    let is_learner = view.members.get(scrape.member).is_some_and(|m| m.is_learner);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count());
    let truth = |is: bool| f64::from(u8::from(is));
    let (received, sent) = scrape.metrics.calls.bytes();
    let all = [
        (Family::HasLeader, truth(status.leader.is_some())),
        (Family::IsLeader, truth(status.is_leader)),
        (Family::IsLearner, truth(is_learner)),
        (Family::ProposalsCommitted, status.commit.0 as f64),
        (Family::ProposalsApplied, view.store.applied_index().0 as f64),
        (Family::ProposalsPending, status.pending as f64),
        (Family::ProposalsFailed, status.proposals_failed as f64),
        (Family::LeaderChanges, status.leader_changes as f64),
        (Family::HeartbeatSendFailures, status.late_heartbeats as f64),
        (Family::ReadIndexesFailed, status.reads_failed as f64),
        (Family::SlowReadIndexes, status.reads_late as f64),
        (Family::LeaseExpired, status.leases_expired as f64),
        (Family::QuotaBytes, scrape.quota_bytes as f64),
        (Family::ClientReceivedBytes, received as f64),
        (Family::ClientSentBytes, sent as f64),
        (Family::FdLimit, limit.unwrap_or(u64::MAX) as f64),
        (Family::FdUsed, used as f64),
    ];
    for (family, value) in all {
        page.plain(family, value);
    }
}

/// Keys, revisions and the backend.
fn store(page: &mut Page, scrape: &Scrape<'_>) {
    let (view, counts) = (scrape.view, scrape.view.counts);
    let backend = view.store.backend();
    let every = RangeQuery { key: b"\0", range_end: b"\0", ..RangeQuery::default() };
    let keys = view.store.count(&every).unwrap_or_default();
    let ranges = counts.ranges.saturating_add(scrape.metrics.ranges.get());
    let all = [
        (Family::DbSize, backend.map_or(0, bolt::ReadTx::size_bytes) as f64),
        (Family::DbSizeInUse, backend.map_or(0, bolt::ReadTx::size_in_use_bytes) as f64),
        (Family::OpenReads, backend.map_or(0, bolt::ReadTx::open_readers) as f64),
        (Family::AuthRevision, view.auth.revision() as f64),
        (Family::CurrentRevision, view.store.revision().0 as f64),
        (Family::CompactRevision, view.store.compact_revision().0 as f64),
        (Family::Keys, keys as f64),
        // Events wait in no queue: each watcher reads them from the history.
        (Family::PendingEvents, 0.0),
        (Family::TotalPutSize, counts.put_bytes as f64),
        (Family::Ranges, ranges as f64),
        (Family::Puts, counts.puts as f64),
        (Family::Deletes, counts.deletes as f64),
        (Family::Txns, counts.txns as f64),
        (Family::CompactedKeys, counts.compacted as f64),
    ];
    for (family, value) in all {
        page.plain(family, value);
    }
}

fn labelled(page: &mut Page, scrape: &Scrape<'_>) {
    let one = |label: &str| std::iter::once((vec![label.to_owned()], 1.0));
    let mut show = |family, samples: &mut dyn Iterator<Item = (Vec<String>, f64)>| {
        let samples: Vec<_> = samples.collect();
        let borrowed = samples
            .iter()
            .map(|(labels, n)| (labels.iter().map(String::as_str).collect::<Vec<_>>(), *n));
        page.labelled(family, borrowed);
    };
    show(Family::ServerId, &mut one(&scrape.member.to_string()));
    show(Family::ServerVersion, &mut one(types::SERVER_VERSION));
    show(
        Family::FeatureEnabled,
        &mut scrape.features.iter().map(|(name, stage, enabled)| {
            (vec![(*name).to_owned(), (*stage).to_owned()], f64::from(u8::from(*enabled)))
        }),
    );
    if let Some(version) = &scrape.view.members.cluster_version {
        let short = version.rsplit_once('.').map_or(&version[..], |(short, _)| short);
        show(Family::ClusterVersion, &mut one(short));
    }
    show(
        Family::Alarms,
        &mut scrape.view.alarms.list(AlarmType::None as i32).into_iter().map(|alarm| {
            let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |a| a.as_str_name());
            (vec![MemberId(alarm.member_id).to_string(), name.to_owned()], 1.0)
        }),
    );
}

#[cfg(test)]
mod tests;
