//! A share that was counted, and how sure the count makes it.

use std::fmt;

use serde::{Deserialize, Serialize};
use statrs::function::beta::inv_beta_reg;

/// `count` of `of` samples, with the exact 95 % bounds of the share (Clopper and Pearson, 1934).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proportion {
    /// Samples that have the property.
    pub count: u64,
    /// Samples looked at.
    pub of: u64,
    /// `count / of`.
    pub rate: f64,
    /// Lower bound of the rate.
    pub low: f64,
    /// Upper bound of the rate.
    pub high: f64,
}

impl Proportion {
    /// `count` of `of`; `None` of no samples.
    ///
    /// # Panics
    /// If `count` is more than `of`.
    pub fn new(count: u64, of: u64) -> Option<Proportion> {
        assert!(count <= of, "{count} of {of}");
        if of == 0 {
            return None;
        }
        let (k, n) = (count as f64, of as f64);
        const TAIL: f64 = 0.025;
        let low = if count == 0 { 0.0 } else { inv_beta_reg(k, n - k + 1.0, TAIL) };
        let high = if count == of { 1.0 } else { inv_beta_reg(k + 1.0, n - k, 1.0 - TAIL) };
        Some(Proportion { count, of, rate: k / n, low, high })
    }

    /// The share of the flags that are set; `None` of no flags.
    pub fn of(flags: impl IntoIterator<Item = bool>) -> Option<Proportion> {
        let (mut count, mut of) = (0, 0);
        for flag in flags {
            count += u64::from(flag);
            of += 1;
        }
        Proportion::new(count, of)
    }

    /// Whether the numbers are those of its two counts: a file may say anything.
    pub(super) fn is_consistent(&self) -> bool {
        let own = |p: &Proportion| [p.rate, p.low, p.high];
        self.count <= self.of
            && Proportion::new(self.count, self.of)
                .is_some_and(|p| own(&p).iter().zip(own(self)).all(|(a, b)| (a - b).abs() < 1e-9))
    }
}

impl fmt::Display for Proportion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rate, low, high] = [self.rate, self.low, self.high].map(|share| 100.0 * share);
        write!(f, "{rate:.2} % [{low:.2}, {high:.2}] ({} of {})", self.count, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_scipys() {
        // scipy.stats.binomtest(k, n).proportion_ci(0.95, "exact")
        let cases: &[(u64, u64, f64, f64)] = &[
            (0, 1, 0.0, 0.975),
            (1, 1, 0.025000000000000022, 1.0),
            (0, 13, 0.0, 0.2470526380005036),
            (1, 13, 0.001945628497348544, 0.36029743526787744),
            (13, 13, 0.7529473619994964, 1.0),
            (3, 60, 0.010432329644348218, 0.13924324672110006),
            (57, 60, 0.8607567532789, 0.9895676703556517),
            (518, 948, 0.5140924313380297, 0.5784454054414087),
            (43, 534, 0.05888671553810771, 0.10693460931743573),
            (1, 11180, 2.26455983210369e-06, 0.0004982562045366782),
            (5590, 11180, 0.490688053839661, 0.5093119461603389),
            (11179, 11180, 0.9995017437954633, 0.9999977354401679),
            (50000, 1000000, 0.049573639547326395, 0.05042896936845124),
        ];
        for &(count, of, low, high) in cases {
            let found = Proportion::new(count, of).unwrap();
            assert!((found.low - low).abs() < 1e-10 * low.max(1e-3), "{count} of {of}: {} {low}", found.low);
            assert!((found.high - high).abs() < 1e-10, "{count} of {of}: {} {high}", found.high);
            assert!(found.is_consistent());
        }
        assert_eq!(Proportion::new(0, 0), None);
    }

    #[test]
    fn bounds_satisfy_the_binomial_tails_they_are_defined_by() {
        // P(X >= k | low) = 0.025 and P(X <= k | high) = 0.025, summed term by term.
        let term = |n: u64, k: u64, p: f64| {
            let choose: f64 = (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum();
            (choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp()
        };
        for n in [1u64, 2, 7, 60, 333] {
            for k in (0..=n).step_by(1 + n as usize / 9) {
                let found = Proportion::new(k, n).unwrap();
                if k > 0 {
                    let tail: f64 = (k..=n).map(|x| term(n, x, found.low)).sum();
                    assert!((tail - 0.025).abs() < 1e-10, "{k} of {n}: {tail}");
                }
                if k < n {
                    let tail: f64 = (0..=k).map(|x| term(n, x, found.high)).sum();
                    assert!((tail - 0.025).abs() < 1e-10, "{k} of {n}: {tail}");
                }
            }
        }
    }
}
