//! Confidences in their order: sorted once, and read by everything that only depends on ranks.

use super::curve::check_scores;
use crate::error::{Error, Result};

/// Confidences of one side by decreasing value, with the sample that each belongs to.
///
/// Sorting takes O(n log n); placements, risk-coverage curves and ROC curves of two sides that are in order take O(n + m).
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// Decreasing.
    values: Vec<f64>,
    /// The sample of each value, by its place in the input.
    samples: Vec<u32>,
}

/// Samples of equal confidence, of each of two sides.
pub type Tied<'a> = (&'a [u32], &'a [u32]);

impl Ordered {
    /// Orders the confidences of a side, which a message calls `name`.
    ///
    /// # Errors
    /// No confidence, more than 2³² − 1, or one that is not finite; the message names its row.
    pub fn new(confidences: &[f64], name: &str) -> Result<Ordered> {
        check_scores(confidences, name)?;
        let Ok(count) = u32::try_from(confidences.len()) else {
            return Err(Error::invalid(format!(
                "{} {name} scores are more than 2^32 - 1; evaluate a subset",
                confidences.len()
            )));
        };
        let mut pairs: Vec<(f64, u32)> = confidences.iter().copied().zip(0..count).collect();
        pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (values, samples) = pairs.into_iter().unzip();
        Ok(Ordered { values, samples })
    }

    /// The number of confidences.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none, which [`Ordered::new`] refuses.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The confidences, decreasing.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The samples of both sides by decreasing confidence, those of equal confidence together (0.0 and −0.0 are equal).
    pub fn with<'a>(&'a self, other: &'a Ordered) -> impl Iterator<Item = Tied<'a>> {
        let (mut i, mut j) = (0, 0);
        std::iter::from_fn(move || {
            let top = match (self.values.get(i), other.values.get(j)) {
                (Some(a), Some(b)) => a.max(*b),
                (a, b) => *a.or(b)?,
            };
            let take = |side: &'a Ordered, from: &mut usize| {
                let start = *from;
                while side.values.get(*from) == Some(&top) {
                    *from += 1;
                }
                &side.samples[start..*from]
            };
            Some((take(self, &mut i), take(other, &mut j)))
        })
    }
}

/// How every sample of two sides lies among the samples of the other side.
#[derive(Debug, Clone, PartialEq)]
pub struct Placements {
    /// Area under the ROC curve: P(ID > OOD) + P(equal) / 2.
    pub auroc: f64,
    /// For each ID sample, the share of OOD samples below it, ties counted half.
    pub of_id: Vec<f64>,
    /// For each OOD sample, the share of ID samples above it, ties counted half.
    pub of_ood: Vec<f64>,
    /// Share of the pairs of an ID and an OOD sample whose confidences are equal.
    pub tied_pairs: f64,
}

impl Placements {
    /// Placements of ID among OOD samples and the other way round. They are integers over 2m and 2n, so nothing depends on the order of
    /// the samples.
    pub fn new(id: &Ordered, ood: &Ordered) -> Placements {
        let (n, m) = (id.len() as u64, ood.len() as u64);
        let (mut of_id, mut of_ood) = (vec![0.0; id.len()], vec![0.0; ood.len()]);
        let (mut above_id, mut above_ood) = (0u64, 0u64);
        let (mut twice, mut ties) = (0u128, 0u128);
        for (tied_id, tied_ood) in id.with(ood) {
            let (a, b) = (tied_id.len() as u64, tied_ood.len() as u64);
            // Twice the number of OOD samples below, and of ID samples above; equal ones once.
            let below = 2 * (m - above_ood) - b;
            let above = 2 * above_id + a;
            tied_id.iter().for_each(|&sample| of_id[sample as usize] = below as f64 / (2 * m) as f64);
            tied_ood.iter().for_each(|&sample| of_ood[sample as usize] = above as f64 / (2 * n) as f64);
            twice += u128::from(a) * u128::from(below);
            ties += u128::from(a) * u128::from(b);
            above_id += a;
            above_ood += b;
        }
        let pairs = n as f64 * m as f64;
        Placements { auroc: twice as f64 / (2.0 * pairs), of_id, of_ood, tied_pairs: ties as f64 / pairs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::metrics::Curve;
    use crate::rng::Stream;

    /// Scores on a coarse grid, so that ties are common.
    fn grid(seed: u64, count: u64, levels: u64) -> Vec<f64> {
        let stream = Stream::new(seed, &[]);
        (0..count).map(|i| stream.below(i, levels) as f64 - (levels / 2) as f64).collect()
    }

    #[test]
    fn placements_are_those_of_all_pairs() {
        for (seed, levels) in [(1, 3), (2, 9), (3, 1 << 40)] {
            let (id, ood) = (grid(seed, 41, levels), grid(100 + seed, 29, levels));
            let found =
                Placements::new(&Ordered::new(&id, "ID").unwrap(), &Ordered::new(&ood, "OOD").unwrap());
            let psi = |x: f64, y: f64| f64::from(u8::from(x > y)) + f64::from(u8::from(x == y)) / 2.0;
            for (i, x) in id.iter().enumerate() {
                let want = ood.iter().map(|y| psi(*x, *y)).sum::<f64>() / 29.0;
                assert!((found.of_id[i] - want).abs() < 1e-15);
            }
            for (j, y) in ood.iter().enumerate() {
                let want = id.iter().map(|x| psi(*x, *y)).sum::<f64>() / 41.0;
                assert!((found.of_ood[j] - want).abs() < 1e-15);
            }
            let equal = id.iter().flat_map(|x| ood.iter().filter(move |y| x == *y)).count();
            assert_eq!(found.tied_pairs, equal as f64 / (41.0 * 29.0));
            assert_eq!(found.auroc, Curve::new(&id, &ood).unwrap().auroc());
        }
    }

    #[test]
    fn both_zeros_are_one_value_and_what_is_no_number_is_named() {
        let (id, ood) = (Ordered::new(&[-0.0, 1.0], "ID").unwrap(), Ordered::new(&[0.0], "OOD").unwrap());
        let tied: Vec<Tied<'_>> = id.with(&ood).collect();
        assert_eq!(tied, [(&[1u32][..], &[][..]), (&[0][..], &[0][..])]);
        assert_eq!((id.values(), id.len(), id.is_empty()), (&[1.0, -0.0][..], 2, false));
        let message = Ordered::new(&[0.0, f64::NAN], "OOD").unwrap_err().to_string();
        assert!(message.contains("OOD score in row 1 is NaN"), "{message}");
        assert!(Ordered::new(&[], "ID").is_err());
    }
}
