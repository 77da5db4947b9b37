//! All scores fitted on one training set: fit once, score any set of the same network, save, load.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::activation::{Nci, React, She};
use super::compute::{Compute, OnCpu};
use super::gaussian::Gaussians;
use super::logit_scores;
use super::method::{Method, Options};
use super::neighbours::Neighbours;
use super::rows::{Rows, scoring_block};
use super::saved::{Reader, Writer};
use super::subspace::{Neco, Vim};
use super::table::FitSummary;
use crate::error::{Error, Position, Result};
use crate::features::{FeatureSet, Head, Moments};

/// Scores by name, one f64 per sample; larger means more in-distribution.
pub type Scores = BTreeMap<String, Vec<f64>>;

/// Key of the options in the metadata of `fit.safetensors`.
const METADATA: &str = "residua_ood";

/// The NECO presets.
const NECO: [Method; 4] = [Method::Neco, Method::NecoFormula, Method::NecoClassMeans, Method::NecoOfficial];

/// Fitted detectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Detectors {
    head: Head,
    description: Description,
    gaussians: Option<Gaussians>,
    vim: Option<Vim>,
    vim_centered: Option<Vim>,
    neco: BTreeMap<Method, Neco>,
    neighbours: Option<Neighbours>,
    react: Option<React>,
    she: Option<She>,
    nci: Option<Nci>,
}

/// The fits that kernels can apply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub options: &'a Options,
    pub gaussians: Option<&'a Gaussians>,
    pub vim: Option<&'a Vim>,
    pub vim_centered: Option<&'a Vim>,
    pub neco: &'a BTreeMap<Method, Neco>,
    pub neighbours: Option<&'a Neighbours>,
}

/// The metadata of `fit.safetensors`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Description {
    /// Options of the fit; its `methods` are the scores that could be fitted.
    options: Options,
    fits: BTreeMap<String, FitSummary>,
    warnings: Vec<String>,
    /// Checkpoint of the training features, where known.
    checkpoint: Option<String>,
}

impl Detectors {
    /// Fits every score of `options.methods` on ID training features.
    ///
    /// Statistics are streamed over the set in f64; the result does not depend on the number of threads.
    ///
    /// # Errors
    /// Features, logits or labels that do not fit the head, a class without samples, a ViM dimension that leaves no
    /// residual.
    pub fn fit(train: &FeatureSet, head: &Head, options: &Options) -> Result<Detectors> {
        Detectors::fit_on(&mut OnCpu, train, head, options)
    }

    /// The same, with the passes over all rows on a device.
    ///
    /// # Errors
    /// As [`Detectors::fit`], or the device failed.
    pub fn fit_on(
        compute: &mut dyn Compute,
        train: &FeatureSet,
        head: &Head,
        options: &Options,
    ) -> Result<Detectors> {
        options.check()?;
        train.check_shape(head.dimension(), head.classes())?;
        if train.is_empty() {
            return Err(Error::malformed(train.path(), Position::File, "training samples", "none"));
        }
        let mut fit = Detectors::unfitted(head, options, train.meta().checkpoint.clone());
        fit.fit_moments(compute, train)?;
        if options.wants(&[Method::Knn]) {
            let (neighbours, notes) = Neighbours::fit(train, options);
            let parameters = [("k".to_string(), neighbours.k() as f64)].into();
            fit.note(Method::Knn, FitSummary { parameters, ..FitSummary::default() });
            fit.description.warnings.extend(notes);
            fit.neighbours = Some(neighbours);
        }
        if options.wants(&[Method::React]) {
            let (react, summary) = React::fit(train, options);
            fit.note(Method::React, summary);
            fit.react = Some(react);
        }
        Ok(fit)
    }

    /// Scores of logits alone, which no training set is needed for; `checkpoint` is that of the head, where known.
    ///
    /// # Errors
    /// A score that is fitted.
    pub fn of_logits(head: &Head, options: &Options, checkpoint: Option<String>) -> Result<Detectors> {
        options.check()?;
        options.check_untrained()?;
        Ok(Detectors::unfitted(head, options, checkpoint))
    }

    fn unfitted(head: &Head, options: &Options, checkpoint: Option<String>) -> Detectors {
        Detectors {
            head: head.clone(),
            description: Description { options: options.clone(), checkpoint, ..Description::default() },
            gaussians: None,
            vim: None,
            vim_centered: None,
            neco: BTreeMap::new(),
            neighbours: None,
            react: None,
            she: None,
            nci: None,
        }
    }

    /// The scores that need class statistics, from one pass over the training features.
    fn fit_moments(&mut self, compute: &mut dyn Compute, train: &FeatureSet) -> Result<()> {
        let options = self.description.options.clone();
        let head = self.head.clone();
        if !options.needs_labels() {
            return Ok(());
        }
        Moments::check_dimension(head.dimension())?;
        let labels = train.training_labels(head.classes())?;
        let moments = compute.moments(train.features(), &labels, head.classes())?;
        if options.wants(&[Method::Mahalanobis, Method::Rmds]) {
            let (gaussians, summaries) = Gaussians::fit(&moments, options.wants(&[Method::Rmds]))?;
            summaries.into_iter().for_each(|(method, summary)| self.note(method, summary));
            self.gaussians = Some(gaussians);
        }
        if options.wants(&[Method::Vim, Method::Residual]) {
            let (vim, summary) = Vim::fit(train, &head, &moments, options.vim_dim, false, compute)?;
            self.note(Method::Residual, FitSummary { parameters: BTreeMap::new(), ..summary.clone() });
            self.note(Method::Vim, summary);
            self.vim = Some(vim);
        }
        if options.wants(&[Method::VimCentered]) {
            let (vim, summary) = Vim::fit(train, &head, &moments, options.vim_dim, true, compute)?;
            self.note(Method::VimCentered, summary);
            self.vim_centered = Some(vim);
        }
        for preset in NECO.into_iter().filter(|preset| options.wants(&[*preset])) {
            let (neco, summary, warning) = Neco::fit(preset, &moments, options.neco_dim)?;
            self.description.warnings.extend(warning);
            match neco {
                Ok(neco) => {
                    self.note(preset, summary);
                    self.neco.insert(preset, neco);
                }
                Err(reason) => {
                    self.description.warnings.push(reason);
                    self.description.options.methods.retain(|method| *method != preset);
                }
            }
        }
        if options.wants(&[Method::She]) {
            let (she, notes) = She::fit(train, &head, &labels, &moments);
            self.description.warnings.extend(notes);
            self.she = Some(she);
        }
        if options.wants(&[Method::Nci]) {
            self.nci = Some(Nci::fit(&moments));
        }
        Ok(())
    }

    /// Keeps what a fit found, if its score is wanted.
    fn note(&mut self, method: Method, summary: FitSummary) {
        if self.description.options.wants(&[method]) {
            self.description.fits.insert(method.name().to_string(), summary);
        }
    }

    /// The scores that were fitted, in the order they are shown.
    pub fn methods(&self) -> Vec<Method> {
        Method::ALL.into_iter().filter(|method| self.description.options.wants(&[*method])).collect()
    }

    /// Rank, condition, dimension and constants of each fit, by score.
    pub fn fits(&self) -> &BTreeMap<String, FitSummary> {
        &self.description.fits
    }

    /// Warnings about the fits for the user, in sentences.
    pub fn warnings(&self) -> &[String] {
        &self.description.warnings
    }

    /// The classifier's last layer.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Seed of random subsets.
    pub fn seed(&self) -> u64 {
        self.description.options.seed
    }

    /// Every fitted score of every sample, in blocks of bounded size.
    ///
    /// # Errors
    /// Features or logits of another shape or checkpoint, or a score that is not finite (named by row).
    pub fn score(&self, set: &FeatureSet) -> Result<Scores> {
        self.score_on(&mut OnCpu, set)
    }

    /// The same on a device.
    ///
    /// # Errors
    /// As [`Detectors::score`], or the device failed.
    pub fn score_on(&self, compute: &mut dyn Compute, set: &FeatureSet) -> Result<Scores> {
        self.check(set)?;
        let block = scoring_block(self.head.dimension());
        let starts: Vec<usize> = (0..set.len()).step_by(block).collect();
        self.collect(compute, set, starts.len(), &|number| {
            let start = starts[number];
            Rows::read(set, &self.head, start..(start + block).min(set.len()))
        })
    }

    /// The scores of the samples at `indices` only.
    ///
    /// # Errors
    /// As [`Detectors::score`], or the device failed.
    ///
    /// # Panics
    /// If an index lies beyond the set.
    pub fn score_samples(
        &self,
        compute: &mut dyn Compute,
        set: &FeatureSet,
        indices: &[usize],
    ) -> Result<Scores> {
        self.check(set)?;
        let blocks: Vec<&[usize]> = indices.chunks(scoring_block(self.head.dimension())).collect();
        self.collect(compute, set, blocks.len(), &|number| Rows::gather(set, &self.head, blocks[number]))
    }

    fn check(&self, set: &FeatureSet) -> Result<()> {
        set.check_shape(self.head.dimension(), self.head.classes())?;
        match (&self.description.checkpoint, &set.meta().checkpoint) {
            (Some(fitted), Some(found)) if fitted != found => Err(Error::invalid(format!(
                "{} comes from checkpoint {found}, but the scores were fitted on {fitted}; extract both with the same one",
                set.path().display()
            ))),
            _ => Ok(()),
        }
    }

    fn collect(
        &self,
        compute: &mut dyn Compute,
        set: &FeatureSet,
        blocks: usize,
        read: &(dyn Fn(usize) -> Rows + Sync),
    ) -> Result<Scores> {
        let parts = compute.score_blocks(self, blocks, read)?;
        let mut scores: Scores =
            self.methods().iter().map(|method| (method.name().to_string(), Vec::new())).collect();
        for (method, values) in parts.into_iter().flatten() {
            if let Some(all) = scores.get_mut(method.name()) {
                all.extend(values);
            }
        }
        for (name, values) in &scores {
            if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                let expected = format!("features and logits for which `{name}` is finite");
                let found = values[row].to_string();
                return Err(Error::malformed(set.path(), Position::Row(row as u64), expected, found));
            }
        }
        Ok(scores)
    }

    /// Every fitted score of a block, on the CPU.
    pub(super) fn score_rows(&self, rows: &Rows) -> Vec<(Method, Vec<f64>)> {
        let mut scores = self.logit_scores(rows, &[Method::Msp, Method::Mls, Method::Energy]);
        if let Some(gaussians) = &self.gaussians {
            scores.extend(gaussians.score(rows));
        }
        if let Some(vim) = &self.vim {
            let residuals = vim.residuals(rows);
            scores.push((Method::Vim, vim.score(rows, &residuals)));
            scores.push((Method::Residual, residuals.iter().map(|residual| -residual).collect()));
        }
        if let Some(vim) = &self.vim_centered {
            scores.push((Method::VimCentered, vim.score(rows, &vim.residuals(rows))));
        }
        scores.extend(self.neco.iter().map(|(preset, neco)| (*preset, neco.score(rows))));
        scores.extend(self.neighbours.iter().map(|knn| (Method::Knn, knn.score(rows))));
        scores.extend(self.score_without_kernels(rows));
        scores
    }

    /// The scores that no device has a kernel for.
    pub(super) fn score_without_kernels(&self, rows: &Rows) -> Vec<(Method, Vec<f64>)> {
        let mut scores = self.logit_scores(rows, &[Method::Gen]);
        scores.extend(self.react.iter().map(|react| (Method::React, react.score(rows, &self.head))));
        scores.extend(self.she.iter().map(|she| (Method::She, she.score(rows))));
        scores.extend(self.nci.iter().map(|nci| (Method::Nci, nci.score(rows, &self.head))));
        scores
    }

    fn logit_scores(&self, rows: &Rows, methods: &[Method]) -> Vec<(Method, Vec<f64>)> {
        let options = &self.description.options;
        let wanted = methods.iter().filter(|method| options.wants(&[**method]));
        wanted.filter_map(|&method| Some((method, logit_scores::score(method, rows, options)?))).collect()
    }

    /// The parts of the fits that a device needs.
    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            options: &self.description.options,
            gaussians: self.gaussians.as_ref(),
            vim: self.vim.as_ref(),
            vim_centered: self.vim_centered.as_ref(),
            neco: &self.neco,
            neighbours: self.neighbours.as_ref(),
        }
    }

    /// Writes `fit.safetensors`.
    ///
    /// # Errors
    /// The file cannot be written; an older one is then untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut out = Writer::default();
        let (classes, dimension) = (self.head.classes(), self.head.dimension());
        out.put("head.weight", &[classes, dimension], self.head.weight());
        out.put("head.bias", &[classes], self.head.bias());
        self.gaussians.iter().for_each(|part| part.save(&mut out));
        self.vim.iter().for_each(|part| part.save("vim", &mut out));
        self.vim_centered.iter().for_each(|part| part.save("vim_centered", &mut out));
        self.neco.iter().for_each(|(preset, part)| part.save(preset.name(), &mut out));
        self.neighbours.iter().for_each(|part| part.save(&mut out));
        self.react.iter().for_each(|part| part.save(&mut out));
        self.she.iter().for_each(|part| part.save(classes, &mut out));
        self.nci.iter().for_each(|part| part.save(&mut out));
        let text = serde_json::to_string(&self.description).map_err(|e| Error::invalid(e.to_string()))?;
        out.write(path, METADATA, text)
    }

    /// Reads `fit.safetensors` back; the scores it gives are the same bit for bit.
    ///
    /// # Errors
    /// The file is damaged, incomplete, or holds something else.
    pub fn load(path: &Path) -> Result<Detectors> {
        let (file, text) = Reader::open(path, METADATA)?;
        let description: Description = serde_json::from_str(&text)
            .map_err(|e| file.malformed(METADATA, "options of a fit", &e.to_string()))?;
        let options = &description.options;
        options.check().map_err(|e| file.malformed(METADATA, "options of a fit", &e.to_string()))?;
        let (shape, weight) = file.get("head.weight", &[None, None])?;
        let (classes, d) = (shape[0], shape[1]);
        let head = Head::new(weight, file.get("head.bias", &[Some(classes)])?.1, d)?;
        let wanted = |methods: &[Method]| options.wants(methods);
        let some = |methods: &[Method]| wanted(methods).then_some(());
        let rmds = wanted(&[Method::Rmds]);
        Ok(Detectors {
            gaussians: some(&[Method::Mahalanobis, Method::Rmds])
                .map(|()| Gaussians::load(&file, d, classes, rmds))
                .transpose()?,
            vim: some(&[Method::Vim, Method::Residual]).map(|()| Vim::load("vim", d, &file)).transpose()?,
            vim_centered: some(&[Method::VimCentered])
                .map(|()| Vim::load("vim_centered", d, &file))
                .transpose()?,
            neco: NECO
                .into_iter()
                .filter(|preset| wanted(&[*preset]))
                .map(|preset| Ok((preset, Neco::load(preset, d, &file)?)))
                .collect::<Result<_>>()?,
            neighbours: some(&[Method::Knn]).map(|()| Neighbours::load(&file, d)).transpose()?,
            react: some(&[Method::React]).map(|()| React::load(&file)).transpose()?,
            she: some(&[Method::She]).map(|()| She::load(&file, d, classes)).transpose()?,
            nci: some(&[Method::Nci]).map(|()| Nci::load(&file, d)).transpose()?,
            head,
            description,
        })
    }
}
