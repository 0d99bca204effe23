//! Linearizable reads that wait for their index.
//!
//! Reads of one turn share one context, and at most [`MAX_ROUNDS`] contexts are under way: what
//! comes meanwhile waits for the next one, so a busy member costs its leader a heartbeat per round
//! trip and not one per turn. Contexts are answered in order; a later one's index covers the
//! earlier reads too.
//= etcd 3.7.1: server/etcdserver/v3_server.go#requestCurrentIndex

use std::collections::VecDeque;
use std::time::Duration;

use api::error::ApiError;
use env::{Instant, sometimes};
use types::limits::READ_INDEX_RETRY_MS;
use types::{Index, ReplyToken};

use super::Node;
use crate::message::{NodeOutput, Reply};
use crate::probes;

/// Contexts asked for at once: one on its way, and one for those that just missed it.
const MAX_ROUNDS: usize = 2;

/// Reads that share a context.
#[derive(Debug)]
struct Round {
    context: u64,
    since: Instant,
    /// When it was asked for last; an answer may get lost.
    asked: Instant,
    tokens: Vec<ReplyToken>,
}

/// All reads of this member that wait for an index.
#[derive(Debug)]
pub(super) struct Reads {
    rounds: VecDeque<Round>,
    /// Not asked for yet, and since when the first of them waits.
    queued: Vec<ReplyToken>,
    queued_since: Instant,
    /// This member wants to know an index itself.
    joined: bool,
    context: u64,
    /// The last context that was confirmed, and its index.
    confirmed: (u64, Index),
}

impl Reads {
    /// Contexts count up from `first`, which differs between members and boots.
    pub(super) fn new(first: u64) -> Self {
        Self {
            rounds: VecDeque::new(),
            queued: Vec::new(),
            queued_since: Instant(0),
            joined: false,
            context: first,
            confirmed: (first, Index(0)),
        }
    }

    fn is_queued(&self) -> bool {
        self.joined || !self.queued.is_empty()
    }

    /// Takes part in the next round for this member itself; its context.
    pub(super) fn join(&mut self, now: Instant) -> u64 {
        if !self.is_queued() {
            self.queued_since = now;
        }
        self.joined = true;
        self.context + 1
    }

    /// The index of a round, once it or a later one is confirmed.
    pub(super) fn confirmed(&self, context: u64) -> Option<Index> {
        (context <= self.confirmed.0).then_some(self.confirmed.1)
    }

    fn drain(&mut self) -> Vec<ReplyToken> {
        self.joined = false;
        let asked = self.rounds.drain(..).flat_map(|round| round.tokens);
        asked.chain(self.queued.drain(..)).collect()
    }
}

impl Node {
    /// Takes the reads of this turn.
    pub(super) fn read(&mut self, now: Instant, mut reading: Vec<ReplyToken>) {
        if !reading.is_empty() && !self.reads.is_queued() {
            self.reads.queued_since = now;
        }
        self.reads.queued.append(&mut reading);
        self.ask_queued(now);
    }

    fn ask_queued(&mut self, now: Instant) {
        let reads = &mut self.reads;
        if !reads.is_queued() || reads.rounds.len() >= MAX_ROUNDS {
            return;
        }
        reads.joined = false;
        reads.context += 1;
        reads.rounds.push_back(Round {
            context: reads.context,
            since: reads.queued_since,
            asked: now,
            tokens: std::mem::take(&mut reads.queued),
        });
        self.raft.read_index(reads.context);
    }

    /// An index was confirmed.
    pub(super) fn read_ready(
        &mut self,
        now: Instant,
        context: u64,
        index: Index,
        out: &mut NodeOutput,
    ) {
        let Reads { rounds, confirmed, .. } = &mut self.reads;
        // Not one of another boot, or one that was given up.
        if !rounds.iter().any(|round| round.context == context) {
            return;
        }
        *confirmed = (context, index);
        while rounds.front().is_some_and(|round| round.context <= context) {
            let tokens = rounds.pop_front().map(|round| round.tokens);
            let answer = |token| (token, Reply::ReadIndex(index));
            out.replies.extend(tokens.into_iter().flatten().map(answer));
        }
        self.ask_queued(now);
    }

    /// Ends what waits for too long and asks again for what may have been lost.
    pub(super) fn tick_reads(
        &mut self,
        now: Instant,
        until: Option<Instant>,
        out: &mut NodeOutput,
    ) {
        let timed_out = |token| (token, Reply::Refused(ApiError::Timeout));
        let is_late = |since: Instant| until.is_some_and(|until| since <= until);
        while self.reads.rounds.front().is_some_and(|round| is_late(round.since)) {
            self.status.reads_late += 1;
            let tokens = self.reads.rounds.pop_front().map(|round| round.tokens);
            out.replies.extend(tokens.into_iter().flatten().map(timed_out));
        }
        if self.reads.is_queued() && is_late(self.reads.queued_since) {
            self.status.reads_late += 1;
            self.reads.joined = false;
            out.replies.extend(self.reads.queued.drain(..).map(timed_out));
        }
        let retry = Duration::from_millis(READ_INDEX_RETRY_MS);
        for round in self.reads.rounds.iter_mut().filter(|round| round.asked + retry <= now) {
            round.asked = now;
            self.status.reads_retried += 1;
            self.status.retried_read = round.context;
            sometimes!(self.hooks, probes::READ_ASKED_AGAIN);
            self.raft.read_index(round.context);
        }
        self.ask_queued(now);
    }

    /// Another leader is known than the one that was asked: nobody will answer.
    pub(super) fn leader_of_reads_changed(&mut self, out: &mut NodeOutput) {
        sometimes!(self.hooks, probes::READS_ENDED, !self.reads.rounds.is_empty());
        self.status.reads_failed += self.reads.rounds.len() as u64;
        let changed = |token| (token, Reply::Refused(ApiError::LeaderChanged));
        out.replies.extend(self.reads.drain().into_iter().map(changed));
    }

    /// The first leader is known: what was asked before went nowhere.
    pub(super) fn ask_reads_again(&mut self, now: Instant) {
        for round in &mut self.reads.rounds {
            round.asked = now;
            self.raft.read_index(round.context);
        }
    }
}
