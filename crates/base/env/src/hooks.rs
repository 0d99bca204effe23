//! What a simulator wants to know of code, and may do to it: rare paths that were taken, and harmless
//! odd choices that it makes.
//!
//! [`sometimes!`](crate::sometimes) says that a path was taken; a simulation that never takes it
//! tests less than it seems to. [`buggify!`](crate::buggify) asks whether to do something now that
//! is allowed at any time but rarely happens: a shorter batch, an earlier commit. Both are values
//! that are passed in ([`Hooks`]), not features of the build: what is tested is what is shipped, and
//! without a hook each costs one comparison.
//!
//! Invariant: nothing that a place with a hook does may be wrong.

use std::fmt;
use std::sync::Arc;

/// Who listens.
pub trait Hook: Send + Sync {
    /// A path was taken.
    fn reached(&self, probe: &'static str);

    /// Whether to do the odd thing at `place` now.
    fn strikes(&self, place: &'static str) -> bool;
}

/// A hook, or none.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<dyn Hook>>);

impl Hooks {
    /// Hooks that call `hook`.
    #[must_use]
    pub fn new(hook: Arc<dyn Hook>) -> Self {
        Self(Some(hook))
    }

    /// A path was taken.
    pub fn reached(&self, probe: &'static str) {
        if let Some(hook) = &self.0 {
            hook.reached(probe);
        }
    }

    /// Whether to do the odd thing at `place` now; never without a hook.
    #[must_use]
    pub fn strikes(&self, place: &'static str) -> bool {
        self.0.as_ref().is_some_and(|hook| hook.strikes(place))
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "hooked" } else { "none" })
    }
}

/// Says that a rare path was taken: `sometimes!(hooks, "crate: what")`, or only on a condition as
/// the third argument.
#[macro_export]
macro_rules! sometimes {
    ($hooks:expr, $probe:expr) => {
        $hooks.reached($probe)
    };
    ($hooks:expr, $probe:expr, $condition:expr) => {
        if $condition {
            $hooks.reached($probe);
        }
    };
}

/// Whether to do something odd now: `buggify!(hooks, "crate: what")`.
#[macro_export]
macro_rules! buggify {
    ($hooks:expr, $place:expr) => {
        $hooks.strikes($place)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Listener(Mutex<Vec<&'static str>>);

    impl Hook for Listener {
        fn reached(&self, probe: &'static str) {
            self.0.lock().unwrap().push(probe);
        }

        fn strikes(&self, place: &'static str) -> bool {
            place == "yes"
        }
    }

    #[test]
    fn a_listener_hears_of_what_happens_and_nobody_is_needed() {
        let listener = Arc::new(Listener::default());
        let hooks = Hooks::new(Arc::clone(&listener) as Arc<dyn Hook>);
        sometimes!(hooks, "a");
        sometimes!(hooks, "b", false);
        sometimes!(hooks, "c", true);
        assert_eq!(*listener.0.lock().unwrap(), ["a", "c"]);
        assert!(buggify!(hooks, "yes") && !buggify!(hooks, "no"));
        let none = Hooks::default();
        sometimes!(none, "a");
        assert!(!buggify!(none, "yes"));
    }
}
