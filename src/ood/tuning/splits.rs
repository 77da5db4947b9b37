//! Divisions of a labelled training set: the samples of some classes stand for OOD data, fits see only the others.

use crate::error::{Error, Position, Result};
use crate::features::{FeatureSet, Head};
use crate::rng::{Purpose, Stream};

/// How many splits there are, if there are as many classes.
const SPLITS: usize = 5;
/// The most samples that the scores of a split are fitted on.
const MOST_FITTED: usize = 50_000;
/// The most samples of all classes that are scored.
const MOST_SCORED: usize = 20_000;
/// Where no samples outside training are given, one in this many of each class is kept out of the fits and scored.
const SCORED_SHARE: usize = 5;

/// Everything that the scores of one split are fitted and measured on.
#[derive(Debug, Clone)]
pub struct Split {
    /// Classes that stand for OOD data, ascending.
    pub held_out: Vec<usize>,
    /// The last layer for the other classes.
    pub head: Head,
    /// Samples of the other classes, for fits.
    pub train: FeatureSet,
    /// Further samples of the other classes.
    pub id: FeatureSet,
    /// Samples of the held-out classes.
    pub ood: FeatureSet,
}

/// Divides classes into shares of nearly equal size, each of which is held out in turn; the order is random, each share ascending.
///
/// # Errors
/// Fewer than three classes, of which none can be held out and leave two.
pub fn shares(classes: usize, shares: usize, seed: u64) -> Result<Vec<Vec<usize>>> {
    if classes < 3 {
        return Err(Error::invalid(format!(
            "tuning holds classes out and needs two others, so at least 3 classes; here are {classes}; leave --tune out, or give \
             constants such as knn:k=10"
        )));
    }
    // At least two classes stay.
    let shares = shares.clamp(if classes == 3 { 3 } else { 2 }, classes);
    let order = Stream::for_purpose(seed, Purpose::HoldOut, &[0]).permutation(classes);
    let bound = |share: usize| share * classes / shares;
    let share = |share: usize| {
        let mut own: Vec<usize> =
            order[bound(share)..bound(share + 1)].iter().map(|class| *class as usize).collect();
        own.sort_unstable();
        own
    };
    Ok((0..shares).map(share).collect())
}

/// Splits of one network's training set.
pub(super) struct Classes<'a> {
    train: &'a FeatureSet,
    /// Where the samples that are scored come from.
    scored: &'a FeatureSet,
    head: &'a Head,
    train_labels: Vec<u32>,
    scored_labels: Vec<u32>,
    /// Rows of `train` that fits may see, ascending.
    fit_rows: Vec<u32>,
    /// Rows of `scored`, ascending.
    scored_rows: Vec<u32>,
    shares: Vec<Vec<usize>>,
}

impl<'a> Classes<'a> {
    /// Plans splits of a training set; samples outside training, where there are some, are the ones scored. Also words for the user
    /// about what is left out.
    ///
    /// # Errors
    /// Labels are missing or out of range; too few classes or samples.
    pub fn plan(
        train: &'a FeatureSet,
        calibration: Option<&'a FeatureSet>,
        head: &'a Head,
        seed: u64,
    ) -> Result<(Classes<'a>, Vec<String>)> {
        let classes = head.classes();
        let shares = shares(classes, SPLITS, seed)?;
        let train_labels = train.training_labels(classes)?;
        let mut notes = Vec::new();
        let (scored, scored_labels, mut fit_rows, mut scored_rows) = match calibration {
            Some(set) => {
                let labels = set.training_labels(classes)?;
                let (fitted, all) = ((0..train.len() as u32).collect(), (0..set.len() as u32).collect());
                (set, labels, fitted, all)
            }
            None => {
                let rows = by_class(&train_labels, classes);
                if let Some(class) = rows.iter().position(|rows| rows.len() < 2) {
                    return Err(Error::malformed(
                        train.path(),
                        Position::File,
                        format!(
                            "2 samples or more of class {class}: tuning keeps some of each class out of the fits"
                        ),
                        rows[class].len().to_string(),
                    ));
                }
                let (fitted, kept) = keep_out(rows.iter().map(Vec::as_slice).enumerate(), SCORED_SHARE, seed);
                (train, train_labels.clone(), fitted, kept)
            }
        };
        for (rows, most, what) in
            [(&mut fit_rows, MOST_FITTED, "fits"), (&mut scored_rows, MOST_SCORED, "scores")]
        {
            if rows.len() > most {
                notes.push(format!("tuning {what} {most} random samples of {}", rows.len()));
                thin(rows, most, seed);
            }
        }
        let classes =
            Classes { train, scored, head, train_labels, scored_labels, fit_rows, scored_rows, shares };
        Ok((classes, notes))
    }

    /// The splits, each made when asked for.
    pub fn splits(&self) -> impl Iterator<Item = Result<Split>> {
        self.shares.iter().map(|held_out| self.split(held_out))
    }

    fn split(&self, held_out: &[usize]) -> Result<Split> {
        let kept: Vec<usize> =
            (0..self.head.classes()).filter(|class| held_out.binary_search(class).is_err()).collect();
        let is_held_out = |label: u32| held_out.binary_search(&(label as usize)).is_ok();
        let of = |rows: &[u32], labels: &[u32], wanted: bool| -> Vec<u32> {
            rows.iter().copied().filter(|row| is_held_out(labels[*row as usize]) == wanted).collect()
        };
        let (id, ood) = (
            of(&self.scored_rows, &self.scored_labels, false),
            of(&self.scored_rows, &self.scored_labels, true),
        );
        if id.is_empty() || ood.is_empty() {
            let which = if id.is_empty() { "other classes than" } else { "the classes" };
            let expected = format!("samples of {which} {held_out:?}");
            return Err(Error::malformed(self.scored.path(), Position::File, expected, "none"));
        }
        Ok(Split {
            held_out: held_out.to_vec(),
            head: self.head.of_classes(&kept)?,
            train: self.train.of_classes(&of(&self.fit_rows, &self.train_labels, false), &kept)?,
            id: self.scored.of_classes(&id, &kept)?,
            ood: self.scored.of_classes(&ood, &kept)?,
        })
    }
}

/// Of the rows of each class one in `one_in`, at least one, is kept out at random: the rows that stay, and those kept out, both ascending.
pub fn keep_out<'r>(
    classes: impl IntoIterator<Item = (usize, &'r [u32])>,
    one_in: usize,
    seed: u64,
) -> (Vec<u32>, Vec<u32>) {
    let (mut stay, mut out) = (Vec::new(), Vec::new());
    for (class, rows) in classes {
        let order = Stream::for_purpose(seed, Purpose::HoldOut, &[1, class as u64]).permutation(rows.len());
        let (own, rest) = order.split_at((rows.len() / one_in).max(1).min(rows.len()));
        out.extend(own.iter().map(|index| rows[*index as usize]));
        stay.extend(rest.iter().map(|index| rows[*index as usize]));
    }
    stay.sort_unstable();
    out.sort_unstable();
    (stay, out)
}

/// The rows of each class, ascending.
fn by_class(labels: &[u32], classes: usize) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); classes];
    labels.iter().enumerate().for_each(|(row, label)| rows[*label as usize].push(row as u32));
    rows
}

/// Keeps a random subset of so many, in order.
fn thin(rows: &mut Vec<u32>, most: usize, seed: u64) {
    let order = Stream::for_purpose(seed, Purpose::HoldOut, &[2]).permutation(rows.len());
    let mut kept: Vec<u32> = order[..most].iter().map(|index| rows[*index as usize]).collect();
    kept.sort_unstable();
    *rows = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Matrix;

    #[test]
    fn every_class_is_held_out_once_and_two_stay() {
        for (classes, expected) in [(3, 3), (4, 4), (5, 5), (10, 5), (13, 5), (100, 5)] {
            let shares = shares(classes, SPLITS, 7).unwrap();
            assert_eq!(shares.len(), expected, "{classes}");
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..classes).collect::<Vec<usize>>());
            assert!(shares.iter().all(|share| classes - share.len() >= 2 && !share.is_empty()), "{shares:?}");
            let sizes = shares.iter().map(Vec::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{shares:?}");
        }
        assert_ne!(shares(100, 5, 1).unwrap(), shares(100, 5, 2).unwrap());
        let error = shares(2, 5, 0).unwrap_err().to_string();
        assert!(error.contains("at least 3 classes"), "{error}");
    }

    #[test]
    fn fits_never_see_a_held_out_class_nor_a_sample_that_is_scored() {
        // The only feature is the row, the logits are the row and the class, so that each sample can be told.
        let (classes, rows) = (4, 40);
        let labels: Vec<i64> = (0..rows).map(|row| row % classes).collect();
        let features = Matrix::from_f32((0..rows).map(|row| row as f32).collect(), 1, "features").unwrap();
        let logits = (0..rows).flat_map(|row| (0..classes).map(move |class| (100 * row + class) as f32));
        let logits = Matrix::from_f32(logits.collect(), classes as usize, "logits").unwrap();
        let set = FeatureSet::from_parts("train", features, Some(logits), Some(labels.clone())).unwrap();
        let head = Head::new(vec![0.0, 1.0, 2.0, 3.0], vec![0.0, 10.0, 20.0, 30.0], 1).unwrap();
        let (plan, notes) = Classes::plan(&set, None, &head, 3).unwrap();
        assert!(notes.is_empty());
        let values = |set: &FeatureSet| {
            let mut values = Vec::new();
            set.features().read_f64(0..set.len(), &mut values);
            values
        };
        for split in plan.splits() {
            let Split { held_out, head, train, id, ood } = split.unwrap();
            let (fitted, id_rows, ood_rows) = (values(&train), values(&id), values(&ood));
            let kept: Vec<usize> = (0..4).filter(|class| !held_out.contains(class)).collect();
            assert_eq!(head.bias(), kept.iter().map(|class| 10.0 * *class as f64).collect::<Vec<f64>>());
            let class = |row: &f64| labels[*row as usize] as usize;
            assert!(fitted.iter().chain(&id_rows).all(|row| kept.contains(&class(row))));
            assert!(ood_rows.iter().all(|row| held_out.contains(&class(row))));
            assert!(id_rows.iter().all(|row| !fitted.contains(row)));
            assert_eq!((fitted.len(), id_rows.len(), ood_rows.len()), (24, 6, 2));
            // Labels and logits are those of the classes that stay.
            for (index, row) in fitted.iter().enumerate() {
                assert_eq!(kept[train.labels().unwrap()[index] as usize], class(row));
                let mut own = Vec::new();
                train.logits().unwrap().read_f64(index..index + 1, &mut own);
                assert_eq!(own, kept.iter().map(|class| 100.0 * row + *class as f64).collect::<Vec<f64>>());
            }
            assert!(ood.labels().unwrap().iter().all(|label| *label == -1));
        }
    }
}
