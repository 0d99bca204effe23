//! Seeded sequences of HTTP/2 frames, and what a server does about them.
//!
//! A [`Sequence`] is drawn from a seed or built by hand ([`fixed`]), played to a server
//! ([`Sequence::play`]) and normalised to [`Reactions`], which must be equal at both servers.
//!
//! What has no one outcome at grpc-go, or stalls it, is not drawn: `draw.rs` says so at each place.
//!
//! What is not compared, and why: the order between streams (handlers run beside each other); the
//! servers' own PING, SETTINGS and WINDOW_UPDATE (how they measure, not what they answer); ids, term
//! and revision in answers; bytes that follow a broken preface, which HTTP/1 deals with, but for
//! their first line; what is said on streams, where the last of several frames in one write ends the
//! connection; and RST_STREAM with NO_ERROR behind an answer whose request has ended, too (grpc-go's
//! handler may answer before or after its reader has seen that end).

mod draw;
mod exchange;
pub mod fixed;

pub use draw::draw;
pub use exchange::{Event, Reactions};

use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, PADDED,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, field, literal,
};

/// The key that calls of a sequence read: nobody writes it meanwhile.
pub const READ_KEY: &str = "read";
/// The key that they write.
const WRITTEN_KEY: &str = "written";

/// What must have come before the next step is taken: grpc-go's handlers run beside the reading of
/// frames, and only what waits for them has one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Await {
    /// Nothing but that the frames were read.
    Read,
    /// The answer of a stream begins: its window may not allow more.
    Begun(u32),
    /// The answer of a stream ends.
    Ended(u32),
}

/// Frames that leave in one write.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is meant to be.
    pub name: &'static str,
    /// The frames.
    pub bytes: Vec<u8>,
    /// What follows before the next step.
    pub until: Await,
}

/// What one connection sends.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The 24 bytes of the beginning, sometimes others.
    pub preface: Vec<u8>,
    /// The frames behind it.
    pub steps: Vec<Step>,
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "preface {}", self.preface.escape_ascii())?;
        for Step { name, bytes, until } in &self.steps {
            let shown = &bytes[..bytes.len().min(400)];
            writeln!(f, "{name}, then {until:?}: {}", shown.escape_ascii())?;
        }
        Ok(())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frames::frame(&mut frame, kind, flags, stream, payload);
    frame
}

impl Sequence {
    /// The shortest sequence of these steps for which `fails` still holds, as far as leaving out
    /// single steps leads.
    #[must_use]
    pub fn minimised(mut self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut at = self.steps.len();
        while at > 0 {
            at -= 1;
            let mut shorter = self.clone();
            shorter.steps.remove(at);
            if fails(&shorter) {
                self = shorter;
            }
        }
        self
    }
}
