//! The checkpoint manager: the checkpoints that a training keeps, and the state that a resume needs from them.
//!
//! Every epoch ends with a checkpoint that `last` points to. Those at multiples of `checkpoint_every`, the best and the last
//! one stay; the others go as soon as a newer one is safe. A training stopped within an epoch keeps `step_…` instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::running_metrics::{Measured, RunningMetrics};
use super::trainer::Job;
use crate::backend::cuda::Exclusions;
use crate::checkpoint::{self, Checkpoint, HeadClasses, Meta, network};
use crate::data::are_numbers;
use crate::error::{Error, Result};
use crate::nn::{Architecture, Model};

/// How far a training is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Whole epochs done.
    pub(super) epoch: u64,
    /// Steps done, from the very first.
    pub(super) step: u64,
    /// Sums over the steps of the current epoch.
    pub(super) sums: RunningMetrics,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Best {
    accuracy: f64,
    loss: f64,
    checkpoint: String,
}

impl Best {
    /// A higher accuracy is better; among equal ones a lower loss, so that the first of many perfect epochs does not stay.
    fn is_beaten_by(&self, accuracy: f64, loss: f64) -> bool {
        accuracy > self.accuracy || (accuracy == self.accuracy && loss < self.loss)
    }
}

/// The content of `meta.extra`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Extra {
    position: Position,
    best: Option<Best>,
    data: String,
    samples: usize,
    precision: String,
    /// How the device rounds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arithmetic: Option<String>,
    /// Hash of the teacher's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    teacher: Option<String>,
}

/// The checkpoint manager: writes checkpoints and decides which stay.
pub(super) struct CheckpointManager<'a> {
    job: &'a Job<'a>,
    best: Option<Best>,
    previous: Option<String>,
    /// Something about the checkpoint that was resumed that its user should know.
    pub(super) note: Option<String>,
}

impl<'a> CheckpointManager<'a> {
    pub(super) fn new(job: &'a Job<'a>) -> CheckpointManager<'a> {
        CheckpointManager { job, best: None, previous: None, note: None }
    }

    /// Loads the run folder's last checkpoint into a model.
    pub(super) fn resume(&mut self, model: &mut Model) -> Result<Position> {
        let path = checkpoint::resolve(&self.job.folder.checkpoints().join("last"))?;
        let saved = checkpoint::load(&path)?;
        let extra: Extra = serde_json::from_value(saved.meta.extra.clone()).map_err(|e| {
            Error::invalid(format!("{} holds no training state to resume from: {e}", path.display()))
        })?;
        let precision = precision_name(model);
        let mut heads = saved.meta.heads.clone();
        if heads.is_empty() {
            heads.push(HeadClasses::single(saved.meta.classes.clone()));
        }
        let (then_name, now_name) = differing_class(&heads, &self.job.targets.heads);
        let same = [
            ("training samples", extra.samples.to_string(), self.job.data.len().to_string()),
            ("precision", extra.precision.clone(), precision),
            ("seed", saved.meta.seed.to_string(), self.job.seed.to_string()),
            ("architecture", described(&saved.meta.architecture), self.job.architecture.to_string()),
            ("classes", indices(&heads), indices(&self.job.targets.heads)),
            ("class name", then_name, now_name),
            ("teacher", extra.teacher.unwrap_or_default(), self.teacher().unwrap_or_default()),
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
        check_table(&path, saved.meta.kernel_table_hash.as_deref(), model)?;
        check_exclusions(&path, saved.meta.excluded_kernels.as_deref().unwrap_or(""), model)?;
        network::load(model, &saved.model, &path.join(checkpoint::MODEL_FILE))?;
        let names = self.job.options.optimizer().slot_names();
        network::load_training_state(model, &saved.state, names, &path.join(checkpoint::STATE_FILE))?;
        self.best = extra.best;
        self.note =
            other_arithmetic(&path, extra.arithmetic.as_deref(), model.device().arithmetic().as_deref());
        self.previous = fs::canonicalize(&path).ok().and_then(|p| Some(p.file_name()?.to_str()?.to_string()));
        Ok(extra.position)
    }

    /// Keeps a checkpoint of the model as it is.
    pub(super) fn keep(
        &mut self,
        model: &Model,
        position: &Position,
        measured: Option<&Measured>,
    ) -> Result<()> {
        let within_epoch = position.sums != RunningMetrics::default();
        let name = if within_epoch {
            format!("step_{:08}", position.step)
        } else {
            format!("epoch_{:04}", position.epoch)
        };
        let mut metrics = BTreeMap::new();
        let mut better = false;
        if let Some(&Measured { accuracy, loss, ref further }) = measured {
            metrics = further.clone();
            metrics.insert("accuracy".to_string(), accuracy);
            metrics.insert("loss".to_string(), loss);
            better = self.best.as_ref().is_none_or(|best| best.is_beaten_by(accuracy, loss));
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

    fn meta(&self, model: &Model, position: &Position, metrics: BTreeMap<String, f64>) -> Meta {
        let job = self.job;
        let extra = Extra {
            position: position.clone(),
            best: self.best.clone(),
            data: job.options.data.clone(),
            samples: job.data.len(),
            precision: precision_name(model),
            arithmetic: model.device().arithmetic(),
            teacher: self.teacher(),
        };
        Meta {
            architecture: json!(job.architecture),
            classes: job.targets.heads.last().expect("a head").classes.clone(),
            heads: job.targets.heads.clone(),
            taxonomy: job.targets.taxonomy.clone(),
            transform: json!(job.transform),
            epoch: position.epoch,
            step: position.step,
            seed: job.seed,
            metrics,
            optimizer: self.optimizer(),
            schedule: json!({
                "kind": job.options.schedule, "lr": job.options.lr, "epochs": job.options.epochs,
                "warmup_epochs": job.options.warmup_epochs, "head_lr": job.options.head_rate(),
            }),
            kernel_table_hash: model.device().kernel_table_hash(),
            excluded_kernels: model.device().excluded_kernels().filter(|words| !words.is_empty()),
            extra: json!(extra),
            ..Meta::default()
        }
    }

    fn teacher(&self) -> Option<String> {
        self.job.teacher.map(|teacher| teacher.trained.hash.clone())
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

    /// Whether the checkpoint of an epoch stays for good.
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

/// What to say where a device that rounds otherwise goes on with a training.
fn other_arithmetic(checkpoint: &Path, then: Option<&str>, now: Option<&str>) -> Option<String> {
    let name = |arithmetic: Option<&str>| arithmetic.unwrap_or("another arithmetic").to_string();
    (then != now).then(|| {
        format!(
            "{} was computed with {}, now it is {}: the training goes on, but its last digits are not those of one that was \
             never interrupted",
            checkpoint.display(),
            name(then),
            name(now)
        )
    })
}

/// Another table of kernels changes the last bits of every step: a resume uses the one that the training began with.
fn check_table(checkpoint: &Path, then: Option<&str>, model: &Model) -> Result<()> {
    let now = model.device().kernel_table_hash();
    if then == now.as_deref() {
        return Ok(());
    }
    let name = |hash: Option<&str>| hash.map_or("none".to_string(), |hash| format!("the one of hash {hash}"));
    Err(Error::invalid(format!(
        "{} was written with another table of kernels: {}, now {}; a resume continues the same training: {}",
        checkpoint.display(),
        name(then),
        name(now.as_deref()),
        if then.is_some() { "give that table by --kernel-table" } else { "leave --kernel-table out" }
    )))
}

/// Other kernels change the last bits of every step as well. Where there are no kernels nothing is left out, and the change of
/// device is told as such.
fn check_exclusions(checkpoint: &Path, then: &str, model: &Model) -> Result<()> {
    let Some(now) = model.device().excluded_kernels() else { return Ok(()) };
    let parse = |words: &str| words.parse::<Exclusions>();
    if then == now || matches!((parse(then), parse(&now)), (Ok(a), Ok(b)) if a.same_kernels(&b)) {
        return Ok(());
    }
    let name = |words: &str| if words.is_empty() { "none".to_string() } else { format!("`{words}`") };
    let way_out = match (parse(then), parse(&now)) {
        // Kernels that are left out here stay so, by a record or by hand: what goes on as it began is a device that leaves out no more.
        (Ok(then), Ok(now)) if then.and(&now).same_kernels(&then) => {
            format!("go on with --exclude {then}")
        }
        _ => "go on where it was begun, or begin a new run here".to_string(),
    };
    Err(Error::invalid(format!(
        "{} was written without other kernels: {}, now {}; a resume continues the same training: {way_out}",
        checkpoint.display(),
        name(then),
        name(&now),
    )))
}

fn precision_name(model: &Model) -> String {
    format!("{:?}", model.device().dtype()).to_lowercase()
}

/// The network that a checkpoint names.
fn described(architecture: &serde_json::Value) -> String {
    let read = serde_json::from_value::<Architecture>(architecture.clone());
    read.map_or_else(|_| architecture.to_string(), |architecture| architecture.to_string())
}

/// The first class of equally numbered ones that is called otherwise now, then and now; nothing where all are called alike,
/// or had only numbers for names then.
fn differing_class(then: &[HeadClasses], now: &[HeadClasses]) -> (String, String) {
    let classes = |heads: &[HeadClasses]| -> Vec<String> {
        heads.iter().flat_map(|head| head.classes.iter().cloned()).collect()
    };
    let named = then.iter().all(|head| !are_numbers(&head.classes, &head.indices));
    let pairs = classes(then).into_iter().zip(classes(now));
    pairs.filter(|_| named).find(|(then, now)| then != now).unwrap_or_default()
}

/// The classes of heads, by their numbers in the files.
fn indices(heads: &[HeadClasses]) -> String {
    heads.iter().map(|head| format!("{} {:?}", head.name, head.indices)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Notebook A, trap A16: with `>` on accuracy alone the first of several perfect epochs stayed the best.
    #[test]
    fn among_equal_accuracies_the_lower_loss_is_better() {
        let best = Best { accuracy: 1.0, loss: 0.2, checkpoint: "epoch_0001".into() };
        assert!(best.is_beaten_by(1.0, 0.1));
        assert!(!best.is_beaten_by(1.0, 0.2) && !best.is_beaten_by(0.99, 0.01));
    }
}
