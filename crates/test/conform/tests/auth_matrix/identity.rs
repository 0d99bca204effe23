//! Who calls: users with roles of every shape, and callers who are nobody.

use crate::model::{Access, Grant, Span};

/// What a caller is to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Calls without a token.
    Nobody,
    /// Calls with a text that was never a token.
    Forged,
    /// A user whose token has ended in this way.
    Ended(Ending),
    /// A user with the role root.
    Root,
    /// A user with these permissions.
    User(Vec<Grant>),
}

/// What became of a user behind its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Deleted,
    PasswordChanged,
}

/// A caller.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub standing: Standing,
    /// Roles that the user loses, and what it gains, between its login and its calls.
    pub loses: Vec<Grant>,
}

/// The password of every user.
pub const PASSWORD: &str = "pw";

/// The shapes of keys in permissions.
pub const SHAPES: [(&str, Span); 5] = [
    ("key", Span { key: b"k", end: b"" }),
    ("prefix", Span { key: b"p/", end: b"p0" }),
    ("range", Span { key: b"d", end: b"g" }),
    ("from", Span { key: b"m", end: b"\0" }),
    ("open", Span { key: b"\0", end: b"\0" }),
];

impl Identity {
    fn new(name: &str, standing: Standing) -> Self {
        Self { name: name.to_owned(), standing, loses: Vec::new() }
    }

    /// Whether it has a name on the server when it logs in.
    pub fn is_user(&self) -> bool {
        !matches!(self.standing, Standing::Nobody | Standing::Forged)
    }

    /// The permissions of the role that the user holds when it logs in.
    pub fn grants(&self) -> Vec<Grant> {
        match &self.standing {
            Standing::User(grants) => [&grants[..], &self.loses].concat(),
            _ => Vec::new(),
        }
    }

    /// A user per shape and access.
    fn of_shapes(accesses: &[Access]) -> impl Iterator<Item = Self> {
        SHAPES.iter().flat_map(move |(shape, span)| {
            accesses.iter().map(move |&access| {
                let name = format!("{shape}-{access:?}").to_lowercase();
                Self::new(&name, Standing::User(vec![(access, *span)]))
            })
        })
    }

    /// Those who are not told apart by shapes.
    fn others() -> Vec<Self> {
        let all = SHAPES[4].1;
        let [prefix, range] = [SHAPES[1].1, SHAPES[2].1];
        let halves = [Span { key: b"d", end: b"e" }, Span { key: b"e", end: b"g" }];
        let united = halves.iter().map(|&half| (Access::ReadWrite, half)).collect();
        let read_here_write_there = vec![(Access::Read, prefix), (Access::Write, range)];
        let changed = (Access::ReadWrite, all);
        vec![
            Self::new("nobody", Standing::Nobody),
            Self::new("forged", Standing::Forged),
            Self::new("deleted", Standing::Ended(Ending::Deleted)),
            Self::new("rekeyed", Standing::Ended(Ending::PasswordChanged)),
            Self::new("without-roles", Standing::User(Vec::new())),
            Self::new("united", Standing::User(united)),
            Self::new("crossed", Standing::User(read_here_write_there)),
            Self {
                loses: vec![changed],
                ..Self::new("changed", Standing::User(vec![(Access::Read, prefix)]))
            },
        ]
    }

    /// With root last: what it may do changes more.
    fn roots() -> [Self; 2] {
        [Self::new("admin", Standing::Root), Self::new("root", Standing::Root)]
    }

    /// Everybody.
    pub fn all() -> Vec<Self> {
        let mut all = Self::others();
        all.extend(Self::of_shapes(&Access::ALL));
        all.extend(Self::roots());
        all
    }

    /// One of each kind, where a condition decides more than permissions do.
    pub fn few() -> Vec<Self> {
        let names = ["nobody", "forged", "deleted", "without-roles", "united", "changed"];
        let mut few = Self::others();
        few.retain(|identity| names.contains(&identity.name.as_str()));
        few.extend(Self::of_shapes(&[Access::ReadWrite]));
        few.extend(Self::roots());
        few
    }
}
