//! Digest of a file's range that does not depend on where a filer keeps holes: BLAKE3 over (offset, bytes) of every
//! [`BLOCK`]-aligned block that holds a byte other than zero, ascending. Offsets are the file's, little-endian.

/// Bytes of a block.
pub const BLOCK: usize = 64 << 10;

pub struct RangeDigest {
    hasher: blake3::Hasher,
    /// Offset of the block being filled, and its bytes so far (at most [`BLOCK`]).
    at: u64,
    block: Vec<u8>,
}

impl Default for RangeDigest {
    fn default() -> Self {
        Self { hasher: blake3::Hasher::new(), at: 0, block: Vec::with_capacity(BLOCK) }
    }
}

impl RangeDigest {
    /// Bytes at an offset at or past everything given so far; what lies between are zeros.
    pub fn update(&mut self, mut offset: u64, mut data: &[u8]) {
        const B: u64 = BLOCK as u64;
        while !data.is_empty() {
            let start = offset / B * B;
            if start != self.at {
                self.close();
                self.at = start;
            }
            let within = usize::try_from(offset - start).unwrap_or(0);
            let take = data.len().min(BLOCK - within);
            self.block.resize(within.max(self.block.len()), 0);
            self.block.extend_from_slice(&data[..take]);
            offset += take as u64;
            data = &data[take..];
        }
    }

    fn close(&mut self) {
        while self.block.last() == Some(&0) {
            self.block.pop();
        }
        if !self.block.is_empty() {
            self.block.resize(BLOCK, 0);
            self.hasher.update(&self.at.to_le_bytes());
            self.hasher.update(&self.block);
            self.block.clear();
        }
    }

    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        self.close();
        *self.hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[(u64, &[u8])]) -> [u8; 32] {
        let mut digest = RangeDigest::default();
        for (offset, data) in parts {
            digest.update(*offset, data);
        }
        digest.finish()
    }

    #[test]
    fn holes_and_written_zeros_give_the_same_digest() {
        let mut dense = vec![0u8; 5 * BLOCK + 10];
        dense[3 * BLOCK + 7] = 1;
        dense[5 * BLOCK + 9] = 2;
        let whole = digest(&[(0, &dense)]);
        assert_eq!(whole, digest(&[(3 * BLOCK as u64 + 7, &[1]), (5 * BLOCK as u64 + 9, &[2])]));
        let cut: Vec<(u64, &[u8])> = dense.chunks(1000).enumerate().map(|(n, c)| (n as u64 * 1000, c)).collect();
        assert_eq!(whole, digest(&cut));
        assert_ne!(whole, digest(&[(3 * BLOCK as u64 + 8, &[1]), (5 * BLOCK as u64 + 9, &[2])]));
        assert_eq!(digest(&[]), digest(&[(0, &[0; 100])]));
    }
}
