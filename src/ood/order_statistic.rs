//! Exact percentiles of a matrix too large to sort: selection by digits, a pass over the data per digit.

use rayon::prelude::*;

use crate::features::{Matrix, block_rows};

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

/// The percentile (0 to 100) of all elements, by linear interpolation between order statistics as NumPy's default.
///
/// # Panics
/// If the matrix has no rows.
pub(super) fn percentile(matrix: &Matrix, percent: f64) -> f64 {
    let count = (matrix.rows() * matrix.columns()) as u64;
    assert!(count > 0, "a percentile of nothing");
    let position = percent / 100.0 * (count - 1) as f64;
    let below = position.floor();
    let low = select(matrix, below as u64);
    let fraction = position - below;
    if fraction == 0.0 {
        return low;
    }
    let high = select(matrix, (below as u64 + 1).min(count - 1));
    low + (high - low) * fraction
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
        for (count, columns) in [(1, 1), (7, 7), (1000, 3), (300_001, 1)] {
            let wide: Vec<f64> = (0..count / columns * columns).map(|i| stream.normal(i as u64)).collect();
            let relu: Vec<f64> = wide.iter().map(|x| f64::from(x.max(0.0) as f32)).collect();
            // Many elements that differ in their last bits only.
            let close: Vec<f64> = wide.iter().map(|x| 1.0 + x.abs() * 1e-15).collect();
            for values in [wide, relu, close] {
                let matrix = Matrix::from_f64(values.clone(), columns, "x").unwrap();
                for percent in [0.0, 12.5, 50.0, 90.0, 99.9, 100.0] {
                    assert_eq!(percentile(&matrix, percent), sorted_percentile(&values, percent));
                }
            }
        }
    }
}
