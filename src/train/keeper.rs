//! Which checkpoints a training keeps, and what a resume needs from them.
//!
//! Every epoch ends with a checkpoint that `last` points to. Those at multiples of `checkpoint_every`, the best and the last
//! one stay; the others go as soon as a newer one is safe. A training stopped within an epoch keeps `step_…` instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::trainer::{Job, Sums};
use crate::checkpoint::{self, Checkpoint, Meta, network};
use crate::error::{Error, Result};
use crate::features::Evaluation;
use crate::nn::Model;
use crate::ops::Backend;

/// How far a training is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Whole epochs done.
    pub(super) epoch: u64,
    /// Steps done, from the very first.
    pub(super) step: u64,
    /// Sums over the steps of the current epoch.
    pub(super) sums: Sums,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Best {
    accuracy: f64,
    loss: f64,
    checkpoint: String,
}

/// What `meta.extra` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Extra {
    position: Position,
    best: Option<Best>,
    data: String,
    samples: usize,
    precision: String,
}

/// Writes checkpoints and decides which stay.
pub(super) struct Keeper<'a> {
    job: &'a Job<'a>,
    best: Option<Best>,
    previous: Option<String>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(job: &'a Job<'a>) -> Keeper<'a> {
        Keeper { job, best: None, previous: None }
    }

    /// Loads the run folder's last checkpoint into a model.
    pub(super) fn resume<B: Backend>(&mut self, model: &mut Model<B>) -> Result<Position> {
        let path = checkpoint::resolve(&self.job.folder.checkpoints().join("last"))?;
        let saved = checkpoint::load(&path)?;
        let extra: Extra = serde_json::from_value(saved.meta.extra.clone()).map_err(|e| {
            Error::invalid(format!("{} holds no training state to resume from: {e}", path.display()))
        })?;
        let precision = precision_name(model);
        let same = [
            ("training samples", extra.samples.to_string(), self.job.data.len().to_string()),
            ("precision", extra.precision.clone(), precision),
            ("seed", saved.meta.seed.to_string(), self.job.seed.to_string()),
            ("architecture", saved.meta.architecture.to_string(), json!(self.job.architecture).to_string()),
            ("transform", saved.meta.transform.to_string(), json!(self.job.transform).to_string()),
            ("optimizer", saved.meta.optimizer.to_string(), self.optimizer().to_string()),
        ];
        for (what, then, now) in same {
            if then != now {
                return Err(Error::invalid(format!(
                    "{} was written with another {what}: {then}, now {now}; a resume continues the same training",
                    path.display()
                )));
            }
        }
        network::load(model, &saved.model, &path.join(checkpoint::MODEL_FILE), false)?;
        let names = self.job.options.optimizer().slot_names();
        network::load_training_state(model, &saved.state, names, &path.join(checkpoint::STATE_FILE))?;
        self.best = extra.best;
        self.previous = fs::canonicalize(&path).ok().and_then(|p| Some(p.file_name()?.to_str()?.to_string()));
        Ok(extra.position)
    }

    /// Keeps a checkpoint of the model as it is.
    pub(super) fn keep<B: Backend>(
        &mut self,
        model: &Model<B>,
        position: &Position,
        evaluation: Option<Evaluation>,
    ) -> Result<()> {
        let within_epoch = position.sums != Sums::default();
        let name = if within_epoch {
            format!("step_{:08}", position.step)
        } else {
            format!("epoch_{:04}", position.epoch)
        };
        let mut metrics = BTreeMap::new();
        let measured = evaluation.and_then(|e| Some((e.accuracy()?, e.loss()?)));
        let mut better = false;
        if let Some((accuracy, loss)) = measured {
            metrics.insert("accuracy".to_string(), accuracy);
            metrics.insert("loss".to_string(), loss);
            better = self.best.as_ref().is_none_or(|best| {
                accuracy > best.accuracy || (accuracy == best.accuracy && loss < best.loss)
            });
            if better {
                self.best = Some(Best { accuracy, loss, checkpoint: name.clone() });
            }
        }
        let saved = Checkpoint {
            model: network::read(model)?,
            state: network::read_training_state(model, self.job.options.optimizer().slot_names())?,
            meta: self.meta(model, position, metrics),
        };
        let checkpoints = self.job.folder.checkpoints();
        let folder = checkpoints.join(&name);
        checkpoint::save(&folder, &saved)?;
        checkpoint::point(&checkpoints.join("last"), &folder)?;
        let replaced_best = if better { self.point_best(&folder)? } else { None };
        for old in [self.previous.replace(name.clone()), replaced_best].into_iter().flatten() {
            if old != name {
                self.forget(&checkpoints, &old)?;
            }
        }
        Ok(())
    }

    fn meta<B: Backend>(
        &self,
        model: &Model<B>,
        position: &Position,
        metrics: BTreeMap<String, f64>,
    ) -> Meta {
        let job = self.job;
        let extra = Extra {
            position: *position,
            best: self.best.clone(),
            data: job.options.data.clone(),
            samples: job.data.len(),
            precision: precision_name(model),
        };
        Meta {
            architecture: json!(job.architecture),
            classes: job.data.class_names().to_vec(),
            transform: json!(job.transform),
            epoch: position.epoch,
            step: position.step,
            seed: job.seed,
            metrics,
            optimizer: self.optimizer(),
            schedule: json!({
                "kind": job.options.schedule, "lr": job.options.lr, "epochs": job.options.epochs,
                "warmup_epochs": job.options.warmup_epochs,
            }),
            extra: json!(extra),
            ..Meta::default()
        }
    }

    fn optimizer(&self) -> serde_json::Value {
        let options = self.job.options;
        json!({
            "kind": options.optimizer, "momentum": options.momentum, "nesterov": options.nesterov,
            "weight_decay": options.weight_decay,
        })
    }

    /// Makes `best` point to a checkpoint; the one it pointed to before.
    fn point_best(&self, folder: &Path) -> Result<Option<String>> {
        let link = self.job.folder.checkpoints().join("best");
        let before = fs::read_link(&link).ok().and_then(|p| p.to_str().map(str::to_string));
        checkpoint::point(&link, folder)?;
        Ok(before)
    }

    /// Whether the checkpoint of an epoch stays whatever comes later.
    pub(super) fn is_kept(&self, epoch: u64) -> bool {
        let every = self.job.options.checkpoint_every;
        every > 0 && epoch.is_multiple_of(every)
    }

    /// Removes a checkpoint unless it is to stay.
    fn forget(&self, checkpoints: &Path, name: &str) -> Result<()> {
        let scheduled = name
            .strip_prefix("epoch_")
            .and_then(|epoch| epoch.parse::<u64>().ok())
            .is_some_and(|epoch| self.is_kept(epoch));
        let best = self.best.as_ref().is_some_and(|best| best.checkpoint == name);
        let last = self.previous.as_deref() == Some(name);
        if scheduled || best || last {
            return Ok(());
        }
        let path = checkpoints.join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

fn precision_name<B: Backend>(model: &Model<B>) -> String {
    format!("{:?}", model.backend().dtype()).to_lowercase()
}
