//! Which of a peer's addresses is tried.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/urlpick.go#urlPicker

use std::cell::{Cell, RefCell};

use types::Url;

/// The URLs of one peer, of which one is in use. Never empty.
#[derive(Debug)]
pub(crate) struct Picker {
    urls: RefCell<Vec<Url>>,
    picked: Cell<usize>,
}

impl Picker {
    /// The first is tried first.
    pub(crate) fn new(urls: Vec<Url>) -> Self {
        assert!(!urls.is_empty(), "a peer has a URL");
        Self { urls: RefCell::new(urls), picked: Cell::new(0) }
    }

    /// Other URLs, from the first.
    pub(crate) fn update(&self, urls: Vec<Url>) {
        assert!(!urls.is_empty(), "a peer has a URL");
        *self.urls.borrow_mut() = urls;
        self.picked.set(0);
    }

    /// The URL in use.
    pub(crate) fn pick(&self) -> Url {
        self.urls.borrow()[self.picked.get()].clone()
    }

    /// Moves on if `url` is the one in use.
    pub(crate) fn failed(&self, url: &Url) {
        let urls = self.urls.borrow();
        if urls[self.picked.get()] == *url {
            self.picked.set((self.picked.get() + 1) % urls.len());
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Url> {
        self.urls.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_moves_on_once() {
        let picker = Picker::new(Url::parse_all(&["http://b:1", "http://a:1"]).unwrap());
        let first = picker.pick();
        assert_eq!(first.host(), "a:1");
        picker.failed(&first);
        picker.failed(&first);
        let second = picker.pick();
        assert_eq!(second.host(), "b:1");
        picker.failed(&second);
        assert_eq!(picker.pick(), first);
    }
}
