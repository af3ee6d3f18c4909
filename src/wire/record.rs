//! Record marking (RFC 5531 §11): a record is fragments, each with a four-byte header, the last one marked.
//!
//! Memory grows with the bytes that have arrived, never with what a header promises: [`Assembler::room`] asks for at
//! most three times what is there already. A record and its fragments are bounded; what goes past a bound is an error
//! that closes the connection, because nothing behind it can be framed.

use bytes::{Buf, Bytes, BytesMut};

/// Largest WRITE or READ data, in bytes. The gateway asserts that FSINFO says the same.
pub const DATA_MAX: usize = 1 << 20;
/// Longest record, and so longest fragment, in bytes: the data of the largest WRITE and 4 KiB for what is around it.
pub const RECORD_MAX: usize = DATA_MAX + (4 << 10);
/// Most fragments in one record; empty ones count.
pub const FRAGMENTS_MAX: u32 = 64;
/// Bit that marks the last fragment.
pub const LAST: u32 = 1 << 31;

/// Records up to this many bytes are copied out of the receive buffer, so that a small call does not keep a large
/// buffer alive while it runs.
const COPY_MAX: usize = 4 << 10;
/// Reading step where nothing more is known.
const STEP: usize = 8 << 10;
/// A receive buffer larger than this is given back when its record is done.
const KEEP_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("a record of more than {RECORD_MAX} bytes")]
    TooLong,
    #[error("a record of more than {FRAGMENTS_MAX} fragments")]
    TooManyFragments,
}

/// Puts records together from what a socket delivers.
#[derive(Debug, Default)]
pub struct Assembler {
    buf: BytesMut,
    /// Fragments of the current record that are complete but not the last.
    body: BytesMut,
    fragments: u32,
}

impl Assembler {
    /// Where to read into: make [`room`](Self::room) for that many bytes first.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let room = self.room();
        self.buf.reserve(room);
        &mut self.buf
    }

    /// Some bytes of a record have come, but not all.
    #[must_use]
    pub fn begun(&self) -> bool {
        !self.buf.is_empty() || self.fragments > 0
    }

    /// Bytes of the current record that have come.
    #[must_use]
    pub fn received(&self) -> usize {
        self.body.len() + self.buf.len()
    }

    /// Most bytes the current record can come to, as far as its headers tell; 0 before a header is there.
    #[must_use]
    pub fn expected(&self) -> usize {
        match self.header() {
            _ if self.fragments > 0 => RECORD_MAX,
            Some((len, true)) => len,
            Some((_, false)) => RECORD_MAX,
            None => 0,
        }
    }

    fn header(&self) -> Option<(usize, bool)> {
        let word = u32::from_be_bytes(*self.buf.first_chunk::<4>()?);
        Some(((word & !LAST) as usize, word & LAST != 0))
    }

    fn room(&self) -> usize {
        let Some((len, _)) = self.header() else { return STEP };
        let missing = (len + 4).saturating_sub(self.buf.len());
        missing.min(self.received().saturating_mul(3)).max(STEP)
    }

    /// The next whole record, if there is one.
    pub fn take_record(&mut self) -> Result<Option<Bytes>, FramingError> {
        while let Some((len, last)) = self.header() {
            if len > RECORD_MAX - self.body.len() {
                return Err(FramingError::TooLong);
            }
            if self.fragments >= FRAGMENTS_MAX {
                return Err(FramingError::TooManyFragments);
            }
            if self.buf.len() - 4 < len {
                return Ok(None);
            }
            self.buf.advance(4);
            if last && self.fragments == 0 {
                return Ok(Some(self.take(len)));
            }
            self.fragments += 1;
            self.body.extend_from_slice(&self.buf[..len]);
            self.buf.advance(len);
            if last {
                self.fragments = 0;
                return Ok(Some(std::mem::take(&mut self.body).freeze()));
            }
        }
        Ok(None)
    }

    /// The front `len` bytes of the buffer as a record: the whole of it had one fragment.
    fn take(&mut self, len: usize) -> Bytes {
        let record = if len <= COPY_MAX {
            let copy = Bytes::copy_from_slice(&self.buf[..len]);
            self.buf.advance(len);
            copy
        } else {
            let slice = self.buf.split_to(len).freeze();
            // What is left shares the allocation with the record: do not keep it alive while the connection idles.
            self.buf = BytesMut::from(&self.buf[..]);
            slice
        };
        if self.buf.is_empty() && self.buf.capacity() > KEEP_MAX {
            self.buf = BytesMut::new();
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(data: &[u8], last: bool) -> Vec<u8> {
        let mark = u32::try_from(data.len()).unwrap() | if last { LAST } else { 0 };
        [&mark.to_be_bytes()[..], data].concat()
    }

    fn feed(a: &mut Assembler, bytes: &[u8]) -> Result<Vec<Bytes>, FramingError> {
        a.buffer().extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(r) = a.take_record()? {
            out.push(r);
        }
        Ok(out)
    }

    #[test]
    fn records_come_out_whole_however_the_bytes_are_cut() {
        let wire =
            [fragment(b"one", true), fragment(b"tw", false), fragment(b"", false), fragment(b"o", true)].concat();
        for cut in 0..=wire.len() {
            let mut a = Assembler::default();
            let mut got = feed(&mut a, &wire[..cut]).unwrap();
            got.extend(feed(&mut a, &wire[cut..]).unwrap());
            assert_eq!(got, [&b"one"[..], b"two"], "cut at {cut}");
            assert!(!a.begun());
        }
        let mut a = Assembler::default();
        let got: Vec<Bytes> = wire.iter().flat_map(|b| feed(&mut a, &[*b]).unwrap()).collect();
        assert_eq!(got, [&b"one"[..], b"two"]);
    }

    #[test]
    fn a_promise_of_two_gib_is_refused_and_costs_nothing() {
        for mark in [u32::MAX, 0x7fff_ffff, u32::try_from(RECORD_MAX).unwrap() + 1] {
            let mut a = Assembler::default();
            assert_eq!(feed(&mut a, &mark.to_be_bytes()), Err(FramingError::TooLong));
            assert!(a.buf.capacity() <= 64 << 10);
        }
    }

    #[test]
    fn memory_follows_the_bytes_received_not_the_promise() {
        let mut a = Assembler::default();
        feed(&mut a, &(LAST | 1_000_000).to_be_bytes()).unwrap();
        for _ in 0..100 {
            let before = a.received();
            let _ = a.buffer();
            assert!(a.buf.capacity() <= (before * 8).max(4 * STEP), "{} for {before}", a.buf.capacity());
            feed(&mut a, &[0; 1000]).unwrap();
        }
    }

    #[test]
    fn fragments_without_end_are_refused_by_number_and_by_size() {
        let mut a = Assembler::default();
        let mut outcome = Ok(Vec::new());
        for _ in 0..=FRAGMENTS_MAX {
            outcome = feed(&mut a, &fragment(b"", false));
        }
        assert_eq!(outcome, Err(FramingError::TooManyFragments));
        let mut a = Assembler::default();
        let big = fragment(&vec![0; RECORD_MAX / 2 + 1], false);
        assert_eq!(feed(&mut a, &big), Ok(vec![]));
        assert_eq!(feed(&mut a, &big), Err(FramingError::TooLong));
    }

    #[test]
    fn a_large_record_is_not_copied_and_does_not_stay() {
        let mut a = Assembler::default();
        let data = vec![7u8; 500_000];
        let got = feed(&mut a, &fragment(&data, true)).unwrap();
        assert_eq!(got[0], data);
        assert_eq!(a.buf.capacity(), 0);
    }
}
