//! Passes that scores of single samples are made of, in f64 whatever the working type: plain loops.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use super::rows::{classes_of, doubles, prepared, singles, written};
use crate::error::Result;
use crate::linalg::{View, matmul, squared_norm};
use crate::ops::{
    CentredSoftmax, Coverage, GeneralisedEntropy, HISTOGRAM_BINS, HeadLogits, Histogram, LargestFeatures,
    LargestProducts, LogitRows, Magnitudes, OpenMax, Projection, Relation, RowClassProducts, RowCoverage,
    RowGeneralisedEntropy, RowGuidedSum, RowHistogram, RowHistogramOfCoordinates, RowLargest, RowMagnitudes,
    RowMarginSums, RowMeanProbability, RowOpenMax, RowProjectCoordinates, RowProjectShaped, RowRelation,
    RowSoftmax, RowUnit, ShapedProjection, Shaping,
};
use crate::tensor::Span;

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Softmax probabilities.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = largest(logits);
    let exponentials: Vec<f64> = logits.iter().map(|logit| (logit - top).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// A sum as numpy takes it: eight running sums over up to 128 values, halves beyond.
fn pairwise_sum(values: &[f64]) -> f64 {
    let count = values.len();
    if count > 128 {
        let half = count / 2;
        let (left, right) = values.split_at(half - half % 8);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    if count < 8 {
        return values.iter().sum();
    }
    let whole = count - count % 8;
    let mut s = [0.0; 8];
    values[..whole].iter().enumerate().for_each(|(i, value)| s[i % 8] += value);
    let sum = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    values[whole..].iter().fold(sum, |sum, value| sum + value)
}

pub(super) fn row_generalised_entropy<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowGeneralisedEntropy<Span>,
    _: Span,
) -> Result<()> {
    let GeneralisedEntropy { classes, m, gamma, clamp, .. } = op.attributes;
    let ([logits], [entropy]) = cpu.memory.split([op.logits], [op.entropy])?;
    let rows = doubles(logits).par_chunks_exact(classes);
    rows.zip(written(entropy)).for_each(|(logits, entropy)| {
        let top = largest(logits);
        let mut all: Vec<f64> = logits.iter().map(|logit| (logit - top).exp()).collect();
        let total = pairwise_sum(&all);
        all.sort_by(|a, b| b.total_cmp(a));
        let terms = all.iter().take(m).map(|e| {
            let p = if clamp > 0.0 { (e / total).clamp(clamp, 1.0 - clamp) } else { e / total };
            p.powf(gamma) * (1.0 - p).powf(gamma)
        });
        *entropy = -terms.sum::<f64>();
    });
    Ok(())
}

pub(super) fn row_margin_sums<T: Element>(cpu: &mut Cpu<T>, op: &RowMarginSums<Span>, _: Span) -> Result<()> {
    let LogitRows { classes, .. } = op.attributes;
    let ([logits, labels, weights], [sums]) =
        cpu.memory.split([op.logits, op.labels, op.weights], [op.sums])?;
    let (weights, labels) = (doubles(weights), classes_of(labels, classes)?);
    let rows = doubles(logits).par_chunks_exact(classes).zip(&labels);
    rows.zip(written(sums)).for_each(|((logits, &label), sum)| {
        let weights = &weights[label * classes..][..classes];
        *sum = logits.iter().zip(weights).map(|(logit, weight)| (logits[label] - logit).abs() * weight).sum();
    });
    Ok(())
}

pub(super) fn row_softmax<T: Element>(cpu: &mut Cpu<T>, op: &RowSoftmax<Span>, _: Span) -> Result<()> {
    let CentredSoftmax { classes, centre, .. } = op.attributes;
    let ([logits], [p]) = cpu.memory.split([op.logits], [op.p])?;
    let rows = doubles(logits).par_chunks_exact(classes).zip(written(p).par_chunks_exact_mut(classes));
    rows.for_each(|(logits, p)| {
        p.iter_mut().zip(softmax(logits)).for_each(|(p, probability)| *p = probability - centre);
    });
    Ok(())
}

pub(super) fn row_mean_probability<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowMeanProbability<Span>,
    _: Span,
) -> Result<()> {
    let HeadLogits { heads, classes, .. } = op.attributes;
    let ([z, bias], [mean]) = cpu.memory.split([op.z, op.bias], [op.mean])?;
    let bias = doubles(bias);
    doubles(z).par_chunks_exact(heads * classes).zip(written(mean)).for_each(|(row, mean)| {
        let of_head = |z: &[f64]| {
            let logits: Vec<f64> = z.iter().zip(bias).map(|(z, bias)| z + bias).collect();
            largest(&softmax(&logits))
        };
        *mean = row.chunks_exact(classes).map(of_head).sum::<f64>() / heads as f64;
    });
    Ok(())
}

pub(super) fn row_open_max<T: Element>(cpu: &mut Cpu<T>, op: &RowOpenMax<Span>, _: Span) -> Result<()> {
    /// Added to distances before the fit.
    const SHIFT: f64 = 1e4;
    let OpenMax { classes, alpha, .. } = op.attributes;
    let ([logits, means, tails], [all_revised, unknown]) =
        cpu.memory.split([op.logits, op.means, op.tails], [op.revised, op.unknown])?;
    let (means, tails) = (doubles(means), doubles(tails));
    let below = |class: usize, distance: f64| {
        let [shape, log_scale, least, most] = [0, 1, 2, 3].map(|part| tails[4 * class + part]);
        let beyond = (distance - least) / SHIFT;
        match () {
            () if shape == 0.0 => f64::from(u8::from(distance > most)),
            () if beyond <= -1.0 => 0.0,
            () => -(-(shape * (beyond.ln_1p() - log_scale)).min(700.0).exp()).exp_m1(),
        }
    };
    let rows = doubles(logits).par_chunks_exact(classes);
    let rows = rows.zip(written(all_revised).par_chunks_exact_mut(classes)).zip(written(unknown));
    rows.for_each(|((logits, revised), unknown)| {
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        revised.copy_from_slice(logits);
        let mut moved = 0.0;
        for (rank, &class) in order.iter().take(alpha).enumerate() {
            let mean = &means[class * classes..][..classes];
            let square: f64 = logits.iter().zip(mean).map(|(a, b)| (a - b) * (a - b)).sum();
            let weight = (alpha - rank) as f64 / alpha as f64;
            revised[class] = logits[class] * (1.0 - weight * below(class, square.sqrt()));
            moved += logits[class] - revised[class];
        }
        let with_unknown: Vec<f64> = revised.iter().copied().chain([moved]).collect();
        *unknown = softmax(&with_unknown)[classes];
    });
    Ok(())
}

pub(super) fn row_project_coordinates<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowProjectCoordinates<Span>,
    _: Span,
) -> Result<()> {
    let Projection { columns, outputs, .. } = op.attributes;
    let ([x, shift, divisor, basis], [z]) =
        cpu.memory.split([op.x, op.shift, op.divisor, op.basis], [op.z])?;
    let basis = View::new(doubles(basis), columns, outputs);
    let rows = doubles(x).par_chunks_exact(columns).zip(written(z).par_chunks_exact_mut(outputs));
    rows.for_each(|(row, z)| {
        let mut row = row.to_vec();
        row.iter_mut().zip(doubles(shift)).for_each(|(x, shift)| *x -= shift);
        row.iter_mut().zip(doubles(divisor)).for_each(|(x, divisor)| *x /= divisor);
        matmul(View::new(&row, 1, columns), basis, z);
    });
    Ok(())
}

pub(super) fn row_unit<T: Element>(cpu: &mut Cpu<T>, op: &RowUnit<Span>, _: Span) -> Result<()> {
    let columns = op.attributes.channels;
    let ([x], [y]) = cpu.memory.split([op.x], [op.y])?;
    let rows = singles(x).par_chunks_exact(columns).zip(written(y).par_chunks_exact_mut(columns));
    rows.for_each(|(x, y)| {
        let norm = squared_norm(&prepared(x, &[], &[])).sqrt();
        let divisor = if norm > 0.0 { norm } else { 1.0 };
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = f64::from(x) / divisor);
    });
    Ok(())
}

pub(super) fn row_largest<T: Element>(cpu: &mut Cpu<T>, op: &RowLargest<Span>, _: Span) -> Result<()> {
    let LargestFeatures { columns, k, .. } = op.attributes;
    let ([x], outputs) = cpu.memory.split([op.x], [op.bound, op.last, op.scale, op.share])?;
    let [bound, last, scale, share] = outputs.map(written);
    let outputs = bound.par_iter_mut().zip(last).zip(scale).zip(share);
    outputs.zip(singles(x).par_chunks_exact(columns)).for_each(|((((bound, last), scale), share), row)| {
        let row = prepared(row, &[], &[]);
        let mut order: Vec<usize> = (0..columns).collect();
        // A stable sort, so of equal ones the first come first.
        order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).unwrap_or(std::cmp::Ordering::Equal));
        let kept: f64 = order[..k].iter().map(|&i| row[i]).sum();
        let all: f64 = row.iter().sum();
        *bound = row[order[k - 1]];
        *last = order[..k].iter().filter(|&&i| row[i] == *bound).max().map_or(0.0, |&i| i as f64);
        *scale = if kept == 0.0 { 1.0 } else { (all / kept).exp() };
        *share = all / k as f64;
    });
    Ok(())
}

pub(super) fn row_project_shaped<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowProjectShaped<Span>,
    _: Span,
) -> Result<()> {
    let ShapedProjection { columns, outputs, shaping, .. } = op.attributes;
    let ([x, low, high, basis], [z]) = cpu.memory.split([op.x, op.low, op.high, op.basis], [op.z])?;
    let (low, high, basis) = (doubles(low), doubles(high), View::new(doubles(basis), columns, outputs));
    let shaped = |n: usize, i: usize, x: f64| match shaping {
        Shaping::Cut { low: true, .. } if x < low[i] => 0.0,
        Shaping::Cut { lambda, .. } => {
            if x > high[i] {
                high[i]
            } else {
                x + lambda
            }
        }
        Shaping::Clip if x < low[i] => low[i],
        Shaping::Clip => x.min(high[i]),
        Shaping::Keep { .. } if x < low[n] || x == low[n] && i as f64 > high[n] => 0.0,
        Shaping::Keep { ones } => {
            if ones {
                1.0
            } else {
                x
            }
        }
    };
    let rows = singles(x).par_chunks_exact(columns).zip(written(z).par_chunks_exact_mut(outputs));
    rows.enumerate().for_each(|(n, (row, z))| {
        let row: Vec<f64> = row.iter().enumerate().map(|(i, &x)| shaped(n, i, f64::from(x))).collect();
        matmul(View::new(&row, 1, columns), basis, z);
    });
    Ok(())
}

pub(super) fn row_class_products<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowClassProducts<Span>,
    _: Span,
) -> Result<()> {
    let (columns, classes) = (op.attributes.columns, op.attributes.classes);
    let ([x, labels, shift, points], [products]) =
        cpu.memory.split([op.x, op.labels, op.shift, op.points], [op.products])?;
    let (points, labels) = (doubles(points), classes_of(labels, classes)?);
    let rows = singles(x).par_chunks_exact(columns).zip(&labels);
    rows.zip(written(products)).for_each(|((row, &label), product)| {
        let row = prepared(row, doubles(shift), &[]);
        *product = row.iter().zip(&points[label * columns..]).map(|(x, point)| x * point).sum();
    });
    Ok(())
}

pub(super) fn row_magnitudes<T: Element>(cpu: &mut Cpu<T>, op: &RowMagnitudes<Span>, _: Span) -> Result<()> {
    let Magnitudes { rows, columns, classes, .. } = op.attributes;
    let ([x, labels, means, weights], [above, below]) =
        cpu.memory.split([op.x, op.labels, op.means, op.weights], [op.above, op.below])?;
    let mut labels = classes_of(labels, classes)?;
    labels.resize(rows, 0);
    let (means, weights) = (doubles(means), doubles(weights));
    let rows = singles(x).par_chunks_exact(columns).zip(&labels);
    rows.zip(written(above)).zip(written(below)).for_each(|(((row, &label), above), below)| {
        let own = |values: &[f64]| values.get(label * columns..).unwrap_or(&[]).to_vec();
        let mut values = prepared(row, &own(means), &[]);
        let sign = |weight: &f64| if *weight == 0.0 { 0.0 } else { weight.signum() };
        values.iter_mut().zip(&own(weights)).for_each(|(value, weight)| *value *= sign(weight));
        *above = values.iter().map(|value| value.max(0.0)).sum();
        *below = values.iter().map(|value| (-value).max(0.0)).sum();
    });
    Ok(())
}

pub(super) fn row_coverage<T: Element>(cpu: &mut Cpu<T>, op: &RowCoverage<Span>, _: Span) -> Result<()> {
    let Coverage { columns, bins, alpha, .. } = op.attributes;
    let ([x, gradients, edges, coverage], [covered]) =
        cpu.memory.split([op.x, op.gradients, op.edges, op.coverage], [op.covered])?;
    let (edges, coverage) = (doubles(edges), doubles(coverage));
    let rows = singles(x).par_chunks_exact(columns).zip(doubles(gradients).par_chunks_exact(columns));
    rows.zip(written(covered)).for_each(|((x, gradients), covered)| {
        let states = x.iter().zip(gradients).map(|(&x, g)| alpha * f64::from(x) * g);
        let bins = states
            .enumerate()
            .map(|(i, state)| coverage[i * bins + edges.partition_point(|edge| *edge <= state)]);
        *covered = bins.sum::<f64>() / columns as f64;
    });
    Ok(())
}

/// Symmetric divergence of the smoothed histogram of some values from the shares of training.
fn divergence(values: impl Iterator<Item = f64>, edges: &[f64], shares: &[f64], h: &Histogram) -> f64 {
    let mut own = [0.0; HISTOGRAM_BINS];
    for value in values {
        let bin = edges.partition_point(|edge| *edge <= value);
        if (1..=HISTOGRAM_BINS).contains(&bin) {
            own[bin - 1] += 1.0 / h.columns as f64;
        }
    }
    let at = |place: isize| own[place.clamp(0, HISTOGRAM_BINS as isize - 1) as usize];
    let left = (h.width as isize - 1) / 2;
    let smooth = |bin: usize| {
        let first = bin as isize - left;
        (0..h.width as isize).map(|offset| at(first + offset)).sum::<f64>() / h.width as f64 + h.floor
    };
    let q: [f64; HISTOGRAM_BINS] = std::array::from_fn(smooth);
    let p = shares.iter().map(|share| share + h.floor);
    let (all, training) = (q.iter().sum::<f64>(), p.clone().sum::<f64>());
    let terms = p.zip(q).map(|(p, q)| (p / training, q / all));
    terms.map(|(p, q)| (p - q) * (p.ln() - q.ln())).sum()
}

pub(super) fn row_histogram<T: Element>(cpu: &mut Cpu<T>, op: &RowHistogram<Span>, _: Span) -> Result<()> {
    let ([x, edges, shares], [found]) = cpu.memory.split([op.x, op.edges, op.shares], [op.divergence])?;
    let (edges, shares) = (doubles(edges), doubles(shares));
    let rows = singles(x).par_chunks_exact(op.attributes.columns);
    rows.zip(written(found)).for_each(|(row, found)| {
        *found = divergence(row.iter().map(|&x| f64::from(x)), edges, shares, &op.attributes);
    });
    Ok(())
}

pub(super) fn row_histogram_of_coordinates<T: Element>(
    cpu: &mut Cpu<T>,
    op: &RowHistogramOfCoordinates<Span>,
    _: Span,
) -> Result<()> {
    let ([z, bias, edges, shares], [found]) =
        cpu.memory.split([op.z, op.bias, op.edges, op.shares], [op.divergence])?;
    let (bias, edges, shares) = (doubles(bias), doubles(edges), doubles(shares));
    let rows = doubles(z).par_chunks_exact(op.attributes.columns);
    rows.zip(written(found)).for_each(|(row, found)| {
        let values = row.iter().zip(bias.iter().cycle()).map(|(z, bias)| z + bias);
        *found = divergence(values, edges, shares, &op.attributes);
    });
    Ok(())
}

/// A row of features times a number.
fn scaled(row: &[f32], scale: f64) -> Vec<f64> {
    row.iter().map(|&x| f64::from(x) * scale).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn row_guided_sum<T: Element>(cpu: &mut Cpu<T>, op: &RowGuidedSum<Span>, _: Span) -> Result<()> {
    let LargestProducts { columns, k, .. } = op.attributes;
    let ([x, scale, bank, bank_scale, guide], [sums]) =
        cpu.memory.split([op.x, op.scale, op.bank, op.bank_scale, op.guide], [op.sums])?;
    let bank = singles(bank).chunks_exact(columns).zip(doubles(bank_scale));
    let bank: Vec<Vec<f64>> = bank.map(|(row, &scale)| scaled(row, scale)).collect();
    let rows = singles(x).par_chunks_exact(columns).zip(doubles(scale));
    rows.zip(written(sums)).for_each(|((row, &scale), sum)| {
        let row = scaled(row, scale);
        let mut all: Vec<f64> =
            bank.iter().zip(doubles(guide)).map(|(point, guide)| product(&row, point) * guide).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        *sum = all[..k].iter().sum();
    });
    Ok(())
}

pub(super) fn row_relation<T: Element>(cpu: &mut Cpu<T>, op: &RowRelation<Span>, _: Span) -> Result<()> {
    let Relation { columns, classes, least, power, .. } = op.attributes;
    let ([x, scale, p, bank, bank_scale, bank_p], [sums]) =
        cpu.memory.split([op.x, op.scale, op.p, op.bank, op.bank_scale, op.bank_p], [op.sums])?;
    let bank = singles(bank).chunks_exact(columns).zip(doubles(bank_scale));
    let bank: Vec<Vec<f64>> = bank.map(|(row, &scale)| scaled(row, scale)).collect();
    let bank_p: Vec<Vec<f64>> = singles(bank_p).chunks_exact(classes).map(|row| scaled(row, 1.0)).collect();
    let rows = singles(x).par_chunks_exact(columns).zip(doubles(scale));
    let rows = rows.zip(doubles(p).par_chunks_exact(classes));
    rows.zip(written(sums)).for_each(|(((row, &scale), p), sum)| {
        let row = scaled(row, scale);
        let likenesses = bank
            .iter()
            .zip(&bank_p)
            .map(|(point, of_point)| product(&row, point).max(0.0) * product(p, of_point));
        *sum = likenesses.filter(|r| *r > least).map(|r| r.powf(power)).sum();
    });
    Ok(())
}
