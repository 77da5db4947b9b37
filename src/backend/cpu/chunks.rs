//! How work is cut into pieces: by the shapes alone, never by the number of threads, so that the order of every sum,
//! and with it every bit of every result, is the same on any machine with the same instruction set.

use crate::ops::Rows;

/// Elements a task of an element-wise pass works on: 64 KB of f32 per operand, which stays in L2
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

/// Runs a loop with the widest vector instructions this processor has.
///
/// The closure, which must be marked `#[inline(always)]`, is compiled once for each instruction set (AVX-512,
/// AVX2, baseline) and the one for this processor is chosen at run time.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    crate::instructions::arch().dispatch(work)
}
