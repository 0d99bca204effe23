//! Which fields a request may have.

/// What HTTP/2 says about a field, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(pub(crate) u8);

impl Class {
    pub(crate) const REGULAR: Self = Self(0);
    /// A name or value that no field may have.
    pub(crate) const INVALID: Self = Self(1);
    /// A pseudo-header field that there is not.
    pub(crate) const UNKNOWN: Self = Self(2);
    /// A response's pseudo-header field.
    pub(crate) const STATUS: Self = Self(4);
    const METHOD: Self = Self(8);
    const SCHEME: Self = Self(16);
    const PATH: Self = Self(32);
    const AUTHORITY: Self = Self(64);
    const PROTOCOL: Self = Self(128);

    /// The class of a place of the static table.
    pub(super) fn of_static(place: usize) -> Self {
        match place {
            0 => Self::AUTHORITY,
            1..=2 => Self::METHOD,
            3..=4 => Self::PATH,
            5..=6 => Self::SCHEME,
            7..=13 => Self::STATUS,
            _ => Self::REGULAR,
        }
    }

    /// Looks at a field.
    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#readMetaFrame
    pub(crate) fn of(name: &[u8], value: &[u8]) -> Self {
        if !value.iter().all(|byte| is_text(*byte)) {
            return Self::INVALID;
        }
        match name {
            b":method" => Self::METHOD,
            b":scheme" => Self::SCHEME,
            b":path" => Self::PATH,
            b":authority" => Self::AUTHORITY,
            b":protocol" => Self::PROTOCOL,
            b":status" => Self::STATUS,
            [b':', ..] => Self::UNKNOWN,
            [] => Self::INVALID,
            _ if name.iter().all(|byte| TOKEN[usize::from(*byte)]) => Self::REGULAR,
            _ => Self::INVALID,
        }
    }
}

/// What a value may consist of: all but control characters, tabs excepted.
fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// What a name may consist of: a token's characters, but no upper-case letters.
//= RFC 9110, 5.6.2
static TOKEN: [bool; 256] = {
    let mut is_token = [false; 256];
    let others = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < others.len() {
        is_token[others[at] as usize] = true;
        at += 1;
    }
    is_token
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_table_has_the_classes_of_its_fields() {
        for (place, (name, value)) in super::super::table::STATIC.iter().enumerate() {
            let class = Class::of(name.as_bytes(), value.as_bytes());
            assert_eq!(Class::of_static(place), class, "{name}");
        }
    }

    #[test]
    fn what_a_field_may_be() {
        let of = |name: &str, value: &str| Class::of(name.as_bytes(), value.as_bytes());
        assert_eq!(of("te", "trailers\t, "), Class::REGULAR);
        assert_eq!(of("x-bin", "\u{e9}"), Class::REGULAR);
        assert_eq!(of(":path", ""), Class::PATH);
        assert_eq!(of(":foo", ""), Class::UNKNOWN);
        assert_eq!(of(":", ""), Class::UNKNOWN);
        for (name, value) in [("", "a"), ("Te", "a"), ("a b", "a"), ("\u{e9}", "a"), ("a:", "")] {
            assert_eq!(of(name, value), Class::INVALID, "{name:?}");
        }
        for value in ["\n", "a\rb", "\0", "\u{7f}"] {
            assert_eq!(of("a", value), Class::INVALID, "{value:?}");
            assert_eq!(of(":path", value), Class::INVALID, "{value:?}");
        }
    }
}
