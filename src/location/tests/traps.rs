//! Known traps (docs/testing.md), each told step by step: what clients, copier and secondary do, in this order.

use super::*;

async fn world() -> World {
    let (source, dest, _) = found();
    World::new(1, source, dest).await
}

impl World {
    fn begin_listing(&mut self, dir: NodeId) {
        self.record(Event::ListBegin(ListBegin { job: JobId(1), location: TO, dir }), Bytes::new());
    }

    /// A page of the directory: these nodes under the names that they have in it now.
    fn page(&mut self, dir: NodeId, nodes: &[NodeId], last: bool) {
        let entry = |node: &NodeId| {
            let name = self.live.names(*node, 9).unwrap().into_iter().find(|(of, _)| *of == dir).unwrap().1;
            ListedEntry { name, node: *node, kind: self.nodes[node] }
        };
        let entries = nodes.iter().map(entry).collect();
        self.record(Event::Listed(Listed { job: JobId(1), location: TO, dir, entries, last }), Bytes::new());
    }

    /// The directory is listed whole, as it is.
    fn list(&mut self, dir: NodeId, nodes: &[NodeId]) {
        self.begin_listing(dir);
        self.page(dir, nodes, true);
    }

    /// The whole file is to be copied.
    fn order(&mut self, node: NodeId, len: u64) {
        let range = Range { node, offset: 0, len, last: true };
        self.record(Event::CopyRange(CopyRange { job: JobId(1), location: TO, ranges: vec![range] }), Bytes::new());
    }

    /// The secondary carries out all that is journaled, and a sync makes it durable.
    async fn catch_up(&mut self) {
        let carried = self.round(self.journal.len(), false).await.unwrap();
        self.commit(carried.ranges);
    }

    /// What is queued is copied; no step twice (`commit` looks).
    async fn copy_all(&mut self) {
        for _ in 0..8 {
            self.copy().await;
            self.catch_up().await;
        }
        let pending = self.projection.pending().unwrap();
        assert_eq!((pending.dirs, pending.files, pending.incomplete), (0, 0, 0));
    }

    async fn ends_equal(&mut self) {
        self.copy_all().await;
        let touched: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        put_times(&self.source, self.live.as_ref(), &self.live, &touched).await.unwrap();
        assert_eq!(picture(&self.source).await, picture(&self.dest).await);
        let pen = self.dest.filer.pen().await.unwrap();
        assert_eq!(self.dest.filer.list(&pen, 0, 9).await.unwrap().names.len(), 0, "something is left in the pen");
    }

    async fn file(&mut self, dir: NodeId, name: &[u8], text: &'static [u8]) -> NodeId {
        let node = self.made(dir, name, What::File).await;
        self.written(node, 0, Bytes::from_static(text)).await;
        node
    }

    /// The same node under one more name.
    async fn linked(&mut self, node: NodeId, dir: NodeId, name: &[u8]) {
        let (object, at) = (self.object(node).await, self.object(dir).await);
        self.source.filer.link(&object, &at, name).await.unwrap();
        let (name, kind, caller) = (name.to_vec(), Kind::File, Caller::default());
        self.record(
            Event::Link(Link { junction: JUNCTION, location: FROM, node, kind, dir, name, caller }),
            Bytes::new(),
        );
    }
}

impl World {
    /// A client removes the file's only name in the tree; it has another one outside.
    async fn left(&mut self, node: NodeId) {
        let (dir, name) = self.live.names(node, 1).unwrap().pop().unwrap();
        let at = self.object(dir).await;
        let pen = self.source.filer.pen().await.unwrap();
        let object = self.object(node).await;
        self.source.filer.link(&object, &pen, b"outside").await.unwrap();
        self.source.filer.remove(&at, &name).await.unwrap();
        self.nodes.remove(&node);
        let (kind, last, caller) = (Kind::File, false, Caller::default());
        let remove = Remove { junction: JUNCTION, location: FROM, dir, name, node, kind, last, caller };
        self.record(Event::Remove(remove), Bytes::new());
    }

    async fn in_pen(&self) -> usize {
        let pen = self.dest.filer.pen().await.unwrap();
        self.dest.filer.list(&pen, 0, 9).await.unwrap().names.len()
    }
}

/// Its object is at hand from the making: a mounted NFS then keeps a name of it, and the directory is not empty.
#[tokio::test]
async fn a_directory_that_goes_with_its_files_leaves_the_pen_where_held_files_keep_a_name() {
    let dest = memory::Memory::default();
    dest.keep_names_of_held();
    let mut w = World::new(1, Arc::new(memory::Memory::default()), Arc::new(dest)).await;
    w.list(ROOT, &[]);
    let dir = w.made(ROOT, b"dir", What::Dir).await;
    let file = w.file(dir, b"file", b"text").await;
    w.catch_up().await;
    let object = w.dest.object(&w.projection, file).await.unwrap();
    w.dest.remember(file, &object);
    drop(object);
    w.removed(file).await;
    w.removed(dir).await;
    let round = w.fold(w.position, w.journal.len(), false);
    let source = Source { location: w.source.clone(), live: w.live.clone() };
    carry_out(&w.dest, &w.projection, Some(&source), &round, &w.done, &w.recorded).await.unwrap();
    assert_eq!(w.in_pen().await, 0);
}

/// Its name may be in a directory that is not listed, so it waits; when there is none, it is found to be nowhere.
#[tokio::test]
async fn a_file_whose_last_name_lies_outside_the_tree_leaves_the_pen_when_all_is_listed() {
    let mut w = world().await;
    let dir = w.made(ROOT, b"dir", What::Dir).await;
    let (first, second) = (w.file(ROOT, b"first", b"1").await, w.file(dir, b"second", b"2").await);
    w.list(ROOT, &[dir, first]);
    w.catch_up().await;
    w.left(first).await;
    w.catch_up().await;
    assert_eq!((w.in_pen().await, w.projection.pending().unwrap().limbo), (1, 1), "it may be in the directory");
    w.list(dir, &[second]);
    // Twice: a crash in the middle of it.
    w.round(w.journal.len(), false).await.unwrap();
    w.crash();
    let carried = w.round(w.journal.len(), true).await.unwrap();
    w.commit(carried.ranges);
    assert_eq!((w.in_pen().await, w.projection.pending().unwrap().limbo), (0, 0), "it is not");
    assert_eq!(w.projection.held(first).unwrap(), None);
    w.copy_all().await;
    w.source.filer.remove(&w.source.filer.pen().await.unwrap(), b"outside").await.unwrap();
    w.left(second).await;
    w.catch_up().await;
    assert_eq!((w.in_pen().await, w.projection.pending().unwrap().limbo), (0, 0), "at once, where all is listed");
    w.ends_equal().await;
}

/// Replayed a second time, by the names of before, the rename would take the new file.
#[tokio::test]
async fn what_was_renamed_is_not_mixed_up_with_what_took_its_name_when_both_are_replayed_again() {
    let mut w = world().await;
    w.list(ROOT, &[]);
    let old = w.file(ROOT, b"a", b"old").await;
    w.catch_up().await;
    w.renamed(old, ROOT, b"b").await;
    let new = w.file(ROOT, b"a", b"new one").await;
    w.written(old, 3, Bytes::from_static(b" and more")).await;
    w.round(w.journal.len(), false).await.unwrap();
    // All of it is on the filer, and nothing of it is known to be.
    w.crash();
    let carried = w.round(w.journal.len(), true).await.unwrap();
    w.commit(carried.ranges);
    w.written(new, 1, Bytes::from_static(b"EW")).await;
    w.ends_equal().await;
}

/// The filer made it, and the crash came before its identity was in the journal.
#[tokio::test]
async fn what_was_made_before_its_identity_was_journaled_is_known_again_and_not_made_twice() {
    let mut w = world().await;
    w.list(ROOT, &[]);
    w.catch_up().await;
    w.file(ROOT, b"a", b"text").await;
    w.round(w.journal.len(), false).await.unwrap();
    let root = w.dest.filer.root().await.unwrap();
    let made = w.dest.filer.lookup(&root, b"a").await.unwrap().id;
    assert!(w.recorded.0.lock().is_empty(), "the crash comes before");
    w.crash();
    let carried = w.round(w.journal.len(), true).await.unwrap();
    w.commit(carried.ranges);
    assert_eq!(w.dest.filer.lookup(&root, b"a").await.unwrap().id, made);
    w.ends_equal().await;
}

/// Behind the page that it would have been on, or out of the directory: either way its rename brings it.
#[tokio::test]
async fn an_entry_that_is_renamed_behind_the_page_comes_with_its_rename() {
    let mut w = world().await;
    let dir = w.made(ROOT, b"dir", What::Dir).await;
    let first = w.file(dir, b"first", b"1").await;
    let inside = w.file(dir, b"inside", b"2").await;
    let outside = w.file(dir, b"outside", b"3").await;
    w.list(ROOT, &[dir]);
    w.begin_listing(dir);
    w.page(dir, &[first], false);
    w.catch_up().await;
    w.renamed(inside, dir, b"z").await;
    w.renamed(outside, ROOT, b"z").await;
    // Their cookies are younger than the listing: no page has them.
    w.page(dir, &[], true);
    w.ends_equal().await;
}

/// An operation was first; the page that names it too must not begin it again.
#[tokio::test]
async fn a_page_that_names_what_an_operation_has_brought_neither_makes_nor_copies_it_again() {
    let mut w = world().await;
    let file = w.file(ROOT, b"file", b"text").await;
    w.begin_listing(ROOT);
    w.catch_up().await;
    w.linked(file, ROOT, b"other").await;
    w.catch_up().await;
    w.order(file, 4);
    w.catch_up().await;
    assert!(matches!(w.projection.held(file).unwrap(), Some((_, Held::Present))), "it is copied before the page comes");
    w.page(ROOT, &[file], true);
    w.catch_up().await;
    assert!(matches!(w.projection.held(file).unwrap(), Some((_, Held::Present))), "and it stays so");
    w.ends_equal().await;
}

/// There its name is not replayed: it waits in the pen, with what is written to it, until the listing finds it.
#[tokio::test]
async fn a_present_file_that_goes_into_a_directory_that_is_not_listed_waits_and_is_not_copied_again() {
    let mut w = world().await;
    let dir = w.made(ROOT, b"dir", What::Dir).await;
    let file = w.file(ROOT, b"file", b"text").await;
    w.list(ROOT, &[dir, file]);
    w.catch_up().await;
    // Only the file is copied; the directory's listing has not begun.
    w.order(file, 4);
    w.catch_up().await;
    w.renamed(file, dir, b"moved").await;
    w.written(file, 4, Bytes::from_static(b" and more")).await;
    w.catch_up().await;
    let pen = w.dest.filer.pen().await.unwrap();
    assert_eq!(w.dest.filer.list(&pen, 0, 9).await.unwrap().names.len(), 1, "it waits in the pen");
    w.list(dir, &[file]);
    w.ends_equal().await;
}

/// The operation names a node that is not there yet: it is made, queued, and found again by its first name later.
#[tokio::test]
async fn a_link_of_a_file_that_is_absent_makes_it_and_its_listing_gives_it_the_first_name() {
    let mut w = world().await;
    let dir = w.made(ROOT, b"dir", What::Dir).await;
    let file = w.file(dir, b"file", b"text").await;
    w.list(ROOT, &[dir]);
    w.catch_up().await;
    w.linked(file, ROOT, b"other").await;
    w.catch_up().await;
    assert!(matches!(w.projection.held(file).unwrap(), Some((_, Held::Partial { ordered_to: 0 }))), "it is queued");
    w.written(file, 4, Bytes::from_static(b" and more")).await;
    w.list(dir, &[file]);
    w.ends_equal().await;
}
