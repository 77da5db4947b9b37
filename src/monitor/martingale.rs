//! A conformal test martingale: evidence against exchangeability that may be looked at after every step.

use std::array;

/// The bets below are powers of a p-value, κ p^(κ − 1); these are the exponents 1 − κ of 1/p.
const EXPONENTS: [f64; 4] = [0.75, 0.5, 0.25, 0.125];
/// One that stakes nothing, and of each exponent one on small p-values and one on large ones.
const BETS: usize = 1 + 2 * EXPONENTS.len();
/// Shares of the capital that change their bet in a step.
const RATES: [f64; 5] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6];

/// A test martingale on conformal p-values: they are independent and uniform on (0, 1) as long as the scores are exchangeable, in
/// whatever order; then the capital, which starts at 1, is a non-negative martingale, and it ever reaches 1/δ with probability at most δ
/// (Ville's inequality).
///
/// The capital is divided equally over five rates and nine bets: none, and κ p^(κ − 1) and κ (1 − p)^(κ − 1) for κ = 1/4, 1/2, 3/4, 7/8, so
/// that lower scores, higher scores, large and small shifts are all betted on (two-sided). In every step the share `rate` of each
/// rate's capital is divided anew over its bets: the composite of Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or
/// not retrain: conformal test martingales for change-point detection" (2021), with power bets. Capital that stakes nothing is there for a
/// change that comes late.
#[derive(Debug, Clone, PartialEq)]
pub struct Martingale {
    /// Shares of the capital, which sum to 1.
    shares: [[f64; BETS]; RATES.len()],
    /// Natural logarithm of the capital.
    logarithm: f64,
}

impl Default for Martingale {
    fn default() -> Martingale {
        Martingale::new()
    }
}

impl Martingale {
    /// Number of shares of the capital.
    pub const SHARES: usize = BETS * RATES.len();

    /// Capital 1, divided equally.
    pub fn new() -> Martingale {
        Martingale { shares: [[1.0 / Self::SHARES as f64; BETS]; RATES.len()], logarithm: 0.0 }
    }

    /// Bets on the next p-value, which lies within (0, 1).
    pub fn step(&mut self, p_value: f64) {
        debug_assert!(p_value > 0.0 && p_value < 1.0, "{p_value}");
        let factors = factors(p_value);
        let mut total = 0.0;
        for (shares, rate) in self.shares.iter_mut().zip(RATES) {
            let moved = rate * shares.iter().sum::<f64>() / BETS as f64;
            for (share, factor) in shares.iter_mut().zip(factors) {
                *share = ((1.0 - rate) * *share + moved) * factor;
                total += *share;
            }
        }
        self.shares.as_flattened_mut().iter_mut().for_each(|share| *share /= total);
        self.logarithm += total.ln();
    }

    /// Natural logarithm of the capital.
    pub fn logarithm(&self) -> f64 {
        self.logarithm
    }

    /// Logarithm to base 10 of the capital.
    pub fn log10(&self) -> f64 {
        self.logarithm / std::f64::consts::LN_10
    }

    /// The shares of the capital, rate by rate.
    pub fn shares(&self) -> &[f64] {
        self.shares.as_flattened()
    }

    /// A martingale as another one left it; nothing if no martingale has such shares or such a capital.
    pub fn resumed(shares: &[f64], logarithm: f64) -> Option<Martingale> {
        let (rows, rest) = shares.as_chunks::<BETS>();
        let rows: [[f64; BETS]; RATES.len()] = rows.try_into().ok()?;
        let sum: f64 = shares.iter().sum();
        let whole = rest.is_empty() && shares.iter().all(|share| (0.0..=1.0).contains(share));
        let consistent = whole && (sum - 1.0).abs() < 1e-9 && logarithm.is_finite();
        consistent.then_some(Martingale { shares: rows, logarithm })
    }
}

/// Profit of each bet. By square roots alone, which every machine rounds alike.
fn factors(p: f64) -> [f64; BETS] {
    let powers = |x: f64| {
        let half = x.sqrt();
        let quarter = half.sqrt();
        // x to the powers 3/4, 1/2, 1/4, 1/8.
        [half * quarter, half, quarter, quarter.sqrt()]
    };
    let (low, high) = (powers(p), powers(1.0 - p));
    array::from_fn(|bet| match bet {
        0 => 1.0,
        _ => {
            let (side, exponent) = if bet % 2 == 1 { (&low, bet / 2) } else { (&high, bet / 2 - 1) };
            (1.0 - EXPONENTS[exponent]) / side[exponent]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// The same by its definition: for every rate, the capital of each bet after each step from all those of the step before.
    fn plain(p_values: &[f64]) -> Vec<f64> {
        let mut bets: Vec<Box<dyn Fn(f64) -> f64>> = vec![Box::new(|_| 1.0)];
        for kappa in [0.25, 0.5, 0.75, 0.875] {
            bets.push(Box::new(move |p: f64| kappa * p.powf(kappa - 1.0)));
            bets.push(Box::new(move |p: f64| kappa * (1.0 - p).powf(kappa - 1.0)));
        }
        let mut totals = vec![0.0; p_values.len()];
        for rate in [1e-2, 1e-3, 1e-4, 1e-5, 1e-6] {
            let mut capital = vec![1.0 / 45.0; 9];
            for (total, p) in totals.iter_mut().zip(p_values) {
                let next = (0..9).map(|to| {
                    let from = |from: usize| {
                        let stays = if from == to { 1.0 - rate } else { 0.0 };
                        capital[from] * (stays + rate / 9.0)
                    };
                    (0..9).map(from).sum::<f64>() * bets[to](*p)
                });
                capital = next.collect();
                *total += capital.iter().sum::<f64>();
            }
        }
        totals
    }

    #[test]
    fn the_capital_is_that_of_the_definition() {
        let stream = Stream::for_purpose(4, Purpose::Synthetic, &[]);
        for power in [1.0, 3.0, 0.4] {
            let p: Vec<f64> =
                (0..150).map(|i| stream.uniform(i).powf(power).clamp(1e-9, 1.0 - 1e-9)).collect();
            let mut martingale = Martingale::new();
            for (p, total) in p.iter().zip(plain(&p)) {
                martingale.step(*p);
                assert!((martingale.logarithm() - total.ln()).abs() < 1e-10, "{power}");
            }
        }
    }

    #[test]
    fn every_bet_is_fair() {
        // The mean over (0, 1) by the substitution p = x⁸ / (x⁸ + (1 − x)⁸), which tames both ends.
        let points = 200_000;
        let mut mean = [0.0; BETS];
        for i in 0..points {
            let x = (f64::from(i) + 0.5) / f64::from(points);
            let (a, b) = (x.powi(8), (1.0 - x).powi(8));
            let p = a / (a + b);
            let slope = 8.0 * (x * (1.0 - x)).powi(7) / (a + b).powi(2) / f64::from(points);
            // Where 1 − p rounds to 0, the slope is far below what the mean is held to.
            if p < 1.0 {
                mean.iter_mut().zip(factors(p)).for_each(|(mean, factor)| *mean += factor * slope);
            }
        }
        mean.iter().for_each(|mean| assert!((mean - 1.0).abs() < 1e-3, "{mean}"));
    }

    #[test]
    fn extreme_p_values_leave_numbers() {
        let mut martingale = Martingale::new();
        for i in 0..20_000 {
            martingale.step(if i % 5000 < 4000 { f64::MIN_POSITIVE } else { 1.0 - f64::EPSILON / 2.0 });
            assert!(martingale.logarithm().is_finite());
            assert!((martingale.shares().iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        assert!(
            Martingale::resumed(martingale.shares(), martingale.logarithm()).as_ref() == Some(&martingale)
        );
        assert!(Martingale::resumed(&[0.5; 44], 0.0).is_none());
        assert!(Martingale::resumed(&[0.5; 45], 0.0).is_none());
        assert!(Martingale::resumed(martingale.shares(), f64::NAN).is_none());
    }
}
