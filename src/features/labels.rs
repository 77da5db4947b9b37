//! Labels of in-distribution samples: are they those of the head's classes, counted as the head counts them?

use super::agreement::predictions;
use super::head::Head;
use super::set::FeatureSet;
use crate::error::{Error, Position, Result};

/// The label of a sample whose class is not known.
const UNKNOWN: i64 = -1;
/// Fewer samples say nothing about how labels are counted.
const FEWEST_SAMPLES: usize = 10;
/// Share of labels that must agree with shifted predictions before a note or an error is given.
const SHIFTED_AGREEMENT: f64 = 0.5;
/// Labels that agree with shifted predictions this many times as often as with the predictions are refused.
const OVERWHELMING: f64 = 10.0;

impl FeatureSet {
    /// Labels for fitting: every one known and of a class of the head, every class present.
    ///
    /// # Errors
    /// No labels, a label out of range (named by row), or a class without a sample (named).
    pub fn training_labels(&self, classes: usize) -> Result<Vec<u32>> {
        let labels = self.labels().ok_or_else(|| {
            Error::malformed(
                self.path(),
                Position::File,
                "labels (fitting needs the class of every training sample)",
                "features without labels",
            )
        })?;
        self.check_labels(classes)?;
        if let Some(row) = labels.iter().position(|&label| label == UNKNOWN) {
            return Err(Error::malformed(
                self.path(),
                Position::Row(row as u64),
                format!("{}, since fitting needs the class of every training sample", range(classes)),
                "label -1 (unknown)",
            ));
        }
        let mut counts = vec![0u64; classes];
        let known: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
        known.iter().for_each(|&label| counts[label as usize] += 1);
        match counts.iter().position(|&count| count == 0) {
            None => Ok(known),
            Some(class) => {
                let hint =
                    if class == 0 { "; do the labels count from 1? then save `labels - 1`" } else { "" };
                Err(Error::malformed(
                    self.path(),
                    Position::File,
                    format!(
                        "training samples of each of the {classes} classes of the head, 0 to {}",
                        classes - 1
                    ),
                    format!("none of class {class}{hint}"),
                ))
            }
        }
    }

    /// Checks that labels of in-distribution samples are classes of the head, or -1.
    ///
    /// # Errors
    /// A label that is neither, by row; labels that count from 1 are called so.
    pub fn check_labels(&self, classes: usize) -> Result<()> {
        let Some(labels) = self.labels() else { return Ok(()) };
        let odd =
            |&label: &i64| label != UNKNOWN && !usize::try_from(label).is_ok_and(|label| label < classes);
        let Some(row) = labels.iter().position(odd) else { return Ok(()) };
        let from_one = labels.iter().all(|&label| label >= 1 && label <= classes as i64);
        let advice = if from_one {
            format!("label {}; the labels count from 1 to {classes}: save `labels - 1`", labels[row])
        } else {
            let (least, most) = (labels.iter().min(), labels.iter().max());
            format!(
                "label {}; the labels go from {} to {}: are they of other classes, or in another numbering? Give these samples -1, \
                 or leave `labels` out",
                labels[row],
                least.unwrap_or(&0),
                most.unwrap_or(&0)
            )
        };
        Err(Error::malformed(self.path(), Position::Row(row as u64), range(classes), advice))
    }

    /// Checks that labels of in-distribution samples count as the head counts: a set whose labels are all one too large (or
    /// too small) has them in range where it lacks a class. Returns a
    /// note for the user where that is possible but not certain.
    ///
    /// # Errors
    /// A label that is no class; labels that agree with the predictions only when shifted by one.
    pub fn check_numbering(&self, head: &Head) -> Result<Option<String>> {
        self.check_labels(head.classes())?;
        let Some(labels) = self.labels() else { return Ok(None) };
        let predictions = predictions(self, head);
        let Some(shift) = Shift::found(labels, &predictions, head.classes()) else { return Ok(None) };
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let (sign, back, counted) = match shift.offset {
            1 => ("+ 1", "labels - 1", "count from 1"),
            _ => ("- 1", "labels + 1", "leave out the head's class 0"),
        };
        let found = format!(
            "{}: predictions {sign} agree with {} of the labels, the predictions themselves with {}",
            self.path().display(),
            percent(shift.shifted),
            percent(shift.plain)
        );
        if shift.is_certain() {
            return Err(Error::invalid(format!(
                "{found}: the labels {counted}, the head's classes count from 0; save `{back}`, or leave `labels` out"
            )));
        }
        Ok(Some(format!("{found}; if the labels {counted}, save `{back}`: accuracy counts them as they are")))
    }
}

fn range(classes: usize) -> String {
    match classes {
        1 => "label 0, the only class of the head (-1 is unknown)".to_string(),
        _ => format!(
            "a label from 0 to {}, one of the {classes} classes of the head (-1 is unknown)",
            classes - 1
        ),
    }
}

/// Labels that agree with predictions better when these are shifted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shift {
    /// Number added to the predictions.
    offset: i64,
    /// Share of labels that agree with them then.
    shifted: f64,
    /// Share of labels that agree with the predictions as they are.
    plain: f64,
    /// Classes that occur among the labels.
    classes: usize,
}

impl Shift {
    /// The shift by which nearly every class among the labels agrees better; `None` where there is none, where samples are
    /// few, or of one class only: a network that takes class 1 for class 0 is wrong, not the labels.
    fn found(labels: &[i64], predictions: &[u32], classes: usize) -> Option<Shift> {
        [1i64, -1].into_iter().find_map(|offset| {
            // By a shift this class cannot occur.
            let absent = if offset == 1 { 0 } else { classes as i64 - 1 };
            let known = || labels.iter().zip(predictions).filter(|(label, _)| **label != UNKNOWN);
            let count = known().count();
            if count < FEWEST_SAMPLES || known().any(|(&label, _)| label == absent) {
                return None;
            }
            // Of each class: samples, correct predictions, correct predictions after the shift.
            let mut counts = vec![[0u64; 3]; classes];
            for (&label, &prediction) in known() {
                let own = &mut counts[label as usize];
                own[0] += 1;
                own[1] += u64::from(label == i64::from(prediction));
                own[2] += u64::from(label == i64::from(prediction) + offset);
            }
            let present: Vec<&[u64; 3]> = counts.iter().filter(|own| own[0] > 0).collect();
            let better = present.iter().filter(|own| own[2] > own[1]).count();
            let share =
                |index: usize| present.iter().map(|own| own[index]).sum::<u64>() as f64 / count as f64;
            let shift = Shift { offset, shifted: share(2), plain: share(1), classes: present.len() };
            let nearly_all = 10 * better >= 9 * present.len();
            (present.len() >= 2 && nearly_all && shift.shifted >= SHIFTED_AGREEMENT).then_some(shift)
        })
    }

    /// Whether no network that is worth anything has these labels.
    fn is_certain(&self) -> bool {
        self.classes >= 3 && self.shifted >= OVERWHELMING * self.plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predictions that are correct in nineteen of twenty cases, and name some other class in the last.
    fn predictions_of(truth: &[u32], count: u32) -> Vec<u32> {
        let guess =
            |(index, &class): (usize, &u32)| if index % 20 == 19 { (class + 3) % count } else { class };
        truth.iter().enumerate().map(guess).collect()
    }

    #[test]
    fn labels_that_count_from_one_are_told_from_a_set_that_lacks_class_zero() {
        let truth: Vec<u32> = (0..200).map(|i| i % 9).collect();
        let predicted = predictions_of(&truth, 10);
        let from_one: Vec<i64> = truth.iter().map(|&class| i64::from(class) + 1).collect();
        let shift = Shift::found(&from_one, &predicted, 10).unwrap();
        assert_eq!((shift.offset, shift.classes), (1, 9));
        assert!(shift.is_certain() && shift.shifted > 0.9 && shift.plain < 0.1, "{shift:?}");
        // The same network on a set of the classes 1 to 8, labelled correctly.
        let truth: Vec<u32> = (0..200).map(|i| 1 + i % 8).collect();
        let labels: Vec<i64> = truth.iter().map(|&class| i64::from(class)).collect();
        assert_eq!(Shift::found(&labels, &predictions_of(&truth, 10), 10), None);
        // A background class in front: labels are one too small.
        let labels: Vec<i64> = truth.iter().map(|&class| i64::from(class) - 1).collect();
        assert_eq!(Shift::found(&labels, &truth, 10).unwrap().offset, -1);
    }

    #[test]
    fn one_class_few_samples_and_a_useless_network_raise_no_alarm() {
        let ones = vec![1i64; 100];
        assert_eq!(Shift::found(&ones, &[0; 100], 10), None, "a network that takes class 1 for class 0");
        assert_eq!(Shift::found(&[1, 2, 3], &[0, 1, 2], 10), None, "three samples");
        let labels: Vec<i64> = (0..100).map(|i| 1 + i % 9).collect();
        for constant in 0..10 {
            assert_eq!(Shift::found(&labels, &[constant; 100], 10), None, "always class {constant}");
        }
        let unknown = vec![UNKNOWN; 100];
        assert_eq!(Shift::found(&unknown, &[3; 100], 10), None);
    }

    #[test]
    fn two_classes_and_an_uneven_network_are_worth_a_word_but_no_refusal() {
        let labels: Vec<i64> = (0..100).map(|i| 1 + i % 2).collect();
        let predicted: Vec<u32> = labels.iter().map(|&label| label as u32 - 1).collect();
        let shift = Shift::found(&labels, &predicted, 3).unwrap();
        assert!(!shift.is_certain(), "{shift:?}");
    }
}
