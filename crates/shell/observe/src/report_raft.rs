//! Elections and changes of members, as log lines.
//!
//! Elections are told from the messages that pass: they say who campaigns, who votes and for whom.

use std::collections::BTreeSet;

use machine::Members;
use raft::{Body, Message};
use types::MemberId;

use crate::log_line;
use crate::report::Reporter;

impl Reporter {
    /// Messages are about to be sent.
    //= etcd raft 3.7.0: raft.go#campaign, #becomePreCandidate, #becomeCandidate, #Step
    pub fn sent(&self, messages: &[Message]) {
        let mut campaigns = None;
        for message in messages {
            let (me, to, term) = (self.member, message.to, message.term.0);
            let line = match message.body {
                Body::PreVote { last_index, last_term, .. } => {
                    let term = term.saturating_sub(1);
                    if campaigns.replace("pre-candidate") != Some("pre-candidate") {
                        let line = format!("{me} became pre-candidate at term {term}");
                        log_line!(self.log, Info, &line);
                    }
                    format!(
                        "{me} [logterm: {}, index: {}] sent MsgPreVote request to {to} at term \
                         {term}",
                        last_term.0, last_index.0
                    )
                }
                Body::Vote { last_index, last_term, .. } => {
                    if campaigns.replace("candidate") != Some("candidate") {
                        log_line!(self.log, Info, &format!("{me} became candidate at term {term}"));
                    }
                    format!(
                        "{me} [logterm: {}, index: {}] sent MsgVote request to {to} at term {term}",
                        last_term.0, last_index.0
                    )
                }
                Body::PreVoteReply { reject } => {
                    voted(me, "MsgPreVote", to, term_of_pre_vote(term, reject), reject)
                }
                Body::VoteReply { reject } => voted(me, "MsgVote", to, term, reject),
                _ => continue,
            };
            log_line!(self.log, Info, &line);
        }
    }

    /// A message has come.
    //= etcd raft 3.7.0: raft.go#poll
    pub fn received(&self, message: &Message) {
        let term = message.term.0;
        let (answer, reject, term) = match message.body {
            Body::PreVoteReply { reject } => {
                ("MsgPreVoteResp", reject, term_of_pre_vote(term, reject))
            }
            Body::VoteReply { reject } => ("MsgVoteResp", reject, term),
            _ => return,
        };
        let (me, from) = (self.member, message.from);
        let rejection = if reject { " rejection" } else { "" };
        let line = format!("{me} received {answer}{rejection} from {from} at term {term}");
        log_line!(self.log, Info, &line);
    }

    /// The members have changed; whoever was added is told where the change is applied.
    //= etcd 3.7.3: server/etcdserver/api/membership/cluster.go#RemoveMember, #PromoteMember
    //= etcd 3.7.3: server/etcdserver/api/membership/cluster.go#UpdateRaftAttributes
    pub fn members(&self, before: &Members, now: &Members) {
        let ids: BTreeSet<_> = before.iter().map(|member| MemberId(member.id)).collect();
        let (cluster, me) = (self.cluster.to_string(), self.member.to_string());
        for id in ids {
            let Some(old) = before.get(id) else { continue };
            let Some(new) = now.get(id) else {
                log_line!(
                    self.log,
                    Info,
                    "removed member",
                    "cluster-id" = cluster.as_str(),
                    "local-member-id" = me.as_str(),
                    "removed-remote-peer-id" = id.to_string(),
                    "removed-remote-peer-urls" = old.peer_urls.clone().unwrap_or_default(),
                    "removed-remote-peer-is-learner" = old.is_learner,
                );
                continue;
            };
            if old.is_learner && !new.is_learner {
                log_line!(
                    self.log,
                    Info,
                    "promote member",
                    "cluster-id" = cluster.as_str(),
                    "local-member-id" = me.as_str(),
                    "promoted-member-id" = id.to_string(),
                );
            }
            if old.peer_urls != new.peer_urls {
                log_line!(
                    self.log,
                    Info,
                    "updated member",
                    "cluster-id" = cluster.as_str(),
                    "local-member-id" = me.as_str(),
                    "updated-remote-peer-id" = id.to_string(),
                    "updated-remote-peer-urls" = new.peer_urls.clone().unwrap_or_default(),
                    "updated-remote-peer-is-learner" = new.is_learner,
                );
            }
        }
    }
}

/// The term in which a pre-vote is answered: one that is granted carries the term to come.
fn term_of_pre_vote(term: u64, reject: bool) -> u64 {
    if reject { term } else { term.saturating_sub(1) }
}

fn voted(me: MemberId, asked: &str, candidate: MemberId, term: u64, reject: bool) -> String {
    match reject {
        true => format!("{me} rejected {asked} from {candidate} at term {term}"),
        false => format!("{me} cast {asked} for {candidate} at term {term}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, pipe};
    use std::sync::Arc;
    use std::time::Duration;

    use machine::Member;
    use member::NodeStatus;
    use raft::Body;
    use types::{ClusterId, Index, Term};

    use super::*;
    use crate::logging::{Format, Level};
    use crate::{Log, Metrics};

    /// The messages of the lines that `told` gives rise to.
    fn lines(told: impl FnOnce(&Reporter)) -> Vec<String> {
        let (reader, output) = pipe().unwrap();
        let log = Log::to(Level::Info, Format::Console, vec![Box::new(output)]).unwrap();
        let (id, timeout) = ((MemberId(1), ClusterId(9)), Duration::from_secs(7));
        let reporter =
            Reporter::new(Arc::new(log), Arc::new(Metrics::default()), id, timeout, timeout);
        told(&reporter);
        drop(reporter);
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.map(|line| line.split('\t').nth(3).unwrap().to_owned()).collect()
    }

    fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
        Message { from: MemberId(from), to: MemberId(to), term: Term(term), body }
    }

    #[test]
    fn an_election_is_told_from_campaign_to_vote() {
        let vote = |transfer| Body::Vote { last_index: Index(3), last_term: Term(1), transfer };
        let ask = Body::PreVote { last_index: Index(3), last_term: Term(1), transfer: false };
        let told = lines(|reporter| {
            reporter.sent(&[message(1, 2, 2, ask.clone()), message(1, 3, 2, ask.clone())]);
            reporter.received(&message(2, 1, 2, Body::PreVoteReply { reject: false }));
            reporter.sent(&[message(1, 2, 2, vote(false))]);
            reporter.received(&message(3, 1, 2, Body::VoteReply { reject: true }));
            reporter.sent(&[message(1, 3, 4, Body::VoteReply { reject: false })]);
        });
        let member = |id| MemberId(id).to_string();
        let (me, two, three) = (member(1), member(2), member(3));
        let asked = format!("{me} [logterm: 1, index: 3] sent");
        assert_eq!(
            told,
            [
                format!("{me} became pre-candidate at term 1"),
                format!("{asked} MsgPreVote request to {two} at term 1"),
                format!("{asked} MsgPreVote request to {three} at term 1"),
                format!("{me} received MsgPreVoteResp from {two} at term 1"),
                format!("{me} became candidate at term 2"),
                format!("{asked} MsgVote request to {two} at term 2"),
                format!("{me} received MsgVoteResp rejection from {three} at term 2"),
                format!("{me} cast MsgVote for {three} at term 4"),
            ]
        );
    }

    #[test]
    fn a_leader_without_a_quorum_says_why_it_steps_down() {
        let me = MemberId(1);
        let leads = NodeStatus {
            term: Term(2),
            leader: Some(me),
            is_leader: true,
            ..NodeStatus::default()
        };
        let lost = NodeStatus { leader: None, is_leader: false, late_heartbeats: 2, ..leads };
        assert_eq!(
            lines(|reporter| reporter.status(&leads, &lost)),
            [
                format!("{me} stepped down to follower since quorum is not active"),
                format!("{me} became follower at term 2"),
                "leader failed to send out heartbeat on time; took too long, leader is \
                 overloaded likely from slow disk"
                    .to_owned(),
                format!("raft.node: {me} lost leader {me} at term 2"),
            ]
        );
    }

    #[test]
    fn what_becomes_of_members_is_told() {
        let with = |id, url: &str, is_learner| Member {
            id,
            peer_urls: Some(vec![url.to_owned()]),
            is_learner,
            ..Member::default()
        };
        let members = |all: &[Member]| {
            let mut members = Members::default();
            all.iter().for_each(|member| members.insert_stored(member.clone()));
            members
        };
        let before = members(&[with(1, "a", false), with(2, "b", true), with(3, "c", false)]);
        let now = members(&[with(1, "d", false), with(2, "b", false), with(4, "e", true)]);
        assert_eq!(
            lines(|reporter| reporter.members(&before, &now)),
            ["updated member", "promote member", "removed member"]
        );
        assert!(lines(|reporter| reporter.members(&now, &now)).is_empty());
    }
}
