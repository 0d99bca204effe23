//! Spilling: changed nodes become pages at new places, bottom up.
//!
//! Invariants: pages of the state before are never written; what was allocated can be given back
//! until the meta is written; unchanged subtrees keep their pages.

use crate::arena::{Arena, Span};
use crate::fence::FenceEdits;
use crate::freelist::{Freelist, Run};
use crate::node::{Body, BranchItem, LeafItem, Link, Node};
use crate::page::{BRANCH, BUCKET, BUCKET_HEADER, ELEMENT, HEADER, Header, LEAF};

/// Elements that a page needs before it may be cut, per piece.
const MIN_KEYS: usize = 2;
/// Count 0xFFFF means something else in freelist pages; bbolt refuses it everywhere.
const MAX_COUNT: usize = 0xFFFE;
/// Bytes of one output buffer; a longer page gets its own.
const BUFFER: usize = 1 << 20;

/// Pages to be written, in runs of neighbours.
#[derive(Debug)]
pub(crate) struct Output<'f> {
    pub freelist: &'f mut Freelist,
    pub page_size: usize,
    /// High-water mark of the new state so far.
    pub hwm: u64,
    pub allocated: Vec<Run>,
    pub buffers: Vec<(u64, Vec<u8>)>,
}

impl Output<'_> {
    /// Allocates room for `size` bytes and returns its first page and the zeroed bytes.
    fn reserve(&mut self, size: usize) -> (u64, &mut [u8]) {
        let len = size.div_ceil(self.page_size) as u64;
        let page = self.freelist.take(len).unwrap_or_else(|| {
            let page = self.hwm;
            self.hwm += len;
            page
        });
        self.allocated.push(Run { page, len });
        let bytes = self.page_size * len as usize;
        let continues = self.buffers.last().is_some_and(|(first, buffer)| {
            first + (buffer.len() / self.page_size) as u64 == page && buffer.len() + bytes <= BUFFER
        });
        if !continues {
            self.buffers.push((page, Vec::new()));
        }
        let (_, buffer) = self.buffers.last_mut().expect("pushed if it was missing");
        let at = buffer.len();
        buffer.resize(at + bytes, 0);
        (page, &mut buffer[at..])
    }
}

/// A page that a node became.
struct Piece {
    key: Option<Span>,
    page: u64,
}

/// How the tree of one bucket is spilled.
pub(crate) struct Spill<'a, 'f> {
    pub arena: &'a Arena,
    pub out: &'a mut Output<'f>,
    pub freed: &'a mut Vec<Run>,
    /// Bytes at which a page counts as full, of one that is cut.
    pub full: usize,
    pub fences: Option<&'a mut FenceEdits>,
}

impl Spill<'_, '_> {
    /// Writes what changed below `root` and returns the new root page.
    pub(crate) fn tree(&mut self, root: Link) -> u64 {
        let mut node = match root {
            Link::Page(page) => return page,
            Link::Node(node) => node,
        };
        if let (true, Some(edits)) = (node.is_leaf() && node.dirty, self.fences.as_deref_mut()) {
            edits.clear |= node.from.is_some();
        }
        loop {
            let pieces = match self.node(*node, None) {
                Spilled::Same(page) => return page,
                Spilled::Pieces(pieces) => pieces,
            };
            if let [only] = &pieces[..] {
                return only.page;
            }
            *node = Node::new_branch(pieces.into_iter().map(Piece::into_item).collect());
        }
    }

    /// `separator` is the node's key in its parent, `None` for the root.
    fn node(&mut self, mut node: Node, separator: Option<Span>) -> Spilled {
        if let Body::Branch(items) = &mut node.body
            && items.iter().any(|item| matches!(item.link, Link::Node(_)))
        {
            let mut dirty = node.dirty;
            let mut spilled = Vec::with_capacity(items.len() + 1);
            for BranchItem { key, link } in items.drain(..) {
                match link {
                    Link::Page(_) => spilled.push(BranchItem { key, link }),
                    Link::Node(child) => match self.node(*child, Some(key)) {
                        Spilled::Same(page) => {
                            spilled.push(BranchItem { key, link: Link::Page(page) });
                        }
                        Spilled::Pieces(pieces) => {
                            dirty = true;
                            spilled.extend(pieces.into_iter().map(Piece::into_item));
                        }
                    },
                }
            }
            let from = node.from;
            node = Node::new_branch(spilled);
            (node.from, node.dirty) = (from, dirty);
        }
        match node.from {
            Some(run) if !node.dirty => return Spilled::Same(run.page),
            Some(run) => {
                self.freed.push(run);
                if let (Some(edits), Some(separator), true) =
                    (self.fences.as_deref_mut(), separator, node.is_leaf())
                {
                    edits.remove(self.arena.key(separator));
                }
            }
            None => {}
        }
        let mut pieces = Vec::with_capacity(1 + node.size / self.full.max(1));
        match &node.body {
            Body::Leaf(items) => self.cut(items, node.size, &mut pieces),
            Body::Branch(items) => self.cut(items, node.size, &mut pieces),
        }
        Spilled::Pieces(pieces)
    }

    /// Writes a node as one or several pages.
    fn cut<I: Item>(&mut self, mut items: &[I], mut size: usize, pieces: &mut Vec<Piece>) {
        loop {
            let whole = items.len() <= 2 * MIN_KEYS || size < self.out.page_size;
            if whole && items.len() <= MAX_COUNT {
                pieces.push(self.write(items, size));
                return;
            }
            let mut used = HEADER;
            let mut n = 0;
            for item in &items[..items.len() - MIN_KEYS] {
                let more = ELEMENT + item.span().len();
                if (n >= MIN_KEYS && used + more > self.full) || n == MAX_COUNT {
                    break;
                }
                used += more;
                n += 1;
            }
            let (piece, rest) = items.split_at(n);
            pieces.push(self.write(piece, used));
            items = rest;
            size -= used - HEADER;
        }
    }

    fn write<I: Item>(&mut self, items: &[I], size: usize) -> Piece {
        let page_size = self.out.page_size;
        let (page, bytes) = self.out.reserve(size);
        let overflow = (bytes.len() / page_size - 1) as u32;
        write_page(self.arena, items, page, overflow, bytes);
        let key = items.first().map(|item| item.span().key_only());
        if let (true, Some(edits)) = (I::LEAF, self.fences.as_deref_mut()) {
            edits.add(key.map(|k| self.arena.key(k)), page, overflow);
        }
        Piece { key, page }
    }
}

enum Spilled {
    /// Nothing changed: the page it was loaded from.
    Same(u64),
    Pieces(Vec<Piece>),
}

impl Piece {
    fn into_item(self) -> BranchItem {
        let key = self.key.expect("only a root leaf is empty, and it is one piece");
        BranchItem { key, link: Link::Page(self.page) }
    }
}

/// What leaf and branch items have in common when written.
trait Item {
    const LEAF: bool;
    fn span(&self) -> Span;
    /// Fills the element of 16 bytes whose key lies at `pos`.
    fn write_element(&self, pos: u32, out: &mut [u8]);
}

impl Item for LeafItem {
    const LEAF: bool = true;

    fn span(&self) -> Span {
        self.span
    }

    fn write_element(&self, pos: u32, out: &mut [u8]) {
        out[..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..8].copy_from_slice(&pos.to_le_bytes());
        out[8..12].copy_from_slice(&self.span.key_len().to_le_bytes());
        out[12..16].copy_from_slice(&self.span.value_len().to_le_bytes());
    }
}

impl Item for BranchItem {
    const LEAF: bool = false;

    fn span(&self) -> Span {
        self.key
    }

    fn write_element(&self, pos: u32, out: &mut [u8]) {
        let Link::Page(page) = self.link else { unreachable!("children are spilled first") };
        out[..4].copy_from_slice(&pos.to_le_bytes());
        out[4..8].copy_from_slice(&self.key.key_len().to_le_bytes());
        out[8..16].copy_from_slice(&page.to_le_bytes());
    }
}

/// Serialises items into zeroed bytes.
fn write_page<I: Item>(arena: &Arena, items: &[I], id: u64, overflow: u32, out: &mut [u8]) {
    let flags = if I::LEAF { LEAF } else { BRANCH };
    let count = u16::try_from(items.len()).expect("cut at MAX_COUNT");
    Header { id, flags, count, overflow }.write(out);
    let mut data = HEADER + ELEMENT * items.len();
    for (i, item) in items.iter().enumerate() {
        let at = HEADER + ELEMENT * i;
        let pos = u32::try_from(data - at).expect("a page of at most four long values, or short");
        item.write_element(pos, &mut out[at..at + ELEMENT]);
        let bytes = arena.key_and_value(item.span());
        out[data..data + bytes.len()].copy_from_slice(bytes);
        data += bytes.len();
    }
}

/// The value of an inline bucket, if this tree may be one: a single small leaf without buckets.
pub(crate) fn inline_value(
    arena: &Arena,
    node: &Node,
    sequence: u64,
    page_size: usize,
) -> Option<Vec<u8>> {
    let Body::Leaf(items) = &node.body else { return None };
    if node.size > page_size / 4 || items.iter().any(|item| item.flags & BUCKET != 0) {
        return None;
    }
    let mut value = vec![0; BUCKET_HEADER + node.size];
    value[8..16].copy_from_slice(&sequence.to_le_bytes());
    write_page(arena, items, 0, 0, &mut value[BUCKET_HEADER..]);
    Some(value)
}

/// The value of a bucket with pages of its own.
pub(crate) fn paged_value(root: u64, sequence: u64) -> [u8; BUCKET_HEADER] {
    let mut value = [0; BUCKET_HEADER];
    value[..8].copy_from_slice(&root.to_le_bytes());
    value[8..].copy_from_slice(&sequence.to_le_bytes());
    value
}
