//! Randomness without state: a draw depends on the seed and on what it is for, never on what was
//! drawn before.
//!
//! That is what makes a user's rows the same in every store. Only integers are used, because `exp`
//! and `ln` may differ in the last bit from one platform to the next, and then the bytes would
//! differ too.

/// What a stream of random numbers is for. Streams with different purposes share nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Country = 1,
    Person,
    Life,
    Contact,
    Rank,
    Count,
    User,
    Profile,
    Device,
    Video,
    Follow,
    Message,
    Watch,
    Payment,
    Card,
    Turn,
}

/// A `SplitMix64` generator (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
/// 2014).
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64`: a bijection in which each input bit reaches each output bit.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream for `purpose`, of `user`, for their item number `item`.
    pub(super) fn at(seed: u64, purpose: Purpose, user: u32, item: u32) -> Self {
        let whom = (u64::from(user) << 32) | u64::from(item);
        let what = mix(seed.wrapping_add(GOLDEN.wrapping_mul(purpose as u64)));
        Self(mix(what ^ mix(whom.wrapping_add(GOLDEN))))
    }

    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number from 0 to `n - 1`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// A number from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most - least + 1)
    }

    /// True in `percent` of 100 cases.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which are never empty here: they are the lists of `words` and `phrases`.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let n = u32::try_from(items.len()).unwrap_or(u32::MAX);
        items[self.below(n) as usize]
    }

    /// One of `items`, each as often as its `weight` says in relation to the sum of all.
    pub(super) fn weighted<'a, T>(&mut self, items: &'a [T], weight: impl Fn(&T) -> u32) -> &'a T {
        let mut left = self.below(items.iter().map(&weight).sum());
        for item in items {
            match left.checked_sub(weight(item)) {
                Some(rest) => left = rest,
                None => return item,
            }
        }
        &items[items.len() - 1]
    }

    /// A rank from 0 to `n - 1`, low ones far more often: roughly Zipf's law. Each octave of ranks
    /// is as likely as the next, except that the first eight ranks count as one, so that nobody is
    /// absurdly famous.
    pub(super) fn rank(&mut self, n: u32) -> u32 {
        const HEAD: u32 = 3;
        let top = n.saturating_sub(1);
        let octaves = u32::BITS - top.leading_zeros();
        if octaves <= HEAD {
            return self.below(n);
        }
        let octave = self.between(HEAD, octaves);
        if octave == HEAD {
            return self.below(1 << HEAD);
        }
        let least = 1 << (octave - 1);
        self.between(least, (least + (least - 1)).min(top))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_stay_below_n_and_favour_the_first() {
        for n in [1, 2, 7, 8, 9, 100, 4711] {
            let mut rng = Rng::at(1, Purpose::Rank, n, 0);
            let ranks: Vec<u32> = (0..2000).map(|_| rng.rank(n)).collect();
            assert!(ranks.iter().all(|&rank| rank < n), "n = {n}");
            if n == 4711 {
                let low = ranks.iter().filter(|&&rank| rank < n / 8).count();
                assert!(low > 1000, "only {low} of 2000 in the first eighth");
            }
        }
    }

    #[test]
    fn streams_of_neighbours_differ() {
        let first = |purpose, user, item| Rng::at(7, purpose, user, item).bits();
        let here = first(Purpose::Device, 10, 0);
        assert_ne!(here, first(Purpose::Device, 11, 0));
        assert_ne!(here, first(Purpose::Device, 10, 1));
        assert_ne!(here, first(Purpose::Video, 10, 0));
    }
}
