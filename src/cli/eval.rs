//! `residua eval`: how good the answers of a network are on labelled data.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::Common;
use super::extract::{Extracted, ExtractionFlags};
use super::output::{in_json, print_result, say, width};
use crate::checkpoint::Trained;
use crate::data::{DataSpec, SharedDataset, Split};
use crate::error::{Error, Result};
use crate::eval::{self, EVAL_FILE, Evaluated, Options};
use crate::features::{Extent, FeatureSet, ForeignLogits, Head, check_logits, choose_head, of_head};
use crate::files;
use crate::report;
use crate::samples::{self, Images, SAMPLES_FILE, SampleFile};
use crate::values::Wholes;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua eval --checkpoint runs/first --data cifar10:data \\
      --out runs/first/eval
      The test set of the data, with tables and figures for the report
  residua eval --checkpoint resnet50.pth --normalize imagenet --size 224 \\
      --labels numbers --data folder:val
      Weights of another program, whose folders are classes in the order
      of its numbers
  residua eval --cache test.npz --head head.npz --json
      Anybody's features, logits and labels";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// A checkpoint folder, a run folder, or a weights file (.safetensors, .pth, .th)
    #[arg(long, value_name = "CHECKPOINT", requires = "data", required_unless_present = "cache")]
    checkpoint: Option<PathBuf>,
    /// Labelled data, such as cifar10:DIR; `split` is `test` unless given
    #[arg(long, value_name = "DATA", requires = "checkpoint")]
    data: Option<DataSpec>,
    /// A labelled feature cache instead: a folder, or an .npz with features, logits and labels
    #[arg(long, value_name = "CACHE", conflicts_with_all = ["checkpoint", "data"])]
    cache: Option<PathBuf>,
    /// The last layer of the cache's network: an .npz with W and b; by default the one inside the cache
    #[arg(long, value_name = "FILE", requires = "cache")]
    head: Option<PathBuf>,
    /// Go on, with a warning, where the logits of the cache are not W f + b of the head
    #[arg(long, requires = "cache")]
    allow_foreign_logits: bool,
    /// Folder for eval.json, eval.csv, per_class.csv, confusion.csv, reliability.csv, samples.csv and plots/; of a network with two
    /// heads, superclass/ and subclass/ in it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replicates behind 95 % intervals; 0 leaves those out that are not exact
    #[arg(long, value_parser = Wholes::<u32>::ANY, default_value_t = 1000, value_name = "N")]
    bootstrap: u32,
    /// Seed of the resamples
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0, value_name = "S")]
    seed: u64,
    #[command(flatten)]
    flags: ExtractionFlags,
}

/// One head, evaluated.
struct Done {
    name: Option<String>,
    out: Option<PathBuf>,
    evaluated: Evaluated,
}

/// Runs the verb.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    if let Some(out) = &arguments.out {
        files::check_output_folder(out)?;
    }
    let done = match (&arguments.cache, &arguments.checkpoint, &arguments.data) {
        (Some(cache), ..) => vec![of_cache(cache, arguments, common)?],
        (None, Some(checkpoint), Some(data)) => of_checkpoint(checkpoint, data, arguments, common)?,
        _ => return Err(Error::usage("give --checkpoint and --data, or --cache")),
    };
    let value = match done.as_slice() {
        [one] => as_json(one),
        several => json!({ "heads": several.iter().map(as_json).collect::<Vec<_>>() }),
    };
    print_result(common, None, &value, || done.iter().map(as_text).collect::<Vec<_>>().join("\n"))
}

fn of_cache(cache: &Path, arguments: &Arguments, common: &Common) -> Result<Done> {
    let set = FeatureSet::open(cache)?;
    let chosen = choose_head(arguments.head.as_deref(), &[&set])?;
    chosen.notes.iter().for_each(|note| say(Some(note), common));
    set.check_shape(chosen.head.dimension(), chosen.head.classes())?;
    let foreign = if arguments.allow_foreign_logits { ForeignLogits::Allow } else { ForeignLogits::Refuse };
    let mut notes: Vec<String> =
        check_logits(&set, &chosen.head, Extent::All, foreign)?.into_iter().collect();
    notes.extend(set.check_numbering(&chosen.head)?);
    notes.iter().for_each(|note| say(Some(note), common));
    evaluate((&set, &chosen.head), (None, arguments.out.clone()), None, arguments, Vec::new())
}

fn of_checkpoint(
    checkpoint: &Path,
    data: &DataSpec,
    arguments: &Arguments,
    common: &Common,
) -> Result<Vec<Done>> {
    // Beside the results where there are some, since a temporary folder of the system may be small.
    let beside = arguments.out.clone().unwrap_or_else(|| std::env::temp_dir().join("residua-eval"));
    let folder = files::temporary_folder_beside(&beside)?;
    let cache = folder.path().join("cache");
    let extracted = arguments.flags.extract((checkpoint, data), Split::Test, cache.clone(), common)?;
    let Extracted { trained, request, .. } = extracted;
    let heads = &trained.architecture.heads;
    let of_one = |index: usize| {
        let set = FeatureSet::open(&of_head(heads, index, &cache))?;
        let head = choose_head(None, &[&set])?.head;
        let level = (heads.len() > 1).then(|| heads[index].name.clone());
        // `of_head` places what has a name; here that is the folder around it.
        let inside = arguments.out.as_ref().map(|out| of_head(heads, index, &out.join(EVAL_FILE)));
        let out = inside.map(|file| files::parent(&file).to_path_buf());
        let names = class_names(&trained, index, head.classes());
        evaluate((&set, &head), (level, out), Some(&request.data), arguments, names)
    };
    (0..heads.len()).map(of_one).collect()
}

/// Names of the classes of a head, where the checkpoint knows them.
fn class_names(trained: &Trained, head: usize, classes: usize) -> Vec<String> {
    let own = trained.heads.get(head).map(|head| head.classes.clone());
    own.filter(|names| names.len() == classes).unwrap_or_default()
}

fn evaluate(
    (set, head): (&FeatureSet, &Head),
    (name, out): (Option<String>, Option<PathBuf>),
    data: Option<&SharedDataset>,
    arguments: &Arguments,
    class_names: Vec<String>,
) -> Result<Done> {
    let images = || data.map_or_else(|| Images::of_cache(set), |data| Images::Open(data.clone()));
    // Names cost a look at the data, which tables and figures are worth.
    let images = out.as_ref().map(|_| images());
    let class_names = match (class_names, &images) {
        (names, Some(images)) if names.is_empty() => samples::class_names(set, images, head.classes()),
        (names, _) => names,
    };
    let options = Options { class_names, replicates: arguments.bootstrap, seed: arguments.seed };
    let evaluated = eval::evaluate(set, head, &options)?;
    if let (Some(out), Some(images)) = (&out, images) {
        let kept = samples::Options { seed: arguments.seed, ..samples::Options::default() };
        SampleFile::of_labelled(set, images, (head, &options.class_names), kept)?
            .write(&out.join(SAMPLES_FILE))?;
        evaluated.write(out, data.map(|data| &**data))?;
        report::write_evaluation_figures(&evaluated, &out.join("plots"))?;
    }
    Ok(Done { name, out, evaluated })
}

fn as_json(done: &Done) -> serde_json::Value {
    let mut value = serde_json::to_value(&done.evaluated.results).expect("results are plain values");
    let object = value.as_object_mut().expect("a struct is an object");
    if let Some(name) = &done.name {
        object.insert("head".into(), name.clone().into());
    }
    if let Some(out) = &done.out {
        object.insert("out".into(), in_json(out).into());
    }
    value
}

fn as_text(done: &Done) -> String {
    let title = done.name.as_ref().map_or_else(String::new, |name| format!("{name}: "));
    let mut text = format!("{title}{}", done.evaluated.results.summary(width()));
    if let Some(out) = &done.out {
        text += &format!("\nresults: {}\n", out.join(EVAL_FILE).display());
    }
    text
}
