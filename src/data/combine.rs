//! Data sets made from others: several one after the other, or the same images under other labels.

use super::{Dataset, RgbImage, SharedDataset, Taxonomy, UNKNOWN_LABEL};
use crate::error::{Error, Result};

/// Several data sets one after the other, with the classes of the first.
#[derive(Debug)]
pub struct Concatenated {
    parts: Vec<SharedDataset>,
    /// Number of samples before each part, and at the end the number of all.
    starts: Vec<usize>,
}

impl Concatenated {
    /// The samples of all `parts`, in their order.
    ///
    /// # Errors
    /// There is no part, a part's labels mean other classes than the first's, or there are more than 2^32 - 1 samples.
    pub fn new(parts: Vec<SharedDataset>) -> Result<Concatenated> {
        let Some(first) = parts.first() else {
            return Err(Error::invalid("no data sets to put one after the other"));
        };
        let mut starts = vec![0];
        for (position, part) in parts.iter().enumerate() {
            let labelled = || (0..part.len()).any(|index| part.label(index) != UNKNOWN_LABEL);
            if part.class_names() != first.class_names() && labelled() {
                return Err(Error::invalid(format!(
                    "data set {position} of those put one after the other has other classes than the first ({} of \
                     them instead of {}); give it the labels of the first",
                    part.class_names().len(),
                    first.class_names().len()
                )));
            }
            starts.push(starts[position] + part.len());
        }
        let count = starts[parts.len()];
        if u32::try_from(count).is_err() {
            return Err(Error::invalid(format!("{count} samples together: expected at most 2^32 - 1")));
        }
        Ok(Concatenated { parts, starts })
    }

    /// The part a sample lies in, and its number there.
    fn at(&self, index: usize) -> (&SharedDataset, usize) {
        let part = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.parts[part], index - self.starts[part])
    }
}

impl Dataset for Concatenated {
    fn len(&self) -> usize {
        self.starts[self.parts.len()]
    }

    fn class_names(&self) -> &[String] {
        self.parts[0].class_names()
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.parts[0].taxonomy()
    }

    fn label(&self, index: usize) -> i64 {
        let (part, index) = self.at(index);
        part.label(index)
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let (part, index) = self.at(index);
        part.image(index)
    }

    fn sample_name(&self, index: usize) -> String {
        let (part, index) = self.at(index);
        part.sample_name(index)
    }

    fn undecoded_kind(&self, index: usize) -> Option<&'static str> {
        let (part, index) = self.at(index);
        part.undecoded_kind(index)
    }

    fn notes(&self) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.notes()).collect()
    }
}

/// The images of a data set under other labels.
#[derive(Debug)]
pub struct Relabelled {
    whole: SharedDataset,
    labels: Vec<i64>,
    class_names: Vec<String>,
    taxonomy: Option<Taxonomy>,
    /// Names of the samples, where they are others as well.
    names: Option<Vec<String>>,
}

impl Relabelled {
    /// Sample `i` of `whole` with the label `labels[i]`, which is in `0..class_names.len()` or [`UNKNOWN_LABEL`]. The
    /// subclasses of a taxonomy are the classes.
    ///
    /// # Errors
    /// There is not a label for each sample, a label has no name, or the taxonomy has other subclasses.
    pub fn new(
        whole: SharedDataset,
        labels: Vec<i64>,
        class_names: Vec<String>,
        taxonomy: Option<Taxonomy>,
    ) -> Result<Relabelled> {
        if labels.len() != whole.len() {
            let (labels, samples) = (labels.len(), whole.len());
            return Err(Error::invalid(format!(
                "{labels} labels for {samples} samples: expected one for each"
            )));
        }
        let known = |label: &i64| *label == UNKNOWN_LABEL || (0..class_names.len() as i64).contains(label);
        if let Some(index) = labels.iter().position(|label| !known(label)) {
            return Err(Error::invalid(format!(
                "sample {index} (`{}`) is given the label {}, but there are names for {} classes",
                whole.sample_name(index),
                labels[index],
                class_names.len()
            )));
        }
        if taxonomy.as_ref().is_some_and(|taxonomy| taxonomy.subclasses != class_names) {
            return Err(Error::invalid("the subclasses of the taxonomy are not the classes the labels mean"));
        }
        Ok(Relabelled { whole, labels, class_names, taxonomy, names: None })
    }

    /// The same with other names of the samples, one for each.
    pub(super) fn named(self, names: Vec<String>) -> Relabelled {
        Relabelled { names: Some(names), ..self }
    }
}

impl Dataset for Relabelled {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.taxonomy.as_ref()
    }

    fn label(&self, index: usize) -> i64 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        self.whole.image(index)
    }

    fn sample_name(&self, index: usize) -> String {
        self.names.as_ref().map_or_else(|| self.whole.sample_name(index), |names| names[index].clone())
    }

    fn undecoded_kind(&self, index: usize) -> Option<&'static str> {
        self.whole.undecoded_kind(index)
    }

    fn notes(&self) -> Vec<String> {
        self.whole.notes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{InMemory, Selected};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn set(grey: &[u8], classes: &[&str]) -> SharedDataset {
        let labels =
            (0..grey.len()).map(|i| if classes.is_empty() { -1 } else { (i % classes.len()) as i64 });
        Arc::new(InMemory::from_grey(1, 1, grey, labels.collect(), names(classes)).unwrap())
    }

    #[test]
    fn samples_of_the_second_set_follow_those_of_the_first() {
        let taxonomy = Taxonomy {
            superclasses: names(&["all"]),
            subclasses: names(&["a", "b"]),
            parents: vec![Some(0); 2],
        };
        let first = InMemory::from_grey(1, 1, &[10, 20, 30], vec![0, 1, 0], names(&["a", "b"])).unwrap();
        let first: SharedDataset = Arc::new(first.with_taxonomy(taxonomy.clone()).unwrap());
        let nothing: SharedDataset = Arc::new(Selected::new(first.clone(), vec![]));
        let set =
            Concatenated::new(vec![first, nothing, set(&[40, 50], &["a", "b"]), set(&[60], &[])]).unwrap();
        let greys: Vec<u8> = (0..set.len()).map(|index| set.image(index).unwrap().pixels[0]).collect();
        assert_eq!(greys, [10, 20, 30, 40, 50, 60]);
        assert_eq!((0..6).map(|index| set.label(index)).collect::<Vec<_>>(), [0, 1, 0, 0, 1, UNKNOWN_LABEL]);
        assert_eq!((set.sample_name(4), set.taxonomy()), ("1".to_owned(), Some(&taxonomy)));
    }

    #[test]
    fn labels_that_mean_other_classes_are_not_put_together() {
        let message = |parts| Concatenated::new(parts).unwrap_err().to_string();
        assert!(message(vec![set(&[1], &["a"]), set(&[1], &["a", "b"])]).contains("2 of them instead of 1"));
        assert!(message(vec![]).contains("no data sets"));
    }

    #[test]
    fn a_relabelled_set_keeps_its_images_and_refuses_labels_that_do_not_fit() {
        let whole = set(&[10, 20], &["a", "b"]);
        let new = |labels, classes: &[&str]| Relabelled::new(whole.clone(), labels, names(classes), None);
        let renamed = new(vec![-1, 2], &["x", "y", "z"]).unwrap();
        assert_eq!((renamed.label(0), renamed.label(1), renamed.image(1).unwrap().pixels[0]), (-1, 2, 20));
        assert!(new(vec![0], &["x"]).unwrap_err().to_string().contains("1 labels for 2 samples"));
        assert!(new(vec![0, 1], &["x"]).unwrap_err().to_string().contains("sample 1 (`1`)"));
        let other = Taxonomy { subclasses: names(&["y"]), parents: vec![None], ..Taxonomy::default() };
        assert!(Relabelled::new(whole.clone(), vec![0, 0], names(&["x"]), Some(other)).is_err());
    }
}
