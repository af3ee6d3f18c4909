//! Contents of files that need no keeping: every byte is a function of a seed and of its offset in the file.

/// SplitMix64: one step of it over any number is a good hash; also the demo's random numbers.
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bytes at `offset` of a file filled from `seed`.
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let key = mix(seed);
    let mut at = offset;
    let mut rest = out;
    if at.is_multiple_of(8) {
        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&mix(key ^ (at / 8)).to_le_bytes());
            at += 8;
        }
        rest = words.into_remainder();
    }
    while !rest.is_empty() {
        let word = mix(key ^ (at / 8)).to_le_bytes();
        let skip = usize::try_from(at % 8).unwrap_or(0);
        let take = rest.len().min(8 - skip);
        rest[..take].copy_from_slice(&word[skip..skip + take]);
        at += take as u64;
        rest = &mut rest[take..];
    }
}

/// Random numbers: seeded, so a run can be repeated.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.u64() % n }
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What of a file is data, and from which seed; the rest of it is holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents(std::collections::BTreeMap<u64, (u64, u64)>);

impl Extents {
    /// `seed` from `start` to `end`, over whatever was there.
    pub fn write(&mut self, start: u64, end: u64, seed: u64) {
        self.cut(start, end);
        if start < end {
            self.0.insert(start, (end, seed));
        }
    }

    /// Nothing from `start` on.
    pub fn truncate(&mut self, start: u64) {
        self.cut(start, u64::MAX);
    }

    fn cut(&mut self, start: u64, end: u64) {
        if let Some((&s, &(e, seed))) = self.0.range(..start).next_back()
            && e > start
        {
            self.0.insert(s, (start, seed));
            if e > end {
                self.0.insert(end, (e, seed));
            }
        }
        let inside: Vec<u64> = self.0.range(start..end).map(|(s, _)| *s).collect();
        for s in inside {
            if let Some((e, seed)) = self.0.remove(&s)
                && e > end
            {
                self.0.insert(end, (e, seed));
            }
        }
    }

    /// The bytes from `offset` on, holes as zeros.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        out.fill(0);
        let end = offset.saturating_add(out.len() as u64);
        let from = self.0.range(..=offset).next_back().map_or(offset, |(s, _)| *s);
        for (&s, &(e, seed)) in self.0.range(from..end) {
            let (s, e) = (s.max(offset), e.min(end));
            if s < e {
                let at = |p: u64| usize::try_from(p - offset).unwrap_or(usize::MAX);
                fill(seed, s, &mut out[at(s)..at(e)]);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.0.iter().map(|(s, (e, seed))| (*s, *e, *seed))
    }

    /// Bytes of data, in whole blocks of `block`: what a sparse file takes at least.
    pub fn blocks(&self, block: u64) -> u64 {
        self.0.iter().map(|(s, (e, _))| (e.div_ceil(block) - s / block) * block).sum()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_depend_on_how_they_are_asked_for() {
        let mut whole = [0; 100];
        fill(7, 3, &mut whole);
        for at in 0..100 {
            let mut one = [0; 1];
            fill(7, 3 + at, &mut one);
            assert_eq!(one[0], whole[usize::try_from(at).unwrap()]);
        }
    }

    #[test]
    fn extents_are_what_a_plain_buffer_is() {
        let mut rng = Rng::new(1);
        let (mut plain, mut extents) = (vec![0u8; 400], Extents::default());
        for seed in 0..2000 {
            let (a, b) = (rng.below(400), rng.below(401));
            if rng.chance(10) {
                extents.truncate(a);
                plain[usize::try_from(a).unwrap()..].fill(0);
            } else if a < b {
                extents.write(a, b, seed);
                fill(seed, a, &mut plain[usize::try_from(a).unwrap()..usize::try_from(b).unwrap()]);
            }
            let mut out = vec![1; 400];
            extents.read(0, &mut out);
            assert_eq!(out, plain);
            let mut part = vec![1; 50];
            extents.read(a.min(350), &mut part);
            let at = usize::try_from(a.min(350)).unwrap();
            assert_eq!(part, plain[at..at + 50]);
        }
    }
}
