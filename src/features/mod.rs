//! Feature caches: one pass of a checkpoint over a data set, kept as plain `.npy` files.
//!
//! A cache is a folder of `features.npy` (N, D), `logits.npy` (N, C), `labels.npy` (N,), `meta.json` and `head.npz`, the last
//! layer `W` (C, D) and `b` (C,) that makes these logits of these features; an `.npz` with arrays of the same names serves as
//! well, whoever wrote it. Where logits and head do not belong together, [`check_logits`] says so. A network with two heads has a cache for each, in
//! `superclass/` and `subclass/`, so that all that works on a cache works on either head. Files are mapped, never loaded whole, and every
//! score, sweep, plot and collapse metric works from them without the network.

mod agreement;
mod archive;
mod cause;
mod choose;
mod contents;
mod extract;
mod foreign;
mod head;
mod labels;
mod matrix;
mod moments;
mod npy;
mod pass;
mod set;
mod single;
mod writer;

pub use agreement::{Agreement, Extent, ForeignLogits, SAMPLED_ROWS, check_logits, predictions};
pub use archive::Npz;
pub use choose::{ChosenHead, choose_head};
pub use contents::StoredArray;
pub(crate) use contents::hex;
pub use extract::{Request, extract_all, head, of_head};
pub use head::Head;
pub use matrix::Matrix;
pub use moments::Moments;
pub use npy::{Element, NpyArray};
pub use pass::{Evaluation, Pass, PassBatch, batches_in_flight};
pub use set::{CacheMeta, FeatureSet, HEAD_FILE, check_same_checkpoint};
pub use single::SinglePass;
pub use writer::{CacheWriter, write_npz};
pub(crate) use writer::{npy_bytes, npz_bytes};

/// Rows of a block whose f64 copy has about two million elements: large enough for fast products, small enough
/// that a block per thread stays far below the memory bound. A function of the width alone, so the order of every
/// sum, and with it every bit of a result, is the same for any number of threads.
pub(crate) fn block_rows(columns: usize) -> usize {
    ((1 << 21) / columns.max(1)).clamp(16, 4096)
}

#[cfg(test)]
mod tests;
