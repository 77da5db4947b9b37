//! What a run looks like: figures, and one page that holds them all.

pub mod plots;
