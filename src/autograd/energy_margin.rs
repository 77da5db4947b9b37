//! Margins for the energy of samples and outliers: losses and the gradient of their mean in one pass.

use super::{Tape, Var};
use crate::ops::{EnergyMargin, EnergyMarginLoss};
use crate::plan::{BufferId, Storage};
use crate::tensor::Shape;

/// The results of margins for the energy.
#[derive(Debug, Clone, Copy)]
pub struct EnergyLoss {
    /// Loss of each sample, (batch).
    pub per_sample: BufferId,
    /// The logits of the loss, and the gradient of the mean loss with respect to them.
    pub gradient: (Var, BufferId),
}

impl Tape {
    /// Records squared hinges on the energy `E = -log sum exp(logits)`: `max(0, E - inside)²` for samples of the classes,
    /// `max(0, outside - E)²` where `outlier` (batch, i32) is 1.
    pub fn energy_margin(&mut self, logits: Var, outlier: Var, inside: f64, outside: f64) -> EnergyLoss {
        let (batch, classes) = (logits.shape.rows(), logits.shape.channels());
        assert_eq!(outlier.shape, Shape::from([batch]), "one mark per sample");
        let number = self.dtype.accumulator();
        let per_sample = self.plan.buffer("energy margin", outlier.shape, number, Storage::Step);
        let dlogits = self.transient_number("energy margin gradient", logits.shape);
        self.plan.push(EnergyMarginLoss {
            attributes: EnergyMargin { batch, classes, inside, outside },
            logits: logits.buffer,
            outlier: outlier.buffer,
            loss: per_sample,
            dlogits,
        });
        EnergyLoss { per_sample, gradient: (logits, dlogits) }
    }
}
