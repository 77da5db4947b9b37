//! From a network and a data set to a feature cache on disk.

use std::path::Path;

use super::{CacheMeta, CacheWriter, Evaluation, Head, Pass};
use crate::data::{SharedDataset, Transform};
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::ops::Backend;

/// Writes the cache of one data set to `folder` and says how well the network did where labels are known.
///
/// # Errors
/// A sample cannot be read, a feature is not finite, the disk is full.
pub fn extract<B: Backend>(
    model: &mut Model<B>,
    pass: &Pass,
    data: &SharedDataset,
    transform: &Transform,
    folder: &Path,
    meta: CacheMeta,
    mut progress: impl FnMut(usize),
) -> Result<Evaluation> {
    let architecture = model.network().architecture();
    let (dimension, classes) = (architecture.feature_dimension(), architecture.classes);
    let mut writer = CacheWriter::create(folder, dimension, classes, meta)?;
    let mut evaluation = Evaluation::default();
    let mut done = 0;
    pass.run(model, data, transform, |batch| {
        if let Some(index) = batch.features.iter().chain(&batch.logits).position(|value| !value.is_finite()) {
            let row = done + index.min(batch.features.len() - 1) / dimension;
            return Err(Error::invalid(format!(
                "the network gives a number that is not finite for sample {row} ({}); its weights have diverged",
                data.sample_name(row)
            )));
        }
        writer.append(&batch.features, &batch.logits, &batch.labels)?;
        evaluation.add(&batch);
        done += batch.labels.len();
        progress(batch.labels.len());
        Ok(())
    })?;
    writer.finish()?;
    Ok(evaluation)
}

/// The classifier of a model: weight (C, D) and bias (C).
///
/// # Errors
/// The device failed.
pub fn head<B: Backend>(model: &Model<B>) -> Result<Head> {
    let entries = model.network().parameters().entries();
    let values = |name: &str| {
        let entry =
            entries.iter().find(|entry| entry.name == name).expect("every network has a linear classifier");
        model.parameter(entry)
    };
    Head::new(values("fc.weight")?, values("fc.bias")?, model.network().architecture().feature_dimension())
}
