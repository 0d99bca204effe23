//! The bytes of events: each encoded once per revision with and without `prev_kv`, then shared.

use bytes::Bytes;
use store::{KeyValue, Lookup, Rev, ValueError, View};
use types::Revision;

/// `WatchResponse.events`: field 11, length-delimited.
const EVENTS_FIELD: u8 = 0x5a;
/// `Event.type` = DELETE.
const TYPE_DELETE: [u8; 2] = [0x08, 0x01];
const KV_FIELD: u8 = 0x12;
const PREV_FIELD: u8 = 0x1a;

/// One change of a key on its way to watchers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) main: i64,
    pub(crate) tombstone: bool,
    pub(crate) key: &'a [u8],
    /// Whether the key did not exist before.
    created: bool,
    stored: &'a [u8],
}

impl<'a> Seen<'a> {
    /// Parses a change as it is stored.
    ///
    /// # Errors
    /// The bytes are no `KeyValue`: the database is damaged.
    pub(crate) fn new(rev: Rev, tombstone: bool, stored: &'a [u8]) -> Result<Self, ValueError> {
        let kv = KeyValue::parse(stored).map_err(|_| ValueError::BadKeyValue)?;
        let created = !tombstone && kv.create == kv.main;
        Ok(Self { main: rev.main.0, tombstone, key: kv.key, created, stored })
    }

    /// Where the state before this change is stored, if there was one and it is not compacted.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/watch.go#sendLoop (prev_kv)
    pub(crate) fn prev(&self, view: &View) -> Option<Rev> {
        if self.created {
            return None;
        }
        view.prev(self.key, Revision(self.main)).map(|found| found.rev)
    }

    /// Length of the stored change in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.stored.len()
    }

    /// Appends this change as one element of `WatchResponse.events`.
    pub(crate) fn encode(&self, prev: Option<&[u8]>, out: &mut Vec<u8>) {
        let field = |len: usize| 1 + varint_len(len) + len;
        let deleted = KeyValue { key: self.key, main: self.main, ..KeyValue::default() };
        let kv_len = if self.tombstone { deleted.encoded_len() } else { self.stored.len() };
        let type_len = if self.tombstone { TYPE_DELETE.len() } else { 0 };
        let len = type_len + field(kv_len) + prev.map_or(0, |prev| field(prev.len()));
        out.reserve(field(len));
        out.push(EVENTS_FIELD);
        put_varint(out, len);
        if self.tombstone {
            out.extend_from_slice(&TYPE_DELETE);
        }
        out.push(KV_FIELD);
        put_varint(out, kv_len);
        if self.tombstone {
            deleted.encode(out);
        } else {
            out.extend_from_slice(self.stored);
        }
        if let Some(prev) = prev {
            out.push(PREV_FIELD);
            put_varint(out, prev.len());
            out.extend_from_slice(prev);
        }
    }
}

fn varint_len(number: usize) -> usize {
    (usize::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The elements of an encoded list of events, each with its field key and length.
pub fn split_events(body: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = body.get(at + 1..)?;
        let (mut len, mut bytes) = (0, 0);
        for &byte in rest {
            len |= usize::from(byte & 0x7f) << (7 * bytes);
            bytes += 1;
            if byte < 0x80 {
                break;
            }
        }
        let element = body.slice(at..at + 1 + bytes + len);
        at += element.len();
        Some(element)
    })
}

/// The state before an event is on disk and not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cold;

struct Body {
    prev: bool,
    events: Vec<u32>,
    bytes: Bytes,
}

/// Distinct lists of events per revision that are kept for the next watcher.
const KEPT_BODIES: usize = 8;

/// The bodies encoded for the revision (or chunk) at hand.
#[derive(Default)]
pub(crate) struct Bodies {
    kept: Vec<Body>,
    next: usize,
    prevs: Vec<Option<Option<Bytes>>>,
}

impl Bodies {
    /// Begins another list of events.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.prevs.clear();
        self.next = 0;
    }

    fn find(&self, list: &[u32], prev: bool) -> Option<Bytes> {
        let same = |body: &&Body| body.prev == prev && body.events == list;
        self.kept.iter().find(same).map(|body| body.bytes.clone())
    }

    fn keep(&mut self, list: &[u32], prev: bool, bytes: Bytes) {
        let body = Body { prev, events: list.to_vec(), bytes };
        if self.kept.len() < KEPT_BODIES {
            self.kept.push(body);
        } else {
            self.kept[self.next % KEPT_BODIES] = body;
        }
        self.next += 1;
    }

    /// The encoding of `events[i]` for each `i` of `list`, with states before them from memory.
    ///
    /// # Errors
    /// [`Cold`]: one of those is on disk (or damaged, which whoever reads it there will see).
    pub(crate) fn get(
        &mut self,
        view: &View,
        events: &[Seen<'_>],
        list: &[u32],
        prev: bool,
    ) -> Result<Bytes, Cold> {
        if let Some(bytes) = self.find(list, prev) {
            return Ok(bytes);
        }
        let mut out = Vec::new();
        for &i in list {
            let event = &events[i as usize];
            if !prev {
                event.encode(None, &mut out);
                continue;
            }
            self.prevs.resize(events.len(), None);
            let known = &mut self.prevs[i as usize];
            if known.is_none() {
                *known = Some(match event.prev(view) {
                    None => None,
                    Some(at) => match view.try_value(at) {
                        Ok(Lookup::Found(bytes)) => Some(bytes),
                        Ok(Lookup::Absent) => None,
                        Ok(Lookup::Cold) | Err(_) => return Err(Cold),
                    },
                });
            }
            event.encode(known.as_ref().and_then(|p| p.as_deref()), &mut out);
        }
        let bytes = Bytes::from(out);
        self.keep(list, prev, bytes.clone());
        Ok(bytes)
    }

    /// As [`Bodies::get`], with the states before the events at hand.
    pub(crate) fn of_chunk(
        &mut self,
        events: &[(Seen<'_>, Option<&Bytes>)],
        list: &[u32],
        prev: bool,
    ) -> Bytes {
        if let Some(bytes) = self.find(list, prev) {
            return bytes;
        }
        let mut out = Vec::new();
        for &i in list {
            let (event, before) = &events[i as usize];
            event.encode(before.filter(|_| prev).map(|b| &b[..]), &mut out);
        }
        let bytes = Bytes::from(out);
        self.keep(list, prev, bytes.clone());
        bytes
    }
}
