//! Records and their frames.
//!
//! Invariant: [`Encoder`] and [`parse`] agree on the running checksum; a frame's length is a
//! multiple of 8. Nothing here panics on bytes from disk.

use bytes::Bytes;
use prost::Message;
use prost::encoding::decode_varint;

/// Bytes of the length field that begins a frame.
pub const LENGTH_BYTES: u64 = 8;
/// The unit in which a disk may lose part of a write, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum RecordType {
    /// The member and the cluster that the log belongs to.
    Metadata = 1,
    /// A raft entry.
    Entry = 2,
    /// A raft hard state.
    State = 3,
    /// The running checksum at the head of a segment.
    Crc = 4,
    /// A snapshot that is durable elsewhere.
    Snapshot = 5,
}

impl RecordType {
    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(RecordType::Metadata),
            2 => Some(RecordType::Entry),
            3 => Some(RecordType::State),
            4 => Some(RecordType::Crc),
            5 => Some(RecordType::Snapshot),
            _ => None,
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its type number; [`RecordType::from_number`] names it.
    pub kind: i64,
    /// The running checksum it carries.
    pub crc: u32,
    /// Its payload.
    pub data: Bytes,
}

/// Appends frames to a buffer and keeps the running checksum.
#[derive(Debug)]
pub struct Encoder {
    crc: u32,
    scratch: Vec<u8>,
}

impl Encoder {
    /// An encoder that goes on from a running checksum; 0 begins a log.
    #[must_use]
    pub fn new(crc: u32) -> Self {
        Self { crc, scratch: Vec::new() }
    }

    /// The running checksum.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Appends a record whose payload is a message.
    pub fn message(&mut self, out: &mut Vec<u8>, kind: RecordType, message: &impl Message) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        message.encode_raw(&mut scratch);
        self.record(out, kind, &scratch);
        self.scratch = scratch;
    }

    /// Appends a record. The payload of [`RecordType::Crc`] is empty by definition.
    pub fn record(&mut self, out: &mut Vec<u8>, kind: RecordType, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES as usize]);
        // walpb.Record by hand: one pass, no copy of the payload into a message.
        out.push(0x08);
        out.push(kind as u8);
        out.push(0x10);
        prost::encoding::encode_varint(u64::from(self.crc), out);
        if kind != RecordType::Crc {
            out.push(0x1a);
            prost::encoding::encode_varint(data.len() as u64, out);
            out.extend_from_slice(data);
        }
        let length = (out.len() - start) as u64 - LENGTH_BYTES;
        let padding = length.wrapping_neg() % 8;
        let field = if padding == 0 { length } else { length | (0x80 | padding) << 56 };
        out[start..start + LENGTH_BYTES as usize].copy_from_slice(&field.to_le_bytes());
        out.extend_from_slice(&[0; 7][..padding as usize]);
    }
}

/// The length of a record and of its padding, from a frame's length field.
//= etcd 3.7.1: server/storage/wal/decoder.go#decodeFrameSize
#[must_use]
pub fn frame_size(field: u64) -> (u64, u64) {
    let length = field & !(0xff << 56);
    let padding = if field >> 63 == 1 { field >> 56 & 0x7 } else { 0 };
    (length, padding)
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Not a walpb.Record.
    Malformed,
    /// The checksum differs.
    Crc,
}

/// Parses a record and advances the running checksum `crc`.
///
/// # Errors
/// [`RecordError`]; the checksum has then advanced over what was parsed and must not be used again.
pub fn parse(bytes: &Bytes, crc: &mut u32) -> Result<Record, RecordError> {
    let record = fields(bytes).ok_or(RecordError::Malformed)?;
    if record.kind != RecordType::Crc as i64 {
        *crc = crc32c::crc32c_append(*crc, &record.data);
        if record.crc != *crc {
            return Err(RecordError::Crc);
        }
    }
    Ok(record)
}

/// The fields of a walpb.Record, read as protobuf-go does: a known field with another wire type is
/// unknown and skipped (prost refuses it). Groups, which no version writes, are refused.
fn fields(bytes: &Bytes) -> Option<Record> {
    let mut record = Record { kind: 0, crc: 0, data: Bytes::new() };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let key = decode_varint(&mut rest).ok()?;
        let field = key >> 3;
        if field == 0 || field > MAX_FIELD {
            return None;
        }
        match key & 7 {
            0 => {
                let value = decode_varint(&mut rest).ok()?;
                match field {
                    1 => record.kind = value as i64,
                    2 => record.crc = value as u32,
                    _ => {}
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (value, after) = rest.split_at_checked(len)?;
                if field == 3 {
                    record.data = bytes.slice_ref(value);
                }
                rest = after;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(record)
}

/// The largest field number that protobuf has.
const MAX_FIELD: u64 = (1 << 29) - 1;

/// Whether a record that did not parse can be the remains of a write cut short: some sector that
/// it covers is all zero. `offset` is where the bytes (record and padding) begin in the file.
//= etcd 3.7.1: server/storage/wal/decoder.go#isTornEntry
#[must_use]
pub fn is_torn(bytes: &[u8], offset: u64) -> bool {
    let mut rest = bytes;
    let mut at = offset;
    while !rest.is_empty() {
        let to_boundary = SECTOR_BYTES - at % SECTOR_BYTES;
        let (sector, after) = rest.split_at(rest.len().min(to_boundary as usize));
        if sector.iter().all(|b| *b == 0) {
            return true;
        }
        at += sector.len() as u64;
        rest = after;
    }
    false
}

/// Runs the decoder over arbitrary bytes, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let mut crc = 0;
    let _ = parse(&Bytes::copy_from_slice(bytes), &mut crc);
    let _ = is_torn(bytes, 13);
    if let Some(field) = bytes.first_chunk() {
        let (length, padding) = frame_size(u64::from_le_bytes(*field));
        assert!(length < 1 << 56 && padding < 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_is_padded_to_eight() {
        for len in 0..40 {
            let data = vec![0xab; len];
            let mut out = Vec::new();
            let mut encoder = Encoder::new(7);
            encoder.record(&mut out, RecordType::Entry, &data);
            assert_eq!(out.len() % 8, 0);
            let (length, padding) = frame_size(u64::from_le_bytes(*out.first_chunk().unwrap()));
            assert_eq!(out.len() as u64, LENGTH_BYTES + length + padding);
            let mut crc = 7;
            let record = Bytes::copy_from_slice(&out[8..8 + length as usize]);
            let got = parse(&record, &mut crc).unwrap();
            assert_eq!((got.kind, &got.data[..], crc), (2, &data[..], encoder.crc()));
        }
    }

    #[test]
    fn any_flipped_payload_bit_is_noticed() {
        let mut out = Vec::new();
        Encoder::new(0).record(&mut out, RecordType::Entry, b"payload of an entry");
        let (length, _) = frame_size(u64::from_le_bytes(*out.first_chunk().unwrap()));
        let at = out.len() - 19 - (out.len() - 8 - length as usize);
        for bit in 0..19 * 8 {
            let mut bytes = out[8..8 + length as usize].to_vec();
            bytes[at - 8 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bytes.into(), &mut 0), Err(RecordError::Crc));
        }
    }

    #[test]
    fn a_zero_sector_marks_a_torn_write() {
        assert!(!is_torn(&[1; 2000], 8));
        let mut bytes = vec![1; 2000];
        bytes[504..1016].fill(0);
        assert!(is_torn(&bytes, 8));
        bytes[600] = 1;
        assert!(!is_torn(&bytes, 8));
    }

    #[test]
    fn the_corpus_does_not_panic() {
        for bytes in
            [&b""[..], &[0xff; 8], b"\x08\x02\x10\x00\x1a\x80\x80\x80\x80\x80\x80", &[0; 64]]
        {
            fuzz(bytes);
        }
    }
}
