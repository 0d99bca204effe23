//! Clients that mean harm. Beside each attack a normal client is answered all the time, on one
//! connection; the server's anonymous memory stays below a number that follows from the limits
//! (`http2/src/limits.rs`), a flood is cut off before all of it was taken, and nobody but the attacker
//! loses a connection.
//!
//! Latencies and CPU are told and not asserted: what else the machine does is in them. The long form
//! (`QUORATE_HOSTILE`, how often each thing of the short one is done: 20 makes 100,000 streams and
//! 10,000 connections) compares the normal client's percentiles without and under the attack, in
//! rounds of either, one trial at a time. `QUORATE_HOSTILE_KIND=reference` tells etcd's figures.

mod attacker;
mod beside;
mod crowds;
mod floods;
mod readers;

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
/// What the normal client's own puts, and the allocator's habits, may add in any trial.
const NOISE: i64 = 8 * MIB;
