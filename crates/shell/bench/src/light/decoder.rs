//! Decoding the header blocks of answers: what a call's status is, and nothing more.

use std::collections::VecDeque;

use super::huffman;

/// Bytes of the dynamic table that servers may use; the initial value, which is not changed.
const TABLE_BYTES: usize = 4_096;
/// Bytes that an entry is charged besides its text.
const ENTRY_OVERHEAD_BYTES: usize = 32;
/// The longest string that is decoded.
const MAX_STRING_BYTES: usize = 64 * 1_024;

/// The header block is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

type Text = Box<[u8]>;

/// Decodes the header blocks of one connection, in their order: every block must pass, as each may
/// change the dynamic table.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<(Text, Text)>,
    size: usize,
    max_size: Option<usize>,
    scratch: Vec<u8>,
}

fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let most = (1_usize << bits) - 1;
    let (first, mut rest) = block.split_first().ok_or(Malformed)?;
    let mut value = usize::from(*first) & most;
    if value == most {
        // Four more bytes say everything that a block can mean.
        for shift in [0, 7, 14, 21] {
            let (byte, behind) = rest.split_first().ok_or(Malformed)?;
            rest = behind;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Ok(value);
            }
        }
        return Err(Malformed);
    }
    *block = rest;
    Ok(value)
}

fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let is_huffman = block.first().ok_or(Malformed)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    if length > MAX_STRING_BYTES {
        return Err(Malformed);
    }
    if is_huffman {
        return huffman::decode(text, out).ok_or(Malformed);
    }
    out.extend_from_slice(text);
    Ok(())
}

impl Decoder {
    /// Shows the fields of a block in their order.
    ///
    /// # Errors
    /// It is no header block; the connection is of no more use.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                let (name, value) = self.get(index)?;
                field(name, value);
            } else if first & 0xe0 == 0x20 {
                let size = integer(&mut block, 5)?;
                if size > TABLE_BYTES {
                    return Err(Malformed);
                }
                self.max_size = Some(size);
                self.make_room(0);
            } else {
                let is_inserted = first & 0x40 != 0;
                let index = integer(&mut block, if is_inserted { 6 } else { 4 })?;
                let mut text = std::mem::take(&mut self.scratch);
                text.clear();
                if index == 0 {
                    string(&mut block, &mut text)?;
                } else {
                    text.extend_from_slice(self.get(index)?.0);
                }
                let name_len = text.len();
                string(&mut block, &mut text)?;
                let (name, value) = text.split_at(name_len);
                field(name, value);
                if is_inserted {
                    self.insert(name, value);
                }
                self.scratch = text;
            }
        }
        Ok(())
    }

    fn get(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let place = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC.get(place) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let (name, value) = self.table.get(place - STATIC.len()).ok_or(Malformed)?;
        Ok((name, value))
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.make_room(size);
        if size <= self.max_size() {
            self.size += size;
            self.table.push_front((name.into(), value.into()));
        }
    }

    fn max_size(&self) -> usize {
        self.max_size.unwrap_or(TABLE_BYTES)
    }

    fn make_room(&mut self, room: usize) {
        while self.size + room > self.max_size()
            && let Some((name, value)) = self.table.pop_back()
        {
            self.size -= name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

//= RFC 7541, appendix A
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""),
    ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, Malformed> {
        let mut all = String::new();
        decoder.decode(block, |name, value| {
            let text = String::from_utf8_lossy;
            all += &format!("{}={};", text(name), text(value));
        })?;
        Ok(all)
    }

    #[test]
    fn examples_of_the_rfc() {
        //= RFC 7541, C.4
        let mut decoder = Decoder::default();
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab,
            0x90, 0xf4, 0xff,
        ];
        assert_eq!(
            decoded(&mut decoder, &first).unwrap(),
            ":method=GET;:scheme=http;:path=/;:authority=www.example.com;"
        );
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(
            decoded(&mut decoder, &second).unwrap(),
            ":method=GET;:scheme=http;:path=/;:authority=www.example.com;cache-control=no-cache;"
        );
        assert_eq!(decoder.size, 110);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for block in
            [&[0x80][..], &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80], &[0x40, 0x05, b'a'], &[0xbe]]
        {
            assert_eq!(decoded(&mut Decoder::default(), block), Err(Malformed), "{block:x?}");
        }
        // A table of no bytes holds nothing, one beyond the limit is refused.
        let mut decoder = Decoder::default();
        assert!(decoded(&mut decoder, &[0x20, 0x40, 1, b'a', 1, b'b']).is_ok());
        assert_eq!(decoded(&mut decoder, &[0xbe]), Err(Malformed));
        assert_eq!(decoded(&mut decoder, &[0x3f, 0xff, 0xff, 0x7f]), Err(Malformed));
    }
}
