//! The open streams: a slab, and an index of the ids that come off the wire.
//!
//! Ids of a connection only rise, so the index is a sorted list to whose end new streams are added.
//! There is no hash, hence no choice of ids makes it slow: a look-up is one probe where most streams
//! between the oldest and the newest are open, and O(log n) at worst; removals leave gaps that are
//! closed when they are more than the rest. The layer above comes with a [`StreamKey`], which needs
//! no look-up.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::steps;

/// Names a stream to [`Connection`](crate::Connection). Copies may outlive it: whatever is said of a
/// stream that is gone has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub(crate) id: u32,
    pub(crate) place: u32,
}

impl StreamKey {
    /// The stream's number on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }
}

/// The place of a stream that is in no table; in the index, of one that is gone.
pub(crate) const NOWHERE: u32 = u32::MAX;
/// Gaps in the index that are not worth closing.
const SLACK: usize = 16;
/// Places that an idle connection keeps.
const KEPT_PLACES: usize = 4;

/// Whether a stream waits for its turn to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has nothing to send.
    None,
    /// It is in the queue of those that may.
    Queued,
    /// Its window is shut: it goes on when the initial window is at least this large.
    Starved(i64),
}

/// What is known of an open stream.
pub(crate) struct Stream<S> {
    pub(crate) id: u32,
    /// Bytes that may be sent beyond the client's initial window; negative once some were.
    pub(crate) send_window: i64,
    /// Bytes of the request that the layer above has not released.
    pub(crate) unreleased: usize,
    /// Bytes that were released and whose window was not given back yet.
    pub(crate) owed: usize,
    /// Whether the client has sent everything.
    pub(crate) request_ended: bool,
    /// Whether the answer's head was sent.
    pub(crate) head_sent: bool,
    /// Whether its HEADERS forgive PINGs: all but a refusal's do.
    pub(crate) forgives: bool,
    /// Whether the layer above wants to know when there is room.
    pub(crate) wants_room: bool,
    pub(crate) turn: Turn,
    /// What waits for windows, and its bytes.
    pub(crate) waiting: VecDeque<Bytes>,
    pub(crate) held: usize,
    /// The header block that ends the answer behind what waits.
    pub(crate) trailers: Option<Box<[u8]>>,
    pub(crate) slot: Option<S>,
}

impl<S> Stream<S> {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            send_window: 0,
            unreleased: 0,
            owed: 0,
            request_ended: false,
            head_sent: false,
            forgives: true,
            wants_room: false,
            turn: Turn::None,
            waiting: VecDeque::new(),
            held: 0,
            trailers: None,
            slot: None,
        }
    }
}

/// The open streams of a connection.
pub(crate) struct Streams<S> {
    slab: Vec<Option<Stream<S>>>,
    free: Vec<u32>,
    /// Id and place, by id.
    index: VecDeque<(u32, u32)>,
    /// Entries of the index whose stream is gone.
    gaps: usize,
}

impl<S> Streams<S> {
    pub(crate) fn new() -> Self {
        Self { slab: Vec::new(), free: Vec::new(), index: VecDeque::new(), gaps: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len() - self.gaps
    }

    pub(crate) fn get(&self, key: StreamKey) -> Option<&Stream<S>> {
        let stream = self.slab.get(key.place as usize)?.as_ref()?;
        (stream.id == key.id).then_some(stream)
    }

    pub(crate) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream<S>> {
        let stream = self.slab.get_mut(key.place as usize)?.as_mut()?;
        (stream.id == key.id).then_some(stream)
    }

    /// The key of the stream at a place.
    pub(crate) fn at(&self, place: u32) -> Option<StreamKey> {
        let stream = self.slab.get(place as usize)?.as_ref()?;
        Some(StreamKey { id: stream.id, place })
    }

    /// The key of an open stream, by its id.
    pub(crate) fn find(&self, id: u32) -> Option<StreamKey> {
        let (_, place) = self.index[self.position(id).ok()?];
        (place != NOWHERE).then_some(StreamKey { id, place })
    }

    /// Where an id is in the index, or would be.
    fn position(&self, id: u32) -> Result<usize, usize> {
        let (Some(&(first, _)), Some(&(last, _))) = (self.index.front(), self.index.back()) else {
            return Err(0);
        };
        if id > last {
            return Err(self.index.len());
        }
        let Some(distance) = id.checked_sub(first) else { return Err(0) };
        // Ids are two apart at least, so this is the last place where it can be.
        let mut high = (distance as usize / 2).min(self.index.len() - 1);
        let mut step = 1;
        let mut low = high;
        while self.index[low].0 > id {
            steps::count();
            high = low;
            low = low.saturating_sub(step);
            step *= 2;
        }
        // index[low] <= id, and everything behind `high` is larger.
        while low < high {
            steps::count();
            let middle = low + (high - low).div_ceil(2);
            if self.index[middle].0 > id {
                high = middle - 1;
            } else {
                low = middle;
            }
        }
        if self.index[low].0 == id { Ok(low) } else { Err(low + 1) }
    }

    /// Adds a stream; one whose id is there already is not added again.
    pub(crate) fn insert(&mut self, stream: Stream<S>) -> StreamKey {
        let id = stream.id;
        let position = match self.position(id) {
            Ok(position) if self.index[position].1 != NOWHERE => {
                return StreamKey { id, place: self.index[position].1 };
            }
            Ok(position) => {
                self.index.remove(position);
                self.gaps -= 1;
                position
            }
            Err(position) => position,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() as u32 - 1
        });
        self.slab[place as usize] = Some(stream);
        self.index.insert(position, (id, place));
        StreamKey { id, place }
    }

    pub(crate) fn remove(&mut self, key: StreamKey) -> Option<Stream<S>> {
        self.get(key)?;
        let stream = self.slab[key.place as usize].take()?;
        self.free.push(key.place);
        if let Ok(position) = self.position(key.id) {
            self.index[position].1 = NOWHERE;
            self.gaps += 1;
        }
        while self.index.front().is_some_and(|(_, place)| *place == NOWHERE) {
            self.index.pop_front();
            self.gaps -= 1;
        }
        while self.index.back().is_some_and(|(_, place)| *place == NOWHERE) {
            self.index.pop_back();
            self.gaps -= 1;
        }
        if self.gaps > self.len() + SLACK {
            self.index.retain(|(_, place)| *place != NOWHERE);
            self.gaps = 0;
        }
        Some(stream)
    }

    /// Gives all memory back if no stream is open.
    pub(crate) fn rest(&mut self) {
        if self.len() == 0 {
            *self = Self::new();
        }
    }

    /// Gives memory back if no stream is open, but for a few places.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 && self.slab.capacity() > KEPT_PLACES {
            *self = Self::new();
        }
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.slab.capacity() * size_of::<Option<Stream<S>>>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.capacity() * size_of::<(u32, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Follows a table and a map through the same changes.
    fn compare(ids: impl Iterator<Item = (u32, u32)>) -> Streams<u32> {
        let (mut streams, mut model) = (Streams::<u32>::new(), BTreeMap::new());
        for (id, removed) in ids {
            model.insert(id, streams.insert(Stream { slot: Some(id), ..Stream::new(id) }));
            if let Some(key) = model.remove(&removed) {
                assert_eq!(streams.remove(key).and_then(|stream| stream.slot), Some(removed));
                assert!(streams.remove(key).is_none() && streams.get_mut(key).is_none());
            }
            assert_eq!(streams.find(removed), None);
            assert_eq!(streams.len(), model.len());
            for known in [id, id - 2, (id / 2) | 1, 1, 3] {
                assert_eq!(streams.find(known), model.get(&known).copied(), "{known}");
                assert_eq!(streams.find(known + 1), None, "{known}");
            }
        }
        for (id, key) in model {
            assert_eq!(streams.get(key).and_then(|stream| stream.slot), Some(id));
            assert_eq!(streams.at(key.place), Some(key));
        }
        streams
    }

    #[test]
    fn streams_are_found_whatever_the_ids() {
        for step in [2, 4, 32, 1_024, 65_536] {
            for kept in [0, 1, 7, 500] {
                compare((1..2_000).map(|n| (n * step + 1, (n - n.min(kept)) * step + 1)));
            }
            // Every second one stays.
            compare((1..2_000).map(|n| (n * step + 1, (n & !1) * step + 1)));
        }
    }

    #[test]
    fn one_that_is_opened_late_is_found() {
        let mut streams = Streams::<u32>::new();
        for id in [1, 9, 5, 3, 7, 5] {
            streams.insert(Stream::new(id));
        }
        assert_eq!(streams.len(), 5);
        for id in 0..12 {
            assert_eq!(streams.find(id).is_some(), id % 2 == 1 && id < 10, "{id}");
        }
    }

    #[test]
    fn gaps_behind_a_long_stream_do_not_pile_up() {
        let streams =
            compare((0..100_000).map(|n| (2 * n + 3, if n == 0 { 1 } else { 2 * n + 3 })));
        assert_eq!(streams.len(), 1);
        assert!(streams.held() < 4_096, "{}", streams.held());
    }
}
