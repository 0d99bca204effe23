//! A naive model of etcd, histories of operations, and checkers for both.
//!
//! One library for the simulator, for end-to-end tests and for runs against Go's etcd: a test
//! records what clients asked and saw as a [`History`], and [`check`] says whether any correct etcd
//! could have answered so.
//!
//! Owns: the reference [`State`] (keys, leases, transactions, compaction; semantics.md A to E and
//! G), the two linearizability checks ([`oracle`] for histories of any length, [`search`] for small
//! ones), the checks of watches ([`watch`]) and leases ([`lease`]), and who may do what ([`users`],
//! [`trail`]). Never: runs anything, reads a
//! clock, or uses the product's code beyond the messages of `api`; everything here is a pure
//! function of a history.
//!
//! Read next: [`history`], [`state`], then [`oracle`] and [`watch`].

pub mod answer;
pub mod history;
pub mod lease;
pub mod oracle;
mod range;
pub mod search;
pub mod state;
pub mod trail;
mod txn;
pub mod users;
mod validate;
pub mod violation;
pub mod watch;

pub use answer::Answer;
pub use history::{History, Leg, Logged, Operation, Outcome, Request, Response, Watch};
pub use oracle::Replay;
pub use search::{Search, linearize};
pub use state::{Change, State, Version};
pub use trail::Trail;
pub use users::Users;
pub use violation::{Property, Violation};

/// What [`check`] looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations.
    pub operations: usize,
    /// Revisions whose content is known.
    pub revisions: usize,
    /// Events that watches delivered.
    pub events: usize,
    /// Watches that a compaction cancelled.
    pub cancelled: usize,
    /// Leases that ended by themselves with keys on them.
    pub expired: usize,
    /// Whether the general search came to an end within its budget.
    pub searched: bool,
}

/// Steps that the general search may take within [`check`], per operation of the history.
const SEARCH_STEPS_PER_OPERATION: usize = 64;
/// Operations for which it may take that many, in all.
const SEARCHED_OPERATIONS: usize = 500;

/// Runs every checker.
///
/// # Errors
/// The first property that the history breaks.
pub fn check(history: &History) -> Result<Report, Violation> {
    let replay = Replay::of(history)?;
    oracle::check_reads(history, &replay)?;
    oracle::check_hashes(history)?;
    lease::check(history, &replay)?;
    let watched = watch::check(history, &replay)?;
    let steps =
        SEARCH_STEPS_PER_OPERATION * history.operations.len().clamp(16, SEARCHED_OPERATIONS);
    let searched = match linearize(history, steps) {
        Search::Linearizable(_) => true,
        Search::Exhausted => false,
        Search::Impossible { done, stuck } => {
            return Err(Violation::new(
                Property::Linearizable,
                format!("{done} operations have an order, then none fits; next would be {stuck}"),
            ));
        }
    };
    Ok(Report {
        operations: history.operations.len(),
        revisions: replay.revisions(),
        events: watched.events,
        cancelled: watched.cancelled,
        expired: replay.expired.len(),
        searched,
    })
}
