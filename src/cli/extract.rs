//! `residua extract`: one pass of a checkpoint over a data set into a feature cache.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::common::Common;
use super::compute::Compute;
use super::output::{in_json, print, say, tell, warn};
use super::progress::Progress;
use super::stop;
use super::weights::WeightsKey;
use crate::backend::Choice;
use crate::checkpoint::{HeadLabels, LabelsBy, Trained};
use crate::data::{self, DataSpec, Normalize, SharedDataset, Split, Transform};
use crate::error::{Error, Result};
use crate::features::{Evaluation, HEAD_FILE, Request, extract_all, of_head};
use crate::values::Wholes;

/// Sides of images that a network may get.
pub const SIDE: Wholes<u32> = Wholes::between(1, data::LARGEST_SIDE as u64);

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua extract --checkpoint runs/first \\
      --data 'demo:fashion-mnist?split=test' --out runs/first/test
      Features, logits and labels of a test set, as .npy
  residua extract --checkpoint resnet50.pth --data images:photos \\
      --normalize imagenet --size 224 --out photos
      The same with weights that do not say how images enter";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// A checkpoint folder, a run folder, or a weights file (.safetensors, .pth, .th)
    #[arg(long, value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Data, such as cifar10:DIR?split=test or demo:digits; `split` is `train` unless given
    #[arg(long, value_name = "DATA")]
    data: DataSpec,
    /// Folder for features.npy, logits.npy, labels.npy, meta.json and head.npz (the last layer: W and b). With two heads each
    /// has its own in superclass/ and subclass/ beside it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    flags: ExtractionFlags,
}

/// Flags of every verb that runs a checkpoint over labelled data.
#[derive(Debug, clap::Args)]
pub struct ExtractionFlags {
    #[command(flatten)]
    key: WeightsKey,
    /// Normalisation, for weights files that do not say: cifar10, cifar100, imagenet, notebook, or R,G,B/R,G,B
    #[arg(long, value_name = "PRESET|MEAN/STD")]
    normalize: Option<Normalize>,
    /// Side of the images the network gets, for weights files that do not say
    #[arg(long, value_parser = SIDE, value_name = "PIXELS", default_value_t = 32)]
    size: u32,
    /// How labels are understood: by the names of classes, or as the numbers of the network's classes whatever they are
    /// called (for weights and lists that name none)
    #[arg(long, default_value_t)]
    labels: LabelsBy,
    /// Leave out images that cannot be read, and say how many; otherwise they are an error
    #[arg(long)]
    skip_unreadable: bool,
    /// Images per step
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 250)]
    batch_size: usize,
    #[command(flatten)]
    compute: Compute,
}

/// The transform a network was trained with, or the one a user gives for a file that does not say.
pub fn transform(trained: &Trained, normalize: Option<Normalize>, size: u32) -> Result<Transform> {
    match (&trained.transform, normalize) {
        (Some(stored), None) => Ok(stored.clone()),
        (Some(stored), Some(given)) if stored.normalize == given => Ok(stored.clone()),
        (Some(_), Some(_)) => Err(Error::usage(format!(
            "{} was trained with another normalisation; leave --normalize out",
            trained.path.display()
        ))),
        (None, Some(normalize)) => Ok(Transform::new(size, normalize)),
        (None, None) => Err(Error::usage(format!(
            "{} does not say how its images were normalised; add --normalize, for instance --normalize imagenet",
            trained.path.display()
        ))),
    }
}

/// Opens data; with `skip`, leaves out images that cannot be read and says which.
pub fn open_readable(spec: &DataSpec, split: Split, skip: bool) -> Result<SharedDataset> {
    if !skip {
        return data::open(spec, split);
    }
    let (readable, unreadable) = data::skip_unreadable(data::open_with_unreadable(spec, split)?)?;
    for image in &unreadable {
        tell(&format!("left out: {}", crate::error::printable(&image.error)));
    }
    Ok(readable)
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let Arguments { checkpoint, data, out, flags } = arguments;
    let Extracted { trained, request, evaluations, notes } =
        flags.extract((checkpoint, data), Split::Train, out.clone(), common)?;
    let samples = request.data.len();
    let heads = &trained.architecture.heads;
    let done = heads.iter().enumerate().zip(&evaluations).map(|((index, spec), evaluation)| Done {
        name: &spec.name,
        out: of_head(heads, index, out),
        evaluation,
    });
    let done: Vec<Done<'_>> = done.collect();
    print(&if common.json {
        format!("{}\n", as_json(&done, samples, &trained, &notes))
    } else {
        as_text(&done, samples, &trained)
    })
}

/// What a pass over a data set left.
pub struct Extracted {
    /// The network.
    pub trained: Trained,
    /// The samples and where their caches lie.
    pub request: Request,
    /// How well each head did.
    pub evaluations: Vec<Evaluation>,
    /// Notes for the user, which were said.
    pub notes: Vec<String>,
}

impl ExtractionFlags {
    /// Runs a checkpoint over a data set, whose caches go to `folder`; `split` counts where the data names none.
    ///
    /// # Errors
    /// A checkpoint or data that cannot be read, or that do not fit together; the device failed; Ctrl-C.
    pub fn extract(
        &self,
        (checkpoint, spec): (&Path, &DataSpec),
        split: Split,
        folder: PathBuf,
        common: &Common,
    ) -> Result<Extracted> {
        let trained = Trained::open_by_key(checkpoint, self.key.get())?;
        say(trained.note.as_deref(), common);
        let transform = transform(&trained, self.normalize, self.size)?;
        let data = open_readable(spec, split, self.skip_unreadable)?;
        let what = spec.to_string();
        let mut notes = data.notes();
        notes.extend(HeadLabels::notes(&trained, &*data, self.labels, &what));
        for note in &notes {
            warn(note);
        }
        let samples = data.len() as u64;
        let request = Request { data, description: what, folder, labels: self.labels };
        let work = Extraction {
            trained: &trained,
            transform: &transform,
            batch: self.batch_size,
            requests: std::slice::from_ref(&request),
            progress: Progress::new("extracting", samples, "images", common.quiet),
        };
        let evaluations = work.run(&self.compute.choice(common)?)?.remove(0);
        Ok(Extracted { trained, request, evaluations, notes })
    }
}

/// The cache extracted for a head, and the head's accuracy.
struct Done<'a> {
    name: &'a str,
    out: PathBuf,
    evaluation: &'a Evaluation,
}

/// One object; of a network with two heads it has one for each under `heads`.
fn as_json(done: &[Done<'_>], samples: usize, trained: &Trained, notes: &[String]) -> serde_json::Value {
    let of = |Done { name, out, evaluation }: &Done<'_>| {
        serde_json::json!({
            "name": name, "out": in_json(out), "head": in_json(&out.join(HEAD_FILE)), "samples": samples,
            "labelled": evaluation.samples,
            "accuracy": evaluation.accuracy(), "loss": evaluation.loss(), "architecture": trained.architecture,
            "notes": notes,
        })
    };
    match done {
        [one] => of(one),
        several => serde_json::json!({ "heads": several.iter().map(of).collect::<Vec<_>>() }),
    }
}

fn as_text(done: &[Done<'_>], samples: usize, trained: &Trained) -> String {
    let mut text = String::new();
    for Done { out, evaluation, .. } in done {
        text += &format!("{samples} samples through {}: {}\n", trained.architecture, out.display());
        if let (Some(accuracy), Some(loss)) = (evaluation.accuracy(), evaluation.loss()) {
            let (correct, labelled) = (evaluation.correct, evaluation.samples);
            text +=
                &format!("accuracy {:.2} % ({correct} of {labelled}), loss {loss:.4}\n", 100.0 * accuracy);
        }
    }
    text
}

/// Extraction with a progress bar, on any device.
pub struct Extraction<'a> {
    pub trained: &'a Trained,
    pub transform: &'a Transform,
    pub batch: usize,
    pub requests: &'a [Request],
    pub progress: Progress,
}

impl Extraction<'_> {
    /// Extracts; of each request and head how well it did.
    pub fn run(mut self, choice: &Choice) -> Result<Vec<Vec<Evaluation>>> {
        let stop = stop::listen();
        let mut observe = |samples: usize| {
            self.progress.add(samples as u64);
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted(format!(
                    "this pass over the images wrote nothing, and what was whole before stays; `{}` begins it anew",
                    stop::same_command()
                )));
            }
            Ok(())
        };
        choice.on_device(|device| {
            extract_all(device, self.trained, self.transform, self.batch, self.requests, &mut observe)
        })
    }
}
