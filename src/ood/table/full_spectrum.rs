//! Full-spectrum evaluation: a detector should not take images of the known classes for novel because they are blurred, drawn or
//! photographed elsewhere.
//!
//! As in OpenOOD v1.5 (Zhang and others, 2023; Yang, Zhou and Liu, "Full-Spectrum Out-of-Distribution Detection", 2023) the ID side is the ID test set
//! and all covariate-shifted ID sets together, against each OOD set. Intervals and comparisons take the pooled samples as independent of
//! each other; where shifted images are copies of the ID test images they are not quite.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Entry, Evaluation, GroupMean, IdRisk, IdSet, OodSet};
use crate::ood::metrics::Interval;

/// A covariate-shifted ID set: images of the known classes that look different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShiftedSet {
    /// The name in tables and file names.
    pub name: String,
    /// Number of samples.
    pub samples: u64,
    /// Accuracy on it as a fraction, where labels are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// How well one score tells the ID test set from a shifted ID set, which it should not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShiftedEntry {
    /// AUROC of ID against shifted samples: 0.5 where the score does not see the shift.
    pub auroc: f64,
    /// Its standard error (DeLong); of at least two samples a side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_se: Option<f64>,
    /// Its 95 % interval, normal on the scale of the logit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_interval95: Option<Interval>,
}

/// The results with shifted ID sets on the ID side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FullSpectrum {
    /// The ID test set and all shifted sets together; the accuracy is over all of their samples.
    #[serde(default)]
    pub id: IdSet,
    /// The shifted sets in the order they were given.
    #[serde(default)]
    pub shifted: Vec<ShiftedSet>,
    /// Shifted set → score → the ID test set against it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id_versus_shifted: BTreeMap<String, BTreeMap<String, ShiftedEntry>>,
    /// OOD set → score → metrics.
    #[serde(default)]
    pub ood: BTreeMap<String, BTreeMap<String, Entry>>,
    /// Group → score → means.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, BTreeMap<String, GroupMean>>,
    /// Score → selective prediction on all these ID samples.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id_risk: BTreeMap<String, IdRisk>,
}

impl FullSpectrum {
    /// The results of an evaluation whose ID side was the pooled one.
    pub(in crate::ood) fn new(
        pooled: Evaluation,
        shifted: Vec<ShiftedSet>,
        id_versus_shifted: BTreeMap<String, BTreeMap<String, ShiftedEntry>>,
    ) -> FullSpectrum {
        let Evaluation { id, ood, groups, id_risk, .. } = pooled;
        FullSpectrum { id, shifted, id_versus_shifted, ood, groups, id_risk }
    }
}

impl Evaluation {
    /// The full-spectrum results as an evaluation of their own, of the same scores and OOD sets.
    pub(crate) fn of_full_spectrum(&self) -> Option<Evaluation> {
        let full = self.full_spectrum.as_ref()?;
        let datasets: Vec<OodSet> =
            self.datasets.iter().filter(|set| full.ood.contains_key(&set.name)).cloned().collect();
        Some(Evaluation {
            id: full.id.clone(),
            datasets,
            methods: self.methods.clone(),
            ood: full.ood.clone(),
            groups: full.groups.clone(),
            id_risk: full.id_risk.clone(),
            comparison: self.comparison.clone(),
            ..Evaluation::default()
        })
    }
}
