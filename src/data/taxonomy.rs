//! Classes on two levels: superclasses, and subclasses that each belong to one of them.

use serde::{Deserialize, Serialize};

use super::{Level, UNKNOWN_LABEL};

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
        self.names(level).iter().position(|name| name.trim().eq_ignore_ascii_case(NOVEL))
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
