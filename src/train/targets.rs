//! The targets of each head: a class for each training sample.
//!
//! The classes that samples are trained to are the classes of a head's softmax, in the order of their numbers in the
//! files: a class that was held out has no logit, which nothing would train. Samples of the class named `novel` are outliers,
//! which are a class of their own or only shape the loss.

use crate::checkpoint::HeadClasses;
use crate::data::{Level, NOVEL, SharedDataset, Taxonomy, is_novel};
use crate::error::{Error, Result};
use crate::nn::{ONLY_HEAD, SUBCLASS_HEAD, SUPERCLASS_HEAD};

/// The classes of the heads, and the training samples' places among them.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The classes of each head's logits.
    pub heads: Vec<HeadClasses>,
    /// Both levels of the data's classes, where it has two.
    pub taxonomy: Option<Taxonomy>,
    /// For each head, the logit of each sample's class; -1 for outliers that are no class.
    labels: Vec<Vec<i32>>,
    /// Which samples are outliers that are no class; empty if none are.
    outliers: Vec<bool>,
}

/// The rule that decides the classes of a head.
struct Rule<'a> {
    name: &'a str,
    level: Option<Level>,
    /// Names of all classes of the level.
    names: &'a [String],
    /// The class of outliers.
    novel: Option<usize>,
    /// Whether outliers are a class of the softmax.
    novel_is_class: bool,
    /// Whether classes without samples have a logit.
    keep_empty: bool,
}

impl Rule<'_> {
    fn classes(&self, labels: &[i64]) -> HeadClasses {
        let mut seen = vec![self.keep_empty; self.names.len()];
        labels.iter().filter(|&&label| label >= 0).for_each(|&label| seen[label as usize] = true);
        let is_class = |class: &usize| seen[*class] && (self.novel_is_class || Some(*class) != self.novel);
        let indices: Vec<usize> = (0..self.names.len()).filter(is_class).collect();
        HeadClasses {
            name: self.name.into(),
            level: self.level,
            classes: indices.iter().map(|&index| self.names[index].clone()).collect(),
            novel: indices.iter().position(|&index| Some(index) == self.novel),
            indices: indices.into_iter().map(|index| index as i64).collect(),
        }
    }
}

impl Targets {
    /// The targets of one head for data with one level of classes. `level` says which that is, where it is known;
    /// `keep_empty` gives classes without samples a logit, as benchmarks with fixed classes want.
    ///
    /// # Errors
    /// A sample without a class, fewer than two classes, outliers that are no class where no class is named `novel`.
    pub fn single(
        data: &SharedDataset,
        level: Option<Level>,
        keep_empty: bool,
        novel_is_class: bool,
    ) -> Result<Targets> {
        let names = data.class_names();
        let novel = names.iter().position(|name| is_novel(name));
        let rule = Rule { name: ONLY_HEAD, level, names, novel, novel_is_class, keep_empty };
        let labels = labels(data)?;
        Targets::new(data, None, vec![(rule, labels.clone())], &labels, novel, novel_is_class)
    }

    /// The targets for data with two levels: of one head over a level, or of a head for each.
    ///
    /// # Errors
    /// As [`Targets::single`]; a subclass in training whose superclass is not known.
    ///
    /// # Panics
    /// The data has one level.
    pub fn of_levels(data: &SharedDataset, levels: Level, novel_is_class: bool) -> Result<Targets> {
        let taxonomy = data.taxonomy().expect("data with two levels of classes");
        let subclasses = labels(data)?;
        let novel = taxonomy.novel(Level::Fine);
        if levels != Level::Fine {
            check_parents(taxonomy, &subclasses, if novel_is_class { None } else { novel })?;
        }
        let rule = |name, level| Rule {
            name,
            level: Some(level),
            names: taxonomy.names(level),
            novel: taxonomy.novel(level),
            novel_is_class,
            keep_empty: false,
        };
        let of = |level| subclasses.iter().map(|&label| taxonomy.label(level, label)).collect::<Vec<i64>>();
        let rules = match levels {
            Level::Fine | Level::Coarse => vec![(rule(ONLY_HEAD, levels), of(levels))],
            Level::Both => vec![
                (rule(SUPERCLASS_HEAD, Level::Coarse), of(Level::Coarse)),
                (rule(SUBCLASS_HEAD, Level::Fine), of(Level::Fine)),
            ],
        };
        Targets::new(data, Some(taxonomy.clone()), rules, &subclasses, novel, novel_is_class)
    }

    /// `finest` holds the labels among which `novel` is.
    fn new(
        data: &SharedDataset,
        taxonomy: Option<Taxonomy>,
        rules: Vec<(Rule<'_>, Vec<i64>)>,
        finest: &[i64],
        novel: Option<usize>,
        novel_is_class: bool,
    ) -> Result<Targets> {
        let is_outlier = |label: i64| novel.is_some_and(|novel| label == novel as i64);
        let outliers: Vec<bool> = match novel_is_class {
            true => Vec::new(),
            false => finest.iter().map(|&label| is_outlier(label)).collect(),
        };
        if !novel_is_class && !outliers.contains(&true) {
            return Err(Error::invalid(format!(
                "no training sample is of a class named `{NOVEL}`; --outlier-loss uniform and energy need outliers to learn from"
            )));
        }
        let (mut heads, mut logits) = (Vec::new(), Vec::new());
        for (rule, labels) in rules {
            let head = rule.classes(&labels);
            if head.indices.len() < 2 {
                return Err(Error::invalid(format!(
                    "the training data has {} classes ({}); training needs at least two",
                    head.indices.len(),
                    if head.classes.is_empty() { "none".into() } else { head.classes.join(", ") }
                )));
            }
            let mut logit_of = vec![-1; rule.names.len()];
            for (logit, &index) in head.indices.iter().enumerate() {
                logit_of[index as usize] = logit as i32;
            }
            let logit = |(sample, &label): (usize, &i64)| match usize::try_from(label) {
                Ok(label) if !outliers.get(sample).is_some_and(|&outlier| outlier) => logit_of[label],
                _ => -1,
            };
            logits.push(labels.iter().enumerate().map(logit).collect());
            heads.push(head);
        }
        debug_assert!(logits.iter().all(|labels: &Vec<i32>| labels.len() == data.len()));
        Ok(Targets { heads, taxonomy, labels: logits, outliers })
    }

    /// The logit of a head for each sample, -1 for outliers that are no class.
    pub fn labels(&self, head: usize) -> &[i32] {
        &self.labels[head]
    }

    /// Whether a sample is an outlier that is no class.
    pub fn is_outlier(&self, sample: usize) -> bool {
        self.outliers.get(sample).is_some_and(|&outlier| outlier)
    }

    /// Number of samples of each class of a head.
    pub fn counts(&self, head: usize) -> Vec<u64> {
        let mut counts = vec![0; self.heads[head].classes.len()];
        self.labels[head].iter().filter(|&&label| label >= 0).for_each(|&label| counts[label as usize] += 1);
        counts
    }

    /// The superclass, by its number in the files, of each logit of the last head.
    ///
    /// # Panics
    /// The data has one level.
    pub fn superclasses(&self) -> Vec<i64> {
        let taxonomy = self.taxonomy.as_ref().expect("data with two levels of classes");
        let head = self.heads.last().expect("a head");
        head.indices.iter().map(|&subclass| taxonomy.label(Level::Coarse, subclass)).collect()
    }
}

/// The label of every sample.
fn labels(data: &SharedDataset) -> Result<Vec<i64>> {
    let classes = data.class_names().len() as i64;
    (0..data.len())
        .map(|index| {
            let label = data.label(index);
            if (0..classes).contains(&label) {
                return Ok(label);
            }
            let (name, last) = (data.sample_name(index), classes - 1);
            Err(Error::invalid(if classes == 0 {
                format!("training sample {index} ({name}) has no label, as all of this data; training needs classes")
            } else {
                format!(
                    "training sample {index} ({name}) has label {label}; the training data has classes 0 to {last}"
                )
            }))
        })
        .collect()
}

/// Every subclass that is trained needs a superclass, `exempt` excepted.
fn check_parents(taxonomy: &Taxonomy, labels: &[i64], exempt: Option<usize>) -> Result<()> {
    let orphan = labels.iter().find(|&&label| {
        Some(label as usize) != exempt && taxonomy.parents.get(label as usize).copied().flatten().is_none()
    });
    match orphan {
        None => Ok(()),
        Some(&subclass) => Err(Error::invalid(format!(
            "the superclass of subclass {subclass} (`{}`) is not known; training on both levels needs it for every subclass",
            taxonomy.subclasses[subclass as usize]
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{InMemory, Relabelled};

    /// Subclasses 0 to 3 and `novel`, of superclasses `a` (0, 1), `b` (2, 3) and `novel`.
    fn data(labels: &[i64]) -> SharedDataset {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<String>>();
        let subclasses = names(&["p", "q", "r", "s", "Novel"]);
        let taxonomy = Taxonomy {
            superclasses: names(&["a", "b", "novel"]),
            subclasses: subclasses.clone(),
            parents: vec![Some(0), Some(0), Some(1), Some(1), Some(2)],
        };
        let pixels = vec![0; labels.len()];
        let images = InMemory::from_grey(1, 1, &pixels, vec![0; labels.len()], subclasses.clone()).unwrap();
        Arc::new(Relabelled::new(Arc::new(images), labels.to_vec(), subclasses, Some(taxonomy)).unwrap())
    }

    // Notebook A, trap A18: classes held out from training stayed in the softmax as dead logits.
    #[test]
    fn classes_held_out_of_training_have_no_logit() {
        let targets = Targets::of_levels(&data(&[3, 0, 4, 3]), Level::Both, true).unwrap();
        let [superclass, subclass] = &targets.heads[..] else { panic!("two heads") };
        assert_eq!((superclass.name.as_str(), &superclass.indices[..]), ("super_head", &[0, 1, 2][..]));
        assert_eq!((subclass.name.as_str(), &subclass.indices[..]), ("sub_head", &[0, 3, 4][..]));
        assert_eq!(subclass.classes, ["p", "s", "Novel"]);
        assert_eq!((superclass.novel, subclass.novel), (Some(2), Some(2)));
        assert_eq!(targets.labels(1), [1, 0, 2, 1]);
        assert_eq!(targets.labels(0), [1, 0, 2, 1]);
        assert_eq!(targets.superclasses(), [0, 1, 2]);
        assert_eq!(targets.counts(1), [1, 2, 1]);
        // The held-out class 2 of the validation data is known to no head of subclasses.
        assert_eq!(subclass.logit(targets.taxonomy.as_ref(), 2), -1);
        assert_eq!(superclass.logit(targets.taxonomy.as_ref(), 2), 1);
    }

    #[test]
    fn outliers_that_are_no_class_have_no_logit_on_either_level() {
        let targets = Targets::of_levels(&data(&[3, 0, 4, 3]), Level::Both, false).unwrap();
        assert_eq!(targets.heads[0].classes, ["a", "b"]);
        assert_eq!(targets.heads[1].classes, ["p", "s"]);
        assert_eq!(targets.labels(1), [1, 0, -1, 1]);
        assert_eq!((0..4).map(|i| targets.is_outlier(i)).collect::<Vec<_>>(), [false, false, true, false]);
        let none = Targets::of_levels(&data(&[0, 1, 2]), Level::Fine, false).unwrap_err().to_string();
        assert!(none.contains("class named `novel`"), "{none}");
    }

    #[test]
    fn one_level_is_named_and_classes_without_samples_stay_only_where_asked() {
        let single = |keep| Targets::single(&data(&[0, 2, 2]), Some(Level::Fine), keep, true).unwrap();
        assert_eq!(single(true).heads[0].classes.len(), 5);
        assert_eq!(
            (&single(false).heads[0].indices[..], single(false).labels(0)),
            (&[0, 2][..], &[0, 1, 1][..])
        );
    }

    #[test]
    fn a_sample_without_a_class_and_a_single_class_are_errors() {
        let unknown = Targets::of_levels(&data(&[0, -1]), Level::Both, true).unwrap_err().to_string();
        assert!(unknown.contains("sample 1") && unknown.contains("label -1"), "{unknown}");
        let one = Targets::of_levels(&data(&[0, 1]), Level::Coarse, true).unwrap_err().to_string();
        assert!(one.contains("1 classes (a)"), "{one}");
    }
}
