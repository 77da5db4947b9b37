//! The truth about samples: which class of a head they belong to, if any.

use super::samples::{LevelScores, Scored};
use super::score::Score;
use crate::checkpoint::{HeadClasses, HeadLabels, LabelsBy};
use crate::data::{Dataset, Level, Taxonomy, UNKNOWN_LABEL, is_novel};

/// Where a sample belongs, for one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// A class the head knows, by its index in the data set's files.
    Class(i64),
    /// The class named `novel`: outliers, which training may have seen.
    Outlier,
    /// A class that training never saw: held out, or of other data.
    Unseen,
    /// Not known.
    Unknown,
}

impl Truth {
    /// The truth, in an evaluation, of a sample that is given as novel. Without a label it counts as novel; of a class that
    /// this head knows (the superclass of a held-out subclass) it tests nothing.
    pub fn given_as_novel(self) -> Truth {
        match self {
            Truth::Unknown => Truth::Unseen,
            Truth::Class(_) => Truth::Unknown,
            Truth::Outlier | Truth::Unseen => self,
        }
    }
}

/// The truth of a data set's samples, for one head of a network whose training data had `taxonomy`; `None` where its
/// labels are of other classes than the head's, so that equal numbers mean nothing. Classes are known by their names
/// ([`HeadLabels`]); samples without labels are [`Truth::Unknown`].
pub fn truths(data: &dyn Dataset, head: &HeadClasses, taxonomy: Option<&Taxonomy>) -> Option<Vec<Truth>> {
    let own = data.taxonomy();
    let level = head.level.unwrap_or_default();
    let names = own.map_or_else(|| data.class_names(), |own| own.names(level));
    if names.is_empty() {
        return Some(vec![Truth::Unknown; data.len()]);
    }
    let labels = HeadLabels::of(head, taxonomy, data, LabelsBy::Names);
    if labels.are_others() {
        return None;
    }
    let truth = |label: i64| {
        let class = own.map_or(label, |own| own.label(level, label));
        let name = usize::try_from(class).ok().and_then(|class| names.get(class));
        let logit = usize::try_from(labels.logit(label)).ok();
        if label == UNKNOWN_LABEL {
            Truth::Unknown
        } else if name.is_some_and(|name| is_novel(name)) || is_novel_subclass(own, label) {
            Truth::Outlier
        } else if class == UNKNOWN_LABEL {
            Truth::Unknown
        } else {
            match logit.filter(|logit| Some(*logit) != head.novel) {
                Some(logit) => Truth::Class(head.indices[logit]),
                None => Truth::Unseen,
            }
        }
    };
    Some((0..data.len()).map(|index| truth(data.label(index))).collect())
}

/// Whether a label is the subclass named `novel`: its superclass is novel, even if nothing says which that is.
fn is_novel_subclass(taxonomy: Option<&Taxonomy>, label: i64) -> bool {
    let novel = taxonomy.and_then(|taxonomy| taxonomy.novel(Level::Fine));
    novel.is_some_and(|novel| novel as i64 == label)
}

/// Calibration samples of one head, and the numbers of samples given that belong to neither group.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    /// The two groups.
    pub scores: LevelScores,
    /// Samples of the seen data that are left out: of a class the head does not know, the class `novel` among them.
    pub seen_left_out: usize,
    /// Samples of the novel data that are left out: of a class the head knows, for instance the superclass of a
    /// subclass that was held out.
    pub novel_left_out: usize,
}

impl Gathered {
    /// Sorts the samples of the seen data and of the novel data, each with its truth, into the two groups.
    /// A sample without a label is taken for what its data is given as: seen or novel.
    ///
    /// # Panics
    /// If the numbers of truths and samples differ.
    pub fn new(
        (level, score): (Option<Level>, Score),
        seen: (&[Truth], &[Scored]),
        novel: (&[Truth], &[Scored]),
    ) -> Gathered {
        let pick = |(truths, samples): (&[Truth], &[Scored]), wanted: fn(&Truth) -> bool| -> Vec<Scored> {
            assert_eq!(truths.len(), samples.len(), "a truth for each sample");
            truths.iter().zip(samples).filter(|(truth, _)| wanted(truth)).map(|(_, sample)| *sample).collect()
        };
        let kept_seen = pick(seen, |truth| matches!(truth, Truth::Class(_) | Truth::Unknown));
        let kept_novel = pick(novel, |truth| !matches!(truth, Truth::Class(_)));
        Gathered {
            seen_left_out: seen.1.len() - kept_seen.len(),
            novel_left_out: novel.1.len() - kept_novel.len(),
            scores: LevelScores { level, score, seen: kept_seen, novel: kept_novel },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{RgbImage, UNKNOWN_LABEL};
    use crate::error::Result;
    use crate::ood::Method;

    #[derive(Debug)]
    struct Labels {
        labels: Vec<i64>,
        names: Vec<String>,
        taxonomy: Option<Taxonomy>,
    }

    impl Dataset for Labels {
        fn len(&self) -> usize {
            self.labels.len()
        }
        fn class_names(&self) -> &[String] {
            &self.names
        }
        fn taxonomy(&self) -> Option<&Taxonomy> {
            self.taxonomy.as_ref()
        }
        fn label(&self, index: usize) -> i64 {
            self.labels[index]
        }
        fn image(&self, _: usize) -> Result<RgbImage> {
            unreachable!("only labels are asked for")
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    }

    /// Birds (robin 0, owl 1), dogs (poodle 2), novel 3; the owl was held out, novel is a logit of both heads.
    fn zoo(labels: &[i64]) -> (Labels, HeadClasses, HeadClasses) {
        let taxonomy = Taxonomy {
            superclasses: names(&["bird", "dog", "novel"]),
            subclasses: names(&["robin", "owl", "poodle", "Novel"]),
            parents: vec![Some(0), Some(0), Some(1), None],
        };
        let head = |level, classes: &[&str], indices: &[i64]| HeadClasses {
            level: Some(level),
            indices: indices.to_vec(),
            novel: Some(classes.len() - 1),
            ..HeadClasses::single(names(classes))
        };
        (
            Labels { labels: labels.to_vec(), names: taxonomy.subclasses.clone(), taxonomy: Some(taxonomy) },
            head(Level::Coarse, &["bird", "dog", "novel"], &[0, 1, 2]),
            head(Level::Fine, &["robin", "poodle", "Novel"], &[0, 2, 3]),
        )
    }

    #[test]
    fn a_held_out_subclass_is_unseen_below_and_known_above() {
        let (data, coarse, fine) = zoo(&[0, 1, 2, 3, UNKNOWN_LABEL]);
        let expected = [Truth::Class(0), Truth::Unseen, Truth::Class(2), Truth::Outlier, Truth::Unknown];
        assert_eq!(truths(&data, &fine, None).unwrap(), expected);
        let expected = [Truth::Class(0), Truth::Class(0), Truth::Class(1), Truth::Outlier, Truth::Unknown];
        assert_eq!(truths(&data, &coarse, None).unwrap(), expected);
    }

    #[test]
    fn seen_samples_do_not_include_the_class_named_novel() {
        // Notebook A, trap A6: 500 outliers among the 1,034 "seen" samples moved every percentile.
        let (data, _, fine) = zoo(&[0, 3, 3, 2, 1]);
        let truth = truths(&data, &fine, None).unwrap();
        let samples: Vec<Scored> =
            (0..5).map(|i| Scored { score: f64::from(i), predicted: Some(0) }).collect();
        let score = Score::from(Method::Msp);
        let gathered = Gathered::new((Some(Level::Fine), score), (&truth, &samples), (&[], &[]));
        assert_eq!(gathered.scores.seen_scores(), [0.0, 3.0]);
        assert_eq!(gathered.seen_left_out, 3);
        // As novel data they are wanted; samples of classes that the head knows are not.
        let gathered = Gathered::new((Some(Level::Fine), score), (&[], &[]), (&truth, &samples));
        assert_eq!((gathered.scores.novel_scores(), gathered.novel_left_out), (vec![1.0, 2.0, 4.0], 2));
        // Without labels, data is taken for what it is given as.
        let unknown = [Truth::Unknown; 5];
        let gathered = Gathered::new((None, score), (&unknown, &samples), (&unknown, &samples));
        assert_eq!((gathered.scores.seen.len(), gathered.scores.novel.len()), (5, 5));
    }

    #[test]
    fn labels_of_other_classes_say_nothing() {
        let digits = Labels { labels: vec![0, 1], names: names(&["zero", "one", "two"]), taxonomy: None };
        let head = HeadClasses::single(names(&["robin", "owl"]));
        assert_eq!(truths(&digits, &head, None), None);
        let images = Labels { labels: vec![UNKNOWN_LABEL; 2], names: Vec::new(), taxonomy: None };
        assert_eq!(truths(&images, &head, None).unwrap(), [Truth::Unknown; 2]);
    }
}
