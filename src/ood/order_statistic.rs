//! Exact percentiles of a matrix too large to sort: selection by digits, a pass over the data per digit.

use rayon::prelude::*;

use crate::features::{Element, Matrix, block_rows};

/// Digits of a key: 2^16 counters are half a megabyte per thread.
const DIGIT_BITS: u32 = 16;
/// Once this few elements share the leading digits, they are collected and sorted.
const COLLECTED: u64 = 1 << 18;

/// A number whose order as an integer is the order of the float (-0 before +0).
fn key(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn value(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

/// Percentiles (0 to 100) of all elements, by linear interpolation between order statistics as NumPy's default.
///
/// # Panics
/// If the matrix has no rows.
pub(super) fn percentiles(matrix: &Matrix, percents: &[f64]) -> Vec<f64> {
    let count = (matrix.rows() * matrix.columns()) as u64;
    assert!(count > 0, "a percentile of nothing");
    let places: Vec<(u64, f64)> = percents
        .iter()
        .map(|percent| {
            let position = percent / 100.0 * (count - 1) as f64;
            (position.floor() as u64, position.fract())
        })
        .collect();
    let mut ranks: Vec<u64> =
        places.iter().flat_map(|(below, _)| [*below, (below + 1).min(count - 1)]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let found = match matrix.element() {
        Element::F64 => ranks.iter().map(|&rank| select(matrix, rank)).collect(),
        _ => select_f32(matrix, &ranks),
    };
    let of = |rank: u64| found[ranks.partition_point(|other| *other < rank)];
    let between = |&(below, fraction): &(u64, f64)| {
        let low = of(below);
        if fraction == 0.0 { low } else { low + (of((below + 1).min(count - 1)) - low) * fraction }
    };
    places.iter().map(between).collect()
}

/// The quantile (0 to 1) of sorted values, by linear interpolation.
///
/// # Panics
/// If there are no values.
pub(super) fn interpolate(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let low = sorted[below];
    let high = sorted[(below + 1).min(sorted.len() - 1)];
    if position.fract() == 0.0 { low } else { low + (high - low) * position.fract() }
}

/// Values that are held at once to find quantiles of columns: 64 MiB in f32.
const COLUMN_VALUES: usize = 1 << 24;

/// Two quantiles (0 to 1) of each column, exact for f16 and f32; columns of f64 are rounded to f32 first.
///
/// # Panics
/// If the matrix has no rows.
pub(super) fn column_quantiles(matrix: &Matrix, shares: [f64; 2]) -> [Vec<f64>; 2] {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    assert!(rows > 0, "a quantile of nothing");
    let group = (COLUMN_VALUES / rows).clamp(1, columns);
    let block = block_rows(columns);
    let mut quantiles = shares.map(|_| Vec::with_capacity(columns));
    for first in (0..columns).step_by(group) {
        let width = group.min(columns - first);
        let mut values = vec![0f32; width * rows];
        // Column by column: a thread writes the rows of its block into each.
        let starts: Vec<usize> = (0..rows).step_by(block).collect();
        let parts: Vec<Vec<f32>> = starts
            .par_iter()
            .map(|&start| {
                let end = (start + block).min(rows);
                let mut read = Vec::new();
                matrix.read_f32(start..end, &mut read);
                let rows = || read.chunks_exact(columns);
                (0..width).flat_map(|column| rows().map(move |row| row[first + column])).collect()
            })
            .collect();
        values.par_chunks_mut(rows).enumerate().for_each(|(column, values)| {
            for (start, part) in starts.iter().zip(&parts) {
                let height = part.len() / width;
                values[*start..start + height].copy_from_slice(&part[column * height..(column + 1) * height]);
            }
        });
        drop(parts);
        let found: Vec<[f64; 2]> = values
            .par_chunks_mut(rows)
            .map(|values| shares.map(|share| quantile_f32(values, share)))
            .collect();
        for own in found {
            quantiles.iter_mut().zip(own).for_each(|(quantiles, value)| quantiles.push(value));
        }
    }
    quantiles
}

/// A quantile of values, whose order is changed.
fn quantile_f32(values: &mut [f32], share: f64) -> f64 {
    let position = share * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let (_, low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let low = f64::from(*low);
    if position.fract() == 0.0 || above.is_empty() {
        return low;
    }
    let high = f64::from(above.iter().copied().fold(f32::INFINITY, f32::min));
    low + (high - low) * position.fract()
}

/// A number whose order as an integer is the order of the float (-0 before +0).
fn key_f32(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn value_f32(key: u32) -> f64 {
    f64::from(f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key }))
}

/// The elements of some ranks (from 0, ascending) of a matrix that f32 holds exactly: a pass over the leading halves of the
/// keys, and one over the other halves of those that share a leading half with a rank.
fn select_f32(matrix: &Matrix, ranks: &[u64]) -> Vec<f64> {
    const HALF: u32 = 16;
    let leading = count_f32(matrix, 1, |key| Some((0, (key >> HALF) as usize)));
    // Of each rank its leading half, and its rank among the keys with it.
    let mut wanted = Vec::new();
    let (mut digit, mut before) = (0, 0);
    for &rank in ranks {
        while rank >= before + leading[digit] {
            before += leading[digit];
            digit += 1;
        }
        wanted.push((digit as u32, rank - before));
    }
    let mut halves: Vec<u32> = wanted.iter().map(|(half, _)| *half).collect();
    halves.dedup();
    let place = |half: u32| halves.iter().position(|other| *other == half);
    let others = count_f32(matrix, halves.len(), |key| {
        Some((place(key >> HALF)?, (key & ((1 << HALF) - 1)) as usize))
    });
    let of = |&(half, mut rank): &(u32, u64)| {
        let slot = place(half).unwrap_or_default();
        let counts = &others[slot << HALF..(slot + 1) << HALF];
        let mut digit = 0;
        while rank >= counts[digit] {
            rank -= counts[digit];
            digit += 1;
        }
        value_f32(half << HALF | digit as u32)
    };
    wanted.iter().map(of).collect()
}

/// Counts of all elements by slot and half of their key.
fn count_f32(
    matrix: &Matrix,
    slots: usize,
    place: impl Fn(u32) -> Option<(usize, usize)> + Sync,
) -> Vec<u64> {
    let block = block_rows(matrix.columns()).div_ceil(4);
    let shares = rayon::current_num_threads().max(1);
    let share = matrix.rows().div_ceil(shares).max(1);
    let parts: Vec<Vec<u64>> = (0..shares)
        .into_par_iter()
        .map(|number| {
            let (first, end) = (number * share, ((number + 1) * share).min(matrix.rows()));
            let (mut counts, mut values) = (vec![0u64; slots << 16], Vec::new());
            for start in (first..end).step_by(block) {
                matrix.read_f32(start..(start + block).min(end), &mut values);
                for &value in &values {
                    if let Some((slot, half)) = place(key_f32(value)) {
                        counts[slot << 16 | half] += 1;
                    }
                }
            }
            counts
        })
        .collect();
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    parts.into_iter().reduce(add).unwrap_or_else(|| vec![0; slots << 16])
}

/// The element of rank `rank` (from 0) in ascending order.
fn select(matrix: &Matrix, mut rank: u64) -> f64 {
    // Elements whose key begins with the `known` leading bits of `prefix` are still in question.
    let (mut prefix, mut known) = (0u64, 0u32);
    loop {
        let shift = 64 - known - DIGIT_BITS;
        let counts = reduce(
            matrix,
            || vec![0u64; 1 << DIGIT_BITS],
            |counts, key| {
                if known == 0 || key >> (64 - known) == prefix {
                    counts[(key >> shift) as usize & ((1 << DIGIT_BITS) - 1)] += 1;
                }
            },
            |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
                a
            },
        );
        let mut digit = 0;
        while rank >= counts[digit] {
            rank -= counts[digit];
            digit += 1;
        }
        prefix = prefix << DIGIT_BITS | digit as u64;
        known += DIGIT_BITS;
        if known == 64 {
            return value(prefix);
        }
        if counts[digit] <= COLLECTED {
            let mut keys = reduce(
                matrix,
                Vec::new,
                |keys, key| {
                    if key >> (64 - known) == prefix {
                        keys.push(key);
                    }
                },
                |mut a, mut b| {
                    a.append(&mut b);
                    a
                },
            );
            return value(*keys.select_nth_unstable(rank as usize).1);
        }
    }
}

/// Folds the keys of all elements; the result must not depend on their order.
fn reduce<T: Send>(
    matrix: &Matrix,
    empty: impl Fn() -> T + Sync + Send,
    add: impl Fn(&mut T, u64) + Sync + Send,
    merge: impl Fn(T, T) -> T + Sync + Send,
) -> T {
    let block = block_rows(matrix.columns()).div_ceil(4);
    // One accumulator per contiguous share of the rows, not per block: counters are large.
    let shares = rayon::current_num_threads().max(1);
    let share = matrix.rows().div_ceil(shares).max(1);
    (0..shares)
        .into_par_iter()
        .map(|number| {
            let (first, end) = (number * share, ((number + 1) * share).min(matrix.rows()));
            let (mut result, mut values) = (empty(), Vec::new());
            for start in (first..end).step_by(block) {
                matrix.read_f64(start..(start + block).min(end), &mut values);
                values.iter().for_each(|&x| add(&mut result, key(x)));
            }
            result
        })
        .collect::<Vec<T>>()
        .into_iter()
        .reduce(merge)
        .unwrap_or_else(empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn sorted_percentile(values: &[f64], percent: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let position = percent / 100.0 * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
        low + (high - low) * position.fract()
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_elements() {
        let stream = Stream::new(5, &[]);
        let percents = [0.0, 12.5, 50.0, 90.0, 99.9, 100.0];
        for (count, columns) in [(1, 1), (7, 7), (1000, 3), (300_001, 1)] {
            let wide: Vec<f64> = (0..count / columns * columns).map(|i| stream.normal(i as u64)).collect();
            let relu: Vec<f64> = wide.iter().map(|x| f64::from(x.max(0.0) as f32)).collect();
            // Many elements that differ in their last bits only.
            let close: Vec<f64> = wide.iter().map(|x| 1.0 + x.abs() * 1e-15).collect();
            for values in [wide, relu, close] {
                let matrix = Matrix::from_f64(values.clone(), columns, "x").unwrap();
                let expected = percents.map(|percent| sorted_percentile(&values, percent));
                assert_eq!(percentiles(&matrix, &percents), expected);
                let single: Vec<f32> = values.iter().map(|x| *x as f32).collect();
                let matrix = Matrix::from_f32(single.clone(), columns, "x").unwrap();
                let rounded: Vec<f64> = single.iter().map(|x| f64::from(*x)).collect();
                let expected = percents.map(|percent| sorted_percentile(&rounded, percent));
                assert_eq!(percentiles(&matrix, &percents), expected);
                let [low, high] = column_quantiles(&matrix, [0.25, 0.999]);
                for column in 0..columns {
                    let own: Vec<f64> = rounded.iter().skip(column).step_by(columns).copied().collect();
                    assert_eq!(low[column], sorted_percentile(&own, 25.0));
                    assert!((high[column] - sorted_percentile(&own, 99.9)).abs() < 1e-12);
                }
            }
        }
    }
}
