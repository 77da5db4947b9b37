//! Passes over many rows of features, in f64 whatever the working type.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::{Error, Result};
use crate::linalg::{View, add_gram, argmax, matmul, squared_distance, squared_norm};
use crate::ops::{
    Labelled, LogitScores, Nearest, Projection, RowClassDeviations, RowClassSums, RowInverseNorms,
    RowLogitScores, RowNearest, RowNearestF32, RowNearestNormalised, RowNormalise, RowProject,
    RowSquareNorms, RowSquareNormsOfCoordinates, RowWithinScatter,
};
use crate::tensor::Span;

pub(super) fn singles(bytes: &[u8]) -> &[f32] {
    bytemuck::cast_slice(bytes)
}

pub(super) fn doubles(bytes: &[u8]) -> &[f64] {
    bytemuck::cast_slice(bytes)
}

pub(super) fn written(bytes: &mut [u8]) -> &mut [f64] {
    bytemuck::cast_slice_mut(bytes)
}

/// A row of features, shifted and divided where that is asked for.
pub(super) fn prepared(row: &[f32], shift: &[f64], divisor: &[f64]) -> Vec<f64> {
    let mut prepared: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    prepared.iter_mut().zip(shift).for_each(|(x, shift)| *x -= shift);
    prepared.iter_mut().zip(divisor).for_each(|(x, divisor)| *x /= divisor);
    prepared
}

pub(super) fn row_logit_scores<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowLogitScores<Span>,
    _: Span,
) -> Result<()> {
    let LogitScores { classes, temperature, .. } = op.attributes;
    let written_to = [op.msp, op.mls, op.energy, op.entropy, op.deviation, op.predicted];
    let ([logits, scale, bias], outputs) = cpu.memory.split([op.logits, op.scale, op.bias], written_to)?;
    let [msp, mls, energy, entropy, deviation, predicted] = outputs;
    let (scale, bias, predicted) =
        (doubles(scale), doubles(bias), bytemuck::cast_slice_mut::<u8, i32>(predicted));
    let [msp, mls, energy, entropy, deviation] = [msp, mls, energy, entropy, deviation].map(written);
    let rows = doubles(logits).par_chunks_exact(classes).enumerate().map(|(row, logits)| {
        let mut logits = logits.to_vec();
        let factor = scale.get(row).copied().unwrap_or(1.0);
        logits.iter_mut().for_each(|logit| *logit *= factor);
        logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let below: Vec<f64> = logits.iter().map(|l| (l - largest) / temperature).collect();
        let sum: f64 = below.iter().map(|x| x.exp()).sum();
        let weighted: f64 = below.iter().map(|x| x.exp() * x).sum();
        let deviation = below.iter().map(|x| (classes as f64 * x.exp() / sum - 1.0).abs()).sum::<f64>();
        let scores =
            [1.0 / sum, largest, largest + temperature * sum.ln(), weighted / sum - sum.ln(), deviation];
        (scores, argmax(&logits) as i32)
    });
    for (row, (scores, class)) in rows.collect::<Vec<_>>().into_iter().enumerate() {
        [msp[row], mls[row], energy[row], entropy[row]] = [scores[0], scores[1], scores[2], scores[3]];
        predicted[row] = class;
        if let Some(deviation) = deviation.get_mut(row) {
            *deviation = scores[4];
        }
    }
    Ok(())
}

pub(super) fn row_project<T: Element>(cpu: &mut Cpu<T>, op: &RowProject<Span>, _: Span) -> Result<()> {
    let Projection { columns, outputs, .. } = op.attributes;
    let ([x, shift, divisor, basis], [z]) =
        cpu.memory.split([op.x, op.shift, op.divisor, op.basis], [op.z])?;
    let basis = View::new(doubles(basis), columns, outputs);
    let rows = singles(x).par_chunks_exact(columns).zip(written(z).par_chunks_exact_mut(outputs));
    rows.for_each(|(row, z)| {
        let row = prepared(row, doubles(shift), doubles(divisor));
        matmul(View::new(&row, 1, columns), basis, z);
    });
    Ok(())
}

pub(super) fn row_square_norms<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowSquareNorms<Span>,
    _: Span,
) -> Result<()> {
    let ([x, shift, divisor], [norms]) = cpu.memory.split([op.x, op.shift, op.divisor], [op.norms])?;
    let rows = singles(x).par_chunks_exact(op.attributes.columns);
    rows.zip(written(norms)).for_each(|(row, norm)| {
        *norm = squared_norm(&prepared(row, doubles(shift), doubles(divisor)));
    });
    Ok(())
}

pub(super) fn row_square_norms_of_coordinates<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowSquareNormsOfCoordinates<Span>,
    _: Span,
) -> Result<()> {
    let ([z], [norms]) = cpu.memory.split([op.z], [op.norms])?;
    let rows = doubles(z).par_chunks_exact(op.attributes.channels);
    rows.zip(written(norms)).for_each(|(row, norm)| *norm = squared_norm(row));
    Ok(())
}

pub(super) fn row_inverse_norms<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowInverseNorms<Span>,
    _: Span,
) -> Result<()> {
    let ([x], [norms]) = cpu.memory.split([op.x], [op.norms])?;
    let rows = singles(x).par_chunks_exact(op.attributes.columns);
    rows.zip(written(norms)).for_each(|(row, norm)| {
        *norm = 1.0 / (squared_norm(&prepared(row, &[], &[])).sqrt() + op.attributes.floor);
    });
    Ok(())
}

/// The k-th smallest squared distance of a row to points.
fn kth_distance(row: &[f64], points: &[f64], k: usize) -> f64 {
    let mut distances: Vec<f64> =
        points.chunks_exact(row.len()).map(|point| squared_distance(row, point)).collect();
    *distances.select_nth_unstable_by(k - 1, f64::total_cmp).1
}

pub(super) fn row_nearest<T: Element>(cpu: &mut Cpu<T>, op: &RowNearest<Span>, _: Span) -> Result<()> {
    let Nearest { columns, k, .. } = op.attributes;
    let ([z, points], [nearest]) = cpu.memory.split([op.z, op.points], [op.nearest])?;
    let rows = doubles(z).par_chunks_exact(columns);
    rows.zip(written(nearest)).for_each(|(row, nearest)| *nearest = kth_distance(row, doubles(points), k));
    Ok(())
}

pub(super) fn row_nearest_normalised<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowNearestNormalised<Span>,
    _: Span,
) -> Result<()> {
    let Nearest { columns, k, .. } = op.attributes;
    let ([x, scale, bank, bank_scale], [nearest]) =
        cpu.memory.split([op.x, op.scale, op.bank, op.bank_scale], [op.nearest])?;
    let scaled = |row: &[f32], scale: f64| row.iter().map(|&x| f64::from(x) * scale).collect::<Vec<f64>>();
    let bank = singles(bank).chunks_exact(columns).zip(doubles(bank_scale));
    let bank: Vec<f64> = bank.flat_map(|(row, &scale)| scaled(row, scale)).collect();
    let rows = singles(x).par_chunks_exact(columns).zip(doubles(scale));
    rows.zip(written(nearest)).for_each(|((row, &scale), nearest)| {
        *nearest = kth_distance(&scaled(row, scale), &bank, k);
    });
    Ok(())
}

pub(super) fn row_normalise<T: Element>(cpu: &mut Cpu<T>, op: &RowNormalise<Span>, _: Span) -> Result<()> {
    let columns = op.attributes.columns;
    let ([x], [y]) = cpu.memory.split([op.x], [op.y])?;
    let y: &mut [f32] = bytemuck::cast_slice_mut(y);
    singles(x).par_chunks_exact(columns).zip(y.par_chunks_exact_mut(columns)).for_each(|(row, y)| {
        let norm = squared_norm(&prepared(row, &[], &[])).sqrt() + op.attributes.floor;
        y.iter_mut().zip(row).for_each(|(y, &x)| *y = (f64::from(x) / norm) as f32);
    });
    Ok(())
}

/// All in f64, as everything here.
pub(super) fn row_nearest_f32<T: Element>(cpu: &mut Cpu<T>, op: &RowNearestF32<Span>, _: Span) -> Result<()> {
    let Nearest { columns, k, .. } = op.attributes;
    let ([z, points], [nearest]) = cpu.memory.split([op.z, op.points], [op.nearest])?;
    let points: Vec<f64> = singles(points).iter().map(|&x| f64::from(x)).collect();
    let rows = singles(z).par_chunks_exact(columns);
    rows.zip(written(nearest)).for_each(|(row, nearest)| {
        *nearest = kth_distance(&prepared(row, &[], &[]), &points, k);
    });
    Ok(())
}

/// The class of every row, once all are known to be one.
pub(super) fn classes_of(labels: &[u8], classes: usize) -> Result<Vec<usize>> {
    let labels: &[i32] = bytemuck::cast_slice(labels);
    let class = |(row, &label): (usize, &i32)| {
        usize::try_from(label).ok().filter(|&class| class < classes).ok_or_else(|| {
            Error::invalid(format!(
                "label {label} of row {row} is none of {classes} classes, 0 to {}",
                classes - 1
            ))
        })
    };
    labels.iter().enumerate().map(class).collect()
}

pub(super) fn row_class_sums<T: Element>(cpu: &mut Cpu<T>, op: &RowClassSums<Span>, _: Span) -> Result<()> {
    let Labelled { columns, classes, .. } = op.attributes;
    let ([x, labels], [sums]) = cpu.memory.split([op.x, op.labels], [op.sums])?;
    let sums = written(sums);
    for (row, class) in singles(x).chunks_exact(columns).zip(classes_of(labels, classes)?) {
        let sums = &mut sums[class * columns..][..columns];
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    Ok(())
}

/// Rows without the mean of their class.
fn deviations(rows: &[f32], classes: &[usize], means: &[f64], columns: usize) -> Vec<f64> {
    let rows = rows.chunks_exact(columns).zip(classes);
    rows.flat_map(|(row, &class)| prepared(row, &means[class * columns..][..columns], &[])).collect()
}

pub(super) fn row_class_deviations<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowClassDeviations<Span>,
    _: Span,
) -> Result<()> {
    let Labelled { columns, classes, .. } = op.attributes;
    let ([x, labels, means], [found]) = cpu.memory.split([op.x, op.labels, op.means], [op.deviations])?;
    let of_rows = classes_of(labels, classes)?;
    let rows = singles(x).par_chunks_exact(columns).zip(of_rows.par_chunks(1));
    rows.zip(written(found)).for_each(|((row, class), found)| {
        *found = squared_norm(&deviations(row, class, doubles(means), columns));
    });
    Ok(())
}

pub(super) fn row_within_scatter<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowWithinScatter<Span>,
    _: Span,
) -> Result<()> {
    let Labelled { rows, columns, classes } = op.attributes.labelled;
    let ([x, labels, means], [scatter]) = cpu.memory.split([op.x, op.labels, op.means], [op.scatter])?;
    let of_rows = classes_of(labels, classes)?;
    let run = rows.div_ceil(op.attributes.slices);
    let runs = singles(x).par_chunks(run * columns).zip(of_rows.par_chunks(run));
    let slices = written(scatter).par_chunks_exact_mut(columns * columns);
    runs.zip(slices).for_each(|((x, classes), slice)| {
        let deviations = deviations(x, classes, doubles(means), columns);
        let mut products = vec![0.0; columns * columns];
        add_gram(&deviations, classes.len(), columns, &mut products);
        for i in 0..columns {
            let below = i * columns..i * columns + i + 1;
            slice[below.clone()].iter_mut().zip(&products[below]).for_each(|(sum, more)| *sum += more);
        }
    });
    Ok(())
}
