//! What real clients sent, once more.

use std::fmt::{self, Display, Formatter};
use std::sync::LazyLock;

use super::app::{self, Ran, Serve, Work};
use crate::{Limits, Protocol, StaticTags, StreamKey};

/// Bytes of each answer: a reply of etcd's to a put has some thirty.
const ANSWER: usize = 30;

/// Takes the pieces of what a client sent, preface first, under the limits of a server, and answers
/// each request when it has ended. Events are told as they come: `head STREAM NAME=VALUE …`, then
/// `data STREAM LENGTH SUM END` for each part of the body, and `reset STREAM CODE`.
pub fn replay<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Ran {
    app::run::<Verbatim>(pieces, &Limits::default())
}

/// Understands nothing, and keeps every field of a request.
#[derive(Debug)]
struct Verbatim;

/// A request's fields in their order, a blank before each.
#[derive(Clone, Debug, Default)]
struct Fields(String);

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_start())
    }
}

impl Protocol for Verbatim {
    type Tag = ();
    type Head = Fields;
    type Slot = Work;

    fn tag(_: &[u8], _: &[u8]) {}

    fn static_tags() -> &'static StaticTags<()> {
        static TAGS: LazyLock<StaticTags<()>> = LazyLock::new(StaticTags::of::<Verbatim>);
        &TAGS
    }

    fn field(head: &mut Fields, (): &(), name: &[u8], value: &[u8]) {
        head.0 += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
    }
}

impl Serve for Verbatim {
    fn work(_: StreamKey) -> Work {
        Work::Answer(ANSWER)
    }
}
