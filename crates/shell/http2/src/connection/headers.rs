//! Requests begin: header blocks, what is wrong with them, and who is let in.
//!
//! Invariant: a block is decoded while it comes. What is kept of one that has not ended is what the
//! protocol made of its fields, and one field that was cut.

use super::{Connection, Told};
use crate::frame::{self, HEAD, Head, MAX_PAYLOAD, flag, kind};
use crate::hpack::{Class, Error, Sink};
use crate::protocol::{Event, Protocol, Verdict};
use crate::streams::{NOWHERE, Stream, StreamKey};
use crate::{Code, Fatal};

/// Bytes of a block for which one more CONTINUATION frame is allowed.
const BYTES_PER_CONTINUATION: usize = 1_024;
/// Bytes of the largest block that is kept with its meaning.
const LARGEST_CACHED: usize = 256;

/// A header block that goes on in CONTINUATION frames.
pub(super) struct Gathering<P: Protocol> {
    pub(super) id: u32,
    ends_stream: bool,
    /// None: its HEADERS frame was wrong, nothing of the block is looked at.
    list: Option<List<P>>,
    /// The beginning of a field.
    cut: Vec<u8>,
    frames: usize,
    bytes: usize,
}

/// A block and what it means, as long as the dynamic table is what it was.
pub(super) struct Cached<P: Protocol> {
    epoch: u64,
    block: Box<[u8]>,
    head: P::Head,
}

/// What there is of a list of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// A field that no request may have: the rest is not looked at.
    Malformed,
    /// Longer than allowed: the rest is not looked at.
    Truncated,
}

/// Gathers a request's fields and checks them.
//= grpc-go 1.82: golang.org/x/net/http2/frame.go#readMetaFrame
struct List<P: Protocol> {
    head: P::Head,
    state: State,
    /// Bytes that may follow.
    left: usize,
    /// Pseudo-header fields so far.
    seen: u8,
    /// Whether one came twice.
    repeated: bool,
    has_regular: bool,
}

impl<P: Protocol> List<P> {
    fn new(limit: usize) -> Self {
        Self {
            head: P::Head::default(),
            state: State::Good,
            left: limit,
            seen: 0,
            repeated: false,
            has_regular: false,
        }
    }

    /// The request's head, or the code with which its stream is reset.
    fn finish(self) -> Result<P::Head, Code> {
        const REQUEST: u8 = !(Class::STATUS.0 | Class::UNKNOWN.0 | Class::INVALID.0);
        let is_mixed = self.seen & Class::STATUS.0 != 0 && self.seen & REQUEST != 0;
        let is_unknown = self.seen & Class::UNKNOWN.0 != 0;
        match self.state {
            State::Malformed => Err(Code::PROTOCOL_ERROR),
            _ if is_unknown || self.repeated || is_mixed => Err(Code::PROTOCOL_ERROR),
            State::Truncated => Err(Code::FRAME_SIZE_ERROR),
            State::Good => Ok(self.head),
        }
    }
}

impl<P: Protocol> Sink<P::Tag> for List<P> {
    fn is_open(&self) -> bool {
        self.state == State::Good
    }

    fn field(&mut self, class: Class, tag: &P::Tag, name: &[u8], value: &[u8], size: usize) {
        let is_pseudo = class != Class::REGULAR;
        if class == Class::INVALID || is_pseudo && self.has_regular {
            self.state = State::Malformed;
            return;
        }
        let Some(left) = self.left.checked_sub(size) else {
            self.state = State::Truncated;
            self.left = 0;
            return;
        };
        self.left = left;
        self.has_regular |= !is_pseudo;
        self.repeated |= self.seen & class.0 != 0;
        self.seen |= class.0;
        if class != Class::UNKNOWN {
            P::field(&mut self.head, tag, name, value);
        }
    }
}

impl<P: Protocol> Connection<P> {
    pub(super) fn on_headers<'a>(
        &mut self,
        head: Head,
        payload: &'a [u8],
        rest: &mut &'a [u8],
    ) -> Told<'a, P> {
        if head.id == 0 {
            return self.fail(Code::PROTOCOL_ERROR, "HEADERS on stream 0");
        }
        let ends_stream = head.has(flag::END_STREAM);
        let ends_headers = head.has(flag::END_HEADERS);
        let block = match fragment(head, payload) {
            Some(Some(block)) => block,
            None => return self.fail(Code::FRAME_SIZE_ERROR, "HEADERS that are too short"),
            Some(None) => {
                if !ends_headers {
                    self.gather(head.id, ends_stream, None);
                }
                return Ok(self.stream_error(head.id, Code::PROTOCOL_ERROR));
            }
        };
        if ends_headers && let Some(known) = self.cached(block) {
            return self.begin(head.id, known, ends_stream, rest);
        }
        let epoch = self.decoder.epoch();
        let mut list = List::new(self.limits.header_list_bytes);
        self.check_size(block, &list)?;
        let left = self.decode(block, &mut list)?;
        if !ends_headers {
            self.gather(head.id, ends_stream, Some((list, left)));
            return Ok(None);
        }
        match self.end_block(list, left)? {
            Ok(known) => {
                self.cache(epoch, block, &known);
                self.begin(head.id, known, ends_stream, rest)
            }
            Err(code) => Ok(self.stream_error(head.id, code)),
        }
    }

    fn gather(&mut self, id: u32, ends_stream: bool, begun: Option<(List<P>, &[u8])>) {
        let (list, cut) = begun.unzip();
        let cut = cut.unwrap_or_default().to_vec();
        let gathering = Gathering { id, ends_stream, list, cut, frames: 0, bytes: 0 };
        self.gathering = Some(Box::new(gathering));
    }

    pub(super) fn on_continuation<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let Some(mut gathering) = self.gathering.take() else { return Ok(None) };
        gathering.frames += 1;
        gathering.bytes += payload.len();
        let frames = self.limits.continuation_frames + gathering.bytes / BYTES_PER_CONTINUATION;
        if gathering.frames > frames || gathering.bytes > self.limits.header_block_bytes {
            return self.fail_loudly(Code::ENHANCE_YOUR_CALM, "too many CONTINUATION frames");
        }
        let Some(mut list) = gathering.list.take() else {
            if !head.has(flag::END_HEADERS) {
                self.gathering = Some(gathering);
            }
            return Ok(None);
        };
        // Who goes on behind a list that is lost already only keeps us busy.
        if list.state == State::Malformed {
            return self.fail(Code::PROTOCOL_ERROR, "a malformed field in a block that goes on");
        }
        self.check_size(payload, &list)?;
        let mut cut = std::mem::take(&mut gathering.cut);
        cut.extend_from_slice(payload);
        let left = self.decode(&cut, &mut list)?.len();
        if head.has(flag::END_HEADERS) {
            let left = &cut[cut.len() - left..];
            return match self.end_block(list, left)? {
                Ok(known) => self.begin(head.id, known, gathering.ends_stream, &mut &[][..]),
                Err(code) => Ok(self.stream_error(head.id, code)),
            };
        }
        // One field is left at most, and moved only when one before it was taken.
        if left < cut.len() {
            cut.drain(..cut.len() - left);
        }
        (gathering.list, gathering.cut) = (Some(list), cut);
        self.gathering = Some(gathering);
        Ok(None)
    }

    /// Whoever sends twice what may come, or goes on when nothing may, is not worth following.
    fn check_size(&mut self, piece: &[u8], list: &List<P>) -> Result<(), Fatal> {
        if piece.len() > list.left.saturating_mul(2) {
            return self.fail(Code::PROTOCOL_ERROR, "a header list that is far too long");
        }
        Ok(())
    }

    /// Decodes a piece of a block; what is left is a field that was cut.
    fn decode<'b>(&mut self, mut piece: &'b [u8], list: &mut List<P>) -> Result<&'b [u8], Fatal> {
        match self.decoder.decode(&mut piece, list) {
            Ok(()) => Ok(piece),
            Err(Error::Cut | Error::Malformed) => {
                self.fail(Code::COMPRESSION_ERROR, "a header block that cannot be decoded")
            }
        }
    }

    /// A block is over: its meaning, or the code with which its stream is reset.
    fn end_block(&mut self, list: List<P>, left: &[u8]) -> Result<Result<P::Head, Code>, Fatal> {
        self.decoder.end();
        if !left.is_empty() {
            return self.fail(Code::COMPRESSION_ERROR, "a header block that ends within a field");
        }
        Ok(list.finish())
    }

    /// What a block means, if it is known from before.
    fn cached(&self, block: &[u8]) -> Option<P::Head> {
        let epoch = self.decoder.epoch();
        let is_known = |known: &&Cached<P>| known.epoch == epoch && *known.block == *block;
        self.cache.iter().find(is_known).map(|known| known.head.clone())
    }

    /// Keeps what a block means, unless it changed the table and means something else next time.
    fn cache(&mut self, epoch: u64, block: &[u8], head: &P::Head) {
        if epoch != self.decoder.epoch() || block.len() > LARGEST_CACHED {
            return;
        }
        self.cache.retain(|known| known.epoch == epoch);
        if self.cache.len() < self.limits.cached_blocks {
            self.cache.push(Cached { epoch, block: block.into(), head: head.clone() });
        }
    }

    /// The head of a request is complete.
    //= grpc-go 1.82: internal/transport/http2_server.go#operateHeaders
    fn begin<'a>(&mut self, id: u32, head: P::Head, end: bool, rest: &mut &'a [u8]) -> Told<'a, P> {
        if id.is_multiple_of(2) || id <= self.last {
            return self.fail_loudly(Code::PROTOCOL_ERROR, "received an illegal stream id");
        }
        self.last = id;
        self.empty_data_frames = 0;
        let verdict = match P::judge(&head) {
            Verdict::Refuse if self.limits.serves_refused => Verdict::Serve,
            verdict => verdict,
        };
        match verdict {
            Verdict::Reset(code) => {
                frame::rst_stream(&mut self.out, id, code);
                return Ok(None);
            }
            Verdict::Refuse => {}
            Verdict::Serve if self.draining => return Ok(None),
            Verdict::Serve => {
                if self.streams.len() >= self.limits.concurrent_streams as usize
                    || self.flow.held > self.limits.held_bytes
                {
                    frame::rst_stream(&mut self.out, id, Code::REFUSED_STREAM);
                    return Ok(None);
                }
                if !end && let Some(body) = self.take_whole(id, rest)? {
                    let stream = StreamKey { id, place: NOWHERE };
                    return Ok(Some(Event::Whole { stream, head, body }));
                }
            }
        }
        let forgives = verdict == Verdict::Serve;
        let stream = Stream { request_ended: end, forgives, ..Stream::new(id) };
        let stream = self.streams.insert(stream);
        Ok(Some(Event::Head { stream, head, end }))
    }

    /// The body of a request, if the frame behind its head is all of it: the usual call.
    fn take_whole<'a>(&mut self, id: u32, rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Fatal> {
        let Some(head) = Head::read(rest) else { return Ok(None) };
        let is_all = head.kind == kind::DATA
            && head.id == id
            && head.has(flag::END_STREAM)
            && !head.has(flag::PADDED)
            && head.length <= MAX_PAYLOAD.min(self.limits.stream_window as usize);
        if !is_all || !self.limits.whole_requests {
            return Ok(None);
        }
        let Some((bytes, after)) = rest.split_at_checked(HEAD + head.length) else {
            return Ok(None);
        };
        *rest = after;
        self.charge(head.length)?;
        Ok(Some(&bytes[HEAD..]))
    }
}

/// The piece of a header block in a HEADERS frame, without padding and priority. The outer `None`:
/// what flags promise is not there; the inner: more padding than there is.
fn fragment(head: Head, payload: &[u8]) -> Option<Option<&[u8]>> {
    let mut block = payload;
    let mut padding = 0;
    if head.has(flag::PADDED) {
        let (&length, rest) = block.split_first()?;
        (padding, block) = (usize::from(length), rest);
    }
    if head.has(flag::PRIORITY) {
        block = block.split_at_checked(5)?.1;
    }
    Some(block.len().checked_sub(padding).map(|length| &block[..length]))
}
