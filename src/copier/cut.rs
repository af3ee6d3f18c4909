//! A file's next steps: each has at most [`CHUNK`] bytes of data, and as much of holes as lies between. A file that is mostly
//! holes takes as many steps as its data does.

use super::{BYTES_AHEAD_MAX, CHUNK};
use crate::filer::{CoreFiler, Object, Result};
use journal_format::event::Range;
use journal_format::ids::NodeId;

/// So much of a file is asked about at a time; where nothing is found, twice as much.
const LOOK: u64 = BYTES_AHEAD_MAX;

/// What is to be ordered, and the bytes that will be carried over for it.
#[derive(Clone, Debug)]
pub struct Step {
    pub range: Range,
    pub data: u64,
}

/// From `from` on, for not much more than [`BYTES_AHEAD_MAX`] bytes of data. There is one at least; the file's last one says so.
pub async fn steps(filer: &dyn CoreFiler, object: &Object, node: NodeId, from: u64) -> Result<Vec<Step>> {
    let size = filer.stat(object).await?.size;
    if size.saturating_sub(from) <= CHUNK {
        return Ok(vec![last(node, from, size)]);
    }
    let mut cut = Cut { node, begin: from, data: 0, steps: Vec::new() };
    let (mut at, mut look) = (from, LOOK);
    while at < size {
        let end = size.min(at.saturating_add(look));
        let parts = filer.data_ranges(object, at, end - at).await?;
        for (start, len) in &parts {
            cut.add(*start, start.saturating_add(*len));
            if cut.is_full() {
                return Ok(cut.steps);
            }
        }
        look = if parts.is_empty() { look.saturating_mul(2) } else { LOOK };
        at = end;
    }
    Ok(cut.end(size))
}

/// The rest of the file in one step; of one that has gone, or got shorter, an empty one.
pub fn last(node: NodeId, from: u64, size: u64) -> Step {
    let len = size.saturating_sub(from);
    Step { range: Range { node, offset: from, len, last: true }, data: len }
}

struct Cut {
    node: NodeId,
    /// Where the step begins that is being put together, and its data so far.
    begin: u64,
    data: u64,
    steps: Vec<Step>,
}

impl Cut {
    fn is_full(&self) -> bool {
        self.steps.len() as u64 * CHUNK >= BYTES_AHEAD_MAX
    }

    /// Here is data.
    fn add(&mut self, mut at: u64, end: u64) {
        while at < end && !self.is_full() {
            let n = (CHUNK - self.data).min(end - at);
            self.data += n;
            at += n;
            if self.data == CHUNK {
                let range = Range { node: self.node, offset: self.begin, len: at - self.begin, last: false };
                self.steps.push(Step { range, data: CHUNK });
                (self.begin, self.data) = (at, 0);
            }
        }
    }

    /// There is no more.
    fn end(mut self, size: u64) -> Vec<Step> {
        match self.steps.last_mut() {
            Some(step) if self.begin >= size => step.range.last = true,
            _ => self.steps.push(Step { data: self.data, ..last(self.node, self.begin, size) }),
        }
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    fn cut(parts: &[(u64, u64)], size: u64) -> Vec<(u64, u64, bool, u64)> {
        let mut cut = Cut { node: NODE, begin: 0, data: 0, steps: Vec::new() };
        parts.iter().for_each(|(from, to)| cut.add(*from, *to));
        let full = cut.is_full();
        let steps = if full { cut.steps } else { cut.end(size) };
        steps.iter().map(|step| (step.range.offset, step.range.len, step.range.last, step.data)).collect()
    }

    #[test]
    fn a_file_without_holes_is_cut_into_chunks_and_the_last_one_says_so() {
        assert_eq!(cut(&[(0, 2 * CHUNK)], 2 * CHUNK), [(0, CHUNK, false, CHUNK), (CHUNK, CHUNK, true, CHUNK)]);
        assert_eq!(cut(&[(0, CHUNK + 1)], CHUNK + 1), [(0, CHUNK, false, CHUNK), (CHUNK, 1, true, 1)]);
        let many = cut(&[(0, 1 << 40)], 1 << 40);
        assert_eq!(many.len() as u64, BYTES_AHEAD_MAX / CHUNK);
        assert!(many.iter().all(|(_, len, last, _)| *len == CHUNK && !last), "the rest is for later");
    }

    #[test]
    fn holes_cost_no_step() {
        let size = i64::MAX as u64;
        assert_eq!(cut(&[], size), [(0, size, true, 0)]);
        let at = 1 << 50;
        assert_eq!(
            cut(&[(at, at + CHUNK + 5)], size),
            [(0, at + CHUNK, false, CHUNK), (at + CHUNK, size - at - CHUNK, true, 5)]
        );
        assert_eq!(cut(&[(0, 5), (at, at + 5)], size), [(0, size, true, 10)]);
    }
}
