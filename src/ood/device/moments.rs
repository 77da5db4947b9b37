//! Counts, class means and scatter on a device.
//!
//! Two passes over the features: the first adds up the rows of each class, the second the products of the
//! rows minus their class mean. So nothing cancels, and only the sums are read back.

use super::pipeline::Places;
use crate::error::Result;
use crate::features::{Matrix, Moments, block_rows};
use crate::ops::{Device, Labelled, RowClassDeviations, RowClassSums, RowWithinScatter, Scatter};
use crate::tensor::{DType, HostValues, Span};

/// Columns of a scatter that one block of threads computes, and blocks that fill a device.
const TILE: usize = 64;
const BLOCKS: usize = 256;
/// Most parts of a scatter that are summed up side by side.
const MOST_SLICES: usize = 16;

/// Into how many slices a block of rows is cut, so that a narrow scatter fills a device too. A matter of the width alone:
/// the order of the sums is part of the result.
fn slices(columns: usize) -> usize {
    let tiles = columns.div_ceil(TILE);
    (BLOCKS / (tiles * (tiles + 1) / 2)).clamp(1, MOST_SLICES)
}

/// Mean of all rows: the sum of one class.
pub(super) fn mean(device: &mut dyn Device, features: &Matrix) -> Result<Vec<f64>> {
    let (rows, columns) = (features.rows(), features.columns());
    let block = block_rows(columns).min(rows.max(1));
    let mut places = Places::new(device.red_zone());
    let x = places.place(block * columns, DType::F32);
    let labels = places.place(block, DType::I32);
    let sums = places.place(columns, DType::F64);
    places.allocate(device)?;
    device.write(labels, HostValues::I32(&vec![0; block]))?;
    let mut values = Vec::new();
    for start in (0..rows).step_by(block) {
        let count = block.min(rows - start);
        features.read_f32(start..start + count, &mut values);
        let x = Span { elements: count * columns, ..x };
        device.write(x, HostValues::F32(&values))?;
        let (attributes, labels) =
            (Labelled { rows: count, columns, classes: 1 }, Span { elements: count, ..labels });
        device.run(&RowClassSums { attributes, x, labels, sums }.into(), Span { elements: 0, ..sums })?;
    }
    let mut mean = vec![0.0; columns];
    device.read_f64(sums, &mut mean)?;
    mean.iter_mut().for_each(|sum| *sum /= rows.max(1) as f64);
    Ok(mean)
}

/// [`Moments::accumulate`] on a device.
pub(super) fn accumulate(
    device: &mut dyn Device,
    features: &Matrix,
    labels: &[u32],
    classes: usize,
) -> Result<Moments> {
    let (rows, columns) = (features.rows(), features.columns());
    let block = block_rows(columns).min(rows.max(1));
    let slices = slices(columns);
    let mut places = Places::new(device.red_zone());
    let x = places.place(block * columns, DType::F32);
    let label = places.place(block, DType::I32);
    let mut double = |elements| places.place(elements, DType::F64);
    let sums = double(classes * columns);
    let deviations = double(block);
    let scatter = double(slices * columns * columns);
    places.allocate(device)?;
    let nothing = Span { elements: 0, ..scatter };

    let mut values = Vec::new();
    let mut upload = |device: &mut dyn Device, start: usize| -> Result<(Labelled, Span, Span)> {
        let end = (start + block).min(rows);
        features.read_f32(start..end, &mut values);
        let numbers: Vec<i32> = labels[start..end].iter().map(|&label| label as i32).collect();
        let count = end - start;
        let x = Span { elements: count * columns, ..x };
        let label = Span { elements: count, ..label };
        device.write(x, HostValues::F32(&values))?;
        device.write(label, HostValues::I32(&numbers))?;
        Ok((Labelled { rows: count, columns, classes }, x, label))
    };

    for start in (0..rows).step_by(block) {
        let (attributes, x, label) = upload(device, start)?;
        device.run(&RowClassSums { attributes, x, labels: label, sums }.into(), nothing)?;
    }
    let mut counts = vec![0_u64; classes];
    labels[..rows].iter().for_each(|&label| counts[label as usize] += 1);
    let mut means = vec![0.0; classes * columns];
    device.read_f64(sums, &mut means)?;
    for (mean, &count) in means.chunks_exact_mut(columns).zip(&counts) {
        mean.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
    }
    device.write(sums, HostValues::F64(&means))?;

    let mut class_scatter = vec![0.0; classes];
    let mut of_block = Vec::new();
    for start in (0..rows).step_by(block) {
        let (attributes, x, label) = upload(device, start)?;
        let scatter = RowWithinScatter {
            attributes: Scatter { labelled: attributes, slices },
            x,
            labels: label,
            means: sums,
            scatter,
        };
        device.run(&scatter.into(), nothing)?;
        let deviations = Span { elements: attributes.rows, ..deviations };
        device.run(
            &RowClassDeviations { attributes, x, labels: label, means: sums, deviations }.into(),
            nothing,
        )?;
        of_block.resize(attributes.rows, 0.0);
        device.read_f64(deviations, &mut of_block)?;
        for (&label, deviation) in labels[start..].iter().zip(&of_block) {
            class_scatter[label as usize] += deviation;
        }
    }
    let mut parts = vec![0.0; slices * columns * columns];
    device.read_f64(scatter, &mut parts)?;
    let (within, others) = parts.split_at_mut(columns * columns);
    for other in others.chunks_exact(columns * columns) {
        within.iter_mut().zip(other).for_each(|(sum, part)| *sum += part);
    }
    let within = within.to_vec();
    Ok(Moments::from_sums(counts, means, within, class_scatter))
}
