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
use api::etcdserverpb::{AlarmRequest, AlarmType};
use machine::CommandKind;
use member::MemberView;
use prost::Message;
use store::RangeQuery;
use store::hash::KvHash;
use types::{MemberId, Revision};

use crate::caller::Allowed;
use crate::host::{CompactionHash, Event, HashDiffers};
use crate::maintenance;
use crate::member::Member;
use crate::peers::{PeerAnswer, PeerError, PeerHash, Question, ask};

/// When hashes are compared.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Before serving (gate `InitialCorruptCheck`).
    pub initial: bool,
    /// Time between two comparisons by the leader (`--corrupt-check-time`); 0 for never.
    pub periodic: Duration,
    /// Time between two comparisons of compaction hashes (gate `CompactHashCheck`,
    /// `--compact-hash-check-time`); 0 for never.
    pub compaction: Duration,
}

/// What a peer answered.
struct Answer {
    id: MemberId,
    hash: Result<PeerHash, PeerError>,
}

struct Checker {
    member: Rc<Member>,
    /// The newest revision whose compaction hash all members were seen to share.
    checked: Revision,
}

/// Compares hashes as often as `checks` says, while this member leads. Never returns.
pub async fn watch_over(member: Rc<Member>, checks: Checks) {
    let mut checker = Checker { member, checked: Revision(0) };
    let (mut periodic, mut compaction) = (Duration::ZERO, Duration::ZERO);
    let step = [checks.periodic, checks.compaction].into_iter().filter(|time| !time.is_zero());
    let Some(step) = step.min() else { return };
    loop {
        checker.member.sleep(step).await;
        periodic += step;
        compaction += step;
        if !checker.member.status().is_leader {
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
/// This member's data differs from a peer's, or its own hash cannot be computed.
pub async fn initial(member: Rc<Member>) -> Result<(), String> {
    let me = member.shared.id;
    let checker = Checker { member, checked: Revision(0) };
    checker.log(Event::InitialCheckBegan);
    let own = checker.own().await;
    let own = own.ok_or_else(|| format!("{me} failed to fetch hash"))?;
    let mut differ = 0;
    for Answer { id, hash } in checker.ask(own.hash_revision).await {
        match hash {
            Ok(theirs) if theirs.hash == own.hash => {}
            Ok(theirs) if theirs.compact_revision == own.compact_revision => {
                differ += 1;
                checker.differs(HashDiffers::Initial, id, &own, &theirs);
            }
            Ok(theirs) => checker.differs(HashDiffers::InitialCompaction, id, &own, &theirs),
            Err(why) => checker.log(Event::NoHash { peer: id, why: &why }),
        }
    }
    if differ > 0 {
        return Err(format!("{me} found data inconsistency with peers"));
    }
    checker.log(Event::InitialCheckPassed);
    Ok(())
}

impl Checker {
    fn log(&self, event: Event<'_>) {
        self.member.host.log(event);
    }

    fn differs(&self, how: HashDiffers, peer: MemberId, own: &PeerHash, theirs: &PeerHash) {
        self.log(Event::HashDiffers { how, peer, own, theirs });
    }

    /// The newest View; what is compared is told to members only.
    fn view(&self) -> Arc<MemberView> {
        self.member.view().open(Allowed::BY_ITSELF)
    }

    /// The hash of the newest revision. Not one that was stored: a compaction to revision 0 stores
    /// one under the number that stands for the newest, and who was started since has none.
    async fn own(&self) -> Option<PeerHash> {
        let hash =
            maintenance::compute_hash(&self.member, Revision(0), Allowed::BY_ITSELF).await.ok()?;
        Some(PeerHash::from(&hash))
    }

    /// Asks every peer.
    async fn ask(&self, revision: Revision) -> Vec<Answer> {
        let (member, view) = (&self.member, self.member.view());
        let patience = member.shared.limits.request_timeout;
        let mut answers = Vec::new();
        for other in view.members().iter().filter(|other| other.id != member.shared.id.0) {
            let hash = match ask(member, other, Question::HashKv(revision), patience).await {
                Ok(PeerAnswer::Hash(hash)) => Ok(hash),
                Ok(other) => Err(PeerError::Other(format!("a hash was asked for, not {other:?}"))),
                Err(why) => Err(why),
            };
            answers.push(Answer { id: MemberId(other.id), hash });
        }
        answers
    }

    /// Whether something is known to have been alive at a revision. Where nothing was, what a
    /// compaction at it stores differs from what is computed before it, in etcd as well: a peer that
    /// has yet to compact is healthy all the same.
    fn was_alive(&self, revision: Revision) -> bool {
        let all = RangeQuery { key: b"\0", range_end: b"\0", ..RangeQuery::default() };
        let at = RangeQuery { revision: revision.0, ..all };
        self.view().store.count(&at).is_ok_and(|keys| keys > 0)
    }

    async fn alarm(&self, member: MemberId) {
        let request = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: member.0,
            alarm: AlarmType::Corrupt as i32,
        };
        // What is refused is found again at the next comparison.
        let _ = self.member.propose_own(CommandKind::Alarm, &request.encode_to_vec()).await;
    }

    /// One comparison of the newest state; at most one alarm.
    //= etcd 3.7.3: server/etcdserver/corrupt.go#PeriodicCheck
    async fn periodic(&self) {
        let Some(before) = self.own().await else { return };
        let was_alive = self.was_alive(before.hash_revision);
        let answers = self.ask(before.hash_revision).await;
        let Ok(view) = self.member.linearizable_view().await else { return };
        let newest = view.revision();
        drop(view);
        let Some(after) = self.own().await else { return };
        // A peer may have told what a compaction at this very revision has stored.
        let is_stored = !was_alive && after.compact_revision >= before.hash_revision;
        let mut bad = None;
        let place = |h: &PeerHash| (h.hash_revision, h.compact_revision);
        if after.hash != before.hash && place(&after) == place(&before) {
            self.log(Event::OwnHashChanged(before.hash_revision));
            bad = Some(self.member.shared.id);
        }
        let mut checked = 0;
        for Answer { id, hash } in answers {
            let Ok(theirs) = hash else { continue };
            checked += 1;
            let how = if theirs.revision > newest {
                HashDiffers::Revision
            } else if theirs.compact_revision > after.compact_revision {
                HashDiffers::Compaction
            } else if theirs.compact_revision == before.compact_revision
                && theirs.hash != before.hash
                && !is_stored
            {
                HashDiffers::Hash
            } else {
                continue;
            };
            self.differs(how, id, &before, &theirs);
            bad.get_or_insert(id);
        }
        if let Some(member) = bad {
            self.alarm(member).await;
        }
        self.log(Event::PeriodicCheckEnded { peers: checked });
    }

    /// Compares stored hashes of compactions, the newest first, until one was comparable.
    //= etcd 3.7.3: server/etcdserver/corrupt.go#CompactHashCheck
    async fn compactions(&mut self) {
        let mut hashes = self.view().hashes.all().to_vec();
        hashes.retain(|hash| hash.revision > self.checked && hash.was_alive);
        hashes.sort_unstable_by_key(|hash| std::cmp::Reverse(hash.revision));
        let mut looked_at = 0;
        for hash in hashes {
            looked_at += 1;
            let answers = self.ask(hash.revision).await;
            if !answers.is_empty() && self.compare(&hash, &answers).await {
                break;
            }
        }
        self.log(Event::CompactionCheckEnded { hashes: looked_at });
    }

    /// Whether there is no need to look at older hashes.
    async fn compare(&mut self, own: &KvHash, answers: &[Answer]) -> bool {
        let mut by_hash = BTreeMap::from([(own.hash, vec![self.member.shared.id])]);
        let mut compared = 0;
        for Answer { id, hash } in answers {
            match hash {
                Ok(theirs) if theirs.compact_revision == own.compact_revision => {
                    compared += 1;
                    by_hash.entry(theirs.hash).or_default().push(*id);
                }
                _ => {
                    let skipped = CompactionHash::Skipped { peer: *id, peers: answers.len() };
                    self.log(Event::CompactionHash(skipped));
                }
            }
        }
        let told = PeerHash {
            revision: own.revision,
            hash: own.hash,
            compact_revision: own.compact_revision,
            hash_revision: own.revision,
        };
        if by_hash.len() == 1 {
            let all = compared == answers.len();
            if all {
                self.checked = self.checked.max(own.revision);
                let shared = CompactionHash::Shared { own: &told, peers: compared };
                self.log(Event::CompactionHash(shared));
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
        for (hash, peers) in &by_hash {
            let (own, hash, has_majority) = (&told, *hash, majority.is_some());
            let differs = CompactionHash::Differs { own, hash, peers, has_majority };
            self.log(Event::CompactionHash(differs));
        }
        for member in suspects {
            self.alarm(member).await;
        }
        true
    }
}
