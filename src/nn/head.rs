//! Classifiers behind the pooled features: their kinds, their tensors, how they are recorded on a tape.
//!
//! | kind | logits | tensors |
//! |---|---|---|
//! | `linear` | `x Wᵀ + b` | `fc.weight`, `fc.bias` |
//! | `cosine` | `s cos(x, w)`, `s = softplus(scale)`, not decayed | `fc.weight`, `fc.scale` |
//! | `cosine-relu-linear` | `relu(s cos(x, w)) Wᵀ + b`, `s = scale`, decayed | `fc.0.weight`, `fc.0.scale`, `fc.2.weight`, `fc.2.bias` |
//!
//! With two heads `super_head` and `sub_head` stand for `fc`.

use serde::{Deserialize, Serialize};

use super::parameters::{Entry, Kind};
use crate::autograd::{Tape, Var};
use crate::tensor::Shape;
use crate::values::named;

named! {
    /// A kind of classifier.
    #[derive(Hash)]
    pub enum HeadKind: "head" {
        /// One fully connected layer.
        Linear = "linear",
        /// A learned positive multiple of the cosines between features and one vector per class.
        Cosine = "cosine",
        /// Scaled cosines, a rectifier, a fully connected layer: negative cosines are lost, logits are unbounded.
        CosineReluLinear = "cosine-relu-linear",
    }
    default Linear
}

/// Name of the only head.
pub const ONLY_HEAD: &str = "fc";
/// Name of the head over superclasses, where there are two.
pub const SUPERCLASS_HEAD: &str = "super_head";
/// Name of the head over subclasses, where there are two.
pub const SUBCLASS_HEAD: &str = "sub_head";

/// One head of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// First part of the names of its tensors.
    pub name: String,
    /// Its kind of classifier.
    pub kind: HeadKind,
    /// Number of classes.
    pub classes: usize,
}

impl HeadSpec {
    /// A head by the name of its tensors.
    pub fn new(name: &str, kind: HeadKind, classes: usize) -> HeadSpec {
        HeadSpec { name: name.into(), kind, classes }
    }

    /// Numbers that enter its last linear map, behind `pooled` features of the network.
    pub fn feature_dimension(&self, pooled: usize) -> usize {
        match self.kind {
            HeadKind::Linear | HeadKind::Cosine => pooled,
            HeadKind::CosineReluLinear => self.classes,
        }
    }

    /// Its tensors, in the order of the table above; `inputs` is the number of pooled features.
    pub(super) fn tensors(&self, inputs: usize) -> Vec<(String, Kind, Shape)> {
        let HeadSpec { name, classes, .. } = self;
        let (matrix, one) = (Shape::from([*classes, inputs]), Shape::from([1]));
        match self.kind {
            HeadKind::Linear => vec![
                (format!("{name}.weight"), Kind::LinearWeight, matrix),
                (format!("{name}.bias"), Kind::LinearBias { inputs }, Shape::from([*classes])),
            ],
            HeadKind::Cosine => vec![
                (format!("{name}.weight"), Kind::CosineWeight, matrix),
                (format!("{name}.scale"), Kind::SoftplusScale, one),
            ],
            HeadKind::CosineReluLinear => vec![
                (format!("{name}.0.weight"), Kind::CosineWeight, matrix),
                (format!("{name}.0.scale"), Kind::Scale, one),
                (format!("{name}.2.weight"), Kind::LinearWeight, Shape::from([*classes, *classes])),
                (format!("{name}.2.bias"), Kind::LinearBias { inputs: *classes }, Shape::from([*classes])),
            ],
        }
    }
}

/// The outputs of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadOutput {
    /// Input of its last linear map, (batch, [`HeadSpec::feature_dimension`]); for `cosine` before the division by its
    /// norm.
    pub features: Var,
    /// One number per class, (batch, classes).
    pub logits: Var,
}

/// Records a head, whose tensors are `entries`, on pooled features.
pub(super) fn record(tape: &mut Tape, kind: HeadKind, entries: &[Entry], pooled: Var) -> HeadOutput {
    let at = |index: usize| entries[index].parameter;
    match kind {
        HeadKind::Linear => HeadOutput { features: pooled, logits: tape.linear(pooled, &at(0), &at(1)) },
        HeadKind::Cosine => {
            HeadOutput { features: pooled, logits: tape.cosine(pooled, &at(0), &at(1), true) }
        }
        HeadKind::CosineReluLinear => {
            let scaled = tape.cosine(pooled, &at(0), &at(1), false);
            let features = tape.relu_number(scaled);
            HeadOutput { features, logits: tape.linear(features, &at(2), &at(3)) }
        }
    }
}
