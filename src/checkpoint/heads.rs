//! The meaning of the logits of a network's heads.

use serde::{Deserialize, Serialize};

use crate::data::{Level, Taxonomy, UNKNOWN_LABEL};

/// The classes of one head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadClasses {
    /// First part of the names of its tensors: `fc`, or `super_head` and `sub_head`.
    pub name: String,
    /// The level its classes are of, where the data has two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Names of the classes, by logit.
    pub classes: Vec<String>,
    /// The number each class has in the data set's files, by logit: classes held out from training have no logit.
    pub indices: Vec<i64>,
    /// The logit that outliers were trained to, if they are a class of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub novel: Option<usize>,
}

impl HeadClasses {
    /// The only head of a network for data with one level.
    pub fn single(classes: Vec<String>) -> HeadClasses {
        let indices = (0..classes.len() as i64).collect();
        HeadClasses { name: "fc".into(), level: None, classes, indices, novel: None }
    }

    /// The logit of a class, from the label that a data set gives; [`UNKNOWN_LABEL`] if the head has none for it.
    pub fn logit(&self, taxonomy: Option<&Taxonomy>, label: i64) -> i64 {
        let own = match (self.level, taxonomy) {
            (Some(level), Some(taxonomy)) => taxonomy.label(level, label),
            _ => label,
        };
        self.indices.iter().position(|&index| index == own).map_or(UNKNOWN_LABEL, |logit| logit as i64)
    }
}
