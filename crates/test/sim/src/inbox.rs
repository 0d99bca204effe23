//! An automaton's inbox: first in, first out for each sender, in any order between them.

use std::collections::VecDeque;

use env::{Entropy, SplitMix};

/// Who sends. Each is a thread of its own in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Shell,
    Node,
    Log,
    Applier,
    Committer,
}

#[derive(Debug)]
pub(crate) struct Inbox<T> {
    senders: [VecDeque<T>; 5],
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { senders: Default::default() }
    }
}

impl<T> Inbox<T> {
    pub(crate) fn push(&mut self, from: From, message: T) {
        self.senders[from as usize].push_back(message);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.senders.iter().all(VecDeque::is_empty)
    }

    /// Takes what a thread finds when it wakes: mostly everything, sometimes only what some
    /// senders had sent by then; merged at random.
    pub(crate) fn take(&mut self, entropy: &mut SplitMix) -> Vec<T> {
        let all = entropy.below(4) > 0;
        let mut left = self.senders.each_ref().map(|queue| {
            let most = queue.len() as u64;
            if all { most } else { entropy.below(most + 1) }
        });
        let mut total: u64 = left.iter().sum();
        let mut taken = Vec::with_capacity(total as usize);
        while total > 0 {
            let mut pick = entropy.below(total);
            for (queue, left) in self.senders.iter_mut().zip(&mut left) {
                if pick < *left {
                    taken.extend(queue.pop_front());
                    *left -= 1;
                    break;
                }
                pick -= *left;
            }
            total -= 1;
        }
        taken
    }
}
