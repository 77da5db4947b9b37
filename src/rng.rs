//! Counter-based random numbers: the i-th number of a stream is a pure function of (key, i).
//!
//! A stream is named by a seed and a path of words, for instance (seed, purpose, epoch, sample), so the augmentation
//! of one sample never depends on thread count, batch size or where a run was resumed. The mixing function is
//! splitmix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), three lines
//! that a GPU kernel or a Python script can repeat:
//!
//! ```text
//! mix(z):    z = (z ^ z>>30) * 0xBF58476D1CE4E5B9;  z = (z ^ z>>27) * 0x94D049BB133111EB;  z ^ z>>31
//! key:       key = mix(seed);  for each word w:  key = mix(key + w * 0x9E3779B97F4A7C15)
//! bits(i)    = mix(key + (i + 1) * 0x9E3779B97F4A7C15)
//! uniform(i) = (bits(i) >> 11) * 2^-53
//! ```
//! all modulo 2^64.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The use of a stream: the first word after the seed, so that no two uses share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights; next word: index of the parameter.
    Initialise = 1,
    /// Order of the samples in an epoch; next word: epoch.
    Shuffle = 2,
    /// Augmentation of one sample; next words: epoch, sample, and where it came before in the epoch, how often.
    Augment = 3,
    /// Random subsets of a data set (`?sample=N,seed=S`).
    Subset = 4,
    /// Bootstrap resamples; next word: replicate.
    Bootstrap = 5,
    /// Synthetic data of tests and benchmarks.
    Synthetic = 6,
    /// Samples of an epoch in which classes have the same chance; next word: epoch.
    Balance = 7,
    /// Division of a class's images into parts; next word: class.
    Split = 10,
    /// Classes held out from training; next words: what is chosen, fold or superclass.
    HoldOut = 11,
    /// Outliers drawn from another data set.
    Outliers = 12,
    /// Samples looked at to compare two data sets; next word: which of the two.
    Compare = 13,
    /// Ties between the scores of a monitored stream; the index is the step.
    Ties = 14,
}

/// One stream of random numbers, addressed by index.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream named by a seed and a path of words.
    pub fn new(seed: u64, path: &[u64]) -> Stream {
        let key = path.iter().fold(mix(seed), |key, word| mix(key.wrapping_add(word.wrapping_mul(GOLDEN))));
        Stream { key }
    }

    /// The stream for a purpose, with further words.
    pub fn for_purpose(seed: u64, purpose: Purpose, path: &[u64]) -> Stream {
        let mut words = vec![purpose as u64];
        words.extend_from_slice(path);
        Stream::new(seed, &words)
    }

    /// 64 random bits at index `i`.
    pub fn bits(&self, i: u64) -> u64 {
        mix(self.key.wrapping_add(i.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// A number in [0, 1) at index `i`, with 53 random bits.
    pub fn uniform(&self, i: u64) -> f64 {
        (self.bits(i) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An integer in 0..n at index `i` (n > 0), by the multiply-shift method; its bias is below n / 2^64.
    pub fn below(&self, i: u64, n: u64) -> u64 {
        assert!(n > 0, "an empty range has no random member");
        ((u128::from(self.bits(i)) * u128::from(n)) >> 64) as u64
    }

    /// A standard normal number at index `i` (Box-Muller on the uniforms 2i and 2i+1).
    pub fn normal(&self, i: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * i)).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform(2 * i + 1)).cos()
    }

    /// A random permutation of 0..n (Fisher-Yates from the end, number j from index j).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        assert!(u32::try_from(n).is_ok(), "a data set has at most 2^32 - 1 samples");
        let mut order: Vec<u32> = (0..n as u32).collect();
        for j in (1..n).rev() {
            order.swap(j, self.below(j as u64, j as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_match_the_documented_generator() {
        // The first numbers of seed 1, stream 1, as an independent Python implementation prints them.
        let stream = Stream::new(1, &[1]);
        let expected = [0.335_042_560_921_693_4, 0.982_508_636_220_239_3, 0.339_285_646_614_916_3];
        for (i, want) in expected.iter().enumerate() {
            assert!((stream.uniform(i as u64) - want).abs() < 1e-15);
        }
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Stream::for_purpose(7, Purpose::Shuffle, &[3]).permutation(1001);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let stream = Stream::for_purpose(1, Purpose::Synthetic, &[]);
        let n = 100_000;
        let (sum, squares) =
            (0..n).map(|i| stream.normal(i)).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        assert!((sum / n as f64).abs() < 0.02 && (squares / n as f64 - 1.0).abs() < 0.02);
    }
}
