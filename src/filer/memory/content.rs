//! A file's bytes: pages where something was written, holes elsewhere. Copies share pages until one changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const PAGE: u64 = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub size: u64,
    pages: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl Content {
    pub fn used(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = offset.saturating_add(len).min(self.size);
        let mut out = Vec::new();
        for (page, from, to) in parts(offset, end) {
            match self.pages.get(&page) {
                Some(bytes) => out.extend_from_slice(&bytes[from..to]),
                None => out.resize(out.len() + (to - from), 0),
            }
        }
        out
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        let mut rest = data;
        for (page, from, to) in parts(offset, end) {
            let (now, later) = rest.split_at(to - from);
            self.page(page)[from..to].copy_from_slice(now);
            rest = later;
        }
        if !data.is_empty() {
            self.size = self.size.max(end);
        }
    }

    fn page(&mut self, page: u64) -> &mut Vec<u8> {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new(vec![0; PAGE_LEN])))
    }

    /// A page as it is; `None` is a hole.
    pub fn page_at(&self, page: u64) -> Option<Arc<Vec<u8>>> {
        self.pages.get(&page).cloned()
    }

    /// Put a page there; behind the end it is not seen, and gone at the next [`Self::trim`].
    pub fn put_page(&mut self, page: u64, bytes: Option<Arc<Vec<u8>>>) {
        match bytes {
            Some(bytes) => drop(self.pages.insert(page, bytes)),
            None => drop(self.pages.remove(&page)),
        }
    }

    pub fn is_trim(&self) -> bool {
        let last = self.size / PAGE;
        self.pages.range(self.size.div_ceil(PAGE)..).next().is_none()
            && self.pages.get(&last).is_none_or(|bytes| {
                bytes.iter().skip(usize::try_from(self.size % PAGE).unwrap_or(0)).all(|byte| *byte == 0)
            })
    }

    /// No bytes behind the end.
    pub fn trim(&mut self) {
        let size = self.size;
        self.pages.split_off(&size.div_ceil(PAGE));
        let keep = usize::try_from(size % PAGE).unwrap_or(0);
        if keep > 0
            && let Some(bytes) = self.pages.get_mut(&(size / PAGE))
        {
            Arc::make_mut(bytes)[keep..].fill(0);
        }
    }

    pub fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        let whole = offset.div_ceil(PAGE)..end / PAGE;
        if !whole.is_empty() {
            let inside: Vec<u64> = self.pages.range(whole).map(|(page, _)| *page).collect();
            for page in inside {
                self.pages.remove(&page);
            }
        }
        let edges = [(offset, end.min(offset.next_multiple_of(PAGE))), (offset.max(end / PAGE * PAGE), end)];
        for (page, from, to) in edges.into_iter().flat_map(|(from, to)| parts(from, to)) {
            if self.pages.contains_key(&page) {
                self.page(page)[from..to].fill(0);
            }
        }
    }

    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            // Old bytes must not come back when it grows again.
            self.punch(size, u64::MAX);
            self.pages.split_off(&size.div_ceil(PAGE));
        }
        self.size = size;
    }

    /// Parts with data, ascending, neighbours joined.
    pub fn data_ranges(&self, offset: u64, len: u64) -> Vec<(u64, u64)> {
        let end = offset.saturating_add(len).min(self.size);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        if offset >= end {
            return ranges;
        }
        for page in self.pages.range(offset / PAGE..end.div_ceil(PAGE)).map(|(page, _)| *page) {
            let (from, to) = ((page * PAGE).max(offset), ((page + 1) * PAGE).min(end));
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 == from => last.1 += to - from,
                _ => ranges.push((from, to - from)),
            }
        }
        ranges
    }
}

const PAGE_LEN: usize = 4096;

/// The pages of `offset..end`, each with the part of it that is meant.
fn parts(offset: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let pages = if offset < end { offset / PAGE..end.div_ceil(PAGE) } else { 0..0 };
    pages.map(move |page| {
        let within = |at: u64| usize::try_from(at.saturating_sub(page * PAGE)).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        (page, within(offset), within(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_as_a_plain_vector_of_bytes() {
        let (mut content, mut plain, mut random) = (Content::default(), Vec::<u8>::new(), 12345u64);
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..2000 {
            let (at, len) = (next(20_000), next(9_000));
            let (from, to) = (at as usize, (at + len) as usize);
            match next(4) {
                0 => {
                    let data = vec![next(255) as u8 + 1; len as usize];
                    if len > 0 {
                        plain.resize(plain.len().max(to), 0);
                        plain[from..to].copy_from_slice(&data);
                    }
                    content.write(at, &data);
                }
                1 => {
                    content.punch(at, len);
                    let end = to.min(plain.len());
                    if from < end {
                        plain[from..end].fill(0);
                    }
                }
                2 => {
                    content.resize(at);
                    plain.resize(from, 0);
                }
                _ => assert_eq!(
                    content.read(at, len),
                    plain.get(from..).unwrap_or(&[])[..(to.min(plain.len()).saturating_sub(from))]
                ),
            }
            assert_eq!(content.size, plain.len() as u64);
            let mut rebuilt = vec![0; plain.len()];
            for (from, len) in content.data_ranges(0, u64::MAX) {
                let (from, to) = (from as usize, (from + len) as usize);
                rebuilt[from..to].copy_from_slice(&plain[from..to]);
            }
            assert_eq!(rebuilt, plain, "what is not in a data range is zeros");
        }
    }
}
