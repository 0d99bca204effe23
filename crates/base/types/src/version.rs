//! Versions as clusters agree on them: major and minor.

/// A version of the cluster or of a program, without its patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Version {
    /// Reads `X.Y`, or `X.Y.Z` with anything behind it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut next = || parts.next()?.parse().ok();
        let (major, minor) = (next()?, next()?);
        Some(Self { major, minor })
    }

    /// The version before this one, the only one that a cluster may be downgraded to.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }
}

/// As clusters show it: `X.Y.0`.
impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_do_not_count() {
        let version = Version::parse("3.7.1").unwrap();
        assert_eq!(version, Version { major: 3, minor: 7 });
        assert_eq!(version.to_string(), "3.7.0");
        assert_eq!(Version::parse("3.7"), Some(version));
        assert_eq!(Version::parse("3.8.0-rc.1"), Some(Version { major: 3, minor: 8 }));
        assert!(Version::parse("3.10").unwrap() > version);
        assert_eq!(version.before(), Version::parse("3.6"));
        for bad in ["", "3", "not_decided", "x.y", "-1.2"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
