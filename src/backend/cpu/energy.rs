//! Margins for the energy of samples and outliers: losses and the gradient of their mean in one pass over the logits.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::Result;
use crate::ops::{EnergyMargin, EnergyMarginLoss};
use crate::tensor::Span;

pub(super) fn energy_margin<T: Element>(
    cpu: &mut Cpu<T>,
    op: &EnergyMarginLoss<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let ([logits, outlier], [loss, dlogits]) =
        cpu.memory.split([op.logits, op.outlier], [op.loss, op.dlogits])?;
    let (logits, outlier): (&[T], &[i32]) = (bytemuck::cast_slice(logits), bytemuck::cast_slice(outlier));
    let [loss, dlogits]: [&mut [T]; 2] = [loss, dlogits].map(bytemuck::cast_slice_mut);
    let classes = attributes.classes;
    let outputs = loss.par_iter_mut().zip(dlogits.par_chunks_exact_mut(classes));
    outputs.zip(logits.par_chunks_exact(classes)).zip(outlier).for_each(
        |(((loss, dlogits), logits), &outlier)| {
            *loss = T::from_f64(one_sample(attributes, logits, outlier != 0, dlogits));
        },
    );
    Ok(())
}

/// Loss of one sample; fills its row of the gradient.
fn one_sample<T: Element>(attributes: &EnergyMargin, logits: &[T], outlier: bool, dlogits: &mut [T]) -> f64 {
    let largest = logits.iter().map(|logit| logit.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|logit| (logit.to_f64() - largest).exp()).sum::<f64>().ln();
    let energy = -(largest + log_sum);
    // How far the energy lies on the wrong side; the rectifier keeps NaN, which a diverged training shows itself by.
    let excess = if outlier { attributes.outside - energy } else { energy - attributes.inside }.rectified();
    let slope = if outlier { -2.0 * excess } else { 2.0 * excess } / attributes.batch as f64;
    for (dlogit, logit) in dlogits.iter_mut().zip(logits) {
        // The energy falls by a class's probability as its logit grows.
        *dlogit = T::from_f64(-slope * (logit.to_f64() - largest - log_sum).exp());
    }
    excess * excess
}
