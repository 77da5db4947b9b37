//! Ranks among all earlier scores of a stream, at any length.

/// Scores that are inserted one by one before they are merged into a run.
const RECENT: usize = 256;

/// A multiset of scores that answers how many are below one, and how many equal it.
///
/// Scores lie in sorted runs, each longer than the next, and a short sorted list of recent ones: O(log² N) comparisons for a rank, O(log N)
/// amortised moves for an insertion. Memory: 8 bytes a score, and twice that for a moment while runs are merged. The answers do not
/// depend on how scores are distributed over runs.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    runs: Vec<Vec<f64>>,
    recent: Vec<f64>,
}

/// Place of a score among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of lower scores.
    pub below: u64,
    /// Number of equal scores.
    pub equal: u64,
}

impl Ranks {
    /// Takes scores in ascending order.
    ///
    /// # Panics
    /// If they are not, or one is NaN.
    pub fn new(ascending: Vec<f64>) -> Ranks {
        assert!(ascending.is_sorted(), "scores in ascending order");
        let runs = if ascending.is_empty() { Vec::new() } else { vec![ascending] };
        Ranks { runs, recent: Vec::new() }
    }

    /// Number of scores.
    pub fn len(&self) -> u64 {
        self.runs.iter().chain([&self.recent]).map(|run| run.len() as u64).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Place of a score, which need not be one of them.
    pub fn place(&self, score: f64) -> Place {
        let mut place = Place { below: 0, equal: 0 };
        for run in self.runs.iter().chain([&self.recent]) {
            let below = run.partition_point(|known| *known < score);
            place.below += below as u64;
            place.equal += run[below..].partition_point(|known| *known <= score) as u64;
        }
        place
    }

    /// Adds a score.
    ///
    /// # Panics
    /// If it is NaN.
    pub fn insert(&mut self, score: f64) {
        assert!(!score.is_nan(), "a score is a number");
        let at = self.recent.partition_point(|known| *known <= score);
        self.recent.insert(at, score);
        if self.recent.len() < RECENT {
            return;
        }
        let mut run = std::mem::take(&mut self.recent);
        while let Some(longer) = self.runs.pop_if(|last| last.len() <= run.len()) {
            run = merged(&longer, &run);
        }
        self.runs.push(run);
        self.recent.reserve(RECENT);
    }

    /// All scores in ascending order.
    pub fn ascending(&self) -> Vec<f64> {
        self.runs.iter().chain([&self.recent]).rev().fold(Vec::new(), |all, run| merged(&all, run))
    }
}

/// Two ascending lists as one.
fn merged(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut i, mut j) = (0, 0);
    let mut all = Vec::with_capacity(a.len() + b.len());
    while i < a.len() && j < b.len() {
        if b[j] < a[i] {
            all.push(b[j]);
            j += 1;
        } else {
            all.push(a[i]);
            i += 1;
        }
    }
    all.extend_from_slice(&a[i..]);
    all.extend_from_slice(&b[j..]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn places_are_those_of_a_plain_count_over_all_earlier_scores() {
        let stream = Stream::for_purpose(5, Purpose::Synthetic, &[1]);
        for (calibration, steps, coarse) in
            [(0, 3000, 40.0), (100, 2500, 1e9), (1000, 1500, 7.0), (1, 700, 1.0)]
        {
            // Coarse, so that there are ties; and some that are flagged whatever the threshold.
            let score = |i: u64| match stream.below(2 * i, 50) {
                0 => f64::NEG_INFINITY,
                _ => (stream.uniform(2 * i + 1) * coarse).floor() - coarse / 2.0,
            };
            let mut known: Vec<f64> = (0..calibration).map(score).collect();
            known.sort_by(f64::total_cmp);
            let mut ranks = Ranks::new(known.clone());
            for step in 0..steps {
                let new = score(10_000 + step);
                let below = known.iter().filter(|other| **other < new).count() as u64;
                let equal = known.iter().filter(|other| **other == new).count() as u64;
                assert_eq!(ranks.place(new), Place { below, equal }, "step {step}");
                ranks.insert(new);
                known.push(new);
            }
            known.sort_by(f64::total_cmp);
            assert_eq!(ranks.ascending(), known);
            assert_eq!(ranks.len(), known.len() as u64);
        }
    }

    #[test]
    fn zeros_of_either_sign_are_equal() {
        let mut ranks = Ranks::new(vec![-1.0, -0.0, 1.0]);
        assert_eq!(ranks.place(0.0), Place { below: 1, equal: 1 });
        ranks.insert(0.0);
        assert_eq!(ranks.place(-0.0), Place { below: 1, equal: 2 });
    }

    #[test]
    fn runs_stay_few_and_hold_no_more_than_the_scores() {
        let stream = Stream::for_purpose(5, Purpose::Synthetic, &[2]);
        let mut ranks = Ranks::new((0..5000).map(f64::from).collect());
        (0..200_000).for_each(|i| ranks.insert(stream.uniform(i)));
        assert!(ranks.runs.len() <= 12, "{} runs", ranks.runs.len());
        let held: usize = ranks.runs.iter().map(Vec::capacity).sum();
        assert!(held <= 205_000, "{held} places for 205,000 scores");
    }
}
