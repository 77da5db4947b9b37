//! Whether two trainings were measured on the same samples in the same order.

use super::predictions::Predictions;
use super::runs::Training;
use crate::error::Result;

/// Whether samples can be compared one by one, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pairing {
    /// The same samples in the same order.
    Paired,
    /// Others, or nothing shows that they are the same; a sentence.
    Unpaired(String),
}

impl Pairing {
    pub fn is_paired(&self) -> bool {
        *self == Pairing::Paired
    }
}

/// How descriptions end of data that an experiment drew by its seed.
const DRAWN: &str = " at random)";

/// Compares the labelled test sets of two networks: the data's name, the number of samples, every label.
pub(super) fn of_predictions(
    a: &Predictions,
    b: &Predictions,
    seeds: [Option<u64>; 2],
    assume: bool,
) -> Pairing {
    let unpaired = |reason: String| Pairing::Unpaired(reason);
    if a.labels.len() != b.labels.len() {
        return unpaired(format!("{} samples against {}", a.labels.len(), b.labels.len()));
    }
    if a.labels != b.labels {
        return unpaired("their labels differ".to_string());
    }
    if assume { Pairing::Paired } else { of_data([a.data.as_deref(), b.data.as_deref()], seeds) }
}

/// Compares the data behind scores, by the names that caches were made with. `samples` are the numbers of both.
///
/// # Errors
/// The meta data of a cache is damaged.
pub(super) fn of_ood_set(
    set: &str,
    trainings: [&Training; 2],
    samples: [usize; 2],
    assume: bool,
) -> Result<Pairing> {
    if samples[0] != samples[1] {
        return Ok(Pairing::Unpaired(format!("{} samples against {}", samples[0], samples[1])));
    }
    if assume {
        return Ok(Pairing::Paired);
    }
    let [a, b] = [trainings[0].data(set)?, trainings[1].data(set)?];
    Ok(of_data([a.as_deref(), b.as_deref()], trainings.map(|training| training.seed)))
}

fn of_data(data: [Option<&str>; 2], seeds: [Option<u64>; 2]) -> Pairing {
    match data {
        [Some(a), Some(b)] if a != b => {
            let shown = |text: &str| super::runs::one_line(text);
            Pairing::Unpaired(format!("`{}` against `{}`", shown(a), shown(b)))
        }
        [Some(a), Some(_)] if a.ends_with(DRAWN) && (seeds[0].is_none() || seeds[0] != seeds[1]) => {
            Pairing::Unpaired("each run drew its samples by a seed of its own".to_string())
        }
        [Some(_), Some(_)] => Pairing::Paired,
        _ => Pairing::Unpaired("no cache tells which data it was".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(data: Option<&str>, labels: &[i64]) -> Predictions {
        let data = data.map(str::to_string);
        Predictions { path: "x".into(), data, labels: labels.to_vec(), answers: Vec::new() }
    }

    #[test]
    fn samples_are_the_same_if_data_number_and_labels_are() {
        let base = predictions(Some("cifar10:x"), &[0, 1, 2]);
        let pair = |data, labels: &[i64], assume| {
            of_predictions(&base, &predictions(data, labels), [Some(0), Some(1)], assume)
        };
        assert!(pair(Some("cifar10:x"), &[0, 1, 2], false).is_paired());
        for (data, labels, assume, why) in [
            (Some("cifar10:x"), &[0, 1][..], true, "3 samples against 2"),
            (Some("cifar10:x"), &[0, 2, 1][..], true, "labels differ"),
            (Some("svhn:y"), &[0, 1, 2][..], false, "`cifar10:x` against `svhn:y`"),
            (None, &[0, 1, 2][..], false, "no cache tells"),
        ] {
            match pair(data, labels, assume) {
                Pairing::Unpaired(reason) => assert!(reason.contains(why), "{reason}"),
                Pairing::Paired => panic!("{why}"),
            }
        }
        assert!(pair(None, &[0, 1, 2], true).is_paired(), "the user vouches for it");
    }

    #[test]
    fn samples_that_each_seed_drew_for_itself_are_others() {
        let drawn = "demo:unseen (96 of 2000 at random)";
        for (seeds, paired) in
            [([Some(0), Some(0)], true), ([Some(0), Some(1)], false), ([None, None], false)]
        {
            assert_eq!(of_data([Some(drawn), Some(drawn)], seeds).is_paired(), paired);
        }
    }
}
