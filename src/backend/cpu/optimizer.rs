//! Parameter updates: SGD, Adam and AdamW with PyTorch's formulas, each in one pass over the parameters.

use rayon::prelude::*;

use super::Cpu;
use super::calls::hyper;
use super::chunks::{flat, vectorised};
use super::element::Element;
use super::memory::{Memory, operand};
use crate::error::Result;
use crate::ops::{Adam, Sgd};
use crate::tensor::Span;

impl<T: Element> Cpu<T> {
    /// `sgd` of [`crate::ops::Backend`].
    pub(super) fn step_sgd(
        &self,
        memory: &mut Memory,
        attributes: &Sgd,
        [parameters, gradients, velocity, hyper_span]: [Span; 4],
    ) -> Result<()> {
        let n = attributes.elements;
        let n_velocity = if attributes.momentum == 0.0 { velocity.elements } else { n };
        let ([gradients, hyper], [parameters, velocity]) = memory.slices::<T, 2, 2>(
            [operand::<T>("gradients", gradients, n), hyper::<T>(hyper_span, 1)],
            [operand::<T>("parameters", parameters, n), operand::<T>("velocity", velocity, n_velocity)],
        )?;
        let learning_rate = hyper[0];
        self.pool.install(|| sgd(attributes, parameters, gradients, velocity, learning_rate));
        Ok(())
    }

    /// `adam` of [`crate::ops::Backend`].
    pub(super) fn step_adam(
        &self,
        memory: &mut Memory,
        attributes: &Adam,
        [parameters, gradients, first, second, hyper_span]: [Span; 5],
    ) -> Result<()> {
        let n = attributes.elements;
        let ([gradients, hyper], [parameters, first, second]) = memory.slices::<T, 2, 3>(
            [operand::<T>("gradients", gradients, n), hyper::<T>(hyper_span, 3)],
            [
                operand::<T>("parameters", parameters, n),
                operand::<T>("first", first, n),
                operand::<T>("second", second, n),
            ],
        )?;
        let hyper = [hyper[0].to_f64(), hyper[1].to_f64(), hyper[2].to_f64()];
        self.pool.install(|| adam(attributes, parameters, gradients, first, second, hyper));
        Ok(())
    }
}

/// One step of SGD; `velocity` is not touched (and may be empty) without momentum.
fn sgd<T: Element>(
    attributes: &Sgd,
    parameters: &mut [T],
    gradients: &[T],
    velocity: &mut [T],
    learning_rate: T,
) {
    let decay = T::from_f64(attributes.weight_decay);
    let momentum = T::from_f64(attributes.momentum);
    let pieces = parameters.par_chunks_mut(flat()).zip(gradients.par_chunks(flat()));
    if attributes.momentum == 0.0 {
        pieces.for_each(|(parameters, gradients)| {
            vectorised(
                #[inline(always)]
                || {
                    for (p, &g) in parameters.iter_mut().zip(gradients) {
                        *p -= learning_rate * (g + decay * *p);
                    }
                },
            );
        });
        return;
    }
    let nesterov = attributes.nesterov;
    pieces.zip(velocity.par_chunks_mut(flat())).for_each(|((parameters, gradients), velocity)| {
        vectorised(
            #[inline(always)]
            || {
                for ((p, &g), v) in parameters.iter_mut().zip(gradients).zip(velocity) {
                    let g = g + decay * *p;
                    *v = momentum * *v + g;
                    *p -= learning_rate * if nesterov { g + momentum * *v } else { *v };
                }
            },
        );
    });
}

/// One step of Adam or AdamW; `hyper = [lr, 1 - beta1^t, sqrt(1 - beta2^t)]`.
fn adam<T: Element>(
    attributes: &Adam,
    parameters: &mut [T],
    gradients: &[T],
    first: &mut [T],
    second: &mut [T],
    hyper: [f64; 3],
) {
    let [learning_rate, correction1, correction2] = hyper;
    let step = T::from_f64(learning_rate / correction1);
    let correction2 = T::from_f64(correction2);
    let epsilon = T::from_f64(attributes.epsilon);
    let (new1, new2) = (T::from_f64(1.0 - attributes.beta1), T::from_f64(1.0 - attributes.beta2));
    let beta2 = T::from_f64(attributes.beta2);
    let (penalty, kept) = if attributes.decoupled {
        (T::ZERO, T::from_f64(1.0 - learning_rate * attributes.weight_decay))
    } else {
        (T::from_f64(attributes.weight_decay), T::ONE)
    };
    let pieces = parameters.par_chunks_mut(flat()).zip(gradients.par_chunks(flat()));
    let moments = first.par_chunks_mut(flat()).zip(second.par_chunks_mut(flat()));
    pieces.zip(moments).for_each(|((parameters, gradients), (first, second))| {
        vectorised(
            #[inline(always)]
            || {
                for (((p, &g), m), v) in parameters.iter_mut().zip(gradients).zip(first).zip(second) {
                    let g = g + penalty * *p;
                    *m += new1 * (g - *m);
                    *v = beta2 * *v + new2 * (g * g);
                    *p = kept * *p - step * *m / (v.square_root() / correction2 + epsilon);
                }
            },
        );
    });
}
