//! What a naive reading of roles permits: intervals of keys, and their union.

use api::method::Need;

/// Keys from `key` (included) to `end` (excluded); no `end` is the key alone, `\0` all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub key: &'static [u8],
    pub end: &'static [u8],
}

/// What a role lets do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::ReadWrite];

    /// The number of the API.
    pub fn number(self) -> i32 {
        use api::authpb::permission::Type;
        match self {
            Self::Read => Type::Read.into(),
            Self::Write => Type::Write.into(),
            Self::ReadWrite => Type::Readwrite.into(),
        }
    }

    fn gives(self, need: Need) -> bool {
        match need {
            Need::Read => self != Self::Write,
            Need::Write => self != Self::Read,
        }
    }
}

/// A permission of a role.
pub type Grant = (Access, Span);

impl Span {
    /// Where it ends, `None` if nowhere. A key alone ends at its successor.
    fn until(self) -> Option<Vec<u8>> {
        match self.end {
            b"" => Some([self.key, b"\0"].concat()),
            b"\0" => None,
            end => Some(end.to_vec()),
        }
    }
}

/// Whether grants together give what is needed on every key of a span.
pub fn permits(grants: &[Grant], need: Need, span: Span) -> bool {
    let mut at = span.key.to_vec();
    let until = span.until();
    loop {
        if until.as_ref().is_some_and(|until| at >= *until) {
            return true;
        }
        // The grant that reaches furthest from here.
        let reaching = grants
            .iter()
            .filter(|(access, held)| access.gives(need) && held.key <= &at[..])
            .map(|(_, held)| held.until())
            .filter(|end| end.as_ref().is_none_or(|end| *end > at));
        let mut best: Option<Option<Vec<u8>>> = None;
        for end in reaching {
            let is_further = match (&best, &end) {
                (Some(None), _) => false,
                (Some(Some(known)), Some(end)) => end > known,
                _ => true,
            };
            if is_further {
                best = Some(end);
            }
        }
        match best {
            None => return false,
            Some(None) => return true,
            Some(Some(end)) => at = end,
        }
    }
}

#[test]
fn spans_are_covered_by_unions() {
    let span =
        |key: &'static str, end: &'static str| Span { key: key.as_bytes(), end: end.as_bytes() };
    let held = [
        (Access::Read, span("a", "c")),
        (Access::ReadWrite, span("c", "e")),
        (Access::Write, span("x", "\0")),
    ];
    for (need, key, end, expected) in [
        (Need::Read, "a", "e", true),
        (Need::Read, "a", "e\0", false),
        (Need::Write, "a", "e", false),
        (Need::Write, "c", "e", true),
        (Need::Read, "b", "", true),
        (Need::Read, "e", "", false),
        (Need::Write, "x", "\0", true),
        (Need::Write, "z", "", true),
        (Need::Read, "x", "", false),
    ] {
        assert_eq!(permits(&held, need, span(key, end)), expected, "{need:?} {key} {end}");
    }
}
