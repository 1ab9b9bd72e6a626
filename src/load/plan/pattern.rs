//! The pseudo-random source of a run: the bytes of its files and datagrams, and random numbers.
//!
//! Content is computed, never stored, so any byte can be computed again to check it, and the same seed gives the same files
//! in every run. Knows no socket, no file and no clock.

/// One step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of `state` reaches every bit of the result.
fn scramble(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The generator's increment.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The `index`th random number of the stream `key`.
fn draw(key: u64, index: u64) -> u64 {
    scramble(key.wrapping_add(index.wrapping_add(1).wrapping_mul(GAMMA)))
}

/// A stream of random numbers for one `purpose`, so that two uses of a seed are independent.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    key: u64,
}

impl Random {
    /// The stream of `seed` for `purpose`.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self { key: draw(scramble(seed), purpose) }
    }

    /// The `index`th number of the stream, from 0 to 1, 1 excluded.
    pub fn unit(self, index: u64) -> f64 {
        const STEPS: f64 = (1_u64 << 53) as f64;
        (draw(self.key, index) >> 11) as f64 / STEPS
    }
}

/// The bytes of one file, or of one datagram.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    key: u64,
}

impl Pattern {
    /// The bytes of file `number`.
    pub fn new(seed: u64, number: u64) -> Self {
        Self { key: draw(seed, number) }
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let (first_word, skipped) = (offset / 8, (offset % 8) as usize);
        let head = buffer.len().min((8 - skipped) % 8);
        let (unaligned, aligned) = buffer.split_at_mut(head);
        unaligned.copy_from_slice(&self.word(first_word)[skipped..][..head]);
        let words = first_word + u64::from(skipped > 0)..;
        for (chunk, word) in aligned.chunks_mut(8).zip(words) {
            match chunk.first_chunk_mut() {
                Some(whole) => *whole = self.word(word),
                None => chunk.copy_from_slice(&self.word(word)[..chunk.len()]),
            }
        }
    }

    /// The position in `found` of the first byte that differs from the file. `found` begins at `offset` of the file;
    /// `scratch` is as long.
    pub fn first_difference(self, offset: u64, found: &[u8], scratch: &mut [u8]) -> Option<usize> {
        let expected = &mut scratch[..found.len()];
        self.fill(offset, expected);
        if found == expected {
            return None;
        }
        found.iter().zip(expected).position(|(found, expected)| *found != *expected)
    }

    fn word(self, index: u64) -> [u8; 8] {
        draw(self.key, index).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_piece_is_the_same_as_in_the_whole(seed: u64, number: u64, offset in 0..40_u64, length in 0..80_usize) {
            let pattern = Pattern::new(seed, number);
            let mut whole = [0; 128];
            pattern.fill(0, &mut whole);
            let mut piece = vec![0; length];
            pattern.fill(offset, &mut piece);
            prop_assert_eq!(&piece, &whole[offset as usize..][..length]);
        }
    }

    #[test]
    fn files_and_seeds_differ_from_their_first_bytes() {
        let start = |seed, number| {
            let mut start = [0; 8];
            Pattern::new(seed, number).fill(0, &mut start);
            start
        };
        let mut starts: Vec<_> = (0..100).flat_map(|seed| (0..100).map(move |number| start(seed, number))).collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), 10_000);
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let pattern = Pattern::new(7, 3);
        let mut found = [0; 100];
        pattern.fill(1000, &mut found);
        let mut scratch = [0; 100];
        assert_eq!(pattern.first_difference(1000, &found, &mut scratch), None);
        found[41] ^= 1;
        assert_eq!(pattern.first_difference(1000, &found, &mut scratch), Some(41));
    }

    #[test]
    fn random_units_fill_their_range_evenly() {
        let random = Random::new(1, 2);
        let mean = (0..10_000).map(|index| random.unit(index)).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
        assert!((0..10_000).all(|index| (0.0..1.0).contains(&random.unit(index))));
    }
}
