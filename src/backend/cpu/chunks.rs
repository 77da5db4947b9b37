//! How work is cut into pieces: by the shapes alone, never by the number of threads, so that the order of every sum,
//! and with it every bit of every result, is the same on any machine with the same instruction set.

use crate::ops::Rows;

/// Elements a task of an element-wise pass works on: 64 KB of f32 per operand, which stays in the second-level cache
/// and outweighs the cost of handing a task to a thread many times over.
const ELEMENTS: usize = 16 * 1024;

/// Elements per task of a pass without channels.
pub(super) const fn flat() -> usize {
    ELEMENTS
}

/// Elements per task of a pass over rows of channels: whole rows.
pub(super) fn whole_rows(extent: Rows) -> usize {
    let channels = extent.channels.max(1);
    (ELEMENTS / channels).max(1) * channels
}

/// How many rows of so many channels are taken as one wide row: a loop over 64 channels is over before it runs at speed.
pub(super) fn rows_at_once(channels: usize) -> usize {
    const WIDTH: usize = 512;
    (WIDTH / channels.max(1)).max(1)
}

/// Numbers per channel, repeated for each row of a wide row.
pub(super) fn widened<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
    values.repeat(rows_at_once(channels))
}

/// Sums per channel from the sums of a wide row's columns.
pub(super) fn narrowed(wide: &[f64], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0; channels];
    for row in wide.chunks_exact(channels) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sums
}

/// Runs a loop with the widest vector instructions this processor has.
///
/// The closure, which must be marked `#[inline(always)]`, is compiled once for each instruction set (AVX-512, AVX2, baseline) and the right one is chosen at run time.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
