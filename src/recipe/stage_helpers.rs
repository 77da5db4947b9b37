//! Helpers for the stages of every experiment: training that goes on where it stopped, extraction of the caches that are
//! not there yet, and stamps that tell whether a stage's results were made from the same inputs and options.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::backend::{Choice, Precision};
use crate::checkpoint::{self, Trained};
use crate::data::Transform;
use crate::error::{Error, Result};
use crate::features::{Request, extract_all};
use crate::files;
use crate::train::{Observer, RunFolder, Summary, TrainOptions, TrainingInputs, train};

/// Watches an experiment.
pub trait Watcher {
    /// A stage begins, with `units` units of work (0: not countable).
    fn stage(&mut self, name: &str, units: u64);
    /// Some units are done.
    fn advance(&mut self, units: u64);
    /// Something the user should know.
    fn note(&mut self, text: &str);
    /// The observer of the training.
    fn training(&mut self) -> &mut dyn Observer;
}

/// The device an experiment runs on, and the flag that may stop it.
pub(super) struct Execution<'a> {
    /// The device.
    pub choice: &'a Choice,
    /// Set from outside (Ctrl-C) to stop soon, with everything kept.
    pub stop: &'a AtomicBool,
    /// The experiment's folder, for messages.
    pub folder: &'a Path,
}

impl Execution<'_> {
    /// Whether all epochs of a training are done.
    pub(super) fn is_trained(&self, options: &TrainOptions, folder: &RunFolder) -> Result<bool> {
        let last = folder.checkpoints().join("last");
        Ok(last.exists() && checkpoint::read_meta(&last)?.epoch >= options.epochs)
    }

    /// Trains in a run folder, or goes on there; `None` where all epochs are done.
    pub(super) fn train(
        &self,
        name: &str,
        options: &TrainOptions,
        inputs: &TrainingInputs,
        seed: u64,
        folder: &RunFolder,
        watcher: &mut dyn Watcher,
    ) -> Result<Option<Summary>> {
        if self.is_trained(options, folder)? {
            return Ok(None);
        }
        let begun = folder.checkpoints().join("last").exists();
        let job = inputs.job(options, seed, folder, begun, self.stop);
        watcher.stage(name, 0);
        let summary = train(self.choice.device()?, &job, watcher.training())?;
        if !summary.finished && options.max_steps.is_none() {
            return Err(self.interrupted(name));
        }
        Ok(Some(summary))
    }

    /// Makes the missing caches.
    pub(super) fn extract(
        &self,
        trained: &Trained,
        transform: &Transform,
        batch: usize,
        requests: Vec<Request>,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let (done, missing): (Vec<Request>, Vec<Request>) =
            requests.into_iter().partition(|request| request.is_done(trained, transform));
        for request in &done {
            request.check(trained)?.iter().for_each(|warning| watcher.note(warning));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let samples: usize = missing.iter().map(|request| request.data.len()).sum();
        watcher.stage("extraction", samples as u64);
        let mut progress = |samples: usize| {
            watcher.advance(samples as u64);
            self.goes_on("extraction")
        };
        // Features and all measures on them are f32, in whatever precision the network was trained.
        let mut choice = self.choice.clone();
        if choice.precision == Precision::Bf16 {
            choice.precision = Precision::F32;
        }
        extract_all(choice.device()?, trained, transform, batch, &missing, &mut progress)?;
        Ok(())
    }

    /// Ends the experiment before a stage that does not look at the signal itself.
    pub(super) fn goes_on(&self, stage: &str) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(self.interrupted(stage)) } else { Ok(()) }
    }

    /// The error of a stage that was stopped from outside.
    pub(super) fn interrupted(&self, stage: &str) -> Error {
        Error::Interrupted(format!(
            "{stage} stopped; {} keeps what is done, and the same command goes on",
            self.folder.display()
        ))
    }
}

/// Writes the recipe into its run folder, or checks that the one there is the same.
pub(super) fn claim_folder(
    folder: &RunFolder,
    text: &str,
    is_same: impl FnOnce(&Path) -> Result<bool>,
) -> Result<()> {
    let path = folder.recipe();
    if !path.exists() {
        return files::write_atomically(&path, |out| std::io::Write::write_all(out, text.as_bytes()));
    }
    if is_same(&path)? {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} belongs to another recipe (its recipe.toml differs); choose another --out",
        folder.path().display()
    )))
}

const STAMP: &str = "stamp.json";

/// Whether a stage's folder was made from exactly what `stamp` says.
pub(super) fn is_stamped(folder: &Path, stamp: &Value) -> bool {
    let read = || serde_json::from_str::<Value>(&files::read_text(&folder.join(STAMP), 1 << 20).ok()?).ok();
    read().as_ref() == Some(stamp)
}

/// Writes down what a stage's folder was made from.
pub(super) fn write_stamp(folder: &Path, stamp: &Value) -> Result<()> {
    files::write_atomically(&folder.join(STAMP), |out| {
        std::io::Write::write_all(out, stamp.to_string().as_bytes())
    })
}

/// The name of the checkpoint that a link such as `last` points to.
pub(super) fn checkpoint_name(link: &Path) -> Result<String> {
    let real = fs::canonicalize(link).map_err(|e| Error::io("find", link, e))?;
    Ok(real.file_name().map_or_else(|| "last".into(), |name| name.to_string_lossy().into_owned()))
}
