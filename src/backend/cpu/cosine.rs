//! The cosine classifier: products of normalised rows, and their gradients.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use super::linear::{Matrix, multiply};
use crate::error::Result;
use crate::ops::{Cosine, CosineForward, CosineInputGradient, CosineWeightGradient};
use crate::tensor::Span;

/// Rows of an output that one task computes.
const ROWS: usize = 32;

pub(super) fn cosine<T: Element>(cpu: &mut Cpu<T>, op: &CosineForward<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let ([x, weight, scale], [inverse_norms, cosines, y]) =
        cpu.memory.slices::<T, _, _>([op.x, op.weight, op.scale], [op.inverse_norms, op.cosines, op.y])?;
    let (of_x, of_weight) = inverse_norms.split_at_mut(attributes.batch);
    invert_norms(attributes, x, of_x);
    invert_norms(attributes, weight, of_weight);
    forward(attributes, [x, weight], [of_x, of_weight], Scale::new(attributes, scale[0]), cosines, y);
    Ok(())
}

pub(super) fn cosine_input_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &CosineInputGradient<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let read = [op.x, op.weight, op.scale, op.inverse_norms, op.cosines, op.dy];
    let ([x, weight, scale, norms, cosines, dy], [dx]) = cpu.memory.slices::<T, _, _>(read, [op.dx])?;
    let (of_x, of_weight) = norms.split_at(attributes.batch);
    let scale = Scale::new(attributes, scale[0]);
    let product = Product { rows: x, others: weight, of_rows: of_x, of_others: of_weight };
    let along = [attributes.outputs, 1];
    product.gradient(attributes, scale, [cosines, dy], along, dx);
    Ok(())
}

pub(super) fn cosine_weight_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &CosineWeightGradient<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let read = [op.x, op.weight, op.scale, op.inverse_norms, op.cosines, op.dy];
    let ([x, weight, scale, norms, cosines, dy], [dweight, dscale]) =
        cpu.memory.slices::<T, _, _>(read, [op.dweight, op.dscale])?;
    let (of_x, of_weight) = norms.split_at(attributes.batch);
    let scale = Scale::new(attributes, scale[0]);
    let product = Product { rows: weight, others: x, of_rows: of_weight, of_others: of_x };
    let along = [1, attributes.outputs];
    product.gradient(attributes, scale, [cosines, dy], along, dweight);
    let sum: f64 = dy.iter().zip(cosines).map(|(dy, cosine)| dy.to_f64() * cosine.to_f64()).sum();
    dscale[0] = T::from_f64(scale.slope * sum);
    Ok(())
}

/// The factor on cosines, and its derivative with respect to the parameter.
#[derive(Clone, Copy)]
struct Scale {
    value: f64,
    slope: f64,
}

impl Scale {
    fn new<T: Element>(attributes: &Cosine, parameter: T) -> Scale {
        let raw = parameter.to_f64();
        if attributes.softplus {
            // ln(1 + e^raw) without overflow.
            Scale { value: raw.max(0.0) + (-raw.abs()).exp().ln_1p(), slope: 1.0 / (1.0 + (-raw).exp()) }
        } else {
            Scale { value: raw, slope: 1.0 }
        }
    }
}

fn invert_norms<T: Element>(attributes: &Cosine, rows: &[T], out: &mut [T]) {
    out.par_iter_mut().zip(rows.par_chunks_exact(attributes.inputs)).for_each(|(out, row)| {
        let square: f64 = row.iter().map(|x| x.to_f64() * x.to_f64()).sum();
        *out = T::from_f64(1.0 / square.sqrt().max(attributes.epsilon));
    });
}

fn forward<T: Element>(
    attributes: &Cosine,
    [x, weight]: [&[T]; 2],
    [of_x, of_weight]: [&[T]; 2],
    scale: Scale,
    cosines: &mut [T],
    y: &mut [T],
) {
    let Cosine { inputs, outputs, .. } = *attributes;
    let scale = T::from_f64(scale.value);
    let blocks = cosines.par_chunks_mut(ROWS * outputs).zip(y.par_chunks_mut(ROWS * outputs));
    blocks.zip(x.par_chunks(ROWS * inputs).zip(of_x.par_chunks(ROWS))).for_each(
        |((cosines, y), (x, of_x))| {
            let shape = [of_x.len(), inputs, outputs];
            multiply(shape, Matrix::row_major(x, inputs), Matrix::transposed(weight, inputs), false, cosines);
            let rows = cosines.chunks_exact_mut(outputs).zip(y.chunks_exact_mut(outputs)).zip(of_x);
            for ((cosines, y), &of_row) in rows {
                for ((cosine, y), &of_other) in cosines.iter_mut().zip(y).zip(of_weight) {
                    *cosine = *cosine * of_row * of_other;
                    *y = scale * *cosine;
                }
            }
        },
    );
}

/// The product of two sets of normalised rows, seen from one of them.
struct Product<'a, T> {
    rows: &'a [T],
    others: &'a [T],
    of_rows: &'a [T],
    of_others: &'a [T],
}

impl<T: Element> Product<'_, T> {
    /// The gradient with respect to `rows`; element (row, other) of cosines and dy lies at `row * along[0] + other * along[1]`.
    fn gradient(
        &self,
        attributes: &Cosine,
        scale: Scale,
        [cosines, dy]: [&[T]; 2],
        along: [usize; 2],
        out: &mut [T],
    ) {
        let (inputs, others) = (attributes.inputs, self.of_others.len());
        // A row that was too short to be normalised was divided by a constant.
        let constant = T::from_f64(1.0 / attributes.epsilon);
        out.par_chunks_mut(ROWS * inputs).enumerate().for_each(|(block, out)| {
            let first = block * ROWS;
            let count = out.len() / inputs;
            let at = |row: usize, other: usize| (first + row) * along[0] + other * along[1];
            let mut weights = vec![T::ZERO; count * others];
            for (index, weight) in weights.iter_mut().enumerate() {
                *weight = dy[at(index / others, index % others)] * self.of_others[index % others];
            }
            let shape = [count, others, inputs];
            multiply(
                shape,
                Matrix::row_major(&weights, others),
                Matrix::row_major(self.others, inputs),
                false,
                out,
            );
            for (row, out) in out.chunks_exact_mut(inputs).enumerate() {
                let norm = self.of_rows[first + row];
                let along_row: f64 = (0..others)
                    .map(|other| dy[at(row, other)].to_f64() * cosines[at(row, other)].to_f64())
                    .sum();
                let removed = if norm < constant { norm * T::from_f64(along_row) } else { T::ZERO };
                let factor = T::from_f64(scale.value) * norm;
                for (out, &x) in out.iter_mut().zip(&self.rows[(first + row) * inputs..][..inputs]) {
                    *out = factor * (*out - removed * x);
                }
            }
        });
    }
}
