//! Key and value bytes of one write transaction.
//!
//! Items of nodes are spans into it, 16 bytes without reference counts: a put costs one copy, a
//! loaded page none. Nothing is freed before the transaction ends.

use bytes::Bytes;

/// Bytes of a block for puts; larger puts get their own.
const BLOCK: usize = 1 << 20;

#[derive(Debug)]
enum Chunk {
    Page(Bytes),
    Block(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Page(bytes) => bytes,
            Chunk::Block(bytes) => bytes,
        }
    }
}

/// A key and the value behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    chunk: u32,
    at: u32,
    key: u32,
    value: u32,
}

impl Span {
    /// Bytes of key and value.
    pub(crate) fn len(self) -> usize {
        self.key as usize + self.value as usize
    }

    pub(crate) fn key_len(self) -> u32 {
        self.key
    }

    pub(crate) fn value_len(self) -> u32 {
        self.value
    }

    /// The same key without the value, as a separator.
    pub(crate) fn key_only(self) -> Self {
        Self { value: 0, ..self }
    }
}

/// A chunk that was added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkId(u32);

#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Chunk>,
    /// The block that takes the next put.
    open: Option<usize>,
}

impl Arena {
    /// Adds a page's bytes without a copy.
    pub(crate) fn add_page(&mut self, bytes: Bytes) -> ChunkId {
        self.chunks.push(Chunk::Page(bytes));
        ChunkId((self.chunks.len() - 1) as u32)
    }

    /// A span in a page: where the key starts, its length and that of the value behind it.
    pub(crate) fn span(chunk: ChunkId, (at, key, value): (usize, usize, usize)) -> Span {
        Span { chunk: chunk.0, at: at as u32, key: key as u32, value: value as u32 }
    }

    /// Copies a key and value. Lengths are limited by the caller to bbolt's limits.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Span {
        let need = key.len() + value.len();
        let open = match self.open {
            Some(i) if self.room(i) >= need => i,
            _ => {
                self.chunks.push(Chunk::Block(Vec::with_capacity(need.max(BLOCK))));
                let i = self.chunks.len() - 1;
                self.open = Some(i);
                i
            }
        };
        let Chunk::Block(block) = &mut self.chunks[open] else {
            unreachable!("only blocks are open")
        };
        let at = block.len();
        block.extend_from_slice(key);
        block.extend_from_slice(value);
        Self::span(ChunkId(open as u32), (at, key.len(), value.len()))
    }

    fn room(&self, i: usize) -> usize {
        match &self.chunks[i] {
            Chunk::Block(block) => block.capacity() - block.len(),
            Chunk::Page(_) => 0,
        }
    }

    pub(crate) fn key(&self, span: Span) -> &[u8] {
        &self.chunks[span.chunk as usize].bytes()[span.at as usize..][..span.key as usize]
    }

    pub(crate) fn value(&self, span: Span) -> &[u8] {
        let at = span.at as usize + span.key as usize;
        &self.chunks[span.chunk as usize].bytes()[at..at + span.value as usize]
    }

    pub(crate) fn key_and_value(&self, span: Span) -> &[u8] {
        &self.chunks[span.chunk as usize].bytes()[span.at as usize..][..span.len()]
    }
}
