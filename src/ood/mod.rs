//! Out-of-distribution detection: fits, scores, and what they are worth.

pub mod metrics;
pub mod table;
