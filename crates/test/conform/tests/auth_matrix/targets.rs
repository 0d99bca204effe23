//! Which keys requests ask for: at, within, across and beyond the edges of every shape.

use crate::model::Span;

const fn span(key: &'static [u8], end: &'static [u8]) -> Span {
    Span { key, end }
}

/// What the naive model can tell.
pub const TARGETS: &[(&str, Span)] = &[
    ("k", span(b"k", b"")),
    ("k-next", span(b"k\0", b"")),
    ("k-as-range", span(b"k", b"k\0")),
    ("k-and-next", span(b"k", b"k\0\0")),
    ("p1", span(b"p/1", b"")),
    ("p-all", span(b"p/", b"p0")),
    ("p-part", span(b"p/2", b"p/7")),
    ("p-under", span(b"p", b"p/3")),
    ("p-over", span(b"p/5", b"p1")),
    ("d", span(b"d", b"")),
    ("d-all", span(b"d", b"g")),
    ("d-middle", span(b"da", b"f")),
    ("d-second-half", span(b"e", b"g")),
    ("d-over", span(b"d", b"g\0")),
    ("g", span(b"g", b"")),
    ("m-on", span(b"m", b"\0")),
    ("q-on", span(b"q", b"\0")),
    ("l-on", span(b"l", b"\0")),
    ("all", span(b"\0", b"\0")),
    ("wide", span(b"a", b"z")),
];

/// Ranges that are none, or keys that no put takes.
pub const ODD: &[(&str, Span)] = &[
    ("empty", span(b"", b"")),
    ("empty-on", span(b"", b"\0")),
    ("empty-to", span(b"", b"z")),
    ("inverted", span(b"z", b"a")),
    ("inverted-inside", span(b"p/7", b"p/2")),
    ("none", span(b"k", b"k")),
];

/// Those for requests of which there are many kinds.
pub fn some() -> impl Iterator<Item = (&'static str, Span)> {
    const SOME: [&str; 5] = ["k", "p1", "d-all", "m-on", "all"];
    TARGETS.iter().copied().filter(|(name, _)| SOME.contains(name))
}

/// Keys alone.
pub fn keys() -> impl Iterator<Item = (&'static str, Span)> {
    TARGETS.iter().copied().filter(|(_, span)| span.end.is_empty())
}
