//! From a network and a data set to feature caches on disk, one for each head.

use std::path::{Path, PathBuf};

use super::{
    CacheMeta, CacheWriter, Evaluation, Extent, FeatureSet, ForeignLogits, Head, Pass, check_logits,
};
use crate::autograd::SHORTEST_VECTOR;
use crate::checkpoint::{HeadLabels, LabelsBy, Trained};
use crate::data::{SharedDataset, Transform};
use crate::error::{Error, Result};
use crate::nn::{HeadKind, HeadSpec, HeadValues, Model, Network, SUBCLASS_HEAD, SUPERCLASS_HEAD};
use crate::ops::Device;

/// One data set to extract, and where its cache goes.
#[derive(Debug, Clone)]
pub struct Request {
    /// The samples.
    pub data: SharedDataset,
    /// A description of the samples, for `meta.json` and for telling whether a cache is up to date.
    pub description: String,
    /// The cache's folder; with two heads see [`of_head`].
    pub folder: PathBuf,
    /// How its labels are understood.
    pub labels: LabelsBy,
}

impl Request {
    fn meta(&self, trained: &Trained, transform: &Transform) -> CacheMeta {
        CacheMeta {
            data: Some(self.description.clone() + self.labels_in_words(trained)),
            transform: Some(serde_json::to_string(transform).expect("a transform is plain values")),
            checkpoint: Some(trained.hash.clone()),
            rows: Some(self.data.len() as u64),
        }
    }

    /// Addition to the description where labels are not those of the data set's own numbers, so that a cache with other
    /// ones is not taken for this.
    fn labels_in_words(&self, trained: &Trained) -> &'static str {
        let heads = 0..trained.architecture.heads.len();
        let mut labels = heads.map(|head| HeadLabels::new(trained, head, &*self.data, self.labels));
        match self.labels {
            LabelsBy::Numbers => " (labels as numbers)",
            LabelsBy::Names if labels.any(|labels| labels.are_renumbered()) => " (labels by name)",
            LabelsBy::Names => "",
        }
    }

    /// Whether the caches of all heads are there, exactly these, each with its head inside: earlier versions wrote one beside
    /// them, which the next network's took the place of.
    pub fn is_done(&self, trained: &Trained, transform: &Transform) -> bool {
        let meta = self.meta(trained, transform);
        let heads = &trained.architecture.heads;
        (0..heads.len()).all(|head| {
            let open = FeatureSet::open(&of_head(heads, head, &self.folder));
            open.is_ok_and(|set| *set.meta() == meta && set.own_head_path().is_some())
        })
    }
}

impl Request {
    /// Checks that the logits in each existing cache are those of the head inside it. Returns warnings for the user.
    ///
    /// # Errors
    /// They do not: somebody else's files have come between.
    pub fn check(&self, trained: &Trained) -> Result<Vec<String>> {
        let heads = &trained.architecture.heads;
        let mut warnings = Vec::new();
        for index in 0..heads.len() {
            let set = FeatureSet::open(&of_head(heads, index, &self.folder))?;
            if let Some(head) = set.own_head()? {
                set.check_shape(head.dimension(), head.classes())?;
                warnings.extend(check_logits(&set, &head, Extent::Sample, ForeignLogits::Refuse)?);
            }
        }
        Ok(warnings)
    }
}

/// Where a head's part of something goes that a network with one head has at `path`: there, or with two heads at
/// `superclass/NAME` and `subclass/NAME` beside it.
pub fn of_head(heads: &[HeadSpec], head: usize, path: &Path) -> PathBuf {
    let level = match heads[head].name.as_str() {
        SUPERCLASS_HEAD => "superclass",
        SUBCLASS_HEAD => "subclass",
        _ => return path.to_path_buf(),
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    parent.join(level).join(path.file_name().unwrap_or_default())
}

/// One pass of a trained network over each data set: caches for each head ([`of_head`]), with its last linear map inside.
/// Returns the accuracy and loss of each head on each data set, where labels are known.
///
/// # Errors
/// A sample cannot be read, a feature is not finite, the disk is full; or an error of `progress`, which is given the number
/// of samples done since its last call.
pub fn extract_all(
    device: Box<dyn Device>,
    trained: &Trained,
    transform: &Transform,
    batch: usize,
    requests: &[Request],
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<Evaluation>>> {
    let network = Network::new(&trained.architecture, device.dtype(), None);
    let plan =
        |request: &Request| Pass::new(&network, &*device, batch, request.data.len(), transform.size as usize);
    let passes: Vec<Pass> = requests.iter().map(plan).collect();
    let bytes = passes.iter().map(Pass::bytes).max().unwrap_or(0);
    let mut model = trained.load(network, device, bytes)?;
    let passes = requests.iter().zip(&passes);
    passes.map(|(request, pass)| extract(&mut model, pass, trained, transform, request, progress)).collect()
}

/// Writes the caches of one data set.
fn extract(
    model: &mut Model,
    pass: &Pass,
    trained: &Trained,
    transform: &Transform,
    request: &Request,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Evaluation>> {
    let heads = &trained.architecture.heads;
    let pooled = trained.architecture.feature_dimension();
    let create = |(index, head): (usize, &HeadSpec)| {
        let folder = of_head(heads, index, &request.folder);
        let dimension = head.feature_dimension(pooled);
        CacheWriter::create(&folder, dimension, head.classes, request.meta(trained, transform))
    };
    let mut writers = heads.iter().enumerate().map(create).collect::<Result<Vec<_>>>()?;
    for (index, writer) in writers.iter().enumerate() {
        writer.write_head(&head(model, index)?)?;
    }
    let labels: Vec<HeadLabels> =
        (0..heads.len()).map(|head| HeadLabels::new(trained, head, &*request.data, request.labels)).collect();
    let mut evaluations = vec![Evaluation::default(); heads.len()];
    let mut done = 0;
    pass.run(model, &request.data, transform, |batch| {
        for (index, values) in batch.heads.iter().enumerate() {
            check_finite(values, batch.labels.len(), done, &request.data)?;
            let labels: Vec<i64> = batch.labels.iter().map(|&label| labels[index].logit(label)).collect();
            writers[index].append(&values.features, &values.logits, &labels)?;
            evaluations[index].add(&values.logits, &labels);
        }
        done += batch.labels.len();
        progress(batch.labels.len())
    })?;
    writers.into_iter().try_for_each(CacheWriter::finish)?;
    Ok(evaluations)
}

/// Refuses outputs of a diverged network, which are not finite; the batch of `rows` begins at sample `first`.
pub(super) fn check_finite(
    values: &HeadValues,
    rows: usize,
    first: usize,
    data: &SharedDataset,
) -> Result<()> {
    let broken = |values: &[f32]| {
        let index = values.iter().position(|value| !value.is_finite())?;
        Some(first + index / (values.len() / rows))
    };
    match broken(&values.features).or_else(|| broken(&values.logits)) {
        None => Ok(()),
        Some(row) => Err(Error::invalid(format!(
            "the network gives a number that is not finite for sample {row} ({}); its weights have diverged",
            data.sample_name(row)
        ))),
    }
}

/// The last linear map of a model's head: it makes logits (C) of cached features (D). For a `cosine` head it is the
/// matrix of its unit vectors times the scale, without a bias.
///
/// # Errors
/// The device failed.
pub fn head(model: &Model, index: usize) -> Result<Head> {
    let architecture = model.network().architecture();
    let HeadSpec { name, kind, classes } = &architecture.heads[index];
    let values = |tensor: &str| {
        let tensor = format!("{name}.{tensor}");
        let mut entries = model.network().parameters().entries().iter();
        model.parameter(entries.find(|entry| entry.name == tensor).expect("the tensors of a head's kind"))
    };
    let pooled = architecture.feature_dimension();
    match kind {
        HeadKind::Linear => Head::new(values("weight")?, values("bias")?, pooled),
        HeadKind::CosineReluLinear => Head::new(values("2.weight")?, values("2.bias")?, *classes),
        HeadKind::Cosine => {
            let scale = softplus(values("scale")?[0]);
            let mut weight = values("weight")?;
            for vector in weight.chunks_exact_mut(pooled) {
                let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
                vector.iter_mut().for_each(|value| *value *= scale / length.max(SHORTEST_VECTOR));
            }
            Head::new(weight, vec![0.0; *classes], pooled)
        }
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
