//! Neural collapse, NC1..NC5: how far features and classifier of a trained network have become a simplex.

mod caches;
mod geometry;
mod measure;
mod nearest;
mod row;
mod series;

pub use caches::{CachePaths, checkpoint_of_folder, named_set};
pub use measure::{GlobalMean, Measurement, Options, Subject, measure, measure_on};
pub use row::{CollapseReport, CollapseRow, Skipped, write_cosines};
pub use series::{Checkpoint, CollapseSeries, expand_globs, over_checkpoints};
