//! An automaton's inbox: first in, first out, as the server's (`handover::Inbox`). What a sender
//! pushed before someone else was told of it is found before anything that this causes.

use std::collections::VecDeque;

use env::{Entropy, SplitMix};

#[derive(Debug)]
pub(crate) struct Inbox<T> {
    messages: VecDeque<T>,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { messages: VecDeque::new() }
    }
}

impl<T> Inbox<T> {
    pub(crate) fn push(&mut self, message: T) {
        self.messages.push_back(message);
    }

    /// Gives back what was taken, for another turn.
    pub(crate) fn put_back(&mut self, taken: &mut Vec<T>) {
        for message in taken.drain(..).rev() {
            self.messages.push_front(message);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes what a thread finds when it wakes: mostly everything, sometimes only what had come
    /// by then, which may be nothing.
    pub(crate) fn take(&mut self, entropy: &mut SplitMix) -> Vec<T> {
        let all = self.messages.len();
        let count = match entropy.below(4) {
            0 => entropy.below(all as u64 + 1) as usize,
            _ => all,
        };
        self.messages.drain(..count).collect()
    }
}
