//! From a network and a data set to a feature cache on disk.

use std::path::{Path, PathBuf};

use super::{CacheMeta, CacheWriter, Evaluation, FeatureSet, Head, Pass};
use crate::checkpoint::Trained;
use crate::data::{SharedDataset, Transform};
use crate::error::{Error, Result};
use crate::nn::{Model, Network};
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
    progress: &mut dyn FnMut(usize) -> Result<()>,
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
        progress(batch.labels.len())
    })?;
    writer.finish()?;
    Ok(evaluation)
}

/// One data set to extract, and where its cache goes.
#[derive(Debug, Clone)]
pub struct Request {
    /// The samples.
    pub data: SharedDataset,
    /// What they are, for `meta.json` and for telling whether a cache is up to date.
    pub description: String,
    /// The cache's folder.
    pub folder: PathBuf,
}

impl Request {
    fn meta(&self, trained: &Trained, transform: &Transform) -> CacheMeta {
        CacheMeta {
            data: Some(self.description.clone()),
            transform: Some(serde_json::to_string(transform).expect("a transform is plain values")),
            checkpoint: Some(trained.hash.clone()),
            rows: Some(self.data.len() as u64),
        }
    }

    /// Whether the folder holds exactly this cache already.
    pub fn is_done(&self, trained: &Trained, transform: &Transform) -> bool {
        FeatureSet::open(&self.folder).is_ok_and(|set| *set.meta() == self.meta(trained, transform))
    }
}

/// One pass of a trained network over each data set: a cache for each, and the classifier as `head`.
///
/// # Errors
/// As [`extract`]; and what `progress`, which is told the number of samples done since its last call, returns.
pub fn extract_all<B: Backend>(
    backend: B,
    trained: &Trained,
    transform: &Transform,
    batch: usize,
    requests: &[Request],
    head_path: &Path,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Evaluation>> {
    let network = Network::new(&trained.architecture, backend.dtype(), None);
    let plan =
        |request: &Request| Pass::new(&network, &backend, batch, request.data.len(), transform.size as usize);
    let passes: Vec<Pass> = requests.iter().map(plan).collect();
    let bytes = passes.iter().map(Pass::bytes).max().unwrap_or(0);
    let mut model = trained.load(network, backend, bytes)?;
    head(&model)?.write(head_path)?;
    let mut evaluations = Vec::new();
    for (request, pass) in requests.iter().zip(&passes) {
        let meta = request.meta(trained, transform);
        evaluations.push(extract(
            &mut model,
            pass,
            &request.data,
            transform,
            &request.folder,
            meta,
            progress,
        )?);
    }
    Ok(evaluations)
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
