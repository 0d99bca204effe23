//! The standard's examples, what is no header block, and that encoder and decoder agree.

use std::sync::LazyLock;

use super::decoder::Decoder;
use super::*;
use crate::protocol::{Field, Indexing};

static TAGS: LazyLock<StaticTags<usize>> = LazyLock::new(|| StaticTags::by(length));

fn length(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len()
}

fn decoder() -> Decoder<usize> {
    Decoder::new(&TAGS, length, 1 << 20)
}

/// Takes fields as lines, and checks their tags and classes.
#[derive(Default)]
struct Lines {
    text: String,
    is_closed: bool,
}

impl Sink<usize> for Lines {
    fn is_open(&self) -> bool {
        !self.is_closed
    }

    fn field(&mut self, class: Class, tag: &usize, name: &[u8], value: &[u8], size: usize) {
        assert_eq!(*tag, length(name, value));
        assert_eq!(class, Class::of(name, value));
        assert_eq!(size, name.len() + value.len() + 32);
        let text = String::from_utf8_lossy;
        self.text += &format!("{}: {}\n", text(name), text(value));
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Decodes a whole block, in pieces of so many bytes.
fn decode(decoder: &mut Decoder<usize>, block: &[u8], piece: usize) -> Result<String, Error> {
    let (mut lines, mut cut) = (Lines::default(), Vec::new());
    for piece in block.chunks(piece) {
        cut.extend_from_slice(piece);
        let mut rest = &cut[..];
        decoder.decode(&mut rest, &mut lines)?;
        cut = rest.to_vec();
    }
    decoder.end();
    if cut.is_empty() { Ok(lines.text) } else { Err(Error::Cut) }
}

const REQUESTS: [&str; 3] = [
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n",
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
     custom-key: custom-value\n",
];

const RESPONSES: [&str; 3] = [
    ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
     location: https://www.example.com\n",
    ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
     location: https://www.example.com\n",
    ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
     location: https://www.example.com\ncontent-encoding: gzip\n\
     set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
];

/// Decodes a conversation of the standard's, whole and cut; sizes of the table are checked.
fn example(blocks: [&str; 3], expected: [&str; 3], sizes: [usize; 3], first: &str) {
    for piece in [1, 2, 3, 1_000] {
        let mut decoder = decoder();
        for (number, block) in blocks.iter().enumerate() {
            let first = if number == 0 { first } else { "" };
            let block = bytes(&format!("{first} {block}"));
            let decoded = decode(&mut decoder, &block, piece);
            assert_eq!(decoded.as_deref(), Ok(expected[number]), "block {number}");
            assert_eq!(decoder.table_size(), sizes[number], "block {number}");
        }
    }
}

/// What makes a table of 256 bytes, as the examples of responses have it.
const TABLE_OF_256: &str = "3fe101";

#[test]
fn single_fields_of_rfc_7541_c2() {
    for (block, expected, size) in [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header\n",
            55,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", 0),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", 0),
        ("82", ":method: GET\n", 0),
    ] {
        let mut decoder = decoder();
        assert_eq!(decode(&mut decoder, &bytes(block), 1_000).as_deref(), Ok(expected));
        assert_eq!(decoder.table_size(), size);
    }
}

#[test]
fn requests_of_rfc_7541_c3_and_c4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        example(blocks, REQUESTS, [57, 110, 164], "");
    }
}

#[test]
fn responses_of_rfc_7541_c5_and_c6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
         3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, huffman] {
        example(blocks, RESPONSES, [222, 222, 215], TABLE_OF_256);
    }
}

#[test]
fn what_is_no_header_block() {
    for (what, block) in [
        ("number 0", "80"),
        ("a number beyond the table", "be"),
        ("a name beyond the table", "7f00 0161"),
        ("a table that is too large", "3fe2 1f"),
        ("an integer without end", "ffff ffff ffff ffff ffff ff01"),
        ("a text longer than anything", "00ff ffff ffff ffff ffff 7f"),
        ("a Huffman code with the end mark", "0084 ffff ffff 00"),
        ("a size behind a field, with something in the table", "4001 6101 6220"),
    ] {
        assert_eq!(decode(&mut decoder(), &bytes(block), 1_000), Err(Error::Malformed), "{what}");
    }
    for block in ["", "8240", "82 7f", "0001", "0001 61", "0001 6102 61", "3f"] {
        let decoded = decode(&mut decoder(), &bytes(block), 1_000);
        assert_eq!(decoded.is_err(), !block.is_empty(), "{block:?}");
        assert!(decoded.is_ok() || decoded == Err(Error::Cut));
    }
    // The largest table that is allowed, and a size that is not the first thing but harmless.
    assert!(decode(&mut decoder(), &bytes("3fe1 1f82"), 1_000).is_ok());
    assert!(decode(&mut decoder(), &bytes("8220"), 1_000).is_ok());
    // Two changes, the first of which leaves something in the table.
    let mut decoder = decoder();
    assert!(decode(&mut decoder, &bytes("4001 6101 62"), 1_000).is_ok());
    assert_eq!(decode(&mut decoder, &bytes("3f21 3f41 be"), 1).as_deref(), Ok("a: b\n"));
}

#[test]
fn a_closed_list_still_changes_the_table() {
    let mut decoder = decoder();
    let mut lines = Lines { is_closed: true, ..Lines::default() };
    // A field that is kept, one that is not and cannot be decoded, one by its number.
    let block = bytes("4001 6101 62 0001 6184 ffff ffff be");
    decoder.decode(&mut &block[..], &mut lines).unwrap();
    decoder.end();
    assert!(lines.text.is_empty());
    assert_eq!(decode(&mut decoder, &bytes("be"), 1).as_deref(), Ok("a: b\n"));
    // Numbers that mean nothing are noticed all the same.
    let mut lines = Lines { is_closed: true, ..Lines::default() };
    assert_eq!(decoder.decode(&mut &[0xbf][..], &mut lines), Err(Error::Malformed));
    assert_eq!(decoder.decode(&mut &[0x0f, 0x7f, 0][..], &mut lines), Err(Error::Malformed));
}

#[test]
fn a_decoder_holds_little_after_long_texts() {
    let mut decoder = decoder();
    // 00000 is the code of '0': eight of them in five bytes, a text of 80,000.
    let mut block = vec![0x40, 1, b'a', 0xff];
    let length = 50_000 - 0x7f;
    block.extend_from_slice(&[
        length as u8 | 0x80,
        (length >> 7) as u8 | 0x80,
        (length >> 14) as u8,
    ]);
    block.resize(block.len() + 50_000, 0);
    let text = decode(&mut decoder, &block, 9_000).unwrap();
    assert_eq!(text, format!("a: {}\n", "0".repeat(80_000)));
    assert!(decoder.held() < 1_024, "{}", decoder.held());
}

/// A value of 60 bytes.
const LONG: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";

/// A random-number generator (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn what_is_encoded_is_decoded_whatever_the_client_allows() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut encoder, mut decoder) = (Encoder::new(), decoder());
        for _ in 0..60 {
            if random.below(4) == 0 {
                for _ in 0..=random.below(3) {
                    encoder.allow([0, 40, 60, 100, 150, 1_000, 4_096, 1 << 20][random.below(8)]);
                }
            }
            let (mut block, mut expected) = (Vec::new(), String::new());
            encoder.begin(&mut block);
            let status = [200, 204, 302, 400, 404, 415, 500][random.below(7)];
            Encoder::status(&mut block, status);
            expected += &format!(":status: {status}\n");
            for _ in 0..random.below(5) {
                let name = ["content-type", "grpc-status", "x", "a-longer-name"][random.below(4)];
                let value = ["0", "application/grpc", "", LONG][random.below(4)];
                let indexing = [Indexing::Indexed, Indexing::Literal][random.below(2)];
                let (name, value) = (name.as_bytes(), value.as_bytes());
                let field = Field { name, value, indexing };
                match random.below(5) {
                    0 => Encoder::timeless(&mut block, &field),
                    _ => encoder.field(&mut block, &field),
                }
                let text = String::from_utf8_lossy;
                expected += &format!("{}: {}\n", text(name), text(value));
            }
            let piece = 1 + random.below(50);
            assert_eq!(decode(&mut decoder, &block, piece), Ok(expected), "seed {seed}");
        }
        assert!(encoder.held() < 4_096);
    }
}

#[test]
fn the_usual_answer_is_two_bytes_from_the_second_time_on() {
    let mut encoder = Encoder::new();
    let fields = [Field::indexed(b"content-type", b"application/grpc")];
    for expected in [19, 2, 2] {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        Encoder::status(&mut block, 200);
        fields.iter().for_each(|field| encoder.field(&mut block, field));
        assert_eq!(block.len(), expected);
    }
}
