//! One direction of a connection: bytes that arrive in order, in pieces cut anywhere, some time
//! after they were sent.

use std::collections::VecDeque;

use bytes::Bytes;
use env::{Entropy, SplitMix};

/// Bytes on their way.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// When each piece arrives; none overtakes another.
    pieces: VecDeque<(u64, Bytes)>,
}

impl Pipe {
    /// Sends bytes; each piece travels so many nanoseconds at most.
    pub(crate) fn write(&mut self, now: u64, bytes: Vec<u8>, most: u64, entropy: &mut SplitMix) {
        let mut bytes = Bytes::from(bytes);
        let mut at = self.pieces.back().map_or(now, |(at, _)| *at);
        while !bytes.is_empty() {
            // Mostly some hundreds, seldom one.
            let largest = 2 << entropy.below(14);
            let size = 1 + entropy.below(largest) as usize;
            at = at.max(now + entropy.below(most + 1));
            self.pieces.push_back((at, bytes.split_to(size.min(bytes.len()))));
        }
    }

    /// When the next piece arrives.
    pub(crate) fn due(&self) -> Option<u64> {
        self.pieces.front().map(|(at, _)| *at)
    }

    /// Reads what has arrived, or the first piece of it.
    pub(crate) fn read(&mut self, now: u64, entropy: &mut SplitMix) -> Vec<u8> {
        let mut read = Vec::new();
        while self.due().is_some_and(|at| at <= now) {
            read.extend(self.pieces.pop_front().into_iter().flat_map(|(_, piece)| piece));
            if entropy.below(4) == 0 {
                break;
            }
        }
        read
    }

    /// Pieces on their way.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// What is still on its way behind the first `pieces` is lost.
    pub(crate) fn cut(&mut self, pieces: usize) {
        self.pieces.truncate(pieces);
    }
}
