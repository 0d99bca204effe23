//! A client that checks every frame of the server's against what it has sent.

use std::collections::{BTreeMap, BTreeSet};

use super::{app, decode, decoder};
use crate::frame::{HEAD, Head, MAX_ID, flag, kind, setting};
use crate::hpack::Decoder;
use crate::{Code, Limits, PREFACE};

/// Sends frame by frame, and checks what comes back after each.
pub(super) fn check(mut sent: &[u8], limits: &Limits) {
    let mut server = app::Server::<app::Echo>::new(limits.clone());
    let mut client = Client {
        initial: 65_535,
        window: 65_535,
        windows: BTreeMap::new(),
        begun: BTreeSet::new(),
        ended: BTreeSet::new(),
        decoder: decoder(),
    };
    let mut read = 0;
    // A flipped bit may have moved where frames end, so that the bytes are asked.
    let mut size = PREFACE.len();
    while !sent.is_empty() {
        let (frame, rest) = sent.split_at(size.min(sent.len()));
        sent = rest;
        client.sends(frame);
        let goes_on = server.take(frame);
        client.reads(&server.said[read..]);
        read = server.said.len();
        if !goes_on {
            break;
        }
        size = Head::read(sent).map_or(usize::MAX, |head| HEAD + head.length);
    }
}

struct Client {
    /// Windows as the client has opened them.
    initial: i64,
    window: i64,
    /// Relative to the initial one.
    windows: BTreeMap<u32, i64>,
    /// Streams whose answer has begun, and those on which nothing may follow.
    begun: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    decoder: Decoder<u32>,
}

impl Client {
    fn sends(&mut self, frame: &[u8]) {
        let Some(head) = Head::read(frame).filter(|head| frame.len() == HEAD + head.length) else {
            return;
        };
        let payload = &frame[HEAD..];
        match head.kind {
            kind::SETTINGS if !head.has(flag::ACK) => {
                for [a, b, value @ ..] in payload.as_chunks::<6>().0 {
                    if u16::from_be_bytes([*a, *b]) == setting::INITIAL_WINDOW_SIZE {
                        self.initial = i64::from(u32::from_be_bytes(*value));
                    }
                }
            }
            kind::WINDOW_UPDATE => {
                let increment = payload.first_chunk().map_or(0, |by| u32::from_be_bytes(*by));
                let increment = i64::from(increment & MAX_ID);
                match head.id {
                    0 => self.window += increment,
                    id => *self.windows.entry(id).or_default() += increment,
                }
            }
            kind::RST_STREAM => {
                self.ended.insert(head.id);
            }
            // Whatever was said of it before meant nothing.
            kind::HEADERS => {
                self.ended.remove(&head.id);
                self.windows.insert(head.id, 0);
            }
            _ => {}
        }
    }

    fn reads(&mut self, mut said: &[u8]) {
        while let Some(head) = Head::read(said) {
            let payload = &said[HEAD..HEAD + head.length];
            said = &said[HEAD + head.length..];
            self.reads_frame(head, payload);
        }
        assert!(said.is_empty(), "whole frames");
    }

    fn reads_frame(&mut self, head: Head, payload: &[u8]) {
        let id = head.id;
        match head.kind {
            kind::DATA => {
                assert!(self.begun.contains(&id) && !self.ended.contains(&id), "stream {id}");
                let size = payload.len() as i64;
                let window = self.windows.entry(id).or_default();
                *window -= size;
                self.window -= size;
                assert!(self.initial + *window >= 0 && self.window >= 0, "stream {id}: {size}");
                assert!(size > 0, "an empty frame");
            }
            kind::HEADERS => {
                assert!(head.has(flag::END_HEADERS) && !self.ended.contains(&id), "stream {id}");
                let fields = decode(&mut self.decoder, payload, usize::MAX, 255);
                let fields = fields.expect("a sound block").fields;
                let is_first = self.begun.insert(id);
                assert_eq!(fields[0].0 == b":status", is_first, "{fields:?}");
                assert!(is_first || head.has(flag::END_STREAM), "only trailers follow");
                assert!(
                    !head.has(flag::END_STREAM) || fields.iter().any(|f| f.0 == b"grpc-status")
                );
                if head.has(flag::END_STREAM) {
                    self.ended.insert(id);
                }
            }
            kind::RST_STREAM => {
                let code = Code(u32::from_be_bytes(payload.try_into().expect("four bytes")));
                let has_ended = !self.ended.insert(id);
                assert!(code != Code::NO_ERROR || has_ended, "an answer before NO_ERROR");
            }
            kind::WINDOW_UPDATE => {
                let by = u32::from_be_bytes(payload.try_into().expect("four bytes"));
                assert!(by > 0 && by <= MAX_ID);
            }
            kind::SETTINGS => assert!(payload.is_empty() == head.has(flag::ACK)),
            kind::PING => assert!(payload.len() == 8 && head.has(flag::ACK)),
            kind::GOAWAY => assert!(payload.len() >= 8),
            other => panic!("a frame of kind {other}"),
        }
    }
}
