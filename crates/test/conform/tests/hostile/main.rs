//! Clients that mean harm. Beside each attack a normal client is answered all the time, on one
//! connection; the server's anonymous memory stays below a number that follows from the limits
//! (`http2/src/limits.rs`), and nobody but the attacker loses a connection. Latencies and CPU are
//! told and not asserted. `QUORATE_HOSTILE` multiplies how often each thing is done (the long form),
//! `QUORATE_HOSTILE_KIND=reference` tells etcd's figures.

mod attacker;
mod beside;
mod crowds;
mod floods;
mod readers;

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
/// What the normal client's own puts, and the allocator's habits, may add in any trial.
const NOISE: i64 = 8 * MIB;
