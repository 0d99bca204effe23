//! Comparing the members' hashes: before serving, now and then, and after compactions.
//!
//! The leader asks its peers for the hash of the keys at a revision of its own. A member whose
//! hash differs where it must not gets the CORRUPT alarm, and the cluster refuses writes.
//= etcd 3.7.1: server/etcdserver/corrupt.go

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType, HashKvResponse};
use machine::CommandKind;
use peer::{HashError, RemoteHash};
use prost::Message;
use rpc::runtime::Runtime;
use rpc::services::maintenance;
use store::hash::KvHash;
use types::{MemberId, Revision};

use observe::{Log, log_line};

/// When to compare.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Before serving (gate `InitialCorruptCheck`).
    pub initial: bool,
    /// Time between two comparisons of the leader (`--corrupt-check-time`); 0 is never.
    pub periodic: Duration,
    /// Time between two comparisons of compaction hashes (gate `CompactHashCheck`,
    /// `--compact-hash-check-time`); 0 is never.
    pub compaction: Duration,
}

/// What a peer answered.
struct Answer {
    id: MemberId,
    hash: Result<RemoteHash, HashError>,
}

struct Checker {
    rt: Rc<Runtime>,
    log: Arc<Log>,
    /// The newest revision whose compaction hash all members were seen to share.
    checked: Revision,
}

/// Compares as often as `checks` says, for ever.
pub(crate) async fn watch_over(rt: Rc<Runtime>, log: Arc<Log>, checks: Checks) {
    let mut checker = Checker { rt, log, checked: Revision(0) };
    let (mut periodic, mut compaction) = (Duration::ZERO, Duration::ZERO);
    let step = [checks.periodic, checks.compaction].into_iter().filter(|time| !time.is_zero());
    let Some(step) = step.min() else { return };
    loop {
        tokio::time::sleep(step).await;
        periodic += step;
        compaction += step;
        if !checker.rt.handle.status.load().is_leader {
            continue;
        }
        if !checks.periodic.is_zero() && periodic >= checks.periodic {
            periodic = Duration::ZERO;
            checker.periodic().await;
        }
        if !checks.compaction.is_zero() && compaction >= checks.compaction {
            compaction = Duration::ZERO;
            checker.compactions().await;
        }
    }
}

/// Compares this member with its peers before it serves.
///
/// # Errors
/// They differ.
pub(crate) async fn initial(rt: Rc<Runtime>, log: Arc<Log>) -> Result<(), String> {
    let me = rt.handle.member;
    log_line!(log, Info, "starting initial corruption check", "local-member-id" = me.to_string());
    let checker = Checker { rt, log, checked: Revision(0) };
    let own = checker.own(Revision(0)).await;
    let own = own.ok_or_else(|| format!("{me} failed to fetch hash"))?;
    let mut differ = 0;
    for Answer { id, hash } in checker.ask(Revision(own.hash_revision)).await {
        match hash {
            Ok(theirs) if theirs.hash == own.hash => {}
            Ok(theirs) if theirs.compact_revision.0 == own.compact_revision => {
                differ += 1;
                checker.told("found different hash values from remote peer", id, &own, &theirs);
            }
            Ok(theirs) => {
                let text = "found different compact revision values from remote peer";
                checker.told(text, id, &own, &theirs);
            }
            Err(why) => log_line!(
                checker.log,
                Warn,
                "cannot fetch hash from remote peer",
                "remote-peer-id" = id.to_string(),
                "error" = format!("{why:?}"),
            ),
        }
    }
    if differ > 0 {
        return Err(format!("{me} found data inconsistency with peers"));
    }
    log_line!(
        checker.log,
        Info,
        "initial corruption checking passed; no corruption",
        "local-member-id" = me.to_string()
    );
    Ok(())
}

impl Checker {
    fn told(&self, text: &str, id: MemberId, own: &HashKvResponse, theirs: &RemoteHash) {
        log_line!(
            self.log,
            Warn,
            text,
            "local-member-id" = self.rt.handle.member.to_string(),
            "local-member-revision" = own.hash_revision,
            "local-member-compact-revision" = own.compact_revision,
            "local-member-hash" = own.hash,
            "remote-peer-id" = id.to_string(),
            "remote-peer-revision" = theirs.hash_revision.0,
            "remote-peer-compact-revision" = theirs.compact_revision.0,
            "remote-peer-hash" = theirs.hash,
        );
    }

    async fn own(&self, revision: Revision) -> Option<HashKvResponse> {
        maintenance::hash_own(&self.rt, revision).await.ok()
    }

    /// Asks every peer, at each of its URLs until one answers.
    async fn ask(&self, revision: Revision) -> Vec<Answer> {
        let handle = &self.rt.handle;
        let view = self.rt.view();
        let mut answers = Vec::new();
        for member in view.members.iter().filter(|m| m.id != handle.member.0) {
            let no_url = peer::ClientError::Unreachable("no URL".to_owned());
            let mut hash = Err(HashError::Other(no_url));
            for url in member.peer_urls.iter().flatten() {
                hash = handle
                    .peers
                    .hash_kv(url, handle.cluster, revision, handle.request_timeout)
                    .await;
                if hash.is_ok() {
                    break;
                }
            }
            answers.push(Answer { id: MemberId(member.id), hash });
        }
        answers
    }

    async fn alarm(&self, member: MemberId) {
        let request = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: member.0,
            alarm: AlarmType::Corrupt as i32,
        };
        // What is refused is found again at the next comparison.
        let _ = self.rt.propose(CommandKind::Alarm, &request.encode_to_vec()).await;
    }

    /// One comparison of the newest state; at most one alarm.
    //= etcd 3.7.1: server/etcdserver/corrupt.go#PeriodicCheck
    async fn periodic(&self) {
        let Some(before) = self.own(Revision(0)).await else { return };
        let answers = self.ask(Revision(before.hash_revision)).await;
        let Ok(view) = self.rt.linearizable_view().await else { return };
        let newest = view.store.revision();
        drop(view);
        let Some(after) = self.own(Revision(0)).await else { return };
        let mut bad = None;
        let place = |h: &HashKvResponse| (h.hash_revision, h.compact_revision);
        if after.hash != before.hash && place(&after) == place(&before) {
            log_line!(self.log, Warn, "found hash mismatch", "revision" = before.hash_revision);
            bad = Some(self.rt.handle.member);
        }
        let mut checked = 0;
        for Answer { id, hash } in answers {
            let Ok(theirs) = hash else { continue };
            checked += 1;
            let text = if theirs.revision > newest {
                "revision from follower must be less than or equal to leader's"
            } else if theirs.compact_revision.0 > after.compact_revision {
                "compact revision from follower must be less than or equal to leader's"
            } else if theirs.compact_revision.0 == before.compact_revision
                && theirs.hash != before.hash
            {
                "same compact revision then hashes must match"
            } else {
                continue;
            };
            self.told(text, id, &before, &theirs);
            bad.get_or_insert(id);
        }
        if let Some(member) = bad {
            self.alarm(member).await;
        }
        log_line!(
            self.log,
            Info,
            "finished peer corruption check",
            "number-of-peers-checked" = checked
        );
    }

    /// Compares stored hashes of compactions, the newest first, until one was comparable.
    //= etcd 3.7.1: server/etcdserver/corrupt.go#CompactHashCheck
    async fn compactions(&mut self) {
        let mut hashes = self.rt.view().hashes.all().to_vec();
        hashes.retain(|hash| hash.revision > self.checked);
        hashes.sort_unstable_by_key(|hash| std::cmp::Reverse(hash.revision));
        let mut looked_at = 0;
        for hash in hashes {
            looked_at += 1;
            let answers = self.ask(hash.revision).await;
            if !answers.is_empty() && self.compare(&hash, &answers).await {
                break;
            }
        }
        log_line!(
            self.log,
            Info,
            "finished compaction hash check",
            "number-of-hashes-checked" = looked_at
        );
    }

    /// Whether there is no need to look at older hashes.
    async fn compare(&mut self, own: &KvHash, answers: &[Answer]) -> bool {
        let mut by_hash = BTreeMap::from([(own.hash, vec![self.rt.handle.member])]);
        let mut compared = 0;
        for Answer { id, hash } in answers {
            match hash {
                Ok(theirs) if theirs.compact_revision == own.compact_revision => {
                    compared += 1;
                    by_hash.entry(theirs.hash).or_default().push(*id);
                }
                _ => log_line!(
                    self.log,
                    Warn,
                    "Skipped peer's hash",
                    "number-of-peers" = answers.len(),
                    "leader-id" = self.rt.handle.member.to_string(),
                    "peer-id" = id.to_string(),
                ),
            }
        }
        if by_hash.len() == 1 {
            let all = compared == answers.len();
            if all {
                self.checked = self.checked.max(own.revision);
                log_line!(
                    self.log,
                    Info,
                    "successfully checked hash on whole cluster",
                    "number-of-peers-checked" = compared,
                    "revision" = own.revision.0,
                    "compactRevision" = own.compact_revision.0,
                );
            }
            return all;
        }
        let members = answers.len() + 1;
        let quorum = members / 2 + 1;
        let majority = by_hash.iter().find(|(_, ids)| ids.len() >= quorum).map(|(hash, _)| *hash);
        if let Some(hash) = majority {
            by_hash.remove(&hash);
        }
        let suspects: Vec<MemberId> = match majority {
            Some(_) => by_hash.values().flatten().copied().collect(),
            // Nobody knows whose data is bad: it concerns the whole cluster.
            None => vec![MemberId(0)],
        };
        for (hash, ids) in &by_hash {
            let ids: Vec<String> = ids.iter().map(MemberId::to_string).collect();
            log_line!(
                self.log,
                Error,
                "Detected compaction hash mismatch",
                "leader-id" = self.rt.handle.member.to_string(),
                "leader-revision" = own.revision.0,
                "leader-compact-revision" = own.compact_revision.0,
                "leader-hash" = own.hash,
                "peer-hash" = *hash,
                "peer-ids" = ids.join(","),
                "quorum-exist" = majority.is_some(),
            );
        }
        for member in suspects {
            self.alarm(member).await;
        }
        true
    }
}
