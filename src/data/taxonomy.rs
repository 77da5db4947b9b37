//! Classes on two levels: superclasses, and subclasses that each belong to one of them.

use serde::{Deserialize, Serialize};

use super::{Dataset, Level, UNKNOWN_LABEL};
use crate::error::Position;

/// The name by which a mapping file marks the class of samples that belong to no other.
pub const NOVEL: &str = "novel";

/// The classes of a data set with two levels, in the numbering of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taxonomy {
    /// Names of the superclasses, by `superclass_index`.
    pub superclasses: Vec<String>,
    /// Names of the subclasses, by `subclass_index`.
    pub subclasses: Vec<String>,
    /// The superclass of each subclass; `None` where neither a sample nor a name says which.
    pub parents: Vec<Option<usize>>,
}

impl Taxonomy {
    /// Names of the classes of a level.
    pub fn names(&self, level: Level) -> &[String] {
        match level {
            Level::Coarse => &self.superclasses,
            Level::Fine | Level::Both => &self.subclasses,
        }
    }

    /// The class of a level that is named `novel`, whatever its number.
    pub fn novel(&self, level: Level) -> Option<usize> {
        self.names(level).iter().position(|name| is_novel(name))
    }

    /// The label of a level, from the index of a subclass; [`UNKNOWN_LABEL`] where it is not known.
    pub fn label(&self, level: Level, subclass: i64) -> i64 {
        match level {
            Level::Fine | Level::Both => subclass,
            Level::Coarse => usize::try_from(subclass)
                .ok()
                .and_then(|subclass| self.parents.get(subclass).copied().flatten())
                .map_or(UNKNOWN_LABEL, |parent| parent as i64),
        }
    }
}

/// Whether a class is the one of samples that belong to no other, by its name.
pub fn is_novel(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case(NOVEL)
}

/// The class `novel` of a data set, among the finer ones where there are two levels.
pub fn novel_class(data: &dyn Dataset) -> Option<usize> {
    match data.taxonomy() {
        Some(taxonomy) => taxonomy.novel(Level::Fine),
        None => data.class_names().iter().position(|name| is_novel(name)),
    }
}

/// The promise that a data set with two levels makes about each of its samples.
pub(super) const ONE_SUPERCLASS: &str = "one superclass for each subclass";

/// Finds out from samples which superclass each subclass belongs to.
#[derive(Debug)]
pub(super) struct Parents {
    taxonomy: Taxonomy,
    /// The novel class of each level.
    novel: (Option<usize>, Option<usize>),
    /// The sample that first named the superclass of a subclass.
    told_by: Vec<Option<Position>>,
}

impl Parents {
    /// Nothing known yet but that novel subclasses belong to the novel superclass.
    pub(super) fn new(superclasses: Vec<String>, subclasses: Vec<String>) -> Parents {
        let count = subclasses.len();
        let mut taxonomy = Taxonomy { superclasses, subclasses, parents: vec![None; count] };
        let novel = (taxonomy.novel(Level::Coarse), taxonomy.novel(Level::Fine));
        if let (superclass @ Some(_), Some(subclass)) = novel {
            taxonomy.parents[subclass] = superclass;
        }
        Parents { taxonomy, novel, told_by: vec![None; count] }
    }

    /// A sample's two classes, both below the number of names, and where that sample stands.
    ///
    /// # Errors
    /// They contradict another sample, or what `novel` means; the text says how.
    pub(super) fn add(&mut self, superclass: usize, subclass: usize, at: Position) -> Result<(), String> {
        let is_novel = (self.novel.0 == Some(superclass), self.novel.1 == Some(subclass));
        let classes = format!(
            "superclass {superclass} `{}` with subclass {subclass} `{}`",
            self.taxonomy.superclasses[superclass], self.taxonomy.subclasses[subclass]
        );
        if is_novel.0 && !is_novel.1 {
            return Err(format!(
                "{classes}, though what belongs to no superclass is of no known subclass either"
            ));
        }
        if is_novel.1 && !is_novel.0 && self.novel.0.is_some() {
            return Err(format!(
                "{classes}: a novel subclass of a known superclass; to read such samples, read one level at a time \
                 (labels=superclass, labels=subclass)"
            ));
        }
        match self.taxonomy.parents[subclass].replace(superclass) {
            Some(other) if other != superclass => {
                let told_by = self.told_by[subclass].as_ref().map_or(String::new(), Position::to_string);
                let name = &self.taxonomy.superclasses[other];
                Err(format!("{classes}, which{told_by} has under superclass {other} `{name}`"))
            }
            _ => {
                self.told_by[subclass].get_or_insert(at);
                Ok(())
            }
        }
    }

    pub(super) fn finish(self) -> Taxonomy {
        self.taxonomy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn parents() -> Parents {
        Parents::new(names(&["bird", "dog", "Novel "]), names(&["novel", "beagle", "finch", "pug"]))
    }

    #[test]
    fn samples_say_which_superclass_a_subclass_has_and_novel_is_known_by_name() {
        let mut parents = parents();
        parents.add(1, 1, Position::Line(2)).unwrap();
        parents.add(0, 2, Position::Line(3)).unwrap();
        parents.add(1, 1, Position::Line(4)).unwrap();
        parents.add(2, 0, Position::Line(5)).unwrap();
        let taxonomy = parents.finish();
        assert_eq!(taxonomy.parents, [Some(2), Some(1), Some(0), None]);
        assert_eq!((taxonomy.novel(Level::Coarse), taxonomy.novel(Level::Fine)), (Some(2), Some(0)));
        assert_eq!((0..5).map(|i| taxonomy.label(Level::Coarse, i)).collect::<Vec<_>>(), [2, 1, 0, -1, -1]);
        assert_eq!(taxonomy.label(Level::Coarse, UNKNOWN_LABEL), UNKNOWN_LABEL);
    }

    #[test]
    fn contradictions_name_both_classes_and_the_sample_that_said_otherwise() {
        let mut parents = parents();
        parents.add(1, 1, Position::Line(2)).unwrap();
        let error = parents.add(0, 1, Position::Line(9)).unwrap_err();
        assert_eq!(
            error,
            "superclass 0 `bird` with subclass 1 `beagle`, which line 2 has under superclass 1 `dog`"
        );
        assert!(parents.add(2, 2, Position::Line(9)).unwrap_err().contains("no known subclass"));
        assert!(parents.add(1, 0, Position::Line(9)).unwrap_err().contains("labels=superclass"));
    }
}
