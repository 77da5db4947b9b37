//! Parameter updates: SGD, Adam and AdamW with PyTorch's formulas, each in one pass over the parameters.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::calls::hyper;
use super::chunks::{flat, vectorised};
use super::element::Element;
use super::memory::operand;
use crate::error::Result;
use crate::ops::{Adam, HYPER_ROW, Segment, Segments, Sgd, segment_elements};
use crate::tensor::Span;

impl<T: Element> Cpu<T> {
    /// `sgd` of [`crate::ops::Backend`].
    pub(super) fn step_sgd(
        &mut self,
        attributes: &Sgd,
        [parameters, gradients, velocity, hyper_span, copies]: [Span; 5],
    ) -> Result<()> {
        let [n, n_hyper] = segment_elements(&attributes.segments)?;
        let n_velocity = if attributes.momentum == 0.0 { velocity.elements } else { n };
        let n_copies = if attributes.copy { n } else { 0 };
        let ([gradients, hyper], [parameters, velocity, copies]) = self.memory.slices::<T, 2, 3>(
            [operand::<T>("gradients", gradients, n), hyper::<T>(hyper_span, n_hyper)],
            [
                operand::<T>("parameters", parameters, n),
                operand::<T>("velocity", velocity, n_velocity),
                operand::<T>("copies", copies, n_copies),
            ],
        )?;
        self.pool.install(|| {
            for (segment, range) in ranges(&attributes.segments) {
                // Without momentum there need not be a velocity.
                let velocity = velocity.get_mut(range.clone()).unwrap_or_default();
                let (parameters, gradients) = (&mut parameters[range.clone()], &gradients[range]);
                sgd(attributes, segment, parameters, gradients, velocity, hyper[segment.row * HYPER_ROW]);
            }
            if attributes.copy {
                copies.copy_from_slice(parameters);
            }
        });
        Ok(())
    }

    /// `adam` of [`crate::ops::Backend`].
    pub(super) fn step_adam(
        &mut self,
        attributes: &Adam,
        [parameters, gradients, first, second, hyper_span, copies]: [Span; 6],
    ) -> Result<()> {
        let [n, n_hyper] = segment_elements(&attributes.segments)?;
        let n_copies = if attributes.copy { n } else { 0 };
        let ([gradients, hyper], [parameters, first, second, copies]) = self.memory.slices::<T, 2, 4>(
            [operand::<T>("gradients", gradients, n), hyper::<T>(hyper_span, n_hyper + 2)],
            [
                operand::<T>("parameters", parameters, n),
                operand::<T>("first", first, n),
                operand::<T>("second", second, n),
                operand::<T>("copies", copies, n_copies),
            ],
        )?;
        self.pool.install(|| {
            for (segment, range) in ranges(&attributes.segments) {
                let numbers = &hyper[segment.row * HYPER_ROW..];
                let numbers = [0, 1, 2].map(|index| numbers[index].to_f64());
                let moments = (&mut first[range.clone()], &mut second[range.clone()]);
                let (parameters, gradients) = (&mut parameters[range.clone()], &gradients[range]);
                adam(attributes, segment, parameters, gradients, moments, numbers);
            }
            if attributes.copy {
                copies.copy_from_slice(parameters);
            }
        });
        Ok(())
    }
}

/// Every segment and the elements it has.
fn ranges(segments: &Segments) -> impl Iterator<Item = (&Segment, Range<usize>)> {
    segments.iter().scan(0, |end, segment| {
        let start = *end;
        *end += segment.elements;
        Some((segment, start..*end))
    })
}

/// One step of SGD; `velocity` is not touched (and may be empty) without momentum.
fn sgd<T: Element>(
    attributes: &Sgd,
    segment: &Segment,
    parameters: &mut [T],
    gradients: &[T],
    velocity: &mut [T],
    learning_rate: T,
) {
    let decay = T::from_f64(segment.weight_decay);
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
    segment: &Segment,
    parameters: &mut [T],
    gradients: &[T],
    (first, second): (&mut [T], &mut [T]),
    hyper: [f64; 3],
) {
    let [learning_rate, correction1, correction2] = hyper;
    let step = T::from_f64(learning_rate / correction1);
    let correction2 = T::from_f64(correction2);
    let epsilon = T::from_f64(attributes.epsilon);
    let (new1, new2) = (T::from_f64(1.0 - attributes.beta1), T::from_f64(1.0 - attributes.beta2));
    let beta2 = T::from_f64(attributes.beta2);
    let (penalty, kept) = if attributes.decoupled {
        (T::ZERO, T::from_f64(1.0 - learning_rate * segment.weight_decay))
    } else {
        (T::from_f64(segment.weight_decay), T::ONE)
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
