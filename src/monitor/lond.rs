//! Online control of the false discovery rate by LOND, valid for conformal p-values of one calibration set.

/// The LOND procedure ("levels based on number of discoveries", Javanmard and Montanari, 2015): the t-th p-value is a discovery if it is at
/// most α_t = α γ_t (D + 1), where D discoveries came before and the γ_t sum to 1.
///
/// The false discovery rate, the expected share of discoveries that are false, is at most α at every step. Proof under positive dependence
/// (p-values that are PRDS on the nulls; Zrnic, Ramdas and Jordan, 2021, have the statement): if the t-th is a discovery, there are at
/// least D + 1 in the end, so the rate is at most the sum over nulls of E\[1{p_t ≤ α γ_t (D + 1)} / (D + 1)\]. D + 1 does not increase in
/// any p-value, and then PRDS bounds each term by α γ_t (Blanchard and Roquain, 2008). Conformal p-values that share a
/// calibration set are PRDS on the nulls if scores have no ties and known samples are independent of each other and of everything else
/// (Bates, Candès, Lei, Romano and Sesia, 2023, Theorem 2). The expectation is also over the calibration set.
///
/// γ_t = 1 / (t H), H the sum of 1/t over the horizon, and 0 beyond it. A conformal p-value is at least 1/(n + 1), so a discovery
/// needs D + 1 ≥ t H / (α (n + 1)): with these γ_t it is a constant share of discoveries that keeps the procedure going.
#[derive(Debug, Clone, PartialEq)]
pub struct Lond {
    alpha: f64,
    horizon: u64,
    /// H, the sum of 1/t for t in 1..=horizon.
    harmonic: f64,
    tested: u64,
    discoveries: u64,
}

/// One test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tested {
    /// α_t, the level that the p-value was compared with.
    pub level: f64,
    /// Whether it is a discovery.
    pub discovery: bool,
}

impl Lond {
    /// Nothing tested yet; `alpha` is the false discovery rate, `horizon` the number of tests whose γ_t sum to 1.
    pub fn new(alpha: f64, horizon: u64) -> Lond {
        Lond::resumed(alpha, horizon, 0, 0)
    }

    /// After some tests and discoveries.
    pub fn resumed(alpha: f64, horizon: u64, tested: u64, discoveries: u64) -> Lond {
        Lond { alpha, horizon, harmonic: harmonic(horizon), tested, discoveries }
    }

    /// The level of the next test.
    pub fn level(&self) -> f64 {
        let step = self.tested + 1;
        if step > self.horizon {
            return 0.0;
        }
        self.alpha * (self.discoveries + 1) as f64 / (step as f64 * self.harmonic)
    }

    /// Tests the next p-value.
    pub fn test(&mut self, p_value: f64) -> Tested {
        let level = self.level();
        let discovery = p_value <= level;
        self.tested += 1;
        self.discoveries += u64::from(discovery);
        Tested { level, discovery }
    }

    /// The false discovery rate that is kept.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Number of tests whose γ_t sum to 1.
    pub fn horizon(&self) -> u64 {
        self.horizon
    }

    /// Number of p-values tested.
    pub fn tested(&self) -> u64 {
        self.tested
    }

    /// Number of discoveries.
    pub fn discoveries(&self) -> u64 {
        self.discoveries
    }

    /// The last step at which the smallest p-value of `calibration` samples, 1/(n + 1), would be a discovery if none comes before it.
    pub fn last_possible(&self, calibration: u64) -> u64 {
        let steps = (self.discoveries + 1) as f64 * self.alpha * (calibration as f64 + 1.0) / self.harmonic;
        (steps as u64).min(self.horizon)
    }

    /// The share of discoveries that keeps further ones possible with so many calibration samples, H / (α (n + 1)).
    pub fn sustaining_share(&self, calibration: u64) -> f64 {
        self.harmonic / (self.alpha * (calibration as f64 + 1.0))
    }

    /// The number of calibration samples from which on a discovery is possible at all.
    pub fn least_calibration(&self) -> u64 {
        (self.harmonic / self.alpha - 1.0).ceil().max(1.0) as u64
    }

    /// The longest horizon with which a discovery is possible with so many calibration samples; 0 if none is.
    pub fn longest_horizon(&self, calibration: u64) -> u64 {
        let most = self.alpha * (calibration as f64 + 1.0);
        let (mut possible, mut impossible) = (0, self.horizon + 1);
        while impossible - possible > 1 {
            let middle = possible.midpoint(impossible);
            if harmonic(middle) <= most { possible = middle } else { impossible = middle }
        }
        possible
    }
}

/// 1 + 1/2 + … + 1/n: summed, or by its asymptotic series, whose error is below 1e-14 where it is used.
fn harmonic(n: u64) -> f64 {
    const SUMMED: u64 = 1000;
    if n <= SUMMED {
        return (1..=n).rev().map(|t| 1.0 / t as f64).sum();
    }
    const EULER_MASCHERONI: f64 = 0.577_215_664_901_532_9;
    let n = n as f64;
    n.ln() + EULER_MASCHERONI + 0.5 / n - 1.0 / (12.0 * n * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn decisions_are_those_of_a_plain_loop_over_all_earlier_ones() {
        let mut discoveries = 0;
        for case in 0..40u64 {
            let stream = Stream::for_purpose(9, Purpose::Synthetic, &[case]);
            let (alpha, horizon) =
                ([0.05, 0.2, 0.5][case as usize % 3], [30, 400, 100_000][case as usize / 3 % 3]);
            let p: Vec<f64> =
                (0..300).map(|i| (stream.uniform(i).powi(4) * 1000.0).ceil() / 1000.0).collect();
            let sum: f64 = (1..=horizon).map(|t| 1.0 / t as f64).sum();
            let mut lond = Lond::new(alpha, horizon);
            let mut decisions: Vec<bool> = Vec::new();
            for (index, p) in p.iter().enumerate() {
                let t = index as u64 + 1;
                let gamma = if t <= horizon { 1.0 / t as f64 / sum } else { 0.0 };
                let level = alpha * gamma * (1.0 + decisions.iter().filter(|made| **made).count() as f64);
                let tested = lond.test(*p);
                assert!((tested.level - level).abs() <= 1e-13 * level, "{tested:?} {level}");
                assert_eq!(tested.discovery, *p <= level, "case {case}, step {t}");
                decisions.push(tested.discovery);
            }
            assert_eq!(lond.discoveries(), decisions.iter().filter(|made| **made).count() as u64);
            discoveries += lond.discoveries();
        }
        assert!(discoveries > 1000, "{discoveries} discoveries in 12,000 tests");
    }

    #[test]
    fn the_sum_of_the_horizon_is_the_same_by_its_series() {
        for n in [1, 2, 999, 1000, 1001, 5000, 1_000_000] {
            let plain: f64 = (1..=n).rev().map(|t| 1.0 / t as f64).sum();
            assert!((harmonic(n) - plain).abs() < 1e-13 * plain, "{n}: {} {plain}", harmonic(n));
        }
    }

    #[test]
    fn what_a_calibration_set_allows_is_what_the_smallest_p_value_attains() {
        for (alpha, horizon, n) in
            [(0.05, 1_000_000, 5000), (0.05, 1_000_000, 100), (0.1, 50, 100), (0.05, 4, 100)]
        {
            let smallest = 1.0 / (n + 1) as f64;
            let lond = Lond::new(alpha, horizon);
            let discovers = |tested: u64| Lond::resumed(alpha, horizon, tested, 0).test(smallest).discovery;
            let last = lond.last_possible(n);
            assert!(last == 0 || discovers(last - 1), "{alpha} {horizon} {n}");
            assert!(!discovers(last), "{alpha} {horizon} {n}: {last}");
            assert_eq!(n >= lond.least_calibration(), last > 0);
            let longest = lond.longest_horizon(n);
            let first = |horizon: u64| Lond::new(alpha, horizon).test(smallest).discovery;
            assert!(longest == 0 || first(longest), "{longest}");
            assert!(longest == horizon || !first(longest + 1), "{longest}");
        }
        assert_eq!(Lond::new(0.05, 1_000_000).longest_horizon(5), 0);
    }
}
