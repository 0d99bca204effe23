//! The rare paths of this crate that simulations must take.

/// Every name that this crate gives to `env::sometimes!`.
pub const PROBES: &[&str] = &[LOGIN_AWAITED];

pub(crate) const LOGIN_AWAITED: &str = "calls: a token comes before its login is applied";
