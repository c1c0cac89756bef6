#![doc = include_str!("../README.md")]

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The first number of the stream that starts at `x`: a permutation of all 64-bit numbers that leaves no trace of their
/// order.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GOLDEN);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The number at a place: the first word is usually a seed. Places that differ in one word never have the same one.
pub fn at(place: &[u64]) -> u64 {
    place.iter().fold(0, |hash, word| mix(hash ^ word))
}

/// The number at a place below a key that [`mix`] made, in 32-bit arithmetic, so that a vector unit makes one a lane:
/// the rounds of `lowbias32` (Wellons, 2018, github.com/skeeto/hash-prospector), with a half of the key before each of
/// the first two.
#[inline(always)]
pub fn number(key: u64, place: u32) -> u32 {
    let x = place ^ key as u32;
    let x = (x ^ (x >> 16)).wrapping_mul(0x21F0_AAAD) ^ (key >> 32) as u32;
    let x = (x ^ (x >> 15)).wrapping_mul(0x735A_2D97);
    x ^ (x >> 15)
}

/// A number as a fraction, in `0..1`: its first 24 bits, which every type of duel's devices holds exactly, so that it
/// is below 1 there too.
pub fn fraction(number: u64) -> f64 {
    (number >> 40) as f64 / (1u64 << 24) as f64
}

/// The stream of SplitMix64 from a seed on.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// From its first number on.
    pub fn new(seed: u64) -> Self {
        SplitMix(seed)
    }

    /// Its next number.
    pub fn number(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(GOLDEN);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the reference implementation in C, seed 1234567.
    #[test]
    fn the_stream_is_that_of_its_authors() {
        let mut random = SplitMix::new(1_234_567);
        let first = std::array::from_fn(|_| random.number());
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    /// Below 64 keys and as many places: a quarter of the numbers is in each quarter, and so of
    /// the differences of neighbours, by key and by place.
    #[test]
    fn numbers_of_neighbours_have_nothing_in_common() {
        let all: Vec<Vec<u32>> =
            (0..64).map(|key| (0..64).map(|place| number(at(&[5, key]), place)).collect()).collect();
        let quarters = |numbers: &mut dyn Iterator<Item = u32>| {
            let mut counts = [0u32; 4];
            numbers.for_each(|number| counts[(number >> 30) as usize] += 1);
            counts
        };
        let pairs = |dk: usize, dp: usize| {
            let all = &all;
            let of = move |k: usize, p: usize| all[k + dk][p + dp].wrapping_sub(all[k][p]);
            (0..64 - dk).flat_map(move |k| (0..64 - dp).map(move |p| of(k, p)))
        };
        let each = [
            quarters(&mut all.iter().flatten().copied()),
            quarters(&mut pairs(1, 0)),
            quarters(&mut pairs(0, 1)),
            quarters(&mut pairs(1, 1)),
        ];
        for counts in each {
            let n = f64::from(counts.iter().sum::<u32>());
            // Five deviations of a binomial count.
            let bound = 5.0 * (n * 0.25 * 0.75).sqrt();
            assert!(counts.iter().all(|&c| (f64::from(c) - n / 4.0).abs() < bound), "{counts:?} of {n}");
        }
    }

    #[test]
    fn fractions_fill_the_interval() {
        assert_eq!(fraction(0), 0.0);
        assert!((fraction(u64::MAX) as f32) < 1.0);
        // 20 000 numbers of neighbouring places: the mean's deviation is 0.002, a fifth of a tenth's 0.0006 of them.
        let all: Vec<f64> = (0..100).flat_map(|a| (0..200).map(move |b| fraction(at(&[1, a, b])))).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        for tenth in 0..10 {
            let n = all.iter().filter(|&&x| (x * 10.0) as usize == tenth).count();
            assert!((n as f64 - 2000.0).abs() < 5.0 * 42.5, "{n} of {} in tenth {tenth}", all.len());
        }
    }
}
