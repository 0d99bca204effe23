//! Nodes: the pages that a write transaction has loaded, owned as a tree.
//!
//! A [`Link`] is a page on disk or a loaded node. Loading replaces the link in place, so there are
//! no parent pointers and no table of nodes. Invariants: `size` is the serialised size; items
//! ascend; a node that differs from its page is `dirty`; one that lost items is `unbalanced`.

use env::{Access, MayBlock};

use crate::arena::{Arena, Span};
use crate::error::{Corruption, Flaw, ReadError};
use crate::fence::FenceEdits;
use crate::freelist::Run;
use crate::page::{ELEMENT, HEADER, MAX_DEPTH, Page};
use crate::source::Source;

/// What operations on nodes need from their transaction.
pub(crate) struct Context<'a> {
    pub source: &'a Source,
    pub may: &'a MayBlock,
    pub arena: &'a mut Arena,
    /// High-water mark of the state that the transaction began on.
    pub hwm: u64,
    /// Pages that the new state does not use.
    pub freed: &'a mut Vec<Run>,
}

#[derive(Debug)]
pub(crate) enum Link {
    Page(u64),
    Node(Box<Node>),
}

#[derive(Debug)]
pub(crate) struct Node {
    /// The pages it was loaded from; `None` if it is new or inline.
    pub from: Option<Run>,
    pub dirty: bool,
    pub unbalanced: bool,
    pub size: usize,
    pub body: Body,
    /// The child that was looked up last.
    near: usize,
}

#[derive(Debug)]
pub(crate) enum Body {
    Leaf(Vec<LeafItem>),
    Branch(Vec<BranchItem>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafItem {
    pub span: Span,
    pub flags: u32,
}

#[derive(Debug)]
pub(crate) struct BranchItem {
    pub key: Span,
    pub link: Link,
}

impl Node {
    pub(crate) fn empty_leaf() -> Self {
        Self {
            from: None,
            dirty: true,
            unbalanced: false,
            size: HEADER,
            body: Body::Leaf(Vec::new()),
            near: 0,
        }
    }

    pub(crate) fn new_branch(items: Vec<BranchItem>) -> Self {
        let size = HEADER + items.iter().map(|i| ELEMENT + i.key.len()).sum::<usize>();
        let body = Body::Branch(items);
        Self { from: None, dirty: true, unbalanced: false, size, body, near: 0 }
    }

    /// `from` is `None` for an inline bucket's page.
    pub(crate) fn load(page: &Page, from: Option<Run>, arena: &mut Arena) -> Self {
        let view = page.view();
        let chunk = arena.add_page(page.bytes().clone());
        let mut size = HEADER;
        let mut spans = Vec::with_capacity(view.count() + 1);
        for i in 0..view.count() {
            let span = Arena::span(chunk, view.place(i));
            size += ELEMENT + span.len();
            spans.push(span);
        }
        let spans = spans.into_iter().enumerate();
        let body = if view.is_leaf() {
            Body::Leaf(spans.map(|(i, span)| LeafItem { span, flags: view.flags(i) }).collect())
        } else {
            let link = |i| Link::Page(view.child(i));
            Body::Branch(spans.map(|(i, key)| BranchItem { key, link: link(i) }).collect())
        };
        Self { from, dirty: false, unbalanced: false, size, body, near: 0 }
    }

    pub(crate) fn is_leaf(&self) -> bool {
        matches!(self.body, Body::Leaf(_))
    }

    pub(crate) fn len(&self) -> usize {
        match &self.body {
            Body::Leaf(items) => items.len(),
            Body::Branch(items) => items.len(),
        }
    }

    /// Inserts or replaces.
    pub(crate) fn put(&mut self, arena: &mut Arena, key: &[u8], value: &[u8], flags: u32) {
        let span = arena.put(key, value);
        let Body::Leaf(items) = &mut self.body else { unreachable!("values live in leaves") };
        self.dirty = true;
        self.size += span.len();
        match search(arena, items, key) {
            (i, true) => {
                self.size -= items[i].span.len();
                items[i] = LeafItem { span, flags };
            }
            (i, false) => {
                self.size += ELEMENT;
                items.insert(i, LeafItem { span, flags });
            }
        }
    }

    /// Removes the item at a place that [`Node::find`] told.
    pub(crate) fn remove(&mut self, at: usize) {
        let Body::Leaf(items) = &mut self.body else { unreachable!("values live in leaves") };
        let item = items.remove(at);
        self.size -= ELEMENT + item.span.len();
        self.dirty = true;
        self.unbalanced = true;
    }

    /// The item of a key in a leaf, and its place.
    pub(crate) fn find(&self, arena: &Arena, key: &[u8]) -> Option<(usize, LeafItem)> {
        let Body::Leaf(items) = &self.body else { unreachable!("values live in leaves") };
        match search(arena, items, key) {
            (i, true) => Some((i, items[i])),
            (_, false) => None,
        }
    }
}

/// Where `key` is or belongs in a leaf. Appends and the removal of one item after another are
/// found with one or two comparisons.
fn search(arena: &Arena, items: &[LeafItem], key: &[u8]) -> (usize, bool) {
    if items.last().is_none_or(|last| arena.key(last.span) < key) {
        return (items.len(), false);
    }
    if items.first().is_some_and(|first| arena.key(first.span) == key) {
        return (0, true);
    }
    match items.binary_search_by(|item| arena.key(item.span).cmp(key)) {
        Ok(i) => (i, true),
        Err(i) => (i, false),
    }
}

/// The child below which `key` belongs. The rightmost is found with one comparison.
pub(crate) fn child_index(arena: &Arena, items: &[BranchItem], key: &[u8]) -> usize {
    if items.last().is_none_or(|last| arena.key(last.key) <= key) {
        return items.len().saturating_sub(1);
    }
    match items.binary_search_by(|item| arena.key(item.key).cmp(key)) {
        Ok(i) => i,
        Err(i) => i.saturating_sub(1),
    }
}

/// As [`child_index`], for keys that are often below the same child as the one before (`near`), or
/// the next: what a compaction deletes is.
fn child_near(arena: &Arena, items: &[BranchItem], key: &[u8], near: usize) -> usize {
    let is_from = |i: usize| items.get(i).is_some_and(|item| arena.key(item.key) <= key);
    if is_from(near) {
        if !is_from(near + 1) {
            return near;
        }
        if !is_from(near + 2) {
            return near + 1;
        }
    }
    child_index(arena, items, key)
}

impl Link {
    /// The node, loaded if it is not yet.
    pub(crate) fn load(&mut self, cx: &mut Context<'_>) -> Result<&mut Node, ReadError> {
        if let Link::Page(id) = *self {
            let page = cx.source.page(cx.may, id, cx.hwm, Access::Point)?;
            let run = Run { page: id, len: u64::from(page.overflow()) + 1 };
            *self = Link::Node(Box::new(Node::load(&page, Some(run), cx.arena)));
        }
        let Link::Node(node) = self else { unreachable!("loaded above") };
        Ok(node)
    }

    /// The leaf where `key` belongs; everything on the way is loaded.
    pub(crate) fn leaf(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
    ) -> Result<&mut Node, ReadError> {
        let mut link = self;
        for _ in 0..MAX_DEPTH {
            let node = link.load(cx)?;
            if node.is_leaf() {
                return Ok(node);
            }
            let Body::Branch(items) = &mut node.body else { unreachable!("no leaf") };
            node.near = child_near(cx.arena, items, key, node.near);
            link = &mut items[node.near].link;
        }
        Err(Corruption::new(0, Flaw::Depth).into())
    }

    /// Merges nodes below this one that lost items and are too empty, bottom up, as bbolt does:
    /// with the left sibling, the first with the right one.
    ///
    /// `threshold` is in bytes. `fences` is set for the fenced bucket.
    pub(crate) fn rebalance(
        &mut self,
        cx: &mut Context<'_>,
        threshold: usize,
        fences: Option<&mut FenceEdits>,
    ) -> Result<(), ReadError> {
        if let Link::Node(node) = self {
            rebalance_below(node, cx, threshold, fences)?;
        }
        // A root branch with one child gives way to it.
        loop {
            let Link::Node(node) = self else { return Ok(()) };
            let Body::Branch(items) = &mut node.body else { return Ok(()) };
            match items.len() {
                0 => {
                    node.body = Body::Leaf(Vec::new());
                    (node.size, node.dirty) = (HEADER, true);
                    return Ok(());
                }
                1 if node.dirty => {
                    let only = items.pop().expect("there is one");
                    cx.freed.extend(node.from.take());
                    *self = only.link;
                }
                _ => return Ok(()),
            }
        }
    }
}

fn rebalance_below(
    node: &mut Node,
    cx: &mut Context<'_>,
    threshold: usize,
    mut fences: Option<&mut FenceEdits>,
) -> Result<(), ReadError> {
    let Body::Branch(items) = &mut node.body else { return Ok(()) };
    for item in items.iter_mut() {
        if let Link::Node(child) = &mut item.link {
            rebalance_below(child, cx, threshold, fences.as_deref_mut())?;
        }
    }
    let mut i = 0;
    while i < items.len() {
        let Link::Node(child) = &mut items[i].link else {
            i += 1;
            continue;
        };
        let enough = if child.is_leaf() { 1 } else { 2 };
        let fine = child.size > threshold && child.len() > enough;
        if !std::mem::take(&mut child.unbalanced) || fine {
            i += 1;
            continue;
        }
        let gone = if child.len() == 0 {
            i
        } else if items.len() == 1 {
            // No sibling; the parent is merged or collapses in its turn.
            i += 1;
            continue;
        } else {
            let left = i.saturating_sub(1);
            items[left].link.load(cx)?;
            items[left + 1].link.load(cx)?;
            left + 1
        };
        let BranchItem { key, link } = items.remove(gone);
        node.size -= ELEMENT + key.len();
        (node.dirty, node.unbalanced) = (true, true);
        let Link::Node(mut right) = link else { unreachable!("loaded above") };
        if let Some(run) = right.from.take() {
            cx.freed.push(run);
            if let (Some(edits), true) = (fences.as_deref_mut(), right.is_leaf()) {
                edits.remove(cx.arena.key(key));
            }
        }
        if right.len() > 0 {
            i = gone - 1;
            let Link::Node(left) = &mut items[i].link else { unreachable!("loaded above") };
            left.size += right.size - HEADER;
            left.dirty = true;
            match (&mut left.body, right.body) {
                (Body::Leaf(left), Body::Leaf(right)) => left.extend(right),
                (Body::Branch(left), Body::Branch(right)) => left.extend(right),
                _ => {
                    let page = left.from.map_or(0, |run| run.page);
                    return Err(Corruption::new(page, Flaw::Type).into());
                }
            }
        }
    }
    Ok(())
}
